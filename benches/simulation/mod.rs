//! Simulates clients that poll jobs.

pub(crate) mod curve;
pub(crate) mod oracle;
pub(crate) mod plot;
pub(crate) mod scenario;

use std::{convert::Infallible, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, Response, header};
use http_body_util::Empty;
use parking_lot::Mutex;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};
use tower::{Service, ServiceBuilder, ServiceExt, limit::GlobalConcurrencyLimitLayer, service_fn};
use tower_accepted::{JobHandle, Jobs, RequestBody};

use self::curve::Point;

type Body = Empty<Bytes>;

/// A job to be simulated.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Work {
    /// The arrival of the request, in seconds from the start. `None`: it follows when the previous
    /// client has seen its job end.
    pub(crate) arrival: Option<f64>,
    /// In seconds.
    pub(crate) run_time: f64,
    /// If the job reports progress: after the fraction `x` of its run time it reports `x` to this
    /// power.
    pub(crate) pace: Option<f64>,
}

/// The polling strategy of a client.
#[derive(Clone)]
pub(crate) enum Client {
    /// Obeys `Retry-After`.
    Obedient,
    /// Polls at this interval in seconds.
    Every(u64),
    /// Waits 1, 2, 4 … s, at most a minute.
    Backoff,
    /// Computes the delay from the number of the job and its age in seconds.
    Oracle(Arc<dyn Fn(usize, u64) -> u64 + Send + Sync>),
}

impl Client {
    fn next(&self, job: usize, age: u64, polls: u32, retry_after: u64) -> u64 {
        match self {
            Self::Obedient => retry_after,
            Self::Every(seconds) => *seconds,
            Self::Backoff => (1 << polls.min(6)).min(60),
            Self::Oracle(next) => next(job, age),
        }
    }
}

/// Runs jobs behind the layer on a paused clock, at most `concurrency` at a time, each with a
/// client that polls until it sees the end.
pub(crate) fn simulate(
    works: &[Work],
    concurrency: usize,
    poll_cost: Duration,
    client: &Client,
) -> Vec<Point> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let ends = Arc::new(Mutex::new(vec![None; works.len()]));
        let jobs = Jobs::builder()
            .poll_cost(poll_cost)
            .retain(Duration::from_secs(60))
            .build();
        let (all, ended) = (Arc::<[Work]>::from(works), ends.clone());
        let service = ServiceBuilder::new()
            .layer(jobs.layer())
            .layer(GlobalConcurrencyLimitLayer::new(concurrency))
            .service(service_fn(move |request: Request<RequestBody<Body>>| {
                let (all, ended) = (all.clone(), ended.clone());
                async move {
                    let job = request.headers()["x-job"].to_str().expect("a number");
                    let job: usize = job.parse().expect("a number");
                    work(all[job]).await;
                    ended.lock()[job] = Some(Instant::now());
                    Ok::<_, Infallible>(Response::new(Body::new()))
                }
            }));
        let (start, mut clients) = (Instant::now(), JoinSet::new());
        let mut points = vec![Point::default(); works.len()];
        for (job, work) in works.iter().enumerate() {
            let (service, client, ends) = (service.clone(), client.clone(), ends.clone());
            let poll = async move {
                let polls = poll(service, &client, job).await;
                let end = ends.lock()[job].expect("ended");
                (job, polls, end.elapsed().as_secs_f64())
            };
            match work.arrival {
                Some(arrival) => {
                    sleep_until(start + Duration::from_secs_f64(arrival)).await;
                    clients.spawn(poll);
                }
                None => {
                    let (job, polls, late) = poll.await;
                    points[job] = Point { polls, late };
                }
            }
        }
        while let Some(one) = clients.join_next().await {
            let (job, polls, late) = one.expect("no panic");
            points[job] = Point { polls, late };
        }
        points
    })
}

async fn work(work: Work) {
    let Some(pace) = work.pace else {
        return sleep(Duration::from_secs_f64(work.run_time)).await;
    };
    let handle = JobHandle::current();
    for part in 1..=20 {
        sleep(Duration::from_secs_f64(work.run_time / 20.0)).await;
        handle.progress((f64::from(part) / 20.0).powf(pace));
    }
}

/// Submits a job and polls it to its end. Returns the number of polls.
async fn poll<S>(service: S, client: &Client, job: usize) -> f64
where
    S: Service<Request<Body>, Error = Infallible> + Clone,
    S: Service<Request<Body>, Response = Response<tower_accepted::ResponseBody<Body>>>,
{
    let request = Request::post("/work").header("x-job", job);
    let request = request.body(Body::new()).expect("a request");
    let accepted = service.clone().oneshot(request).await.expect("an answer");
    let monitor = accepted.headers()[header::LOCATION].clone();
    let monitor = monitor.to_str().expect("a path");
    let (mut answer, mut age, mut polls) = (accepted, 0, 0);
    while let Some(retry_after) = answer.headers().get(header::RETRY_AFTER) {
        let retry_after = retry_after.to_str().expect("a number");
        let retry_after = retry_after.parse().expect("whole seconds");
        let next = client.next(job, age, polls, retry_after);
        sleep(Duration::from_secs(next)).await;
        (age, polls) = (age + next, polls + 1);
        let request = Request::get(monitor).body(Body::new()).expect("a request");
        answer = service.clone().oneshot(request).await.expect("an answer");
    }
    polls.into()
}
