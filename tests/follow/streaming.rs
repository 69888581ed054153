//! Tests streamed responses of this crate's own layer, over connections that break.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode, header};
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::{BodyExt, StreamBody};
use rand::{Rng, RngExt, SeedableRng, rngs::StdRng};
use tokio::{sync::mpsc, time::sleep};
use tower::{Layer, Service, ServiceExt, service_fn, util::BoxCloneService};
use tower_accepted::{
    Dialect, Jobs, RequestBody,
    follow::{FollowError, Followed, Reason},
};

use crate::{stream_script::streaming, support::*};

type Accepted = Request<RequestBody<Body>>;

/// One step of a service that produces a response.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    Sleep(Duration),
    Data(Bytes),
    Trailers(HeaderMap),
    Break,
}

/// Creates a 201 whose body takes these steps.
pub(crate) fn produce(steps: Vec<Step>) -> Response<Content> {
    let frames = futures_util::stream::unfold(VecDeque::from(steps), |mut steps| async {
        loop {
            let frame = match steps.pop_front()? {
                Step::Sleep(time) => {
                    sleep(time).await;
                    continue;
                }
                Step::Data(data) => Ok(Frame::data(data)),
                Step::Trailers(trailers) => Ok(Frame::trailers(trailers)),
                Step::Break => Err(Broken("the model crashed")),
            };
            return Some((frame, steps));
        }
    });
    let response = Response::builder()
        .status(StatusCode::CREATED)
        .header("content-type", "text/plain");
    let body = StreamBody::new(frames).boxed_unsync();
    response.body(body).expect("a response")
}

/// The fate of the response to one follow-up request.
#[derive(Debug, Clone, Copy)]
enum Fate {
    Pass,
    /// No response arrives.
    Lost,
    Unavailable,
    /// The body ends after so many bytes: with an error, or as a connection without framing does.
    Cut {
        after: u64,
        is_clean: bool,
    },
}

