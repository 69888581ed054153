//! The connections that wait for a second request.

use std::sync::{Arc, Mutex};

use super::{
    receiver::TlsReceiver,
    support::{client_of, loopback, post},
};
use crate::webhook::client::ClientOptions;

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
