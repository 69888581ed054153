//! Links the monitor behind proxies.

use http::Uri;
use tower::Layer;
use tower_accepted::{Dialect, Jobs, Links};

use crate::support::*;

/// Strips a prefix from the URI of a request, as a proxy does that leaves responses unchanged.
fn stripped(uri: &str) -> String {
    let uri: Uri = uri.parse().unwrap();
    let path = uri.path_and_query().unwrap().as_str();
    path.strip_prefix("/v1/api")
        .expect("under the prefix")
        .to_owned()
}

/// Resolves a reference as a client does (RFC 3986 §5).
fn resolve(base: &str, reference: &str) -> String {
    let base: url::Url = base.parse().unwrap();
    base.join(reference).unwrap().into()
}

#[tokio::test(start_paused = true)]
async fn relative_links_work_under_a_stripped_prefix() {
    for dialect in [Dialect::Default, Dialect::Pending202, Dialect::SeeOther] {
        let jobs = Jobs::builder()
            .links(Links::Relative)
            .dialect(dialect)
            .build();
        let service = jobs.layer().layer(inner(async |_| ok("the result")));
        for path in ["/", "/reports", "/a/b/c", "/a/b/c/"] {
            let address = format!("https://host.example/v1/api{path}");
            let accepted = send(&service, post(&stripped(&address))).await;
            let monitor = resolve(&address, accepted.location());
            assert!(
                monitor.starts_with("https://host.example/v1/api/jobs/"),
                "{monitor}"
            );
            let operation = resolve(&address, accepted.header("operation-location").unwrap());
            let status = send(&service, get(&stripped(&operation))).await;
            tokio::time::sleep(std::time::Duration::from_secs(1)).await;
            // References in a document are relative to the monitor.
            assert_eq!(
                resolve(&monitor, status.json()["self"].as_str().unwrap()),
                monitor
            );
            let ended = send(&service, get(&stripped(&operation))).await.json();
            let result = resolve(&monitor, ended["resourceLocation"].as_str().unwrap());
            assert_eq!(result, format!("{monitor}/result"));
            let result = send(&service, get(&stripped(&result))).await;
            assert_eq!(result.text(), "the result");
            if dialect == Dialect::SeeOther {
                let see = send(&service, get(&stripped(&monitor))).await;
                let location = resolve(&monitor, see.header("location").unwrap());
                assert_eq!(location, format!("{monitor}/result"));
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn every_link_starts_with_the_public_base() {
    let base = Links::Base("https://api.example.com/v1".to_owned());
    let jobs = Jobs::builder().links(base).build();
    let service = jobs.layer().layer(inner(async |_| ok("")));
    let accepted = send(&service, post("/reports")).await;
    let monitor = format!("https://api.example.com/v1/jobs/{}", accepted.id());
    assert_eq!(accepted.location(), monitor);
    assert_eq!(accepted.header("operation-location"), Some(&*monitor));
    let link = format!("<{monitor}>; rel=\"monitor\"");
    assert_eq!(accepted.header("link"), Some(&*link));
    assert_eq!(accepted.json()["self"], monitor);
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    let document = send(&service, get(&format!("/jobs/{}", accepted.id())))
        .await
        .json();
    assert_eq!(document["resourceLocation"], format!("{monitor}/result"));
}

#[tokio::test(start_paused = true)]
async fn links_do_not_contain_the_host_of_a_request() {
    for links in [Links::Path, Links::Relative] {
        let jobs = Jobs::builder().links(links).build();
        let service = jobs.layer().layer(inner(async |_| ok("")));
        let request = with(
            post("https://evil.example/reports"),
            &[
                ("host", "evil.example"),
                ("x-forwarded-host", "evil.example"),
                ("x-forwarded-proto", "evil"),
                ("x-forwarded-prefix", "/evil"),
                ("forwarded", "host=evil.example"),
            ],
        );
        let accepted = send(&service, request).await;
        assert!(!format!("{accepted:?}").contains("evil"), "{accepted:?}");
    }
}

/// The fields of a response that are relative to the request's target.
const RELATIVE: [(&str, &str); 4] = [
    ("location", "42?full#top"),
    ("content-location", "./"),
    (
        "link",
        r#"<?page=2>; rel="next", <https://a.example/>, <>; rel="self""#,
    ),
    ("refresh", "5; url=../done"),
];

/// Creates a service whose response has all fields of [`RELATIVE`].
fn relative_service(
    jobs: &Jobs,
) -> impl tower::Service<
    http::Request<Body>,
    Response = http::Response<
        impl http_body::Body<Data = bytes::Bytes, Error: Into<tower::BoxError>>,
    >,
    Error: Into<tower::BoxError>,
    Future: Send,
> + Clone
+ Send
+ 'static {
    jobs.layer().layer(inner(async |_| {
        let mut response = http::Response::builder().status(201);
        for (name, value) in RELATIVE {
            response = response.header(name, value);
        }
        Ok(response.body(Body::from("made")).unwrap())
    }))
}

const SECOND: std::time::Duration = std::time::Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn references_in_a_result_keep_their_meaning() {
    let target = "/v1/reports/new?month=11";
    for (links, prefix) in [
        (Links::Path, "/v1/"),
        (
            Links::Base("https://api.example/x".into()),
            "https://api.example/x/v1/",
        ),
        (Links::Relative, "../../v1/"),
    ] {
        let service = relative_service(&Jobs::builder().links(links).build());
        let accepted = send(&service, post(target)).await;
        tokio::time::sleep(SECOND).await;
        let path = format!("/jobs/{}/result", accepted.id());
        let result = send(&service, get(&path)).await;
        for (name, expected) in [
            ("location", format!("{prefix}reports/42?full#top")),
            ("content-location", format!("{prefix}reports/")),
            (
                "link",
                format!(r#"<{prefix}reports/new?page=2>; rel="next", <https://a.example/>, "#,)
                    + &format!(r#"<{prefix}reports/new?month=11>; rel="self""#),
            ),
            ("refresh", format!("5; url={prefix}done")),
        ] {
            assert_eq!(result.header(name), Some(&*expected));
        }
        assert_eq!(result.header("tower-accepted-target"), None);
        assert_eq!((result.status.as_u16(), result.text()), (201, "made"));
    }
}

#[tokio::test(start_paused = true)]
async fn reference_resolves_from_each_place_of_a_result() {
    let jobs = Jobs::builder()
        .links(Links::Relative)
        .dialect(Dialect::Pending202)
        .build();
    let service = relative_service(&jobs);
    let address = "https://host.example/v1/api/reports/new";
    let accepted = send(&service, post(&stripped(address))).await;
    tokio::time::sleep(SECOND).await;
    let monitor = resolve(address, accepted.location());
    for at in [monitor.clone(), format!("{monitor}/result")] {
        let result = send(&service, get(&stripped(&at))).await;
        let location = resolve(&at, result.header("location").unwrap());
        assert_eq!(location, resolve(address, "42?full#top"));
    }
}

#[tokio::test(start_paused = true)]
async fn references_of_an_inline_response_stay_untouched() {
    let jobs = Jobs::new();
    let service = relative_service(&jobs);
    for (fields, replayed) in [
        (&[("prefer", "wait=10")][..], None),
        // A response of a job, which answers the request itself.
        (&[("prefer", "wait=10"), ("idempotency-key", "\"k\"")], None),
        (
            &[("prefer", "wait=10"), ("idempotency-key", "\"k\"")],
            Some("true"),
        ),
    ] {
        let answer = send(&service, with(post("/v1/reports/new"), fields)).await;
        assert_eq!(answer.status.as_u16(), 201);
        assert_eq!(answer.header("idempotent-replayed"), replayed);
        for (name, value) in RELATIVE {
            // A job's response has a `Link` to the monitor too.
            assert_eq!(answer.headers[name], value);
        }
        assert_eq!(answer.header("tower-accepted-target"), None);
    }
}

#[tokio::test(start_paused = true)]
async fn moved_call_knows_its_target() {
    let jobs = Jobs::new();
    let when = tower_accepted::When::After(SECOND);
    let service = jobs.layer().when(when).layer(inner(async |_| {
        tokio::time::sleep(2 * SECOND).await;
        let response = http::Response::builder().header("location", "42");
        Ok(response.body(Body::default()).unwrap())
    }));
    for length in [10, 500, 1_000, 1_100] {
        let directory = format!("/{}/", "a".repeat(length));
        let accepted = send(&service, post(&format!("{directory}new?x"))).await;
        ended(&service, &accepted).await;
        let location = result(&service, &accepted).await;
        // References of a longer target are left as they are.
        let prefix = if length <= 1_000 { &directory } else { "" };
        assert_eq!(location.header("location"), Some(&*format!("{prefix}42")));
    }
}

#[tokio::test(start_paused = true)]
async fn long_path_does_not_lengthen_the_head() {
    let jobs = Jobs::builder().links(Links::Relative).build();
    let service = jobs.layer().layer(inner(async |_| ok("")));
    let path = "/a".repeat(30_000);
    let accepted = send(&service, post(&path)).await;
    let head: usize = accepted.headers.values().map(|value| value.len()).sum();
    assert!(head < 1_000, "{head} bytes");
    let location = resolve(&format!("https://host.example{path}"), accepted.location());
    let found = send(
        &service,
        get(location.strip_prefix("https://host.example").unwrap()),
    )
    .await;
    assert_eq!(found.status.as_u16(), 200);
}
