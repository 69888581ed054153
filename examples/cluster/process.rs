//! The web process, which accepts requests, and the worker, which runs them.

use std::{process, time::Duration};

use async_nats::ConnectOptions;
use axum::{
    Router,
    body::Body,
    response::{AppendHeaders, IntoResponse},
};
use tokio::{net::TcpListener, time::sleep};
use tower::BoxError;
use tower_accepted::{
    Jobs,
    store::nats::{NatsError, NatsOptions, NatsStore},
};

/// The lease of a job. Once it expires, another worker runs the job.
const LEASE: Duration = Duration::from_secs(3);

/// Returns a slow service that knows nothing of 202.
fn service() -> Router {
    async fn report() -> impl IntoResponse {
        sleep(Duration::from_millis(rand::random_range(100..1_000))).await;
        AppendHeaders([("x-worker", process::id().to_string())])
    }
    Router::new().fallback(report)
}

pub(crate) async fn web(nats: &str, listen: &str) -> Result<(), BoxError> {
    let jobs = connect(nats).await?;
    let listener = TcpListener::bind(listen).await?;
    axum::serve(listener, service().layer(jobs.layer())).await?;
    Ok(())
}

pub(crate) async fn worker(nats: &str) -> Result<(), BoxError> {
    let jobs = connect(nats).await?;
    let worker = jobs.worker::<_, Body>(service());
    worker.concurrency(16).run().await;
    Ok(())
}

async fn connect(nats: &str) -> Result<Jobs<NatsStore>, BoxError> {
    let servers: Vec<&str> = nats.split(',').collect();
    let client = ConnectOptions::new()
        .retry_on_initial_connect()
        .connect(servers)
        .await?;
    let options = NatsOptions::new().replicas(3).lease(LEASE).attempts(100);
    loop {
        match NatsStore::connect(client.clone(), options.clone()).await {
            Ok(store) => return Ok(Jobs::builder().store(store).build()),
            // A server may have just been killed.
            Err(NatsError::Unavailable(_)) => sleep(Duration::from_millis(200)).await,
            Err(error) => return Err(error.into()),
        }
    }
}
