//! The layer on bare hyper, with HTTP/1.1, HTTP/2 and a shutdown that waits for jobs.
//!
//! ```text
//! cargo run --example hyper_bare                      # optionally with an address to listen on
//! curl -i -X POST http://127.0.0.1:8080/ -d 'count these words'
//! ```

use std::{error::Error, pin::pin, time::Duration};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto, graceful::GracefulShutdown},
    service::TowerToHyperService,
};
use tokio::{net::TcpListener, signal, time::sleep};
use tower::{BoxError, Layer, service_fn};
use tower_accepted::{JobHandle, Jobs, RequestBody};

/// The time that a shutdown waits for jobs, and then for open connections.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(30);

/// Counts words, one each half second. It is an ordinary service: without a job, the [`JobHandle`]
/// does nothing.
async fn count_words(
    request: Request<RequestBody<Incoming>>,
) -> Result<Response<Full<Bytes>>, BoxError> {
    let text = request.into_body().collect().await?.to_bytes();
    let text = String::from_utf8_lossy(&text);
    let words: Vec<&str> = text.split_whitespace().collect();
    let job = JobHandle::current();
    for counted in 0..words.len() {
        job.message(format!("{counted} of {} words", words.len()));
        job.progress(counted as f64 / words.len() as f64);
        tokio::select! {
            () = sleep(Duration::from_millis(500)) => {}
            () = job.canceled() => break,
        }
    }
    Ok(Response::new(format!("{} words\n", words.len()).into()))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let address = std::env::args().nth(1);
    let listener = TcpListener::bind(address.as_deref().unwrap_or("127.0.0.1:8080")).await?;
    println!("Listening on http://{}", listener.local_addr()?);

    let jobs = Jobs::new();
    let service = jobs.layer().layer(service_fn(count_words));

    let mut server = auto::Builder::new(TokioExecutor::new());
    server.http1().timer(TokioTimer::new());
    let connections = GracefulShutdown::new();
    // Accepts connections until clients have fetched the results of all jobs.
    let mut drained = pin!(async {
        signal::ctrl_c().await?;
        println!("waiting for {} jobs", jobs.unfinished());
        Ok::<_, std::io::Error>(jobs.drain(SHUTDOWN_TIMEOUT).await)
    });
    let cut = loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (stream, _) = match accepted {
                    Ok(accepted) => accepted,
                    Err(error) => {
                        eprintln!("failed to accept connection: {error}");
                        // Out of file descriptors, for example, the next accept fails at once.
                        sleep(Duration::from_millis(100)).await;
                        continue;
                    }
                };
                let service = TowerToHyperService::new(service.clone());
                let connection = server.serve_connection(TokioIo::new(stream), service);
                let connection = connections.watch(connection.into_owned());
                tokio::spawn(async move {
                    if let Err(error) = connection.await {
                        eprintln!("connection failed: {error}");
                    }
                });
            }
            cut = &mut drained => break cut?,
        }
    };
    drop(listener);
    let closed = tokio::time::timeout(SHUTDOWN_TIMEOUT, connections.shutdown()).await;
    println!("{cut} jobs cut, connections closed: {}", closed.is_ok());
    Ok(())
}
