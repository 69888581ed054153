//! Makes calls of one kind, for callgrind to count: `instructions KIND CALLS [RESIDENTS]`.
//!
//! The cost of one call is the difference of two counts, divided by the difference of their calls:
//! both include the same set-up. `benches/count` does that.

mod handwritten;
mod subjects;

use std::{env, fmt::Display, str::FromStr};

use http::{Request, Response};
use http_body::Body;
use tokio::task::yield_now;
use tower::{BoxError, Layer, Service, service_fn};
use tower_accepted::{RequestBody, When};

use crate::subjects::{BATCH, Subject, application, bare, registry, request, submission};

fn main() {
    // Cargo adds arguments of its own, such as `--bench`.
    let mut arguments = env::args().skip(1).filter(|arg| !arg.starts_with("--"));
    let Some(kind) = arguments.next() else {
        println!("instructions KIND CALLS [RESIDENTS]");
        return;
    };
    let calls = number(arguments.next(), 1_000);
    let residents = number(arguments.next(), 1_000);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = runtime.expect("a runtime");
    runtime.block_on(run(&kind, calls, residents));
    // Exits without dropping the runtime, which would end unfinished jobs and be counted.
    std::process::exit(0);
}

fn number<T: FromStr>(argument: Option<String>, default: T) -> T
where
    T::Err: Display,
{
    let Some(text) = argument else {
        return default;
    };
    match text.parse() {
        Ok(number) => number,
        Err(error) => panic!("{text}: {error}"),
    }
}

async fn run(kind: &str, calls: usize, residents: usize) {
    let post = submission;
    let get = || request("GET", "/reports");
    let layer = registry().layer();
    match kind {
        "bare" => {
            let mut bare = Subject::new(service_fn(bare::<subjects::RequestBody>));
            bare.serve_all(calls, get).await;
        }
        "pass-through" => {
            let mut layered = Subject::new(layer.layer(service_fn(bare::<RequestBody<_>>)));
            layered.serve_all(calls, get).await;
        }
        "bare-post" => {
            let mut bare = Subject::new(service_fn(bare::<subjects::RequestBody>));
            bare.serve_all(calls, post).await;
        }
        "inline" => {
            let layer = layer.when(When::After(std::time::Duration::from_secs(1)));
            let mut inline = Subject::new(layer.layer(service_fn(bare::<RequestBody<_>>)));
            inline.serve_all(calls, post).await;
        }
        _ => match kind.split_once('/') {
            Some(("layer", kind)) => {
                jobs(kind, layer.layer(application()), calls, residents).await;
            }
            Some(("handwritten", kind)) => {
                let router = handwritten::Jobs::default().router();
                jobs(kind, router, calls, residents).await;
            }
            _ => panic!("no such kind: {kind}"),
        },
    }
}

async fn jobs<S, R>(kind: &str, service: S, calls: usize, residents: usize)
where
    S: Service<Request<subjects::RequestBody>, Response = Response<R>>,
    S::Error: Into<BoxError>,
    R: Body + Unpin,
    R::Error: Into<BoxError>,
{
    let mut subject = Subject::new(service);
    subject.grow_to(residents).await;
    match kind {
        // No job is ever polled.
        "accept" => {
            subject.serve_all(calls, submission).await;
        }
        "accept-to-end" => {
            for _ in 0..calls.div_ceil(BATCH) {
                subject.serve_all(BATCH, submission).await;
                yield_now().await;
            }
        }
        "status" => {
            for read in subject.reads(calls) {
                subject.serve(read).await;
            }
        }
        _ => panic!("no such kind: {kind}"),
    }
    // Keeps the instructions to free the jobs out of the count.
    std::mem::forget(subject);
}
