//! Serves clients of each convention with the messages that they expect.

use std::time::Duration;

use http::{Response, StatusCode};
use tokio::time::sleep;
use tower::{Layer, Service};
use tower_accepted::{Dialect, JobHandle, Jobs, Links, When};

use crate::support::*;

/// Creates a service that reports progress, takes five seconds, and fails for some paths.
fn export() -> impl Inner {
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
        for when in [
            When::After(Duration::from_secs(1)),
            When::Preferred,
            When::Streamed,
        ] {
            let service = jobs.layer().when_fn(move |_| when).layer(export());
            let answer = send(&service, prefers_async()).await;
            assert_eq!(answer.status, status, "{when:?}");
        }
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

/// Creates a service with a result for each path.
fn results() -> impl Inner<http_body_util::combinators::UnsyncBoxBody<bytes::Bytes, Failed>> {
    use http_body_util::{BodyExt, Full};
    inner(async |request| {
        sleep(Duration::from_secs(5)).await;
        let content = Full::from("the export").map_err(|never| match never {});
        let response = Response::builder()
            .header("content-type", "application/json")
            .header("location", "42")
            .header("etag", "\"v7\"")
            .header("retry-after", "9");
        let (status, body) = match request.uri().path() {
            "/breaks" => return Err(Failed),
            "/gone" => (
                204,
                Full::default()
                    .map_err(|never| match never {})
                    .boxed_unsync(),
            ),
            "/made" => (202, content.boxed_unsync()),
            _ => {
                let trailers = http::HeaderMap::from_iter([(
                    http::HeaderName::from_static("x-sum"),
                    http::HeaderValue::from_static("1"),
                )]);
                let trailers = async { Some(Ok(trailers)) };
                (200, content.with_trailers(trailers).boxed_unsync())
            }
        };
        Ok(response.status(status).body(body).unwrap())
    })
}

/// Clients of OData 4.0 expect the whole response in the body of a 200 (Part 1 §11.6).
#[tokio::test(start_paused = true)]
async fn odata_4_0_client_gets_the_result_as_a_message() {
    let fields = "content-type: application/json\r\nlocation: 42\r\netag: \"v7\"\r\n\
        retry-after: 9\r\n";
    for (path, async_result, message) in [
        (
            "/whole",
            Some("200"),
            format!("HTTP/1.1 200 OK\r\n{fields}content-length: 10\r\n\r\nthe export"),
        ),
        (
            "/made",
            Some("202"),
            format!("HTTP/1.1 202 Accepted\r\n{fields}content-length: 10\r\n\r\nthe export"),
        ),
        (
            "/gone",
            Some("204"),
            format!("HTTP/1.1 204 No Content\r\n{fields}\r\n"),
        ),
        (
            "/breaks",
            None,
            "HTTP/1.1 500 Internal Server Error\r\n".to_owned(),
        ),
    ] {
        let service = jobs_with(Dialect::Pending202).layer().layer(results());
        let accepted = send(&service, post(path)).await;
        let monitor = accepted.location();
        let message_of = async |method: &str, path: &str, field| {
            send(&service, with(request(method, path), &[field])).await
        };
        let accept = ("accept", "application/http");
        assert_eq!(
            message_of("GET", monitor, accept).await.status,
            StatusCode::ACCEPTED
        );
        sleep(Duration::from_secs(6)).await;
        let result = format!("{monitor}/result");
        for (at, field) in [
            (monitor, accept),
            (monitor, ("odata-maxversion", "4.0")),
            (&result, accept),
        ] {
            let answer = message_of("GET", at, field).await;
            assert_eq!(answer.status, StatusCode::OK, "{path}");
            for (name, value) in [
                ("content-type", "application/http"),
                ("content-transfer-encoding", "binary"),
                ("cache-control", "private, no-store"),
                ("x-content-type-options", "nosniff"),
                ("vary", "accept, prefer, odata-maxversion"),
            ] {
                assert_eq!(answer.header(name), Some(value));
            }
            assert_eq!(answer.header("asyncresult"), async_result);
            assert!(answer.text().starts_with(&message), "{}", answer.text());
            assert!(async_result.is_none() || answer.text() == message);
            let length = answer.body.len().to_string();
            assert_eq!(answer.header("content-length"), Some(&*length));
            assert_eq!((answer.header("etag"), &answer.trailers), (None, &None));
            let head = message_of("HEAD", at, field).await;
            assert_eq!(
                (head.header("content-length"), head.body.len()),
                (Some(&*length), 0)
            );
        }
        let plain = message_of("GET", monitor, ("accept", "application/http;q=0.5, */*")).await;
        assert_ne!(plain.header("content-type"), Some("application/http"));
    }
}

#[tokio::test(start_paused = true)]
async fn message_has_its_own_preconditions() {
    let service = jobs_with(Dialect::Default).layer().layer(results());
    let accepted = send(&service, post("/")).await;
    ended(&service, &accepted).await;
    let path = format!("{}/result", accepted.location());
    for (name, value, status) in [
        ("range", "bytes=0-3", StatusCode::OK),
        ("if-none-match", "\"v7\"", StatusCode::OK),
        ("if-match", "\"v7\"", StatusCode::PRECONDITION_FAILED),
        ("if-match", "*", StatusCode::OK),
        // Only with `Pending202` is this the default of old clients.
        ("odata-maxversion", "4.0", StatusCode::OK),
    ] {
        let fields = [("accept", "application/http"), (name, value)];
        let answer = send(&service, with(get(&path), &fields)).await;
        assert_eq!(answer.status, status, "{name}");
    }
    let old = with(get(&path), &[("odata-maxversion", "4.0")]);
    assert_eq!(send(&service, old).await.text(), "the export");
}
