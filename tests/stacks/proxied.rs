//! Links behind proxies and routers that strip a path prefix, resolved by a client.

use axum::{Router, extract::State, response::IntoResponse, routing::post};
use http::{Request, StatusCode};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use tokio::net::TcpListener;
use tower_accepted::{Dialect, Jobs, Links};
use url::Url;

use crate::support::{Answer, Body, REPORT};

type HttpClient = Client<HttpConnector, Body>;

async fn listen(app: Router) -> Url {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(axum::serve(listener, app).into_future());
    format!("http://{address}/").parse().unwrap()
}

/// Creates a reverse proxy that strips `/public/v1` and forwards responses unchanged.
fn stripping(upstream: Url) -> Router {
    let client: HttpClient = Client::builder(TokioExecutor::new()).build_http();
    let forward = async |State((client, upstream)): State<(HttpClient, Url)>,
                         mut request: Request<Body>| {
        let path = request.uri().path_and_query().unwrap().as_str();
        let Some(path) = path.strip_prefix("/public/v1") else {
            return StatusCode::NOT_FOUND.into_response();
        };
        *request.uri_mut() = upstream.join(path).unwrap().as_str().parse().unwrap();
        client.request(request).await.unwrap().into_response()
    };
    Router::new()
        .fallback(forward)
        .with_state((client, upstream))
}

/// Submits a job to `address`, then resolves and follows its links to the result.
async fn follow(address: Url) {
    let client: HttpClient = Client::builder(TokioExecutor::new()).build_http();
    let send = async |method: &str, url: &Url| {
        let request = Request::builder().method(method).uri(url.as_str());
        let request = if method == "GET" {
            request.header("prefer", "wait=30")
        } else {
            request
        };
        let response = client.request(request.body(Body::empty()).unwrap()).await;
        Answer::read(response.unwrap()).await
    };
    let accepted = send("POST", &address).await;
    let monitor = address.join(accepted.location()).unwrap();
    let status = address
        .join(accepted.header("operation-location").unwrap())
        .unwrap();
    let answer = send("GET", &status).await;
    assert_eq!(answer.status, StatusCode::OK, "{status}");
    let document = answer.json();
    assert_eq!(
        monitor.join(document["self"].as_str().unwrap()).unwrap(),
        monitor
    );
    let result = monitor
        .join(document["resourceLocation"].as_str().unwrap())
        .unwrap();
    assert_eq!(send("GET", &result).await.text(), REPORT);
}

fn relative(dialect: Dialect) -> Jobs {
    Jobs::builder()
        .links(Links::Relative)
        .dialect(dialect)
        .build()
}

#[tokio::test]
async fn relative_links_work_behind_a_stripping_proxy() {
    for dialect in [Dialect::Default, Dialect::Pending202, Dialect::SeeOther] {
        let jobs = relative(dialect);
        let app = Router::new()
            .route("/a/reports", post(async || REPORT))
            .layer(jobs.layer());
        let proxy = listen(stripping(listen(app).await)).await;
        follow(proxy.join("/public/v1/a/reports").unwrap()).await;
    }
}

#[tokio::test]
async fn relative_links_work_under_nest() {
    let jobs = relative(Dialect::Default);
    let api = Router::new()
        .route("/a/reports", post(async || REPORT))
        .nest_service("/jobs", jobs.monitor())
        .layer(jobs.layer());
    let app = Router::new().nest("/public/v1", api);
    follow(listen(app).await.join("/public/v1/a/reports").unwrap()).await;
}

#[tokio::test]
async fn public_base_works_behind_a_stripping_proxy() {
    // The service needs the address of the proxy, so the proxy's port is bound first.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = format!("http://{}/public/v1", listener.local_addr().unwrap());
    let jobs = Jobs::builder().links(Links::Base(proxy.clone())).build();
    let app = Router::new()
        .route("/reports", post(async || REPORT))
        .layer(jobs.layer());
    let upstream = listen(app).await;
    tokio::spawn(axum::serve(listener, stripping(upstream)).into_future());
    follow(format!("{proxy}/reports").parse().unwrap()).await;
}
