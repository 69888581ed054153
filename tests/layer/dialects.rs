//! Clients of each convention, by the messages that they send and expect.

use std::time::Duration;

use http::{Response, StatusCode};
use tokio::time::sleep;
use tower::{Layer, Service};
use tower_accepted::{Dialect, JobHandle, Jobs, RequestBody, When};

use crate::support::*;

/// A service that takes a while, reports, and fails where it is asked to.
fn export() -> impl Service<
    http::Request<RequestBody<Body>>,
    Response = Response<Body>,
    Error = Failed,
    Future: Send,
> + Clone
+ Send
+ 'static {
    inner(async |request| {
        let job = JobHandle::current();
        job.progress(0.4);
        job.message("page 4 – of 10");
        sleep(Duration::from_secs(5)).await;
        match request.uri().path() {
            "/breaks" => Err(Failed),
            "/fails" => {
                let response = Response::builder().status(422);
                Ok(response.body(Body::from("no")).unwrap())
            }
            _ => ok("the export"),
        }
    })
}

fn speaking(dialect: Dialect) -> Jobs {
    Jobs::builder().dialect(dialect).build()
}

async fn looked<S>(service: &S, path: &str) -> Answer
where
    S: Service<http::Request<Body>> + Clone,
    S: Service<http::Request<Body>, Response = Response<tower_accepted::ResponseBody<Body>>>,
    <S as Service<http::Request<Body>>>::Error: Into<tower::BoxError>,
{
    send(service, get(path)).await
}

/// azure-core and @azure/core-lro: 202 or 201 with `Operation-Location`; poll it until `status` is
/// final, whatever its case; then GET `resourceLocation`.
#[tokio::test(start_paused = true)]
async fn a_client_of_azures_convention_is_served() {
    let service = speaking(Dialect::Default).layer().layer(export());
    for path in ["/", "/fails", "/breaks"] {
        let accepted = send(&service, post(path)).await;
        let operation = accepted.header("operation-location").unwrap();
        let last = loop {
            let answer = looked(&service, operation).await;
            assert_eq!(answer.status, StatusCode::OK);
            let document = answer.json();
            let status = document["status"].as_str().unwrap().to_lowercase();
            if ["succeeded", "failed", "canceled"].contains(&&*status) {
                break document;
            }
            let seconds = answer.header("retry-after").unwrap().parse().unwrap();
            sleep(Duration::from_secs(seconds)).await;
        };
        match path {
            "/" => {
                assert_eq!(last["status"], "succeeded");
                let resource = last["resourceLocation"].as_str().unwrap();
                assert_eq!(looked(&service, resource).await.text(), "the export");
            }
            _ => {
                assert_eq!(last["status"], "failed");
                assert!(last["error"]["code"].is_string() && last["error"]["message"].is_string());
            }
        }
    }
}

/// FHIR's bulk export and OData: GET or POST with `Prefer: respond-async`; 202 with
/// `Content-Location`; poll it while 202; any other status is the end.
#[tokio::test(start_paused = true)]
async fn a_client_of_fhirs_or_odatas_convention_is_served() {
    let service = speaking(Dialect::Pending202).layer().layer(export());
    for (path, status) in [("/", 200), ("/fails", 422), ("/breaks", 500)] {
        let request = with(get(path), &[("prefer", "respond-async")]);
        let accepted = send(&service, request).await;
        assert_eq!(accepted.header("preference-applied"), Some("respond-async"));
        let monitor = accepted.header("content-location").unwrap();
        assert_eq!(accepted.location(), monitor);
        let document = accepted.header("operation-location").unwrap();
        assert_eq!(document, format!("{monitor}/status"));
        sleep(Duration::from_secs(1)).await;
        let pending = looked(&service, monitor).await;
        assert_eq!(pending.status, StatusCode::ACCEPTED);
        assert_eq!(pending.header("x-progress"), Some("40% page 4  of 10"));
        assert_eq!(pending.header("content-location"), Some(monitor));
        assert!(pending.header("retry-after").is_some());
        assert_eq!(looked(&service, document).await.status, StatusCode::OK);
        sleep(Duration::from_secs(10)).await;
        let ended = looked(&service, monitor).await;
        assert_eq!(ended.status, status);
        let is_response = path != "/breaks";
        assert_eq!(ended.header("asyncresult").is_some(), is_response);
        if is_response {
            assert_eq!(ended.header("asyncresult"), Some(&*status.to_string()));
        }
        assert_eq!(looked(&service, document).await.status, StatusCode::OK);
        let deleted = send(
            &service,
            http::Request::delete(monitor).body(Body::empty()).unwrap(),
        );
        assert_eq!(deleted.await.status, StatusCode::ACCEPTED);
        assert_eq!(
            looked(&service, monitor).await.status,
            StatusCode::NOT_FOUND
        );
    }
}

