//! A proxy to the servers that can cut connections, or hold the servers' answers.

use std::{net::SocketAddr, sync::Arc};

use parking_lot::Mutex;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    select,
    sync::watch,
    task::JoinSet,
};

/// A listener that connects each client to the first server that is up.
pub(crate) struct Wire {
    pub(crate) address: SocketAddr,
    state: Arc<WireState>,
    /// Aborted when the wire is dropped.
    _connections: JoinSet<()>,
}

struct WireState {
    is_cut: watch::Sender<bool>,
    is_held: watch::Sender<bool>,
    /// The last answers that were read, or all that are held.
    answers: watch::Sender<Vec<u8>>,
    /// The text that a client sends before its answers are held.
    hold_at: Mutex<Option<String>>,
}

impl Wire {
    pub(crate) async fn start(servers: &[SocketAddr]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let state = Arc::new(WireState {
            is_cut: watch::channel(false).0,
            is_held: watch::channel(false).0,
            answers: watch::channel(Vec::new()).0,
            hold_at: Mutex::default(),
        });
        let mut connections = JoinSet::new();
        connections.spawn(accept(listener, servers.to_vec(), state.clone()));
        Self {
            address,
            state,
            _connections: connections,
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("nats://{}", self.address)
    }

    /// Cuts all connections and refuses new ones, or accepts them again.
    pub(crate) fn cut(&self, is_cut: bool) {
        self.state.is_cut.send_replace(is_cut);
    }

    /// Holds all answers once a client has sent this text.
    pub(crate) fn hold_at(&self, text: &str) {
        *self.state.hold_at.lock() = Some(text.to_owned());
    }

    /// Waits until answers are held.
    pub(crate) async fn held(&self) {
        let mut held = self.state.is_held.subscribe();
        let is_held = held.wait_for(|held| *held).await;
        is_held.expect("the wire is up");
    }

    /// Waits until an answer with this text is held.
    pub(crate) async fn holds(&self, text: &str) {
        self.held().await;
        let mut answers = self.state.answers.subscribe();
        let held = answers.wait_for(|answers| has(answers, text));
        held.await.expect("the wire is up");
    }

    /// Sends the held answers, and all later ones.
    pub(crate) fn release(&self) {
        self.state.is_held.send_replace(false);
    }
}

impl WireState {
    /// Checks what a client has sent for the text to hold at.
    fn inspect(&self, sent: &[u8]) {
        let mut hold_at = self.hold_at.lock();
        if hold_at.take_if(|text| has(sent, text)).is_some() {
            self.is_held.send_replace(true);
        }
    }
}

async fn is_free(held: &mut watch::Receiver<bool>) {
    let is_free = held.wait_for(|held| !*held).await;
    is_free.expect("the wire is up");
}

fn has(bytes: &[u8], text: &str) -> bool {
    let text = text.as_bytes();
    bytes.windows(text.len()).any(|window| window == text)
}

async fn accept(listener: TcpListener, servers: Vec<SocketAddr>, state: Arc<WireState>) {
    let mut connections = JoinSet::new();
    loop {
        let Ok((client, _)) = listener.accept().await else {
            continue;
        };
        if !*state.is_cut.borrow() {
            connections.spawn(connect(client, servers.clone(), state.clone()));
        }
        while connections.try_join_next().is_some() {}
    }
}

/// Copies bytes between a client and a server until the wire is cut.
async fn connect(client: TcpStream, servers: Vec<SocketAddr>, state: Arc<WireState>) {
    let mut cut = state.is_cut.subscribe();
    for server in servers {
        if let Ok(server) = TcpStream::connect(server).await {
            let (client, server) = (client.into_split(), server.into_split());
            let requests = copy_requests(client.0, server.1, &state);
            let answers = copy_answers(server.0, client.1, &state);
            select! {
                () = requests => {}
                () = answers => {}
                _ = cut.wait_for(|cut| *cut) => {}
            }
            return;
        }
    }
}

async fn copy_requests(
    mut from: impl AsyncReadExt + Unpin,
    mut to: impl AsyncWriteExt + Unpin,
    state: &WireState,
) {
    // Keeps the last bytes of the previous read, since a read may split the text.
    const OVERLAP_BYTES: usize = 64;
    let mut sent = Vec::new();
    loop {
        let before = sent.len();
        match from.read_buf(&mut sent).await {
            Ok(read) if read > 0 => {}
            _ => return,
        }
        state.inspect(&sent);
        if to.write_all(&sent[before..]).await.is_err() {
            return;
        }
        sent.drain(..sent.len().saturating_sub(OVERLAP_BYTES));
    }
}

async fn copy_answers(
    mut from: impl AsyncReadExt + Unpin,
    mut to: impl AsyncWriteExt + Unpin,
    state: &WireState,
) {
    let mut held = state.is_held.subscribe();
    let mut answers = Vec::new();
    loop {
        select! {
            biased;
            () = is_free(&mut held), if !answers.is_empty() => {
                if to.write_all(&answers).await.is_err() {
                    return;
                }
                answers.clear();
            }
            read = from.read_buf(&mut answers) => match read {
                Ok(1..) => {
                    state.answers.send_replace(answers.clone());
                }
                _ => return,
            }
        }
    }
}
