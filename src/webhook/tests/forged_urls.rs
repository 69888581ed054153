//! URLs that lead to addresses that no webhook may reach.

use super::{
    listener::ForbiddenListener,
    support::{client, failure, insecure, loopback},
};
use crate::webhook::{
    address_policy::AddressPolicy,
    send_error::SendFailure,
    target_url::{TargetUrl, UrlError},
};

/// Spellings of this machine. `{}` is the port of the listener.
const THIS_MACHINE: &[&str] = &[
    "https://127.0.0.1:{}/",
    "https://127.1:{}/",
    "https://127.0.1:{}/",
    "https://2130706433:{}/",
    "https://0x7f000001:{}/",
    "https://0x7F.1:{}/",
    "https://0x7f.0x0.0x0.0x1:{}/",
    "https://0177.0.0.1:{}/",
    "https://017700000001:{}/",
    "https://127.000.000.001:{}/",
    "https://127.0.0.1.:{}/",
    "https://127.0.0.1:00{}/",
    "https://127.255.255.254:{}/",
    "https://0.0.0.0:{}/",
    "https://0:{}/",
    "https://127.0.0.1:{}/",
    "https://１２７.０.０.１:{}/",
    "https://127。0。0。1:{}/",
    "https://①②⑦.0.0.1:{}/",
    "https://127.0.0\u{ad}.1:{}/",
    "https://%31%32%37.0.0.1:{}/",
    "https://%31%32%37%2e0.0.1:{}/",
    "https:127.0.0.1:{}/",
    "https:/127.0.0.1:{}/",
    "https:////127.0.0.1:{}/",
    "https:\\\\127.0.0.1:{}\\",
    "HTTPS://127.0.0.1:{}",
    "https://127.0.0.1:{}\\@hooks.example.com/",
    "https://127.0.0.1:{}/@hooks.example.com/",
    "https://127.0.0.1:{}#@hooks.example.com/",
    "https://127.0.0.1:{}?@hooks.example.com/",
    "https://@127.0.0.1:{}/",
    "\thttps://127.0.0.1:{}/\n",
    "ht\ntps://127.0.0.1:{}/",
    "https:/\t/127.0.\r\n0.1:{}/",
    "https://[::ffff:127.0.0.1]:{}/",
    "https://[::ffff:7f00:1]:{}/",
    "https://[0:0:0:0:0:FFFF:127.0.0.1]:{}/",
    "https://[::ffff:0.0.0.0]:{}/",
];

/// The same, in IPv6, which not each machine has.
const THIS_MACHINE_V6: &[&str] = &[
    "https://[::1]:{}/",
    "https://[0:0:0:0:0:0:0:1]:{}/",
    "https://[0000::0001]:{}/",
    "https://[::0.0.0.1]:{}/",
    "https://[::]:{}/",
];

/// Literals of other forbidden addresses.
const ELSEWHERE: &[&str] = &[
    "https://169.254.169.254/latest/meta-data/",
    "https://169.254.43518/",
    "https://2852039166/",
    "https://0xa9fea9fe/",
    "https://0251.0376.0251.0376/",
    "https://[::ffff:169.254.169.254]/",
    "https://[::ffff:a9fe:a9fe]/",
    "https://[::169.254.169.254]/",
    "https://[::ffff:0:169.254.169.254]/",
    "https://[64:ff9b::169.254.169.254]/",
    "https://[64:ff9b:1::169.254.169.254]/",
    "https://[2002:a9fe:a9fe::1]/",
    "https://[2001:0:a9fe:a9fe::1]/",
    "https://[2a00::5efe:169.254.169.254]/",
    "https://[::127.0.0.1]/",
    "https://[64:ff9b::7f00:1]/",
    "https://[2002:7f00:1::]/",
    "https://[fd00:ec2::254]/",
    "https://[fe80::1]/",
    "https://[fec0::1]/",
    "https://[ff02::1]/",
    "https://[100::1]/",
    "https://[2001:db8::1]/",
    "https://10.0.0.1/",
    "https://10.1/",
    "https://172.16.0.1/",
    "https://192.168.257/",
    "https://100.64.0.1/",
    "https://100.100.100.200/",
    "https://168.63.129.16/",
    "https://192.0.0.192/",
    "https://192.0.2.1/",
    "https://198.18.0.1/",
    "https://198.51.100.1/",
    "https://203.0.113.1/",
    "https://224.0.0.1/",
    "https://240.0.0.1/",
    "https://255.255.255.255/",
];

