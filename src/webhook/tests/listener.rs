//! A listener that no webhook may reach.

use std::net::SocketAddr;

use tokio::{
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::JoinSet,
};

/// Accepts and closes connections on every address of this machine, and counts them.
pub(super) struct ForbiddenListener {
    pub(super) port: u16,
    peers: mpsc::UnboundedReceiver<SocketAddr>,
    _task: JoinSet<()>,
}

impl ForbiddenListener {
    pub(super) async fn start() -> Self {
        let listener = match TcpListener::bind("[::]:0").await {
            Ok(listener) => listener,
            // The machine has no IPv6.
            Err(_) => TcpListener::bind("0.0.0.0:0").await.expect("a port"),
        };
        let port = listener.local_addr().expect("an address").port();
        let (sender, peers) = mpsc::unbounded_channel();
        let mut task = JoinSet::new();
        task.spawn(async move {
            while let Ok((_, peer)) = listener.accept().await {
                let _ = sender.send(peer);
            }
        });
        Self {
            port,
            peers,
            _task: task,
        }
    }

    /// Returns the number of connections since the last call.
    ///
    /// The kernel queues connections in order. So all earlier ones come before one of its own.
    pub(super) async fn count(&mut self) -> usize {
        let last = TcpStream::connect(("127.0.0.1", self.port)).await;
        let last = last.expect("the listener accepts");
        let last = last.local_addr().expect("an address");
        let mut count = 0;
        loop {
            let peer = self.peers.recv().await.expect("the listener runs");
            if (peer.ip().to_canonical(), peer.port()) == (last.ip(), last.port()) {
                return count;
            }
            count += 1;
        }
    }
}
