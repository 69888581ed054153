//! The processor time of the layer, compared with a bare service and with a handwritten handler.
//!
//! `cargo bench --bench overhead` takes about three minutes and prints the table in
//! `benches/README.md`. `cargo bench --bench overhead -- accept` prints only the rows whose name
//! matches `accept`, a regular expression.

mod comparison;
mod handwritten;
mod subjects;

use std::time::Duration;

use tower::{Layer, service_fn};
use tower_accepted::{RequestBody, When};

use crate::{
    comparison::Comparison,
    subjects::{Subject, application, registry, request, submission, without_router},
};

fn main() {
    let mut comparison = Comparison::from_args();
    compare_with_bare_service(&mut comparison);
    compare_with_handwritten(&mut comparison);
    comparison.finish();
}

fn compare_with_bare_service(comparison: &mut Comparison) {
    let mut bare = Subject::new(service_fn(subjects::bare::<subjects::RequestBody>));
    let get = |calls| (0..calls).map(|_| request("GET", "/reports")).collect();
    let post = |calls| (0..calls).map(|_| submission()).collect();

    let layer = registry().layer();
    let mut layered = Subject::new(layer.layer(service_fn(subjects::bare::<RequestBody<_>>)));
    comparison.row(
        "pass-through",
        async |calls| layered.time(get(calls)).await,
        "bare service",
        async |calls| bare.time(get(calls)).await,
    );

    let layer = registry().layer().when(When::After(Duration::from_secs(1)));
    let mut layered = Subject::new(layer.layer(service_fn(subjects::bare::<RequestBody<_>>)));
    comparison.row(
        "inline",
        async |calls| layered.time(post(calls)).await,
        "bare service",
        async |calls| bare.time(post(calls)).await,
    );
}

/// Each row grows its subjects itself, so that rows that a filter leaves out cost nothing.
fn compare_with_handwritten(comparison: &mut Comparison) {
    const HANDWRITTEN: &str = "handwritten";
    let mut by_hand = Subject::new(handwritten::Jobs::default().router());
    let mut layered = Subject::new(registry().layer().layer(application()));
    for residents in [1_000, 100_000, 1_000_000] {
        comparison.row(
            &format!("accept/{residents}"),
            async |calls| layered.with(residents).await.accept(calls).await,
            HANDWRITTEN,
            async |calls| by_hand.with(residents).await.accept(calls).await,
        );
        comparison.row(
            &format!("accept to end/{residents}"),
            async |calls| layered.with(residents).await.accept_to_end(calls).await,
            HANDWRITTEN,
            async |calls| by_hand.with(residents).await.accept_to_end(calls).await,
        );
        comparison.row(
            &format!("status/{residents}"),
            async |calls| layered.with(residents).await.status(calls).await,
            HANDWRITTEN,
            async |calls| by_hand.with(residents).await.status(calls).await,
        );
    }

    let mut routed = Subject::new(application().layer(registry().layer()));
    let mut unrouted = Subject::new(registry().layer().layer(service_fn(without_router)));
    let mut by_hand = Subject::new(handwritten::Jobs::default().router());
    comparison.row(
        "accept, by `Router::layer`/1000",
        async |calls| routed.with(1_000).await.accept(calls).await,
        HANDWRITTEN,
        async |calls| by_hand.with(1_000).await.accept(calls).await,
    );
    comparison.row(
        "status, by `Router::layer`/1000",
        async |calls| routed.with(1_000).await.status(calls).await,
        HANDWRITTEN,
        async |calls| by_hand.with(1_000).await.status(calls).await,
    );
    comparison.row(
        "accept to end, no router inside/1000",
        async |calls| unrouted.with(1_000).await.accept_to_end(calls).await,
        HANDWRITTEN,
        async |calls| by_hand.with(1_000).await.accept_to_end(calls).await,
    );
}
