//! Tests streamed responses over real connections, which cannot show a break or are cut.

use std::{collections::VecDeque, convert::Infallible, net::SocketAddr, time::Duration};

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use rand::{Rng, RngExt, SeedableRng, rngs::StdRng};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, copy},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tower::{Layer, ServiceExt, service_fn};
use tower_accepted::Jobs;

use crate::{
    stream_script::streaming,
    streaming::{Step, produce},
    support::*,
};

/// A pause of tests in real time.
const TICK: Duration = Duration::from_millis(1);

/// A server of HTTP/1.0 that sends each part of the output in a connection of its own. Only the
/// end of the connection ends a response.
async fn serve_http10(listener: TcpListener, mut parts: VecDeque<&'static str>, whole: usize) {
    let mut log = Vec::new();
    let mut sent = 0;
    loop {
        let (connection, _) = listener.accept().await.expect("a connection");
        let mut connection = BufReader::new(connection);
        let line = read_head(&mut connection).await;
        let response = if line.starts_with("POST /reports ") {
            "202 Accepted\r\nlink: </jobs/1>; rel=\"monitor\"\r\n\r\n".to_owned()
        } else if line.starts_with("GET /jobs/1/stream") {
            let at = if sent > 0 {
                format!("?offset={sent}")
            } else {
                String::new()
            };
            assert!(
                line.contains(&format!("stream{at} ")),
                "{line} after {log:?}"
            );
            let part = parts.pop_front().expect("no request too many");
            sent += part.len();
            format!("200 OK\r\nasyncresult: 200\r\netag: \"run-1\"\r\n\r\n{part}")
        } else {
            assert!(line.starts_with("GET /jobs/1/status "), "{line}");
            let document = if parts.is_empty() {
                format!(r#"{{"status":"succeeded","response":{{"contentLength":{whole}}}}}"#)
            } else {
                r#"{"status":"running"}"#.to_owned()
            };
            format!("200 OK\r\ncontent-type: application/json\r\n\r\n{document}")
        };
        log.push(line);
        let response = format!("HTTP/1.0 {response}");
        connection
            .write_all(response.as_bytes())
            .await
            .expect("a reader");
        connection.shutdown().await.expect("a reader");
    }
}

/// Reads a request without a body, and returns its first line.
async fn read_head(connection: &mut BufReader<TcpStream>) -> String {
    let mut lines = connection.lines();
    let first = lines.next_line().await.expect("a request").expect("a line");
    while lines
        .next_line()
        .await
        .expect("a request")
        .is_some_and(|line| !line.is_empty())
    {}
    first
}

#[tokio::test]
async fn end_of_an_http10_connection_is_verified() {
    for parts in [
        vec!["the report"],
        vec!["the ", "", "rep", "ort"],
        vec!["", "the report"],
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let server = tokio::spawn(serve_http10(listener, parts.into(), "the report".len()));
        let client = Client::builder(TokioExecutor::new()).build_http::<Body>();
        let layer = streaming().pauses(TICK, TICK);
        let mut post = Request::post(format!("http://{address}/reports"));
        post = post.header("connection", "close");
        let post = post.body(Full::default()).expect("a request");
        let response = layer.layer(client).oneshot(post).await.expect("a response");
        let (data, error) = read(response.into_body()).await;
        assert!(error.is_none(), "{error:?}");
        assert_eq!(data, "the report");
        server.abort();
    }
}

/// Forwards each connection to `server`, and cuts those of follow-up requests after a random number
/// of bytes.
async fn cut_connections(listener: TcpListener, server: SocketAddr, cuts: usize, seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    let mut connections = JoinSet::new();
    for number in 0_usize.. {
        let (mut client, _) = listener.accept().await.expect("a connection");
        // The first one has the original request, which is never sent again.
        let is_cut = (1..=cuts).contains(&number);
        let limit = if is_cut {
            random.random_range(0..20_000)
        } else {
            u64::MAX
        };
        connections.spawn(async move {
            let mut server = TcpStream::connect(server).await.expect("a server");
            let (mut requests, mut to_client) = client.split();
            let (responses, mut to_server) = server.split();
            let mut responses = responses.take(limit);
            // The first direction that ends closes both.
            tokio::select! {
                _ = copy(&mut requests, &mut to_server) => {}
                _ = copy(&mut responses, &mut to_client) => {}
            }
        });
    }
}

#[tokio::test]
async fn body_survives_cuts_of_real_connections() {
    for seed in 0..10 {
        let mut whole = vec![0; 100_000];
        StdRng::seed_from_u64(seed).fill_bytes(&mut whole);
        let whole = Bytes::from(whole);
        let chunks = whole.chunks(5000).map(Bytes::copy_from_slice);
        let steps = chunks.flat_map(|chunk| [Step::Data(chunk), Step::Sleep(TICK)]);
        let steps: Vec<_> = steps.collect();
        let app = Jobs::new().layer().layer(service_fn(move |_| {
            let steps = steps.clone();
            async move { Ok::<_, Infallible>(produce(steps).map(axum::body::Body::new)) }
        }));
        let app = axum::Router::new().fallback_service(app);
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let server = listener.local_addr().expect("an address");
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { axum::serve(listener, app).await.expect("a server") });
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        tasks.spawn(cut_connections(listener, server, 20, seed));
        let client = Client::builder(TokioExecutor::new())
            .pool_max_idle_per_host(0)
            .build_http::<Body>();
        let layer = streaming().pauses(TICK, TICK).max_failures(100);
        let post = Request::post(format!("http://{address}/")).body(Full::default());
        let post = post.expect("a request");
        let response = layer.layer(client).oneshot(post).await.expect("a response");
        assert_eq!(response.status(), StatusCode::CREATED);
        let body = response.into_body().collect().await.expect("a whole body");
        assert!(body.to_bytes() == whole, "seed {seed}");
    }
}
