//! Requests that one process accepts, and another runs.

use http::{Request, StatusCode};
use http_body_util::BodyExt;
use tower_accepted::{Jobs, RequestBody};

use crate::{
    server::Servers,
    site::{ended, layered, options, process, work},
    support::{self, Body, Failed, get, inner, ok, post, send},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_accepted_here_run_there_and_answered_anywhere() {
    let Some(servers) = Servers::one().await else {
        return;
    };
    let web = process(&servers, options(), Jobs::builder()).await;
    let worker = process(&servers, options(), Jobs::builder()).await;
    let other = process(&servers, options(), Jobs::builder()).await;
    let never = inner(async |_| -> Result<http::Response<Body>, Failed> {
        panic!("the web process runs nothing")
    });
    let (web, other) = (layered(&web, never.clone()), layered(&other, never));

    let mut request = post("/reports?kind=long");
    request
        .headers_mut()
        .insert("x-given", "yes".parse().unwrap());
    *request.body_mut() = Body::from("the body");
    let accepted = send(&web, request).await;
    assert_eq!(accepted.status, StatusCode::ACCEPTED, "{accepted:?}");
    let location = accepted.location().to_owned();
    let queued = send(&other, get(&location)).await;
    assert_eq!(queued.json()["status"], "queued");

    let working = work(
        &worker,
        inner(async |request: Request<RequestBody<Body>>| {
            let (head, body) = request.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            let given = head.headers["x-given"].to_str().unwrap();
            let text = format!("{} {} {given} {body:?}", head.method, head.uri);
            let mut response = ok("").unwrap();
            response
                .headers_mut()
                .insert("x-made", "there".parse().unwrap());
            *response.body_mut() = Body::from(text);
            Ok::<_, Failed>(response)
        }),
    );
    let answer = ended(&other, &location).await;
    assert_eq!(answer.json()["status"], "succeeded", "{answer:?}");
    for site in [&web, &other] {
        let result = support::result(site, &accepted).await;
        assert_eq!(result.header("x-made"), Some("there"));
        assert_eq!(result.text(), "POST /reports?kind=long yes b\"the body\"");
    }
    worker.drain(std::time::Duration::from_secs(5)).await;
    working.await.unwrap();
}
