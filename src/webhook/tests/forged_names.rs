//! Names that resolve to addresses that no webhook may reach.

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use super::{
    listener::ForbiddenListener,
    receiver::TlsReceiver,
    support::{client, client_of, failure, internal, loopback, names, post},
};
use crate::webhook::{
    address_policy::AddressPolicy,
    client::{ClientOptions, WebhookClient},
    send_error::SendFailure,
    target_url::TargetUrl,
};

/// An address that the rule allows, of a network that IANA has given to no one.
const UNUSED: &str = "2d00::1";

fn target(url: &str) -> TargetUrl {
    TargetUrl::parse(url, &AddressPolicy::default()).expect("a URL")
}

#[tokio::test]
async fn name_with_a_forbidden_address_is_refused() {
    let mut listener = ForbiddenListener::start().await;
    for answer in [
        &["127.0.0.1"][..],
        &["127.0.0.2"],
        &["0.0.0.0"],
        &["::1"],
        &["::"],
        &["::ffff:127.0.0.1"],
        &["64:ff9b::127.0.0.1"],
        &["10.0.0.1"],
        &["169.254.169.254"],
        &["fe80::1"],
        // One forbidden address is enough, at any place.
        &[UNUSED, "127.0.0.1"],
        &["127.0.0.1", UNUSED],
        &[UNUSED, "::1"],
        &[UNUSED, "2d00::2", "::ffff:127.0.0.1"],
    ] {
        let addresses: Vec<IpAddr> = answer.iter().map(|ip| ip.parse().expect("an IP")).collect();
        let client = client(
            AddressPolicy::default(),
            None,
            names(move |_| addresses.clone()),
        );
        let target = target(&format!(
            "https://hooks.example.com:{}/s3cret",
            listener.port
        ));
        let error = post(&client, &target).await.expect_err("refused");
        assert_eq!(error.failure(), SendFailure::ForbiddenAddress, "{answer:?}");
        let text = format!("{error} {error:?}");
        assert!(text.contains("hooks.example.com"), "{text}");
        assert!(
            !text.contains("127.0.0") && !text.contains("s3cret"),
            "{text}"
        );
    }
    assert_eq!(listener.count().await, 0);
}

#[tokio::test]
async fn localhost_is_refused_by_the_real_resolver() {
    let mut listener = ForbiddenListener::start().await;
    let receiver = TlsReceiver::answering(|_, _| String::new()).await;
    let options = ClientOptions {
        root_certificates: vec![receiver.certificate.clone()],
        ..ClientOptions::default()
    };
    let client = WebhookClient::new(&options).expect("a client");
    for host in ["localhost", "LOCALHOST", "ｌocalhost"] {
        let target = target(&format!("https://{host}:{}/", listener.port));
        let refused = failure(&client, &target).await;
        assert_eq!(refused, Some(SendFailure::ForbiddenAddress), "{host}");
    }
    assert_eq!(listener.count().await, 0);
}

/// The name server answers the check with a good address, and would answer the connection with a
/// forbidden one.
#[tokio::test]
async fn connection_uses_the_addresses_of_the_check() {
    let mut listener = ForbiddenListener::start().await;
    let look_ups = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&look_ups);
    let resolver = names(move |_| {
        let is_first = counter.fetch_add(1, Ordering::SeqCst) == 0;
        let address = if is_first { UNUSED } else { "127.0.0.1" };
        vec![address.parse().expect("an IP")]
    });
    let options = ClientOptions {
        timeout: Duration::from_millis(300),
        ..ClientOptions::default()
    };
    let client = client_of(options, resolver);
    let target = target(&format!("https://hooks.example.com:{}/", listener.port));
    let unreachable = failure(&client, &target).await;
    let is_expected = matches!(
        unreachable,
        Some(SendFailure::Connect | SendFailure::TimedOut)
    );
    assert!(is_expected, "{unreachable:?}");
    assert_eq!(look_ups.load(Ordering::SeqCst), 1);
    // The next connection asks again, and gets the forbidden address.
    let refused = failure(&client, &target).await;
    assert_eq!(refused, Some(SendFailure::ForbiddenAddress));
    assert_eq!(look_ups.load(Ordering::SeqCst), 2);
    assert_eq!(listener.count().await, 0);
}

#[tokio::test]
async fn one_look_up_serves_the_whole_connection() {
    let receiver = TlsReceiver::answering(|_, _| "HTTP/1.1 204 No Content\r\n\r\n".into()).await;
    let look_ups = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&look_ups);
    let resolver = names(move |_| {
        let last = counter.fetch_add(1, Ordering::SeqCst);
        // The receiver has only the first of these addresses.
        vec![IpAddr::from([
            127,
            0,
            0,
            u8::try_from(last + 1).expect("few look-ups"),
        ])]
    });
    let client = client(receiver.policy(), Some(&receiver.certificate), resolver);
    let answer = post(&client, &receiver.target()).await.expect("an answer");
    assert_eq!(answer.status, 204);
    assert_eq!(look_ups.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn exception_holds_for_its_hosts_and_ports_alone() {
    let mut listener = ForbiddenListener::start().await;
    let port = listener.port;
    let policy = internal(&[
        format!("*.corp.test:{port}"),
        format!("hooks.test:{port}"),
        "other.test".to_owned(),
    ]);
    let client = client(policy, None, loopback());
    for host in [
        "corp.test",
        "evilcorp.test",
        "corp.test.evil.test",
        "a.corp.test.evil.test",
        "a.corp.test-evil.test",
        "evilhooks.test",
        "a.hooks.test",
        "hooks.test.evil.test",
        "other.test",
    ] {
        let target = target(&format!("https://{host}:{port}/"));
        let refused = failure(&client, &target).await;
        assert_eq!(refused, Some(SendFailure::ForbiddenAddress), "{host}");
    }
    assert_eq!(listener.count().await, 0);
    for host in ["a.corp.test", "A.b.Corp.test", "hooks.test"] {
        let target = target(&format!("https://{host}:{port}/"));
        assert_eq!(failure(&client, &target).await, Some(SendFailure::Tls));
        assert_eq!(listener.count().await, 1, "{host}");
    }
}
