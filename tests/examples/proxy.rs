//! A TCP proxy that cuts the connections of streams, and knows what requests it has passed on.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

/// A proxy in front of a server that speaks HTTP/1.1. Dropping it closes its connections.
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    state: Arc<State>,
    _tasks: JoinSet<()>,
}

struct State {
    /// The lengths at which the next responses of streams are cut, heads included.
    cuts: Mutex<VecDeque<usize>>,
    requests: Mutex<Vec<String>>,
}

impl Proxy {
    /// Starts a proxy that passes on the first `cuts[n]` bytes of the `n`th response to a request
    /// for a stream, and then closes the connection. Later responses are whole, and so are those of
    /// another status than 200.
    pub(crate) async fn start(server: SocketAddr, cuts: &[usize]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let state = Arc::new(State {
            cuts: Mutex::new(cuts.iter().copied().collect()),
            requests: Mutex::default(),
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, server, state.clone()));
        Self {
            address,
            state,
            _tasks: tasks,
        }
    }

    /// Returns the heads of the requests for streams, in order.
    pub(crate) fn streams(&self) -> Vec<String> {
        let mut requests = self.requests();
        requests.retain(|head| is_stream(head));
        requests
    }

    /// Returns the heads of all requests, in order.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.state.requests.lock().expect("no panic").clone()
    }

    /// Returns the number of cuts that are still to come.
    pub(crate) fn cuts_left(&self) -> usize {
        self.state.cuts.lock().expect("no panic").len()
    }
}

async fn accept(listener: TcpListener, server: SocketAddr, state: Arc<State>) {
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        connections.spawn(pass_on(client, server, state.clone()));
    }
}

/// Passes a connection on, until one side closes it or it is cut.
async fn pass_on(client: TcpStream, server: SocketAddr, state: Arc<State>) {
    let Ok(server) = TcpStream::connect(server).await else {
        return;
    };
    let (mut client_read, mut client_write) = client.into_split();
    let (mut server_read, mut server_write) = server.into_split();
    let (mut sent, mut received) = (vec![0; 1 << 14], vec![0; 1 << 14]);
    let mut requests = Requests::default();
    // The number of bytes until the cut, if there is to be one.
    let mut left = None;
    let mut is_new = false;
    loop {
        tokio::select! {
            read = client_read.read(&mut sent) => {
                let Ok(length @ 1..) = read else { return };
                for head in requests.add(&sent[..length]) {
                    if is_stream(&head) {
                        is_new = true;
                        left = state.cuts.lock().expect("no panic").pop_front();
                    }
                    state.requests.lock().expect("no panic").push(head);
                }
                if server_write.write_all(&sent[..length]).await.is_err() {
                    return;
                }
            }
            read = server_read.read(&mut received) => {
                let Ok(length @ 1..) = read else { return };
                // A stream that has not begun is answered with a status document.
                let has_begun = !is_new || received.starts_with(b"HTTP/1.1 200 ");
                if let Some(left) = left.take_if(|_| !has_begun) {
                    state.cuts.lock().expect("no panic").push_front(left);
                }
                is_new = false;
                let passed = left.map_or(length, |left: usize| left.min(length));
                if client_write.write_all(&received[..passed]).await.is_err() {
                    return;
                }
                if let Some(left) = &mut left {
                    *left -= passed;
                    if *left == 0 {
                        return;
                    }
                }
            }
        }
    }
}

/// The requests of a connection. Their bodies must have a length.
#[derive(Default)]
struct Requests {
    bytes: Vec<u8>,
    /// The bytes of a body that are still to come.
    body_left: usize,
}

impl Requests {
    /// Adds bytes of the connection, and returns the heads that are now complete.
    fn add(&mut self, bytes: &[u8]) -> Vec<String> {
        self.bytes.extend_from_slice(bytes);
        let mut heads = Vec::new();
        loop {
            let skipped = self.body_left.min(self.bytes.len());
            self.bytes.drain(..skipped);
            self.body_left -= skipped;
            let end = self.bytes.windows(4).position(|at| at == b"\r\n\r\n");
            let Some(end) = end.filter(|_| self.body_left == 0) else {
                return heads;
            };
            let head: Vec<u8> = self.bytes.drain(..end + 4).collect();
            let head = String::from_utf8(head).expect("text");
            let fields = head.to_ascii_lowercase();
            let mut fields = fields.lines();
            let length = fields.find_map(|line| line.strip_prefix("content-length:"));
            self.body_left = length.map_or(0, |length| length.trim().parse().expect("a number"));
            heads.push(head);
        }
    }
}

/// Returns `true` for a GET of the output of a job.
fn is_stream(head: &str) -> bool {
    let target = head
        .strip_prefix("GET ")
        .and_then(|rest| rest.split(' ').next());
    let path = target.and_then(|target| target.split('?').next());
    path.is_some_and(|path| path.ends_with("/stream"))
}
