//! Receivers that fail in every way, and jobs that do not notice.

use std::{future::pending, io, sync::Arc, time::Duration};

use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer},
};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::sleep,
};
use tokio_rustls::TlsAcceptor;
use tower_accepted::webhook::{Secret, Target};

use crate::{
    kit::{RawReceiver, Site, notifying},
    layered::{get, post},
};

/// Reads the head and the body of a webhook, as far as they have come.
async fn read(stream: &mut TcpStream) -> io::Result<()> {
    stream.read(&mut [0; 4096]).await.map(drop)
}

/// Submits a job that notifies `url`, and returns the delivery once it has failed for good.
async fn failed(url: &str, timeout: Duration) -> Value {
    let webhooks = notifying(&Secret::generate(), [Target::new(url)]).timeout(timeout);
    let site = Site::notifying(webhooks);
    let accepted = site.submit("/reports").await;
    let delivery = site.delivery(&accepted, "failed").await;
    assert_eq!(delivery["attempts"], 1);
    let job = site.send(get(accepted.location())).await.json();
    assert_eq!(job["status"], "succeeded");
    delivery
}

const BRIEF: Duration = Duration::from_millis(200);
const PATIENT: Duration = Duration::from_secs(20);

#[tokio::test]
async fn receiver_that_hangs_times_out() {
    let receiver = RawReceiver::hanging().await;
    let delivery = failed(&receiver.url(), BRIEF).await;
    assert_eq!(delivery["lastFailure"], "timeout");
    assert!(delivery.get("lastStatus").is_none(), "{delivery}");
}

#[tokio::test]
async fn receiver_that_trickles_times_out() {
    let receiver = RawReceiver::start(async |mut stream: TcpStream| {
        read(&mut stream).await?;
        stream.write_all(b"HTTP/1.1 200 OK\r\nx-slow: ").await?;
        loop {
            stream.write_all(b"x").await?;
            sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    let delivery = failed(&receiver.url(), BRIEF).await;
    assert_eq!(delivery["lastFailure"], "timeout");
}

#[tokio::test]
async fn receiver_that_resets_is_broken() {
    let receiver = RawReceiver::start(async |mut stream: TcpStream| {
        read(&mut stream).await?;
        stream.set_zero_linger()?;
        Ok(())
    })
    .await;
    let delivery = failed(&receiver.url(), PATIENT).await;
    assert_eq!(delivery["lastFailure"], "broken");
}

#[tokio::test]
async fn answer_of_a_gigabyte_is_not_read() {
    let receiver = RawReceiver::start(async |mut stream: TcpStream| {
        read(&mut stream).await?;
        let head = b"HTTP/1.1 500 Oops\r\ncontent-length: 1073741824\r\n\r\n";
        stream.write_all(head).await?;
        let chunk = vec![b'x'; 1 << 16];
        for _ in 0..1 << 14 {
            stream.write_all(&chunk).await?;
        }
        Err(io::Error::other("the whole answer was read"))
    })
    .await;
    let delivery = failed(&receiver.url(), PATIENT).await;
    assert_eq!(delivery["lastFailure"], "status");
    assert_eq!(delivery["lastStatus"], 500);
}

#[tokio::test]
async fn redirect_to_itself_is_one_failure() {
    let receiver = RawReceiver::start(async |mut stream: TcpStream| {
        read(&mut stream).await?;
        let head = b"HTTP/1.1 307 Again\r\nlocation: /\r\ncontent-length: 0\r\n\r\n";
        stream.write_all(head).await?;
        pending().await
    })
    .await;
    let delivery = failed(&receiver.url(), PATIENT).await;
    assert_eq!(delivery["lastFailure"], "status");
    assert_eq!(delivery["lastStatus"], 307);
    assert_eq!(receiver.connections(), 1);
}

#[tokio::test]
async fn certificate_without_trust_fails() {
    let names = ["localhost".to_owned()];
    let certified = rcgen::generate_simple_self_signed(names).expect("a certificate");
    let certificate = CertificateDer::from(certified.cert.der().to_vec());
    let key = PrivateKeyDer::try_from(certified.signing_key.serialize_der()).expect("a key");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .expect("a configuration");
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let receiver = RawReceiver::start(move |stream| {
        let acceptor = acceptor.clone();
        async move { acceptor.accept(stream).await.map(drop) }
    })
    .await;
    let url = format!("https://localhost:{}/", receiver.port);
    let delivery = failed(&url, PATIENT).await;
    assert_eq!(delivery["lastFailure"], "tls");
    assert!(receiver.connections() > 0);
}

#[tokio::test]
async fn closed_port_fails_the_attempt() {
    let receiver = RawReceiver::hanging().await;
    let url = receiver.url();
    drop(receiver);
    for (url, failure) in [(&*url, "connect"), ("http://no-such-host.invalid/", "dns")] {
        let delivery = failed(url, PATIENT).await;
        assert_eq!(delivery["lastFailure"], failure);
    }
}

#[tokio::test]
async fn receiver_that_hangs_delays_no_cancel() {
    let receiver = RawReceiver::hanging().await;
    let webhooks = notifying(&Secret::generate(), [Target::new(receiver.url())]).timeout(PATIENT);
    let site = Site::notifying(webhooks);
    let accepted = site.submit("/never").await;
    let cancel = format!("{}/cancel", accepted.location());
    let canceled = site.send(post(&cancel)).await;
    assert_eq!(canceled.json()["status"], "canceled");
    crate::kit::until("a connection", || receiver.connections() == 1).await;
    // Its delivery is on its way, and the job and others are served.
    let delivery = site.delivery(&accepted, "pending").await;
    assert_eq!(delivery["attempts"], 0);
    let next = site.submit("/reports").await;
    assert_eq!(site.ended(&next).await["status"], "succeeded");
}
