//! The processor time of the layer, compared with a bare service and with a handwritten handler.
//!
//! `cargo bench --bench overhead` takes about three minutes and prints the table in
//! `benches/README.md`. `cargo bench --bench overhead -- accept` measures and prints only the rows
//! whose name matches `accept`, a regular expression.

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

fn compare_with_handwritten(comparison: &mut Comparison) {
    const HANDWRITTEN: &str = "handwritten";
    let mut by_hand = Subject::new(handwritten::Jobs::default().router());
    let mut layered = Subject::new(registry().layer().layer(application()));
    for residents in [1_000, 100_000, 1_000_000] {
        comparison.runtime().block_on(async {
            by_hand.grow_to(residents).await;
            layered.grow_to(residents).await;
        });
        comparison.row(
            &format!("accept/{residents}"),
            async |calls| layered.accept(calls).await,
            HANDWRITTEN,
            async |calls| by_hand.accept(calls).await,
        );
        comparison.row(
            &format!("accept to end/{residents}"),
            async |calls| layered.accept_to_end(calls).await,
            HANDWRITTEN,
            async |calls| by_hand.accept_to_end(calls).await,
        );
        comparison.row(
            &format!("status/{residents}"),
            async |calls| layered.status(calls).await,
            HANDWRITTEN,
            async |calls| by_hand.status(calls).await,
        );
    }

    let mut routed = Subject::new(application().layer(registry().layer()));
    let mut unrouted = Subject::new(registry().layer().layer(service_fn(without_router)));
    let mut by_hand = Subject::new(handwritten::Jobs::default().router());
    comparison.runtime().block_on(async {
        routed.grow_to(1_000).await;
        unrouted.grow_to(1_000).await;
        by_hand.grow_to(1_000).await;
    });
    comparison.row(
        "accept, by `Router::layer`/1000",
        async |calls| routed.accept(calls).await,
        HANDWRITTEN,
        async |calls| by_hand.accept(calls).await,
    );
    comparison.row(
        "status, by `Router::layer`/1000",
        async |calls| routed.status(calls).await,
        HANDWRITTEN,
        async |calls| by_hand.status(calls).await,
    );
    comparison.row(
        "accept to end, no router inside/1000",
        async |calls| unrouted.accept_to_end(calls).await,
        HANDWRITTEN,
        async |calls| by_hand.accept_to_end(calls).await,
    );
}
