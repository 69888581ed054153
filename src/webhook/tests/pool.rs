//! The connections that wait for a second request.

use std::sync::{Arc, Mutex};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    join,
    net::TcpListener,
    time::timeout,
};

use super::{
    receiver::{NAME, TlsReceiver, acceptor, parameters, read_request},
    support::{PATIENCE, client, client_of, internal, loopback, post},
};
use crate::webhook::{client::ClientOptions, target_url::TargetUrl};

/// Connections that served a request of each host, as (connection, host).
type Served = Arc<Mutex<Vec<(usize, String)>>>;

async fn recording() -> (TlsReceiver, Served) {
    let served = Served::default();
    let record = Arc::clone(&served);
    let receiver = TlsReceiver::answering(move |connection, head| {
        let host = head.lines().find(|line| line.starts_with("host: "));
        let host = host.expect("a host").to_owned();
        record.lock().unwrap().push((connection, host));
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok".into()
    })
    .await;
    (receiver, served)
}

fn options(receiver: &TlsReceiver, max_idle_connections: usize) -> ClientOptions {
    ClientOptions {
        policy: receiver.policy(),
        root_certificates: vec![receiver.certificate.clone()],
        max_idle_connections,
        ..ClientOptions::default()
    }
}

#[tokio::test]
async fn connection_is_reused_for_its_host_alone() {
    let (receiver, served) = recording().await;
    let client = client_of(options(&receiver, 64), loopback());
    let hosts = ["hooks.test", "a.hooks.test", "b.hooks.test"];
    let mut requests = 0;
    // A connection is back in the pool a little after the answer.
    while receiver.connections() == requests || requests < 30 {
        for host in hosts {
            let target = receiver.target_at(host);
            assert_eq!(post(&client, &target).await.expect("an answer").status, 200);
            requests += 1;
        }
        assert!(requests < 3000, "no connection is reused");
    }
    let served = served.lock().unwrap();
    for (connection, host) in served.iter() {
        let others = served
            .iter()
            .find(|(same, other)| same == connection && other != host);
        assert_eq!(others, None, "{host}");
    }
}

#[tokio::test]
async fn connection_beyond_the_limit_is_not_kept() {
    let (receiver, _) = recording().await;
    let client = client_of(options(&receiver, 0), loopback());
    for requests in 1..=30 {
        post(&client, &receiver.target()).await.expect("an answer");
        assert_eq!(receiver.connections(), requests);
    }
}

/// A request that gets another's connection leaves its own handshake to the background.
#[tokio::test]
async fn handshake_in_the_background_times_out() {
    let (acceptor, certificate) = acceptor(parameters(&[NAME]));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let policy = internal(&[format!("{NAME}:{port}")]);
    let target = TargetUrl::parse(&format!("https://{NAME}:{port}/"), &policy).expect("a URL");
    let client = client(policy, Some(&certificate), loopback());
    let served = async {
        let (first, _) = listener.accept().await.expect("a connection");
        let (second, _) = listener.accept().await.expect("a connection");
        let mut first = acceptor.accept(first).await.expect("a handshake");
        for _ in 0..2 {
            let request = read_request(&mut first).await.expect("a connection");
            assert!(request.is_some());
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
            first.write_all(answer).await.expect("a connection");
            first.flush().await.expect("a connection");
        }
        second
    };
    let (one, other, mut hanging) = join!(post(&client, &target), post(&client, &target), served);
    assert!(one.is_ok() && other.is_ok());
    tokio::time::pause();
    let end = timeout(PATIENCE, hanging.read_to_end(&mut Vec::new())).await;
    assert!(end.is_ok(), "the client closes the connection");
}