#[tokio::test(start_paused = true)]
async fn only_where_the_dialect_has_it_a_get_becomes_a_job() {
    for (dialect, status) in [
        (Dialect::Default, 200),
        (Dialect::SeeOther, 200),
        (Dialect::Pending202, 202),
    ] {
        let jobs = speaking(dialect);
        let asked = || with(get("/"), &[("prefer", "respond-async")]);
        let service = jobs.layer().layer(export());
        assert_eq!(send(&service, asked()).await.status, status);
        assert_eq!(send(&service, get("/")).await.status, 200, "unasked");
        let never = jobs.layer().when(When::Never).layer(export());
        assert_eq!(send(&never, asked()).await.status, 200);
    }
}

/// `curl -L`, a browser and most libraries: follow 303 with a GET, and nothing else is known.
#[tokio::test(start_paused = true)]
async fn a_client_that_only_follows_redirects_is_served() {
    let service = speaking(Dialect::SeeOther).layer().layer(export());
    for (path, status) in [("/", 200), ("/fails", 422), ("/breaks", 500)] {
        let accepted = send(&service, post(path)).await;
        let monitor = accepted.location();
        assert_eq!(accepted.header("content-location"), None);
        let pending = looked(&service, monitor).await;
        assert_eq!(pending.status, StatusCode::ACCEPTED);
        assert!(pending.json()["status"].is_string());
        assert_eq!(pending.header("x-progress"), None);
        sleep(Duration::from_secs(10)).await;
        let ended = looked(&service, monitor).await;
        assert_eq!(ended.status, StatusCode::SEE_OTHER);
        assert!(ended.json()["finishedAt"].is_string());
        let result = looked(&service, ended.header("location").unwrap()).await;
        assert_eq!(result.status, status);
        let document = looked(&service, &format!("{monitor}/status")).await;
        assert_eq!(document.status, StatusCode::OK);
        let deleted = send(
            &service,
            http::Request::delete(monitor).body(Body::empty()).unwrap(),
        );
        assert_eq!(deleted.await.status, StatusCode::NO_CONTENT);
    }
}

/// A client written with care: waits instead of polling, and sends what it has.
#[tokio::test(start_paused = true)]
async fn a_careful_client_needs_two_requests() {
    for dialect in [Dialect::Default, Dialect::Pending202, Dialect::SeeOther] {
        let service = speaking(dialect).layer().layer(export());
        let request = with(
            post("/"),
            &[("prefer", "respond-async"), ("idempotency-key", "k")],
        );
        let accepted = send(&service, request).await;
        let result = get(&format!("{}/result", accepted.location()));
        let result = send(&service, with(result, &[("prefer", "wait=30")])).await;
        assert_eq!(
            (result.status, result.text()),
            (StatusCode::OK, "the export")
        );
        assert_eq!(result.header("preference-applied"), Some("wait=30"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_wait_at_the_monitor_ends_as_the_dialect_has_it() {
    for (dialect, status) in [
        (Dialect::Default, 200),
        (Dialect::Pending202, 200),
        (Dialect::SeeOther, 303),
    ] {
        let service = speaking(dialect).layer().layer(export());
        let accepted = send(&service, post("/")).await;
        let waiting = with(get(accepted.location()), &[("prefer", "wait=30")]);
        assert_eq!(send(&service, waiting).await.status, status);
    }
}
