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
