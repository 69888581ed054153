//! An upstream without HTTP code of its own: tests read raw requests and write raw responses.

use std::{io, net::SocketAddr};

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpSocket, TcpStream},
    sync::mpsc,
};

/// A server that hands each request to the test, which decides when and how to respond.
pub(crate) struct Upstream {
    pub(crate) address: SocketAddr,
    received: mpsc::UnboundedReceiver<Received>,
}

/// A request and its connection.
pub(crate) struct Received {
    /// The request line.
    pub(crate) line: String,
    fields: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// The lines after the last chunk of a chunked body.
    pub(crate) trailers: Vec<String>,
    stream: BufReader<TcpStream>,
}

impl Upstream {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let (sender, received) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.expect("a connection");
                let sender = sender.clone();
                tokio::spawn(async move {
                    if let Some(request) = Received::read(stream).await {
                        let _ = sender.send(request);
                    }
                });
            }
        });
        Self { address, received }
    }

    /// Waits for the next complete request.
    pub(crate) async fn next(&mut self) -> Received {
        self.received.recv().await.expect("the server runs")
    }
}

/// Returns an address without a listener. The socket reserves it.
pub(crate) fn unused_address() -> (TcpSocket, SocketAddr) {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket
        .bind(([127, 0, 0, 1], 0).into())
        .expect("a free port");
    let address = socket.local_addr().expect("an address");
    (socket, address)
}

impl Received {
    async fn read(stream: TcpStream) -> Option<Self> {
        let mut stream = BufReader::new(stream);
        let line = read_line(&mut stream).await?;
        let mut fields = Vec::new();
        loop {
            let field = read_line(&mut stream).await?;
            if field.is_empty() {
                break;
            }
            let (name, value) = field.split_once(": ").expect("a field");
            fields.push((name.to_ascii_lowercase(), value.to_owned()));
        }
        let mut received = Self {
            line,
            fields,
            body: Vec::new(),
            trailers: Vec::new(),
            stream,
        };
        received.read_body().await?;
        Some(received)
    }

    async fn read_body(&mut self) -> Option<()> {
        if self.all("transfer-encoding") == ["chunked"] {
            loop {
                let size = read_line(&mut self.stream).await?;
                let size = usize::from_str_radix(&size, 16).expect("a chunk's size");
                if size == 0 {
                    break;
                }
                self.read_exact(size).await?;
                assert_eq!(read_line(&mut self.stream).await?, "");
            }
            loop {
                match read_line(&mut self.stream).await? {
                    end if end.is_empty() => return Some(()),
                    trailer => self.trailers.push(trailer),
                }
            }
        }
        match self.all("content-length")[..] {
            [] => Some(()),
            [length] => {
                let length = length.parse().expect("a length");
                self.read_exact(length).await
            }
            _ => panic!("more than one length"),
        }
    }

    async fn read_exact(&mut self, size: usize) -> Option<()> {
        let start = self.body.len();
        self.body.resize(start + size, 0);
        self.stream.read_exact(&mut self.body[start..]).await.ok()?;
        Some(())
    }

    /// Returns all values of a header.
    pub(crate) fn all(&self, name: &str) -> Vec<&str> {
        let fields = self.fields.iter().filter(|(field, _)| field == name);
        fields.map(|(_, value)| value.as_str()).collect()
    }

    /// Sends a response, or part of one.
    pub(crate) async fn write(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.expect("sent");
        self.stream.flush().await.expect("sent");
    }

    /// Sends bytes until the gateway closes the connection.
    pub(crate) async fn flood(mut self) {
        while self.stream.write_all(&[b'x'; 1 << 16]).await.is_ok() {}
    }

    /// Sends a complete response and closes the connection.
    pub(crate) async fn answer(self, bytes: impl AsRef<[u8]>) {
        self.try_answer(bytes).await.expect("still open");
    }

    /// Sends a complete response and closes the connection, unless the client has closed it.
    pub(crate) async fn try_answer(mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.stream.write_all(bytes.as_ref()).await?;
        self.stream.shutdown().await
    }

    /// Sends 200 with `text`.
    pub(crate) async fn ok(self, text: &str) {
        let length = text.len();
        self.answer(format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{text}"
        ))
        .await;
    }

    /// Waits until the gateway closes the connection.
    pub(crate) async fn hung_up(mut self) {
        let mut more = Vec::new();
        // A reset also counts.
        let _ = self.stream.read_to_end(&mut more).await;
        assert_eq!(String::from_utf8_lossy(&more), "");
    }
}

async fn read_line(stream: &mut BufReader<TcpStream>) -> Option<String> {
    let mut line = String::new();
    stream.read_line(&mut line).await.ok()?;
    line.strip_suffix("\r\n").map(str::to_owned)
}