/// Puts an unreliable network before a server. `fate` decides on each response to a GET.
fn unreliable<S, R>(server: S, fate: impl FnMut(&Request<Body>) -> Fate + Send + 'static) -> Server
where
    S: Service<Request<Body>, Response = Response<R>, Error = Broken> + Clone + Send + 'static,
    S::Future: Send,
    R: http_body::Body<Data = Bytes> + Send + 'static,
{
    let fate = Arc::new(Mutex::new(fate));
    BoxCloneService::new(service_fn(move |request: Request<Body>| {
        let (server, fate) = (server.clone(), fate.clone());
        async move {
            let fate = if request.method() == "GET" {
                let mut fate = fate.lock().unwrap_or_else(PoisonError::into_inner);
                fate(&request)
            } else {
                Fate::Pass
            };
            let response = server.oneshot(request).await?;
            let mut response = response.map(|body| {
                body.map_err(|_| Broken("the stream broke off"))
                    .boxed_unsync()
            });
            match fate {
                Fate::Pass => Ok(response),
                Fate::Lost => Err(Broken("connection refused")),
                Fate::Unavailable => {
                    *response.status_mut() = StatusCode::BAD_GATEWAY;
                    response.headers_mut().clear();
                    Ok(response)
                }
                Fate::Cut { after, is_clean } => {
                    if is_clean {
                        // Otherwise the client would notice.
                        response.headers_mut().remove(header::CONTENT_LENGTH);
                    }
                    Ok(response.map(|body| {
                        let left = after;
                        CutBody {
                            body,
                            left,
                            is_clean,
                        }
                        .boxed_unsync()
                    }))
                }
            }
        }
    }))
}

/// A body that ends early.
struct CutBody {
    body: Content,
    left: u64,
    is_clean: bool,
}

impl http_body::Body for CutBody {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        if self.left == 0 {
            let broken = Broken("connection reset");
            return Poll::Ready((!self.is_clean).then_some(Err(broken)));
        }
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        Poll::Ready(frame.map(|frame| {
            frame.map(|frame| {
                frame.map_data(|mut data| {
                    data.truncate(self.left.try_into().unwrap_or(usize::MAX));
                    self.left -= data.len() as u64;
                    data
                })
            })
        }))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

/// Returns steps that produce `whole` in random chunks, at random times.
fn random_steps(random: &mut impl Rng, whole: &Bytes) -> Vec<Step> {
    let (mut steps, mut rest) = (Vec::new(), whole.clone());
    while !rest.is_empty() {
        if random.random_bool(0.3) {
            steps.push(Step::Sleep(Duration::from_millis(
                random.random_range(0..3000),
            )));
        }
        let most = *[7, 1000, 70_000]
            .get(random.random_range(0..3))
            .expect("a size");
        let chunk = random.random_range(0..=rest.len().min(most));
        steps.push(Step::Data(rest.split_to(chunk)));
    }
    steps.push(Step::Sleep(Duration::from_millis(
        random.random_range(0..2000),
    )));
    steps
}

#[tokio::test(start_paused = true)]
async fn cuts_at_random_bytes_lose_and_repeat_none() {
    let (mut cuts, mut resumed) = (0, 0);
    for seed in 0..300 {
        let mut random = StdRng::seed_from_u64(seed);
        let length = match random.random_range(0..10) {
            0 => 0,
            1..4 => random.random_range(1..100),
            _ => random.random_range(1..200_000),
        };
        let mut whole = vec![0; length];
        random.fill_bytes(&mut whole);
        let whole = Bytes::from(whole);
        let mut steps = random_steps(&mut random, &whole);
        let mut trailers = HeaderMap::new();
        trailers.insert("x-seed", seed.into());
        steps.push(Step::Trailers(trailers.clone()));
        let dialects = [Dialect::Default, Dialect::Pending202, Dialect::SeeOther];
        let jobs = Jobs::builder().dialect(dialects[seed as usize % 3]).build();
        let server = jobs.layer().layer(service_fn(move |_: Accepted| {
            let steps = steps.clone();
            async move { Ok(produce(steps)) }
        }));
        // An end without an error may hide the trailers, so only half of the networks have these.
        let has_clean_cuts = random.random_bool(0.5);
        let mut left = random.random_range(1..8);
        let count = Arc::new(Mutex::new((0, 0)));
        let counted = count.clone();
        let server = unreliable(server, move |request| {
            let mut counted = counted.lock().unwrap_or_else(PoisonError::into_inner);
            let query = request.uri().query().unwrap_or_default();
            counted.1 += usize::from(query.starts_with("offset="));
            let is_stream = request.uri().path().ends_with("/stream");
            if left == 0 {
                return Fate::Pass;
            }
            left -= 1;
            counted.0 += 1;
            match random.random_range(0..10) {
                0 => Fate::Lost,
                1 => Fate::Unavailable,
                fate => Fate::Cut {
                    after: random.random_range(0..=length as u64 / 2),
                    // Documents have a length, so their breaks show.
                    is_clean: has_clean_cuts && fate < 6 && is_stream,
                },
            }
        });
        let answer = follow(&streaming(), server, request("POST", REPORTS)).await;
        let answer = answer.unwrap_or_else(|error| panic!("seed {seed}: {error:?}"));
        assert_eq!(answer.status, StatusCode::CREATED, "seed {seed}");
        assert!(
            answer.body == whole,
            "seed {seed}: {} of {length}",
            answer.body.len()
        );
        if !has_clean_cuts {
            assert_eq!(answer.trailers, Some(trailers), "seed {seed}");
        }
        let count = count.lock().unwrap_or_else(PoisonError::into_inner);
        cuts += count.0;
        resumed += count.1;
    }
    assert!(
        cuts > 300 && resumed > 300,
        "{cuts} cuts, {resumed} resumed"
    );
}

#[tokio::test(start_paused = true)]
async fn head_and_bytes_arrive_while_the_job_runs() {
    let (sender, receiver) = mpsc::unbounded_channel::<&str>();
    let receiver = Arc::new(Mutex::new(Some(receiver)));
    let server = Jobs::new().layer().layer(service_fn(move |_: Accepted| {
        let receiver = receiver
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let mut receiver = receiver.expect("one call");
        async move {
            // Longer than the server holds a request.
            sleep(seconds(100)).await;
            let frames = futures_util::stream::poll_fn(move |cx| receiver.poll_recv(cx));
            let frames = futures_util::StreamExt::map(frames, |text| {
                Ok::<_, Broken>(Frame::data(Bytes::from(text)))
            });
            Ok::<_, Broken>(Response::new(StreamBody::new(frames).boxed_unsync()))
        }
    }));
    let client = streaming().layer(server);
    let response = client.oneshot(request("POST", REPORTS)).await;
    let response = response.expect("a response");
    assert_eq!(response.status(), StatusCode::OK);
    assert!(response.headers().get("etag").is_none());
    let followed = response.extensions().get::<Followed>().expect("followed");
    assert_eq!(
        followed.uri.path(),
        format!("{}/stream", followed.monitor.path())
    );
    let mut body = response.into_body();
    for text in ["one", "two", "three"] {
        sender.send(text).expect("a reader");
        let frame = body.frame().await.expect("a frame").expect("data");
        assert_eq!(frame.into_data().expect("data"), text);
    }
    drop(sender);
    assert!(body.frame().await.is_none());
    assert!(body.is_end_stream());
}

#[tokio::test(start_paused = true)]
async fn failure_midway_reaches_the_caller_through_the_body() {
    for is_clean in [false, true] {
        let server = Jobs::new().layer().layer(service_fn(|_: Accepted| async {
            Ok(produce(vec![
                Step::Data("one ".into()),
                Step::Sleep(seconds(5)),
                Step::Data("two".into()),
                Step::Sleep(seconds(5)),
                Step::Break,
            ]))
        }));
        // In the second round, no connection shows the break.
        let server = unreliable(server, move |request| {
            if is_clean && request.uri().path().ends_with("/stream") {
                Fate::Cut { after: 7, is_clean }
            } else {
                Fate::Pass
            }
        });
        let client = streaming().layer(server);
        let response = client.oneshot(request("POST", REPORTS)).await;
        let response = response.expect("a response");
        assert_eq!(response.status(), StatusCode::CREATED);
        let (data, error) = read(response.into_body()).await;
        assert_eq!(data, "one two");
        let Some(FollowError::Stopped(error)) = error else {
            panic!("{error:?}");
        };
        assert!(matches!(error.reason(), Reason::Failed), "{error:?}");
        let document = error.document().expect("a document");
        assert_eq!(document.error_code(), Some("body_error"));
        let partial = document.get("partial").expect("a part");
        assert_eq!(partial["contentLength"], 7);
        let text = error.to_string();
        assert!(text.starts_with("the job failed: body_error: "), "{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn canceled_job_ends_its_stream() {
    let jobs = Jobs::new();
    let server = jobs.layer().layer(service_fn(|_: Accepted| async {
        Ok::<_, Broken>(produce(vec![
            Step::Data("one".into()),
            Step::Sleep(seconds(500)),
        ]))
    }));
    let client = streaming().layer(server);
    let response = client.oneshot(request("POST", REPORTS)).await;
    let response = response.expect("a response");
    let followed = response.extensions().get::<Followed>().expect("followed");
    let (_, id) = followed.monitor.path().rsplit_once('/').expect("a path");
    let canceled = jobs.cancel(id.parse().expect("an id")).await;
    canceled.expect("a store").expect("a job");
    let (_, error) = read(response.into_body()).await;
    let error = error.expect("an error");
    let reason = error.stopped().expect("accepted").reason();
    assert!(matches!(reason, Reason::Canceled), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn failure_before_the_head_is_the_calls_error() {
    let server = Jobs::new().layer().layer(service_fn(|_: Accepted| async {
        sleep(seconds(5)).await;
        Err::<Response<Content>, _>(Broken("secret detail"))
    }));
    let error = failure(follow(&streaming(), server, request("POST", REPORTS)).await);
    assert!(matches!(error.reason(), Reason::Failed), "{error:?}");
    let document = error.document().expect("a document");
    assert_eq!(document.error_code(), Some("inner_error"));
}

#[tokio::test(start_paused = true)]
async fn error_response_of_the_service_is_the_response() {
    for status in [404, 503] {
        let server = Jobs::new()
            .layer()
            .layer(service_fn(move |_: Accepted| async move {
                let response = Response::builder()
                    .status(status)
                    .header("retry-after", "9");
                Ok::<_, Broken>(response.body(content("not today")).expect("a response"))
            }));
        let answer = follow(&streaming(), server, request("POST", REPORTS)).await;
        let answer = answer.expect("a response");
        assert_eq!(
            (answer.status.as_u16(), answer.text()),
            (status, "not today")
        );
    }
}
