//! nats-servers on free local ports, killed on drop.

use std::{
    collections::BTreeSet,
    env,
    ffi::OsString,
    fs,
    net::{SocketAddr, TcpListener},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::Mutex,
    time::Duration,
};

use async_nats::{
    Client, ConnectOptions,
    jetstream::{self, ErrorCode, context::DeleteStreamErrorKind},
};
use tempfile::TempDir;
use tokio::time::{sleep, timeout};

/// The timeout for servers to become ready. Only a failure takes that long.
const READY_TIMEOUT: Duration = Duration::from_secs(60);

/// One server, or several as a cluster.
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
    /// Starts one server. Returns `None` and prints a line if nats-server is not installed.
    pub(crate) async fn one() -> Option<Self> {
        Self::start(1).await
    }

    /// Starts a cluster of `count` servers.
    pub(crate) async fn start(count: usize) -> Option<Self> {
        Self::start_with(count, "", "").await
    }

    /// Starts servers with more settings, for the server and for JetStream.
    pub(crate) async fn start_with(count: usize, settings: &str, jetstream: &str) -> Option<Self> {
        if Command::new(program()).arg("--version").output().is_err() {
            println!("skipped: nats-server is not installed; run `./test`, which installs it");
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
                 jetstream {{ store_dir: {store:?}\n\
                 max_memory_store: 1GB, max_file_store: 20GB\n{jetstream}\n}}\n\
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

    /// Returns the URLs of all servers, separated by commas.
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

    /// Returns the index of the node with this name.
    pub(crate) fn node(name: &str) -> usize {
        let number = name
            .strip_prefix("node")
            .and_then(|number| number.parse().ok());
        number.expect("a node's name")
    }

    /// Waits until all replicas of the streams are current, so that the cluster can lose a server.
    pub(crate) async fn whole(&self, streams: &[&str]) {
        let jetstream = jetstream::new(self.client().await);
        let polling = async {
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
        timeout(READY_TIMEOUT, polling)
            .await
            .expect("all replicas are current");
    }

    /// Waits until JetStream answers. A cluster elects its leaders first.
    async fn ready(&self) {
        let mut jetstream = jetstream::new(self.client().await);
        // A cluster without a leader does not answer: ask again soon.
        jetstream.set_timeout(Duration::from_millis(500));
        let polling = async {
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
        timeout(READY_TIMEOUT, polling)
            .await
            .expect("JetStream answers");
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

/// Returns the nats-server to run: `NATS_SERVER` if it is set, otherwise the installed one.
pub(crate) fn program() -> OsString {
    env::var_os("NATS_SERVER").unwrap_or_else(|| "nats-server".into())
}

/// The ports that this process has handed out. A server binds its port a moment later, and again
/// after a restart, so none is handed out twice. Locked while ports are looked for.
static HANDED_OUT: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());

/// Returns `count` different ports that were free a moment ago.
pub(crate) fn free_ports(count: usize) -> Vec<u16> {
    let mut handed_out = HANDED_OUT.lock().expect("no other call panicked");
    let mut ports = Vec::new();
    // All stay open until the end, so that the next one is another port.
    let mut listeners = Vec::new();
    while ports.len() < count {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("bound").port();
        if handed_out.insert(port) {
            ports.push(port);
        }
        listeners.push(listener);
    }
    ports
}
