//! The Prometheus endpoint of the gateway.

use std::net::SocketAddr;

use crate::{
    client::{ended, get, open, post, read_until},
    program::Program,
    upstream::Upstream,
};

#[tokio::test]
async fn scrape_counts_jobs_and_their_durations() {
    let mut upstream = Upstream::start().await;
    let flags = ["--always", "--metrics", "127.0.0.1:0"];
    let mut gateway = Program::gateway(upstream.address, &flags).await;
    let metrics: SocketAddr = loop {
        let line = gateway.line().await.expect("the line with the address");
        if let Some(address) = line.strip_prefix("Metrics at http://") {
            let address = address.strip_suffix("/metrics.").expect("the path");
            break address.parse().expect("an address");
        }
    };
    let job = post(gateway.address, "/reports/17", "").await.job();
    upstream.next().await.ok("report").await;
    ended(gateway.address, &job).await;
    // Connections that stay open keep no scraper out.
    let mut idle = Vec::new();
    for _ in 0..16 {
        let ask = b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n";
        let mut client = open(metrics, ask).await;
        read_until(&mut client, "connection: close\r\n").await;
        idle.push(client);
    }
    let scrape = get(metrics, "/metrics").await.body;
    let scrape = str::from_utf8(&scrape).expect("text");
    for line in [
        "# TYPE tower_accepted_accepted_total counter",
        "tower_accepted_accepted_total 1",
        "tower_accepted_ended_total{end=\"succeeded\"} 1",
        "tower_accepted_run_seconds_count{kind=\"POST /reports/{}\"} 1",
        "tower_accepted_queue_seconds_bucket{kind=\"POST /reports/{}\",le=\"3600\"} 1",
    ] {
        assert!(
            scrape.lines().any(|found| found == line),
            "no {line} in\n{scrape}"
        );
    }
}