/// URLs that are refused for what they are, wherever they lead.
const MISSHAPEN: &[(&str, UrlError)] = &[
    (
        "https://hooks.example.com@127.0.0.1:{}/",
        UrlError::UserInfo,
    ),
    (
        "https://hooks.example.com:443@127.0.0.1:{}/",
        UrlError::UserInfo,
    ),
    (
        "https://hooks.example.com\t@127.0.0.1:{}/",
        UrlError::UserInfo,
    ),
    (
        "https://hooks.example.com%2f@127.0.0.1:{}/",
        UrlError::UserInfo,
    ),
    ("https://a@b@127.0.0.1:{}/", UrlError::UserInfo),
    (
        "https://127.0.0.1:{}@hooks.example.com/",
        UrlError::UserInfo,
    ),
    (
        "https://hooks.example.com%40127.0.0.1:{}/",
        UrlError::Malformed,
    ),
    ("https://127.0.0.1%00.example.com:{}/", UrlError::Malformed),
    ("https://127.0.0.1%0d%0ahost:{}/", UrlError::Malformed),
    ("https://127.0.0.1 .example.com:{}/", UrlError::Malformed),
    ("https://127.0.0.1:{}:443/", UrlError::Malformed),
    ("https://127.0.0.1:6{}{}/", UrlError::Malformed),
    ("https://127.0.0.1:-{}/", UrlError::Malformed),
    ("https://0x100000000:{}/", UrlError::Malformed),
    ("https://127.0.0.1.1:{}/", UrlError::Malformed),
    ("https://[::1%25lo]:{}/", UrlError::Malformed),
    ("https://[::1:{}/", UrlError::Malformed),
    ("//127.0.0.1:{}/", UrlError::Malformed),
    ("127.0.0.1:{}/", UrlError::Malformed),
    ("http://127.0.0.1:{}/", UrlError::Scheme),
    ("gopher://127.0.0.1:{}/_GET", UrlError::Scheme),
    ("ftp://127.0.0.1:{}/", UrlError::Scheme),
    ("ws://127.0.0.1:{}/", UrlError::Scheme),
    ("file:///etc/passwd", UrlError::Scheme),
    ("unix:/var/run/docker.sock", UrlError::Scheme),
    ("localhost:{}/", UrlError::Scheme),
    ("https://localhost.:{}/", UrlError::TrailingDot),
    ("https://hooks.example.com.:{}/", UrlError::TrailingDot),
];

fn parse(url: &str) -> Result<TargetUrl, UrlError> {
    TargetUrl::parse(url, &AddressPolicy::default())
}

#[tokio::test]
async fn literal_of_a_forbidden_address_is_refused() {
    let mut listener = ForbiddenListener::start().await;
    let strict = client(AddressPolicy::default(), None, loopback());
    let urls = [THIS_MACHINE, THIS_MACHINE_V6, ELSEWHERE].concat();
    assert!(urls.len() >= 60);
    for url in urls {
        let url = url.replace("{}", &listener.port.to_string());
        assert_eq!(parse(&url), Err(UrlError::ForbiddenAddress), "{url}");
        // The client checks by itself what was parsed under another policy.
        let target = TargetUrl::parse(&url, &insecure()).expect("a URL");
        let refused = failure(&strict, &target).await;
        assert_eq!(refused, Some(SendFailure::ForbiddenAddress), "{url}");
    }
    assert_eq!(listener.count().await, 0);
}

/// The counterpart: without the check, each of the URLs reaches the listener.
#[tokio::test]
async fn literal_reaches_the_listener_if_allowed() {
    let mut listener = ForbiddenListener::start().await;
    let lax = client(insecure(), None, loopback());
    let has_v6 = tokio::net::TcpListener::bind("[::1]:0").await.is_ok();
    let v6 = if has_v6 { THIS_MACHINE_V6 } else { &[] };
    for url in [THIS_MACHINE, v6].concat() {
        let url = url.replace("{}", &listener.port.to_string());
        let target = TargetUrl::parse(&url, &insecure()).expect("a URL");
        assert_eq!(
            failure(&lax, &target).await,
            Some(SendFailure::Tls),
            "{url}"
        );
        assert_eq!(listener.count().await, 1, "{url}");
    }
}

#[test]
fn misshapen_url_is_refused() {
    for (url, reason) in MISSHAPEN {
        let url = url.replace("{}", "4430");
        assert_eq!(parse(&url), Err(*reason), "{url}");
    }
}

#[tokio::test]
async fn secure_client_sends_no_plain_request() {
    let mut listener = ForbiddenListener::start().await;
    let url = format!("http://hooks.example.com:{}/", listener.port);
    let target = TargetUrl::parse(&url, &insecure()).expect("a URL");
    let policy = super::support::internal(&[format!("hooks.example.com:{}", listener.port)]);
    let strict = client(policy, None, loopback());
    assert!(failure(&strict, &target).await.is_some());
    assert_eq!(listener.count().await, 0);
}
