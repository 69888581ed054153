use http::StatusCode;
use tower::{Layer, service_fn};
use tower_accepted::AcceptedLayer;

use crate::support::*;

#[tokio::test(start_paused = true)]
async fn smoke() {
    let service = AcceptedLayer::new().layer(service_fn(
        |r: http::Request<tower_accepted::RequestBody<Body>>| async move {
            tokio::time::sleep(std::time::Duration::from_secs(3)).await;
            Ok::<_, std::convert::Infallible>(
                http::Response::builder()
                    .status(201)
                    .header("x-a", "b")
                    .body(Body::from("hi"))
                    .unwrap(),
            )
        },
    ));
    let a = send(&service, post("/x")).await;
    eprintln!("{a:?}");
    let d = ended(&service, &a).await;
    eprintln!("{d}");
    let r = result(&service, &a).await;
    eprintln!("{r:?}");
    assert_eq!(r.status, StatusCode::CREATED);
}
