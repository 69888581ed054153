//! Layers and services that take only one type of request body, inside this layer.

use axum::{
    Router,
    extract::Request,
    middleware::{self, Next},
    response::Response,
};
use bytes::Bytes;
use http_body::Body as HttpBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use tower::{BoxError, Layer, Service, ServiceBuilder, service_fn};
use tower_accepted::{AcceptedLayer, RequestBody};
use tower_http::map_request_body::MapRequestBodyLayer;

use crate::support::*;

/// Accepts only axum's own body.
async fn audit(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    response
        .headers_mut()
        .insert("audited", "yes".parse().unwrap());
    response
}

#[tokio::test(start_paused = true)]
async fn from_fn_goes_inside_one_builder_after_a_conversion() {
    let app = Router::new()
        .route("/echo", axum::routing::post(echo))
        .layer(
            ServiceBuilder::new()
                .layer(AcceptedLayer::new())
                .layer(MapRequestBodyLayer::new(Body::new))
                .layer(middleware::from_fn(audit)),
        );
    let accepted = send(&app, post("/echo").map(|_| Body::from("again"))).await;
    ended(&app, &accepted).await;
    let result = result(&app, &accepted).await;
    assert_eq!(
        (result.text(), result.header("audited")),
        ("again", Some("yes"))
    );
}

#[tokio::test(start_paused = true)]
async fn from_fn_goes_inside_by_another_layer_call() {
    let app = Router::new()
        .route("/echo", axum::routing::post(echo))
        .layer(middleware::from_fn(audit))
        .layer(AcceptedLayer::new());
    let accepted = send(&app, post("/echo").map(|_| Body::from("again"))).await;
    ended(&app, &accepted).await;
    assert_eq!(result(&app, &accepted).await.header("audited"), Some("yes"));
}

/// Accepts any body, as the guide has it.
async fn count<B>(request: http::Request<B>) -> Result<http::Response<Full<Bytes>>, BoxError>
where
    B: HttpBody<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    let body = request.into_body().collect().await.map_err(Into::into)?;
    Ok(http::Response::new(
        format!("{} bytes", body.to_bytes().len()).into(),
    ))
}

#[tokio::test(start_paused = true)]
async fn function_of_any_body_serves_hyper_and_tests() {
    fn is_served_by_hyper<S: Service<http::Request<Incoming>>>(_: &S) {}
    let layer = AcceptedLayer::new();
    is_served_by_hyper(&layer.layer(service_fn(count::<RequestBody<Incoming>>)));

    let service = layer.layer(service_fn(count::<RequestBody<Body>>));
    let accepted = send(&service, post("/").map(|_| Body::from("again"))).await;
    ended(&service, &accepted).await;
    assert_eq!(result(&service, &accepted).await.text(), "5 bytes");
}
