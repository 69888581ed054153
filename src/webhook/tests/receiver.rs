//! A receiver of webhooks that behaves as a test says.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use rcgen::{CertificateParams, KeyPair};
use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use super::support::internal;
use crate::webhook::{address_policy::AddressPolicy, target_url::TargetUrl};

/// The name in the certificate of an ordinary receiver.
pub(super) const NAME: &str = "hooks.test";

/// One connection of a receiver.
pub(super) type Stream = TlsStream<TcpStream>;

/// A receiver with TLS on this machine.
pub(super) struct TlsReceiver {
    pub(super) port: u16,
    pub(super) certificate: CertificateDer<'static>,
    connections: Arc<AtomicUsize>,
    _task: JoinSet<()>,
}

impl TlsReceiver {
    /// Calls the closure with the number of each connection, from 0, and its stream.
    pub(super) async fn start<F>(serve: impl Fn(usize, Stream) -> F + Send + 'static) -> Self
    where
        F: Future<Output = io::Result<()>> + Send + 'static,
    {
        Self::start_with(parameters(&[NAME]), serve).await
    }

    /// As [`start`](Self::start), with a certificate of these parameters.
    pub(super) async fn start_with<F>(
        parameters: CertificateParams,
        serve: impl Fn(usize, Stream) -> F + Send + 'static,
    ) -> Self
    where
        F: Future<Output = io::Result<()>> + Send + 'static,
    {
        let (acceptor, certificate) = acceptor(parameters);
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let connections = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&connections);
        let mut task = JoinSet::new();
        task.spawn(async move {
            let mut served = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                // Nagle's algorithm waits for real time, and a paused clock does not.
                stream.set_nodelay(true).expect("a socket");
                if let Ok(stream) = acceptor.accept(stream).await {
                    // The client's answer comes later, so a test sees the number.
                    let number = counter.fetch_add(1, Ordering::SeqCst);
                    served.spawn(serve(number, stream));
                }
            }
        });
        Self {
            port,
            certificate,
            connections,
            _task: task,
        }
    }

    /// Answers each request with a text that the closure makes of the request's head.
    pub(super) async fn answering(
        answer: impl Fn(usize, &str) -> String + Clone + Send + Sync + 'static,
    ) -> Self {
        Self::start_with(
            parameters(&[NAME, "*.hooks.test"]),
            move |number, mut stream| {
                let answer = answer.clone();
                async move {
                    while let Some((head, _)) = read_request(&mut stream).await? {
                        stream.write_all(answer(number, &head).as_bytes()).await?;
                        stream.flush().await?;
                    }
                    Ok(())
                }
            },
        )
        .await
    }

    /// A policy that allows this receiver.
    pub(super) fn policy(&self) -> AddressPolicy {
        let port = self.port;
        internal(&[format!("{NAME}:{port}"), format!("*.{NAME}:{port}")])
    }

    pub(super) fn target(&self) -> TargetUrl {
        self.target_at(NAME)
    }

    pub(super) fn target_at(&self, host: &str) -> TargetUrl {
        let url = format!("https://{host}:{}/hook?token=secret", self.port);
        TargetUrl::parse(&url, &self.policy()).expect("an allowed URL")
    }

    /// Returns how many connections have passed the handshake.
    pub(super) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

/// Accepts TLS with a new certificate of these parameters.
pub(super) fn acceptor(parameters: CertificateParams) -> (TlsAcceptor, CertificateDer<'static>) {
    let key = KeyPair::generate().expect("a key");
    let certificate = parameters.self_signed(&key).expect("a certificate");
    let certificate = certificate.der().clone();
    let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key)
        .expect("a configuration");
    (TlsAcceptor::from(Arc::new(config)), certificate)
}

/// Parameters of a certificate for these names.
pub(super) fn parameters(names: &[&str]) -> CertificateParams {
    let names: Vec<_> = names.iter().map(ToString::to_string).collect();
    CertificateParams::new(names).expect("names")
}

/// Reads a request with `Content-Length`: its head, in lower case, and its body.
///
/// Returns `None` at the end of the connection.
pub(super) async fn read_request(stream: &mut Stream) -> io::Result<Option<(String, Vec<u8>)>> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        if stream.read(&mut byte).await? == 0 {
            return Ok(None);
        }
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head).to_lowercase();
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "))
        .map_or(0, |length| length.parse().expect("a number"));
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    Ok(Some((head, body)))
}
