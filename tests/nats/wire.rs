//! A wire to the servers that can be cut, or held so that no answer comes.

use std::{net::SocketAddr, sync::Arc};

use parking_lot::Mutex;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    select,
    sync::watch,
    task::JoinSet,
};

pub(crate) struct Wire {
    pub(crate) address: SocketAddr,
    state: Arc<State>,
    /// Ends with it.
    _connections: JoinSet<()>,
}

struct State {
    is_cut: watch::Sender<bool>,
    is_held: watch::Sender<bool>,
    /// What a process has to send for its answers to be held.
    hold_at: Mutex<Option<String>>,
}

impl Wire {
    pub(crate) async fn start(servers: &[SocketAddr]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let state = Arc::new(State {
            is_cut: watch::channel(false).0,
            is_held: watch::channel(false).0,
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

    pub(crate) fn cut(&self, is_cut: bool) {
        self.state.is_cut.send_replace(is_cut);
    }

    /// Lets no answer through from when the process has sent this.
    pub(crate) fn hold_at(&self, text: &str) {
        *self.state.hold_at.lock() = Some(text.to_owned());
    }

    /// Waits until it is held.
    pub(crate) async fn held(&self) {
        let mut held = self.state.is_held.subscribe();
        held.wait_for(|held| *held).await.expect("it is there");
    }

    pub(crate) fn let_go(&self) {
        self.state.is_held.send_replace(false);
    }
}

impl State {
    fn see(&self, sent: &[u8]) {
        let mut hold_at = self.hold_at.lock();
        let is_sent = |text: &mut String| {
            let text = text.as_bytes();
            sent.windows(text.len()).any(|window| window == text)
        };
        if hold_at.take_if(is_sent).is_some() {
            self.is_held.send_replace(true);
        }
    }
}

async fn accept(listener: TcpListener, servers: Vec<SocketAddr>, state: Arc<State>) {
    let mut connections = JoinSet::new();
    loop {
        let Ok((client, _)) = listener.accept().await else {
            continue;
        };
        if !*state.is_cut.borrow() {
            connections.spawn(join(client, servers.clone(), state.clone()));
        }
        while connections.try_join_next().is_some() {}
    }
}

/// To whichever server is there, until the wire is cut.
async fn join(client: TcpStream, servers: Vec<SocketAddr>, state: Arc<State>) {
    let mut cut = state.is_cut.subscribe();
    for server in servers {
        if let Ok(server) = TcpStream::connect(server).await {
            let (client, server) = (client.into_split(), server.into_split());
            let asking = ask(client.0, server.1, &state);
            let answering = answer(server.0, client.1, &state);
            select! {
                () = asking => {}
                () = answering => {}
                _ = cut.wait_for(|cut| *cut) => {}
            }
            return;
        }
    }
}

async fn ask(
    mut from: impl AsyncReadExt + Unpin,
    mut to: impl AsyncWriteExt + Unpin,
    state: &State,
) {
    // The end of what was sent before stays in front: a text may be cut in two.
    const KEPT: usize = 64;
    let mut sent = Vec::new();
    loop {
        let before = sent.len();
        match from.read_buf(&mut sent).await {
            Ok(read) if read > 0 => {}
            _ => return,
        }
        state.see(&sent);
        if to.write_all(&sent[before..]).await.is_err() {
            return;
        }
        sent.drain(..sent.len().saturating_sub(KEPT));
    }
}

async fn answer(
    mut from: impl AsyncReadExt + Unpin,
    mut to: impl AsyncWriteExt + Unpin,
    state: &State,
) {
    let mut held = state.is_held.subscribe();
    let mut bytes = vec![0; 64 << 10];
    while let Ok(read @ 1..) = from.read(&mut bytes).await {
        let let_go = held.wait_for(|held| !*held).await;
        let_go.expect("it is there");
        if to.write_all(&bytes[..read]).await.is_err() {
            return;
        }
    }
}
