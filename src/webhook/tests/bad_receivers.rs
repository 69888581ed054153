//! Receivers that hang, trickle, break off, or send too much.

use std::{
    future::pending,
    io,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use hyper_util::client::legacy::connect::dns::Name;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    select,
    sync::{Notify, oneshot},
    time::sleep,
};
use tower::service_fn;

use super::{
    receiver::{Stream, TlsReceiver, parameters, read_request},
    support::{client, failure, internal, loopback, names, post},
};
use crate::webhook::{
    address_policy::AddressPolicy,
    client::{ReceiverAnswer, WebhookClient},
    resolver::Resolver,
    send_error::{SendError, SendFailure},
    target_url::TargetUrl,
};

/// Posts, and pauses the clock once `arrived` is done. From then on only timers make time pass.
async fn post_paused<R: Resolver>(
    client: &WebhookClient<R>,
    target: &TargetUrl,
    arrived: &Notify,
) -> Result<ReceiverAnswer, SendError> {
    let mut sent = pin!(post(client, target));
    select! {
        _ = &mut sent => panic!("an answer before the receiver stops"),
        () = arrived.notified() => tokio::time::pause(),
    }
    sent.await
}

fn of<R: Resolver>(receiver: &TlsReceiver, resolver: R) -> WebhookClient<R> {
    client(receiver.policy(), Some(&receiver.certificate), resolver)
}

/// Reads until the client has closed the connection.
async fn wait_for_end(stream: &mut Stream) {
    while stream
        .read(&mut [0; 1024])
        .await
        .is_ok_and(|length| length > 0)
    {}
}

/// A receiver that behaves as the closure says once it has a request, and then waits for the end of
/// the connection.
///
/// The first value is notified at the request, the second gets a message at the end.
async fn stopping<F>(
    behave: impl Fn(Stream) -> F + Clone + Send + 'static,
) -> (TlsReceiver, Arc<Notify>, oneshot::Receiver<()>)
where
    F: Future<Output = io::Result<Stream>> + Send + 'static,
{
    let arrived = Arc::new(Notify::new());
    let (ended, end) = oneshot::channel();
    let ended = Arc::new(std::sync::Mutex::new(Some(ended)));
    let notify = Arc::clone(&arrived);
    let receiver = TlsReceiver::start(move |_, mut stream| {
        let (notify, ended, behave) = (Arc::clone(&notify), Arc::clone(&ended), behave.clone());
        async move {
            read_request(&mut stream).await?;
            notify.notify_one();
            if let Ok(mut stream) = behave(stream).await {
                wait_for_end(&mut stream).await;
            }
            let ended = ended.lock().unwrap().take();
            if let Some(ended) = ended {
                let _ = ended.send(());
            }
            Ok(())
        }
    })
    .await;
    (receiver, arrived, end)
}

#[tokio::test]
async fn receiver_that_hangs_times_out() {
    let (receiver, arrived, end) = stopping(|stream| async { Ok(stream) }).await;
    let client = of(&receiver, loopback());
    let error = post_paused(&client, &receiver.target(), &arrived).await;
    let error = error.expect_err("no answer");
    assert_eq!(error.failure(), SendFailure::TimedOut);
    assert_eq!(error.to_string(), "hooks.test did not answer in time");
    end.await.expect("the client closes the connection");
}

#[tokio::test]
async fn dropped_request_closes_its_connection() {
    let (receiver, arrived, end) = stopping(|stream| async { Ok(stream) }).await;
    let (client, target) = (of(&receiver, loopback()), receiver.target());
    select! {
        _ = post(&client, &target) => panic!("an answer"),
        () = arrived.notified() => {}
    }
    end.await.expect("the client closes the connection");
}

#[tokio::test]
async fn head_that_trickles_times_out() {
    let (receiver, arrived, end) = stopping(|mut stream| async move {
        stream.write_all(b"HTTP/1.1 200 OK\r\nx-slow: ").await?;
        loop {
            stream.write_all(b"x").await?;
            stream.flush().await?;
            sleep(Duration::from_secs(1)).await;
        }
    })
    .await;
    let client = of(&receiver, loopback());
    let error = post_paused(&client, &receiver.target(), &arrived).await;
    assert_eq!(
        error.expect_err("no answer").failure(),
        SendFailure::TimedOut
    );
    end.await.expect("the client closes the connection");
}

