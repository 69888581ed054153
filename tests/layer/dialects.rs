//! Serves clients of each convention with the messages that they expect.

use std::time::Duration;

use http::{Response, StatusCode};
use tokio::time::sleep;
use tower::{Layer, Service};
use tower_accepted::{Dialect, JobHandle, Jobs, Links, RequestBody, When};

use crate::support::*;

/// Creates a service that reports progress, takes five seconds, and fails for some paths.
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

fn jobs_with(dialect: Dialect) -> Jobs {
    Jobs::builder().dialect(dialect).build()
}

async fn get_path<S>(service: &S, path: &str) -> Answer
where
    S: Service<http::Request<Body>> + Clone,
    S: Service<http::Request<Body>, Response = Response<tower_accepted::ResponseBody<Body>>>,
    <S as Service<http::Request<Body>>>::Error: Into<tower::BoxError>,
{
    send(service, get(path)).await
}

/// azure-core and @azure/core-lro poll the `Operation-Location` of a 202 or 201. They stop at a
/// final `status` in upper or lower case, and GET `resourceLocation`.
#[tokio::test(start_paused = true)]
async fn azure_client_polls_operation_location() {
    let service = jobs_with(Dialect::Default).layer().layer(export());
    for path in ["/", "/fails", "/breaks"] {
        let accepted = send(&service, post(path)).await;
        let operation = accepted.header("operation-location").unwrap();
        let last = loop {
            let answer = get_path(&service, operation).await;
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
                assert_eq!(get_path(&service, resource).await.text(), "the export");
            }
            _ => {
                assert_eq!(last["status"], "failed");
                assert!(last["error"]["code"].is_string() && last["error"]["message"].is_string());
            }
        }
    }
}

/// Clients of FHIR's bulk export and of OData send a GET or POST with `Prefer: respond-async`. They
/// poll the `Content-Location` of the 202 until its status is not 202.
#[tokio::test(start_paused = true)]
async fn fhir_and_odata_clients_poll_while_202() {
    let service = jobs_with(Dialect::Pending202).layer().layer(export());
    for (path, status) in [("/", 200), ("/fails", 422), ("/breaks", 500)] {
        let request = with(get(path), &[("prefer", "respond-async")]);
        let accepted = send(&service, request).await;
        assert_eq!(accepted.header("preference-applied"), Some("respond-async"));
        let monitor = accepted.header("content-location").unwrap();
        assert_eq!(accepted.location(), monitor);
        let document = accepted.header("operation-location").unwrap();
        assert_eq!(document, format!("{monitor}/status"));
        sleep(Duration::from_secs(1)).await;
        let pending = get_path(&service, monitor).await;
        assert_eq!(pending.status, StatusCode::ACCEPTED);
        assert_eq!(pending.header("x-progress"), Some("40% page 4  of 10"));
        assert_eq!(pending.header("content-location"), Some(monitor));
        assert!(pending.header("retry-after").is_some());
        assert_eq!(get_path(&service, document).await.status, StatusCode::OK);
        sleep(Duration::from_secs(10)).await;
        let ended = get_path(&service, monitor).await;
        assert_eq!(ended.status, status);
        let is_response = path != "/breaks";
        assert_eq!(ended.header("asyncresult").is_some(), is_response);
        if is_response {
            assert_eq!(ended.header("asyncresult"), Some(&*status.to_string()));
        }
        assert_eq!(get_path(&service, document).await.status, StatusCode::OK);
        let deleted = send(
            &service,
            http::Request::delete(monitor).body(Body::empty()).unwrap(),
        );
        assert_eq!(deleted.await.status, StatusCode::ACCEPTED);
        assert_eq!(
            get_path(&service, monitor).await.status,
            StatusCode::NOT_FOUND
        );
    }
}

