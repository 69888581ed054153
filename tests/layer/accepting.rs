//! Follows a request from the 202 to its result.

use std::time::Duration;

use http::StatusCode;
use http_body_util::BodyExt;
use tokio::time::sleep;
use tower::Layer;
use tower_accepted::{AcceptedLayer, Jobs};

use crate::support::*;

#[tokio::test(start_paused = true)]
async fn slow_call_is_accepted_and_its_result_fetched() {
    let service = AcceptedLayer::new().layer(inner(async |request| {
        sleep(Duration::from_secs(90)).await;
        let body = request.into_body().collect().await.unwrap().to_bytes();
        let mut response = http::Response::new(Body::from(body));
        *response.status_mut() = StatusCode::CREATED;
        response
            .headers_mut()
            .insert("x-page", "1".parse().unwrap());
        Ok(response)
    }));
    let accepted = send(&service, post("/reports").map(|_| "the request".into())).await;
    assert_eq!(accepted.status, StatusCode::ACCEPTED);
    assert_eq!(accepted.json()["status"], "queued");

    let waiting = send(&service, get(accepted.location())).await;
    assert_eq!(waiting.status, StatusCode::OK);
    assert!(waiting.header("retry-after").is_some());
    let early = result(&service, &accepted).await;
    assert_eq!(early.status, StatusCode::ACCEPTED);
    assert!(early.header("retry-after").is_some());

    let document = ended(&service, &accepted).await;
    assert_eq!(document["status"], "succeeded");
    assert_eq!(document["response"]["status"], 201);
    assert_eq!(document["response"]["contentLength"], 11);
    let location = document["resourceLocation"].as_str().unwrap();
    for _ in 0..3 {
        let result = send(&service, get(location)).await;
        assert_eq!(result.status, StatusCode::CREATED);
        assert_eq!(result.header("asyncresult"), Some("201"));
        assert_eq!(result.header("x-page"), Some("1"));
        assert_eq!(result.text(), "the request");
    }
}

#[tokio::test(start_paused = true)]
async fn accepted_response_links_the_monitor() {
    let service = AcceptedLayer::new().layer(inner(async |_| ok("")));
    let mut request = post("/reports?secret=1");
    let prefer = "respond-async".parse().unwrap();
    request.headers_mut().insert("prefer", prefer);
    let accepted = send(&service, request).await;
    let location = accepted.location().to_owned();
    assert_eq!(location, format!("/jobs/{}", accepted.id()));
    assert_eq!(accepted.header("operation-location"), Some(&*location));
    let monitor = format!("<{location}>; rel=\"monitor\"");
    assert_eq!(accepted.header("link"), Some(&*monitor));
    assert_eq!(accepted.header("retry-after"), Some("1"));
    assert_eq!(accepted.header("preference-applied"), Some("respond-async"));
    assert_eq!(accepted.header("vary"), Some("prefer"));
    assert_eq!(accepted.header("cache-control"), Some("no-store"));
    assert_eq!(accepted.header("content-type"), Some("application/json"));
    let document = accepted.json();
    assert_eq!(document["id"], accepted.id().to_string());
    assert_eq!(document["self"], location);
    assert!(!accepted.text().contains("secret"), "the query is echoed");
    assert!(!accepted.text().contains("null"), "a member is null");

    let without_prefer = send(&service, post("/reports")).await;
    assert_eq!(without_prefer.header("preference-applied"), None);
}

#[tokio::test(start_paused = true)]
async fn inner_service_receives_the_same_request() {
    #[derive(Debug, Clone, PartialEq)]
    struct Principal(&'static str);

    let service = AcceptedLayer::new().layer(inner(async |request| {
        assert_eq!(request.method(), "PATCH");
        assert_eq!(request.uri(), "/a/b?c=d");
        assert_eq!(request.version(), http::Version::HTTP_2);
        assert_eq!(request.headers().get_all("x").iter().count(), 2);
        assert_eq!(request.extensions().get(), Some(&Principal("me")));
        let body = request.into_body().collect().await.unwrap();
        let trailer = body.trailers().unwrap()["sum"].clone();
        Ok(http::Response::builder()
            .header("sum", trailer)
            .body(Body::from(body.to_bytes()))
            .unwrap())
    }));
    let mut trailers = http::HeaderMap::new();
    trailers.insert("sum", "42".parse().unwrap());
    let request = http::Request::builder()
        .method("PATCH")
        .uri("/a/b?c=d")
        .version(http::Version::HTTP_2)
        .header("x", "1")
        .header("x", "2")
        .extension(Principal("me"))
        .body(Body::new(
            Body::from("body").with_trailers(std::future::ready(Some(Ok(trailers)))),
        ))
        .unwrap();
    let accepted = send(&service, request).await;
    assert_eq!(ended(&service, &accepted).await["status"], "succeeded");
    let result = result(&service, &accepted).await;
    assert_eq!((result.header("sum"), result.text()), (Some("42"), "body"));
}

#[tokio::test(start_paused = true)]
async fn layers_of_a_registry_share_its_jobs() {
    let jobs = Jobs::new();
    let one = jobs.layer().layer(inner(async |_| ok("one")));
    let other = jobs.clone().layer().layer(inner(async |_| ok("other")));
    let accepted = send(&one, post("/")).await;
    assert_eq!(ended(&other, &accepted).await["status"], "succeeded");
    assert_eq!(result(&other, &accepted).await.text(), "one");
    let snapshot = jobs.get(accepted.id()).await.unwrap().unwrap();
    assert_eq!(snapshot.id, accepted.id());

    let unrelated = AcceptedLayer::new().layer(inner(async |_| ok("")));
    let answer = send(&unrelated, get(accepted.location())).await;
    assert_eq!(answer.status, StatusCode::NOT_FOUND);
}

#[tokio::test(start_paused = true)]
async fn monitor_finds_a_job_right_after_its_202() {
    let service = AcceptedLayer::new().layer(inner(async |_| ok("")));
    for _ in 0..1_000 {
        let accepted = send(&service, post("/")).await;
        let answer = send(&service, get(accepted.location())).await;
        assert_eq!(answer.status, StatusCode::OK);
    }
}
