//! nats-servers on free ports of this machine, killed when they are dropped.

use std::{
    env,
    ffi::OsString,
    fs,
    net::{SocketAddr, TcpListener},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use async_nats::{
    Client, ConnectOptions,
    jetstream::{self, ErrorCode, context::DeleteStreamErrorKind},
};
use tempfile::TempDir;
use tokio::time::{sleep, timeout};

/// How long servers may take to be there. Nothing waits that long unless it fails.
const PATIENCE: Duration = Duration::from_secs(60);

/// A server, or some of them as a cluster.
pub(crate) struct Servers {
    nodes: Vec<Node>,
    _folder: TempDir,
}

struct Node {
    config: PathBuf,
    log: PathBuf,
    port: u16,
    process: Option<Child>,
}

impl Servers {
    /// One server; `None`, and a line that says why, where nats-server is not installed.
    pub(crate) async fn one() -> Option<Self> {
        Self::start(1).await
    }

    /// So many servers in a cluster.
    pub(crate) async fn start(count: usize) -> Option<Self> {
        Self::start_with(count, "", "").await
    }

    /// The same with more settings, and of JetStream.
    pub(crate) async fn start_with(count: usize, settings: &str, jetstream: &str) -> Option<Self> {
        if Command::new(program()).arg("--version").output().is_err() {
            println!("skipped: no nats-server. `apt-get install nats-server`, or run `./test`");
            return None;
        }
        let folder = tempfile::tempdir().expect("a folder");
        let ports = free_ports(2 * count);
        let (clients, routes) = ports.split_at(count);
        let all: Vec<_> = routes
            .iter()
            .map(|port| format!("nats://127.0.0.1:{port}"))
            .collect();
        let nodes = (0..count).map(|index| {
            let cluster = match count {
                1 => String::new(),
                _ => format!(
                    "cluster {{ name: test, listen: \"127.0.0.1:{}\", routes: [{}] }}\n",
                    routes[index],
                    all.join(", "),
                ),
            };
            let store = folder.path().join(format!("node{index}"));
            let config = folder.path().join(format!("node{index}.conf"));
            let text = format!(
                "server_name: node{index}\nlisten: \"127.0.0.1:{}\"\n{settings}\n\
                 jetstream {{ store_dir: {store:?}, max_memory_store: 1GB, max_file_store: 20GB\n{jetstream}\n}}\n\
                 {cluster}",
                clients[index],
            );
            fs::write(&config, text).expect("a file");
            Node {
                log: config.with_extension("log"),
                config,
                port: clients[index],
                process: None,
            }
        });
        let mut servers = Self {
            nodes: nodes.collect(),
            _folder: folder,
        };
        for node in 0..count {
            servers.start_node(node);
        }
        servers.ready().await;
        Some(servers)
    }

    /// Where all of them are.
    pub(crate) fn url(&self) -> String {
        let urls = self.nodes.iter();
        let urls: Vec<_> = urls
            .map(|node| format!("nats://127.0.0.1:{}", node.port))
            .collect();
        urls.join(",")
    }

    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        let nodes = self.nodes.iter();
        nodes
            .map(|node| SocketAddr::from(([127, 0, 0, 1], node.port)))
            .collect()
    }

    pub(crate) async fn client(&self) -> Client {
        let urls: Vec<String> = self.url().split(',').map(str::to_owned).collect();
        ConnectOptions::new()
            .retry_on_initial_connect()
            .connect(urls)
            .await
            .expect("a connection")
    }

    pub(crate) fn start_node(&mut self, node: usize) {
        let node = &mut self.nodes[node];
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&node.log);
        let process = Command::new(program())
            .arg("-c")
            .arg(&node.config)
            .stdout(Stdio::null())
            .stderr(log.expect("a file"))
            .spawn();
        node.process = Some(process.expect("nats-server runs"));
    }

    pub(crate) fn kill_node(&mut self, node: usize) {
        self.nodes[node].kill();
    }

    /// The node that is called so.
    pub(crate) fn node(name: &str) -> usize {
        let number = name
            .strip_prefix("node")
            .and_then(|number| number.parse().ok());
        number.expect("a node's name")
    }

    /// Waits until streams have all their replicas, none of them behind: one more can be lost then.
    pub(crate) async fn whole(&self, streams: &[&str]) {
        let jetstream = jetstream::new(self.client().await);
        let looking = async {
            for stream in streams {
                loop {
                    sleep(Duration::from_millis(100)).await;
                    let Ok(stream) = jetstream.get_stream(stream).await else {
                        continue;
                    };
                    let cluster = stream.cached_info().cluster.clone();
                    let Some(cluster) = cluster.filter(|cluster| cluster.leader.is_some()) else {
                        continue;
                    };
                    if cluster
                        .replicas
                        .iter()
                        .all(|peer| peer.current && !peer.offline)
                    {
                        break;
                    }
                }
            }
        };
        timeout(PATIENCE, looking).await.expect("the cluster heals");
    }

    /// Waits until JetStream answers: a cluster has to elect its leaders first.
    async fn ready(&self) {
        let mut jetstream = jetstream::new(self.client().await);
        // A cluster without a leader does not answer: ask again soon.
        jetstream.set_timeout(Duration::from_millis(500));
        let asking = async {
            let stream = jetstream::stream::Config {
                name: "ready".to_owned(),
                num_replicas: self.nodes.len(),
                ..Default::default()
            };
            while jetstream.create_stream(&stream).await.is_err() {
                sleep(Duration::from_millis(50)).await;
            }
            while let Err(error) = jetstream.delete_stream("ready").await {
                match error.kind() {
                    DeleteStreamErrorKind::JetStream(error)
                        if error.error_code() == ErrorCode::STREAM_NOT_FOUND =>
                    {
                        break;
                    }
                    _ => sleep(Duration::from_millis(50)).await,
                }
            }
        };
        timeout(PATIENCE, asking).await.expect("JetStream answers");
    }
}

impl Node {
    fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
    }
}

/// `NATS_SERVER` names another one than that which is installed.
pub(crate) fn program() -> OsString {
    env::var_os("NATS_SERVER").unwrap_or_else(|| "nats-server".into())
}

/// Ports that were free a moment ago, all at a time.
pub(crate) fn free_ports(count: usize) -> Vec<u16> {
    let listeners: Vec<_> = (0..count)
        .map(|_| TcpListener::bind("127.0.0.1:0").expect("a port"))
        .collect();
    let ports = listeners.iter().map(|listener| listener.local_addr());
    ports
        .map(|address| address.expect("bound").port())
        .collect()
}