#[tokio::test(start_paused = true)]
async fn get_becomes_a_job_only_with_pending_202() {
    for (dialect, status) in [
        (Dialect::Default, 200),
        (Dialect::SeeOther, 200),
        (Dialect::Pending202, 202),
    ] {
        let jobs = jobs_with(dialect);
        let prefers_async = || with(get("/"), &[("prefer", "respond-async")]);
        let service = jobs.layer().layer(export());
        assert_eq!(send(&service, prefers_async()).await.status, status);
        assert_eq!(send(&service, get("/")).await.status, 200, "no Prefer");
        let never = jobs.layer().when(When::Never).layer(export());
        assert_eq!(send(&never, prefers_async()).await.status, 200);
    }
}

/// `curl -L`, browsers and most libraries follow a 303 with a GET, and know no convention.
#[tokio::test(start_paused = true)]
async fn redirect_client_reaches_the_result() {
    let service = jobs_with(Dialect::SeeOther).layer().layer(export());
    for (path, status) in [("/", 200), ("/fails", 422), ("/breaks", 500)] {
        let accepted = send(&service, post(path)).await;
        let monitor = accepted.location();
        assert_eq!(accepted.header("content-location"), None);
        let pending = get_path(&service, monitor).await;
        assert_eq!(pending.status, StatusCode::ACCEPTED);
        assert!(pending.json()["status"].is_string());
        assert_eq!(pending.header("x-progress"), None);
        sleep(Duration::from_secs(10)).await;
        let ended = get_path(&service, monitor).await;
        assert_eq!(ended.status, StatusCode::SEE_OTHER);
        assert!(ended.json()["finishedAt"].is_string());
        let result = get_path(&service, ended.header("location").unwrap()).await;
        assert_eq!(result.status, status);
        let document = get_path(&service, &format!("{monitor}/status")).await;
        assert_eq!(document.status, StatusCode::OK);
        let deleted = send(
            &service,
            http::Request::delete(monitor).body(Body::empty()).unwrap(),
        );
        assert_eq!(deleted.await.status, StatusCode::NO_CONTENT);
    }
}

/// A client can wait instead of polling, and send an idempotency key.
#[tokio::test(start_paused = true)]
async fn waiting_client_needs_two_requests() {
    for dialect in [Dialect::Default, Dialect::Pending202, Dialect::SeeOther] {
        let service = jobs_with(dialect).layer().layer(export());
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
async fn wait_ends_with_the_response_of_the_dialect() {
    for (dialect, status) in [
        (Dialect::Default, 200),
        (Dialect::Pending202, 200),
        (Dialect::SeeOther, 303),
    ] {
        let service = jobs_with(dialect).layer().layer(export());
        let accepted = send(&service, post("/")).await;
        let waiting = with(get(accepted.location()), &[("prefer", "wait=30")]);
        assert_eq!(send(&service, waiting).await.status, status);
    }
}

/// OData 4.01 Part 1 §11.6 has `Location` in each 202; a client of Apache Olingo needs it.
#[tokio::test(start_paused = true)]
async fn each_202_of_pending_202_has_a_location() {
    for (links, from_monitor, from_result) in [
        (Links::Path, "/jobs/ID", "/jobs/ID"),
        (Links::Relative, "ID", "../ID"),
    ] {
        let jobs = Jobs::builder().dialect(Dialect::Pending202).links(links);
        let service = jobs.build().layer().layer(export());
        let id = send(&service, post("/")).await.id();
        let monitor = format!("/jobs/{id}");
        for (method, path, location) in [
            ("GET", monitor.clone(), from_monitor),
            ("GET", format!("{monitor}/result"), from_result),
            ("DELETE", monitor, from_monitor),
        ] {
            let answer = send(&service, request(method, &path)).await;
            assert_eq!(answer.status, StatusCode::ACCEPTED, "{method} {path}");
            let location = location.replace("ID", &id.to_string());
            assert_eq!(answer.header("location"), Some(&*location));
        }
    }
}
