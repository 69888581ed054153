//! Receivers that redirect.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use super::{
    listener::ForbiddenListener,
    receiver::TlsReceiver,
    support::{client, loopback, post},
};

#[tokio::test]
async fn redirect_is_an_answer_and_is_not_followed() {
    let mut listener = ForbiddenListener::start().await;
    let port = listener.port;
    for status in [300, 301, 302, 303, 304, 305, 307, 308] {
        for location in [
            format!("https://127.0.0.1:{port}/"),
            format!("http://127.0.0.1:{port}/"),
            format!("//localhost:{port}/"),
            "/again".to_owned(),
            "/hook?token=secret".to_owned(),
        ] {
            let requests = Arc::new(AtomicUsize::new(0));
            let counter = Arc::clone(&requests);
            let receiver = TlsReceiver::answering(move |_, _| {
                counter.fetch_add(1, Ordering::SeqCst);
                format!(
                    "HTTP/1.1 {status} Elsewhere\r\nlocation: {location}\r\nrefresh: 0; {location}\
                     \r\ncontent-length: 0\r\n\r\n"
                )
            })
            .await;
            let client = client(receiver.policy(), Some(&receiver.certificate), loopback());
            let answer = post(&client, &receiver.target()).await.expect("an answer");
            assert_eq!(answer.status, status);
            assert_eq!(requests.load(Ordering::SeqCst), 1);
        }
    }
    assert_eq!(listener.count().await, 0);
}
