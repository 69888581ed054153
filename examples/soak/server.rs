//! The server: the layer around the work, over HTTP/1.1 and HTTP/2.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
    service::TowerToHyperService,
};
use tokio::{net::TcpListener, task::JoinSet};
use tokio_util::sync::CancellationToken;
use tower::{Layer, ServiceExt, service_fn, util::BoxCloneSyncService};
use tower_accepted::{Jobs, ResponseBody};

use crate::{tally::Tally, work::work};

/// The time limit of a job. No work takes so long unless it is stuck.
pub(crate) const JOB_TIMEOUT: Duration = Duration::from_secs(10);

/// The memory for bodies and jobs: small enough that results make room for others.
const MAX_BYTES: usize = 32 << 20;

/// The number of unfinished jobs: few enough that some requests are refused.
const MAX_UNFINISHED: usize = 20;

/// A running server.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) jobs: Jobs,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl Server {
    pub(crate) async fn start(tally: Arc<Tally>) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let jobs = Jobs::builder()
            .max_bytes(MAX_BYTES)
            .max_unfinished(MAX_UNFINISHED)
            .job_timeout(JOB_TIMEOUT)
            .cancel_grace(Duration::from_millis(100))
            .retain(Duration::from_secs(20))
            .build();
        let stop = CancellationToken::new();
        let task = tokio::spawn(serve(listener, jobs.clone(), stop.clone(), tally));
        Ok(Self {
            address,
            jobs,
            stop,
            task,
        })
    }

    /// Ends every connection, and frees the jobs.
    pub(crate) async fn stop(self) {
        self.jobs.drain(Duration::from_secs(1)).await;
        self.stop.cancel();
        let _ = self.task.await;
    }
}

async fn serve(listener: TcpListener, jobs: Jobs, stop: CancellationToken, tally: Arc<Tally>) {
    let service = jobs.layer().layer(service_fn(work));
    let service = service_fn(move |request: Request<Incoming>| {
        let line = format!("{} {}", request.method(), request.uri());
        let open = tally.open.begin(line);
        let (tally, answer) = (tally.clone(), service.clone().oneshot(request));
        async move {
            let response: Response<ResponseBody<_>> = answer.await.map_err(io::Error::other)?;
            if response.status() == StatusCode::SERVICE_UNAVAILABLE {
                tally.refusals.add(1);
            }
            Ok::<_, io::Error>(response.map(|body| {
                body.map_frame(move |frame| {
                    // Dropped with the body.
                    let _open = &open;
                    frame
                })
            }))
        }
    });
    let service = BoxCloneSyncService::new(service);
    let service = TowerToHyperService::new(service);
    let mut server = auto::Builder::new(TokioExecutor::new());
    server.http1().timer(TokioTimer::new());
    // A refusal resets the stream of a body that is still sent. By default, h2 closes a connection
    // after 1,024 of them, and fails all other requests on it.
    server.http2().max_local_error_reset_streams(None);
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    eprintln!("failed to accept connection: {error}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            },
            // Finished connections are removed.
            Some(_) = connections.join_next() => continue,
            () = stop.cancelled() => break,
        };
        let connection = server.serve_connection(TokioIo::new(stream), service.clone());
        let connection = connection.into_owned();
        connections.spawn(async move {
            // Clients hang up on purpose, so errors say nothing.
            let _ = connection.await;
        });
    }
    connections.shutdown().await;
}