#[tokio::test]
async fn endless_interim_answers_time_out() {
    let (receiver, arrived, end) = stopping(|mut stream| async move {
        loop {
            stream
                .write_all(b"HTTP/1.1 103 Early Hints\r\n\r\n")
                .await?;
            stream.flush().await?;
            sleep(Duration::from_secs(1)).await;
        }
    })
    .await;
    let client = of(&receiver, loopback());
    let error = post_paused(&client, &receiver.target(), &arrived).await;
    assert_eq!(
        error.expect_err("no answer").failure(),
        SendFailure::TimedOut
    );
    end.await.expect("the client closes the connection");
}

#[tokio::test]
async fn status_counts_if_the_body_trickles_or_hangs() {
    for trickles in [true, false] {
        let (receiver, arrived, end) = stopping(move |mut stream| async move {
            let head = b"HTTP/1.1 201 Created\r\ncontent-length: 4000\r\n\r\nx";
            stream.write_all(head).await?;
            stream.flush().await?;
            if !trickles {
                return Ok(stream);
            }
            loop {
                sleep(Duration::from_secs(1)).await;
                stream.write_all(b"x").await?;
                stream.flush().await?;
            }
        })
        .await;
        let client = of(&receiver, loopback());
        let answer = post_paused(&client, &receiver.target(), &arrived).await;
        assert_eq!(answer.expect("an answer").status, 201);
        end.await.expect("the client closes the connection");
        tokio::time::resume();
    }
}

#[tokio::test]
async fn long_body_is_not_read() {
    const GIGABYTE: u64 = 1 << 30;
    for framing in ["content-length: 1073741824\r\n\r\n", "\r\n"] {
        let written = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&written);
        let (receiver, _, end) = stopping(move |mut stream| {
            let counter = Arc::clone(&counter);
            async move {
                let head = format!("HTTP/1.1 200 OK\r\n{framing}");
                stream.write_all(head.as_bytes()).await?;
                let chunk = vec![b'x'; 64 << 10];
                while counter.load(Ordering::SeqCst) < GIGABYTE {
                    stream.write_all(&chunk).await?;
                    counter.fetch_add(64 << 10, Ordering::SeqCst);
                }
                Ok(stream)
            }
        })
        .await;
        let client = of(&receiver, loopback());
        let answer = post(&client, &receiver.target()).await.expect("an answer");
        assert_eq!(answer.status, 200);
        end.await.expect("the client closes the connection");
        // The buffers of sockets take some of it.
        let written = written.load(Ordering::SeqCst);
        assert!(written < 64 << 20, "{written}");
    }
}

#[tokio::test]
async fn body_that_goes_on_is_left_after_4_kib() {
    let written = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&written);
    let (receiver, arrived, end) = stopping(move |mut stream| {
        let counter = Arc::clone(&counter);
        async move {
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await?;
            loop {
                stream.write_all(&[b'x'; 1024]).await?;
                stream.flush().await?;
                counter.fetch_add(1, Ordering::SeqCst);
                sleep(Duration::from_secs(1)).await;
            }
        }
    })
    .await;
    let client = of(&receiver, loopback());
    let answer = post_paused(&client, &receiver.target(), &arrived).await;
    assert_eq!(answer.expect("an answer").status, 200);
    end.await.expect("the client closes the connection");
    // The timeout alone would let the receiver write 15 times.
    let written = written.load(Ordering::SeqCst);
    assert!((5..10).contains(&written), "{written}");
}

#[tokio::test]
async fn short_body_keeps_its_connection() {
    for (length, is_reused) in [(0, true), (4096, true), (100_000, false)] {
        let receiver = TlsReceiver::answering(move |_, _| {
            let body = "x".repeat(length);
            format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{body}")
        })
        .await;
        let client = of(&receiver, loopback());
        let mut requests = 0;
        // A connection is back in the pool a little after the answer.
        while requests < 30 || (is_reused && receiver.connections() == requests) {
            post(&client, &receiver.target()).await.expect("an answer");
            requests += 1;
            assert!(requests < 1000, "no connection is reused");
        }
        assert_eq!(receiver.connections() < requests, is_reused, "{length}");
    }
}

#[tokio::test]
async fn answer_that_is_no_http_is_a_protocol_error() {
    for answer in [
        "".to_owned(),
        "HTTP/1.1 2".to_owned(),
        "SSH-2.0-OpenSSH_9.9\r\n".to_owned(),
        "HTTP/1.1 200 OK\r\nno colon\r\n\r\n".to_owned(),
        "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n".to_owned(),
        format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "x".repeat(64 << 10)),
        format!("HTTP/1.1 200 OK\r\n{}\r\n", "x: y\r\n".repeat(2000)),
    ] {
        let receiver = TlsReceiver::start(move |_, mut stream| {
            let answer = answer.clone();
            async move {
                read_request(&mut stream).await?;
                stream.write_all(answer.as_bytes()).await?;
                stream.shutdown().await
            }
        })
        .await;
        let client = of(&receiver, loopback());
        let failure = failure(&client, &receiver.target()).await;
        assert_eq!(failure, Some(SendFailure::Protocol));
    }
}

