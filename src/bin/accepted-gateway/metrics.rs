//! The Prometheus endpoint of `--metrics`.

use std::{future::ready, net::SocketAddr, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tokio::time::interval;
use tower::BoxError;

use crate::{cli::Cli, listen, output::print};

/// The buckets of all histograms in seconds, from an inline call to the default job timeout.
const BUCKETS_SECONDS: [f64; 10] = [0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0];

/// The interval at which the recorder drains its histograms. Without it they grow between scrapes.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

/// The address at which metrics are served, if the flag is set.
#[must_use = "the address is to be printed"]
pub(crate) struct Metrics(Option<SocketAddr>);

impl Metrics {
    /// Serves metrics in the background. Called before there is a registry, which describes them.
    pub(crate) async fn serve(cli: &Cli) -> Result<Self, BoxError> {
        Ok(Self(match &cli.metrics {
            Some(address) => Some(start(address).await?),
            None => None,
        }))
    }

    /// Prints the address.
    pub(crate) fn announce(self) {
        if let Some(address) = self.0 {
            print(&format!("Metrics at http://{address}/metrics.\n"));
        }
    }
}

/// Installs the recorder and serves it at `/metrics` until the process ends.
async fn start(address: &str) -> Result<SocketAddr, BoxError> {
    let listener = listen::bind(address).await?;
    let address = listener.local_addr()?;
    let recorder = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &BUCKETS_SECONDS)?
        .install_recorder()?;
    tokio::spawn({
        let recorder = recorder.clone();
        async move {
            let mut upkeep = interval(UPKEEP_INTERVAL);
            loop {
                upkeep.tick().await;
                recorder.run_upkeep();
            }
        }
    });
    let respond = move |request| ready(respond(&request, &recorder));
    listen::spawn_server(listener, listen::MAX_OPERATOR_CONNECTIONS, respond);
    Ok(address)
}

fn respond(request: &Request<Incoming>, recorder: &PrometheusHandle) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    if request.uri().path() == "/metrics" {
        *response.body_mut() = Full::from(recorder.render());
        let plain = HeaderValue::from_static("text/plain; charset=utf-8");
        response.headers_mut().insert(header::CONTENT_TYPE, plain);
    } else {
        *response.status_mut() = StatusCode::NOT_FOUND;
    }
    response
}
