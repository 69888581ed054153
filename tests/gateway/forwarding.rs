//! The fields that name the client to the upstream.

use crate::{
    client::{request, send},
    program::Program,
    upstream::Upstream,
};

#[tokio::test]
async fn forwarding_headers_of_clients_are_not_trusted() {
    let mut upstream = Upstream::start().await;
    let gateway = Program::gateway(upstream.address, &[]).await;
    let ask = request("GET", "/")
        .header("host", "shop.example")
        .header("x-forwarded-for", "192.0.2.1")
        .header("x-forwarded-for", "192.0.2.2")
        .header("x-forwarded-host", "bank.example")
        .header("x-forwarded-proto", "https")
        .header("x-forwarded-proto", "gopher")
        .header("forwarded", "for=192.0.2.1;host=bank.example")
        .header("via", "1.0 fred");
    let ask = ask.body("".into()).expect("a request");
    let client = tokio::spawn(send(gateway.address, ask));
    let received = upstream.next().await;
    for (name, values) in [
        ("x-forwarded-for", &["192.0.2.1, 192.0.2.2, 127.0.0.1"][..]),
        ("x-forwarded-host", &["shop.example"]),
        ("x-forwarded-proto", &["http"]),
        ("forwarded", &[]),
        ("via", &["1.0 fred, 1.1 tower-accepted"]),
    ] {
        assert_eq!(received.all(name), values, "{name}");
    }
    received.ok("").await;
    client.await.expect("no panic");
}

#[tokio::test]
async fn trusted_chain_is_kept_and_extended() {
    let mut upstream = Upstream::start().await;
    let gateway = Program::gateway(upstream.address, &["--trust-forwarded"]).await;
    let for_host_proto = ["x-forwarded-for", "x-forwarded-host", "x-forwarded-proto"];
    for (sent, expected) in [
        // Without a chain, the gateway begins one.
        (&[][..], ["127.0.0.1", "shop.example:81", "http", ""]),
        (
            &[
                ("x-forwarded-for", "192.0.2.1"),
                ("x-forwarded-host", "bank.example"),
                ("x-forwarded-proto", "https"),
            ],
            ["192.0.2.1, 127.0.0.1", "bank.example", "https", ""],
        ),
        (
            &[("x-forwarded-proto", "https")],
            ["127.0.0.1", "shop.example:81", "https", ""],
        ),
        (
            &[("forwarded", "for=192.0.2.1;proto=https")],
            [
                "",
                "",
                "",
                "for=192.0.2.1;proto=https, \
                 for=127.0.0.1;host=\"shop.example:81\";proto=http",
            ],
        ),
        (
            &[
                ("forwarded", "for=a"),
                ("forwarded", "for=b"),
                ("x-forwarded-for", "a, b"),
            ],
            [
                "a, b, 127.0.0.1",
                "shop.example:81",
                "http",
                "for=a, for=b, for=127.0.0.1;host=\"shop.example:81\";proto=http",
            ],
        ),
    ] {
        let mut ask = request("GET", "/").header("host", "shop.example:81");
        for (name, value) in sent {
            ask = ask.header(*name, *value);
        }
        let ask = ask.body("".into()).expect("a request");
        let client = tokio::spawn(send(gateway.address, ask));
        let received = upstream.next().await;
        for (name, value) in for_host_proto.iter().chain(&["forwarded"]).zip(expected) {
            assert_eq!(received.all(name).join("|"), value, "{name} of {sent:?}");
        }
        received.ok("").await;
        client.await.expect("no panic");
    }
}