#[tokio::test]
async fn reset_is_a_protocol_error() {
    let receiver = TlsReceiver::start(|_, mut stream| async move {
        read_request(&mut stream).await?;
        stream.get_ref().0.set_zero_linger()
    })
    .await;
    let client = of(&receiver, loopback());
    let error = post(&client, &receiver.target()).await.expect_err("reset");
    assert_eq!(error.failure(), SendFailure::Protocol);
    assert_eq!(error.failure(), SendFailure::Protocol);
    assert!(std::error::Error::source(&error).is_some());
}

#[tokio::test]
async fn bad_certificate_is_a_tls_error() {
    let mut expired = parameters(&["hooks.test"]);
    expired.not_before = rcgen::date_time_ymd(2020, 1, 1);
    expired.not_after = rcgen::date_time_ymd(2021, 1, 1);
    for (parameters, is_trusted, expected) in [
        (parameters(&["hooks.test"]), true, None),
        (parameters(&["hooks.test"]), false, Some(SendFailure::Tls)),
        (parameters(&["other.test"]), true, Some(SendFailure::Tls)),
        (parameters(&["*.hooks.test"]), true, Some(SendFailure::Tls)),
        (expired, true, Some(SendFailure::Tls)),
    ] {
        let receiver = TlsReceiver::start_with(parameters, |_, mut stream| async move {
            read_request(&mut stream).await?;
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await
        })
        .await;
        let root = is_trusted.then_some(&receiver.certificate);
        let client = client(receiver.policy(), root, loopback());
        assert_eq!(failure(&client, &receiver.target()).await, expected);
    }
}

/// A listener without TLS, and the URL that leads to it.
async fn plain_listener() -> (TcpListener, TargetUrl, AddressPolicy) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let policy = internal(&[format!("hooks.test:{port}")]);
    let target = TargetUrl::parse(&format!("https://hooks.test:{port}/"), &policy);
    (listener, target.expect("a URL"), policy)
}

#[tokio::test]
async fn handshake_that_hangs_times_out() {
    let (listener, target, policy) = plain_listener().await;
    let client = client(policy, None, loopback());
    let arrived = Notify::new();
    let mut peer = None;
    let accepted = async {
        peer = Some(listener.accept().await.expect("a connection").0);
        arrived.notify_one();
        pending::<()>().await;
    };
    let failed = select! {
        failed = post_paused(&client, &target, &arrived) => failed,
        () = accepted => unreachable!("it is pending"),
    };
    assert_eq!(
        failed.expect_err("no handshake").failure(),
        SendFailure::TimedOut
    );
    let mut hello = Vec::new();
    let mut peer = peer.expect("a connection");
    // The client closes the connection.
    peer.read_to_end(&mut hello).await.expect("an end");
}

#[tokio::test]
async fn receiver_without_tls_is_a_tls_error() {
    let (listener, target, policy) = plain_listener().await;
    let client = client(policy, None, loopback());
    let served = async {
        let (mut peer, _) = listener.accept().await.expect("a connection");
        let answer = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n";
        peer.write_all(answer).await.expect("it takes the answer");
        pending::<()>().await;
    };
    let failed = select! {
        failed = failure(&client, &target) => failed,
        () = served => unreachable!("it is pending"),
    };
    assert_eq!(failed, Some(SendFailure::Tls));
}

#[tokio::test]
async fn closed_port_is_a_connect_error() {
    let (listener, target, policy) = plain_listener().await;
    drop(listener);
    let client = client(policy, None, loopback());
    assert_eq!(failure(&client, &target).await, Some(SendFailure::Connect));
}

#[tokio::test]
async fn unknown_name_is_a_dns_error() {
    let target = TargetUrl::parse("https://hooks.test/", &AddressPolicy::default());
    let target = target.expect("a URL");
    let client = client(AddressPolicy::default(), None, names(|_| Vec::new()));
    assert_eq!(failure(&client, &target).await, Some(SendFailure::Dns));
}

#[tokio::test(start_paused = true)]
async fn look_up_that_hangs_times_out() {
    let target = TargetUrl::parse("https://hooks.test/", &AddressPolicy::default());
    let target = target.expect("a URL");
    let resolver = service_fn(|_: Name| pending::<io::Result<std::vec::IntoIter<_>>>());
    let client = client(AddressPolicy::default(), None, resolver);
    assert_eq!(failure(&client, &target).await, Some(SendFailure::TimedOut));
}
