//! Clients that poll jobs, in simulated time.

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
    /// When its request comes, in seconds from the beginning; nothing where it comes when the one before
    /// has been seen to end.
    pub(crate) comes: Option<f64>,
    /// How long it runs, in seconds.
    pub(crate) takes: f64,
    /// Where it tells how far it is: after the part `x` of its time that `x` to this power is done.
    pub(crate) pace: Option<f64>,
}

/// When a client asks again.
#[derive(Clone)]
pub(crate) enum Client {
    /// After as long as `Retry-After` says.
    Obedient,
    /// Every so many seconds.
    Every(u64),
    /// After 1, 2, 4 … seconds, up to a minute.
    BackOff,
    /// By what it knows of each job.
    Knowing(Arc<dyn Fn(usize, u64) -> u64 + Send + Sync>),
}

impl Client {
    fn next(&self, job: usize, age: u64, polls: u32, retry_after: u64) -> u64 {
        match self {
            Self::Obedient => retry_after,
            Self::Every(seconds) => *seconds,
            Self::BackOff => (1 << polls.min(6)).min(60),
            Self::Knowing(next) => next(job, age),
        }
    }
}

/// What a job came to: how often it was asked for, and how long after its end that was found, in
/// seconds.
pub(crate) type Seen = Point;

/// Runs jobs behind the layer, on a clock that goes as fast as it can, with `places` of them at a time, and
/// a client for each that polls until it sees the end.
pub(crate) fn simulate(
    works: &[Work],
    places: usize,
    poll_cost: Duration,
    client: &Client,
) -> Vec<Seen> {
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
            .layer(GlobalConcurrencyLimitLayer::new(places))
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
        let mut seen = vec![Seen::default(); works.len()];
        for (job, work) in works.iter().enumerate() {
            let (service, client, ends) = (service.clone(), client.clone(), ends.clone());
            let poll = async move {
                let polls = poll(service, &client, job).await;
                let end = ends.lock()[job].expect("it has been seen to end");
                (job, polls, end.elapsed().as_secs_f64())
            };
            match work.comes {
                Some(comes) => {
                    sleep_until(start + Duration::from_secs_f64(comes)).await;
                    clients.spawn(poll);
                }
                None => {
                    let (job, polls, late) = poll.await;
                    seen[job] = Seen { polls, late };
                }
            }
        }
        while let Some(one) = clients.join_next().await {
            let (job, polls, late) = one.expect("no panic");
            seen[job] = Seen { polls, late };
        }
        seen
    })
}

async fn work(work: Work) {
    let Some(pace) = work.pace else {
        return sleep(Duration::from_secs_f64(work.takes)).await;
    };
    let handle = JobHandle::current();
    for part in 1..=20 {
        sleep(Duration::from_secs_f64(work.takes / 20.0)).await;
        handle.progress((f64::from(part) / 20.0).powf(pace));
    }
}

/// Submits a job and polls it to its end; returns how often.
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
