//! Scripted servers, and a log of the requests they received.

use std::{
    collections::VecDeque,
    error::Error,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use http::{Extensions, HeaderMap, Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use serde_json::Value;
use tokio::time::{Instant, sleep};
use tower::{BoxError, Layer, Service, ServiceExt, service_fn, util::BoxCloneService};
use tower_accepted::follow::{FollowAcceptedLayer, FollowBody, FollowError, Stopped};

pub(crate) type Body = Full<Bytes>;
pub(crate) type Content = UnsyncBoxBody<Bytes, Broken>;
pub(crate) type Server = BoxCloneService<Request<Body>, Response<Content>, Broken>;

/// A transport error.
#[derive(Debug)]
pub(crate) struct Broken(pub(crate) &'static str);

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl Error for Broken {}

/// A request that a server received.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) method: Method,
    pub(crate) uri: Uri,
    pub(crate) headers: HeaderMap,
    pub(crate) extensions: Extensions,
    pub(crate) body: Bytes,
    pub(crate) at: Instant,
}

impl Seen {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let value = self.headers.get(name)?;
        Some(value.to_str().expect("text"))
    }

    /// Returns the method and the path. Most servers here match on these.
    pub(crate) fn line(&self) -> String {
        format!("{} {}", self.method, self.uri.path())
    }
}

/// All requests that a server received, in order.
#[derive(Debug, Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<Seen>>>);

impl Log {
    fn push(&self, seen: Seen) {
        let mut log = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        log.push(seen);
    }

    pub(crate) fn all(&self) -> Vec<Seen> {
        let log = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        log.clone()
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        let line = |seen: &Seen| format!("{} {}", seen.method, seen.uri);
        self.all().iter().map(line).collect()
    }

    /// Returns the times between consecutive requests.
    pub(crate) fn gaps(&self) -> Vec<Duration> {
        let gap = |pair: &[Seen]| pair[1].at - pair[0].at;
        self.all().windows(2).map(gap).collect()
    }

    pub(crate) fn last(&self) -> Seen {
        self.all().pop().expect("a request")
    }
}

/// A server's response to one request, or a transport error.
pub(crate) struct Reply {
    response: Result<Response<Content>, Broken>,
    after: Duration,
}

pub(crate) fn reply(status: u16) -> Reply {
    let mut response = Response::new(content(""));
    *response.status_mut() = StatusCode::from_u16(status).expect("a status");
    Reply {
        response: Ok(response),
        after: Duration::ZERO,
    }
}

/// Returns a transport error.
pub(crate) fn broken(why: &'static str) -> Reply {
    Reply {
        response: Err(Broken(why)),
        after: Duration::ZERO,
    }
}

/// Returns a 200 with a status document.
pub(crate) fn document(document: Value) -> Reply {
    reply(200).json(document)
}

impl Reply {
    pub(crate) fn with(mut self, name: &'static str, value: &str) -> Self {
        if let Ok(response) = &mut self.response {
            let value = value.parse().expect("a value");
            response.headers_mut().append(name, value);
        }
        self
    }

    pub(crate) fn body(mut self, body: impl Into<Bytes>) -> Self {
        if let Ok(response) = &mut self.response {
            *response.body_mut() = content(body);
        }
        self
    }

    pub(crate) fn stream(mut self, body: Content) -> Self {
        if let Ok(response) = &mut self.response {
            *response.body_mut() = body;
        }
        self
    }

    pub(crate) fn json(self, json: Value) -> Self {
        self.with("content-type", "application/json")
            .body(json.to_string())
    }

    /// Delays the response.
    pub(crate) fn after(mut self, delay: Duration) -> Self {
        self.after = delay;
        self
    }
}

pub(crate) fn content(body: impl Into<Bytes>) -> Content {
    Full::new(body.into())
        .map_err(|never| match never {})
        .boxed_unsync()
}

/// Creates a server that answers with `decide` and logs its requests.
pub(crate) fn serve(decide: impl Fn(&Seen) -> Reply + Clone + Send + 'static) -> (Server, Log) {
    let log = Log::default();
    let server = service_fn({
        let log = log.clone();
        move |request: Request<Body>| {
            let (log, decide) = (log.clone(), decide.clone());
            async move {
                let (head, body) = request.into_parts();
                let seen = Seen {
                    method: head.method,
                    uri: head.uri,
                    headers: head.headers,
                    extensions: head.extensions,
                    body: body.collect().await.expect("a whole body").to_bytes(),
                    at: Instant::now(),
                };
                log.push(seen.clone());
                let Reply { response, after } = decide(&seen);
                sleep(after).await;
                response
            }
        }
    });
    (BoxCloneService::new(server), log)
}

/// Creates a server that returns these replies in order, whatever the request.
///
/// Panics if there is a request too many.
pub(crate) fn script(replies: impl IntoIterator<Item = Reply>) -> (Server, Log) {
    let replies: VecDeque<_> = replies.into_iter().collect();
    let replies = Arc::new(Mutex::new(replies));
    serve(move |seen| {
        let mut replies = replies.lock().unwrap_or_else(PoisonError::into_inner);
        let next = replies.pop_front();
        next.unwrap_or_else(|| panic!("one request too many: {}", seen.line()))
    })
}

/// A response whose body has been read.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) extensions: Extensions,
    pub(crate) body: Bytes,
    pub(crate) trailers: Option<HeaderMap>,
}

impl Answer {
    pub(crate) fn text(&self) -> &str {
        str::from_utf8(&self.body).expect("text")
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("JSON")
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let value = self.headers.get(name)?;
        Some(value.to_str().expect("text"))
    }

    pub(crate) fn extension<T: Clone + Send + Sync + 'static>(&self) -> Option<T> {
        self.extensions.get::<T>().cloned()
    }
}

pub(crate) const REPORTS: &str = "http://a.example/reports";

pub(crate) fn request(method: &str, uri: &str) -> Request<Body> {
    let request = Request::builder().method(method).uri(uri);
    request.body(Body::from("what to do")).expect("a request")
}

/// Sends a request through the layer.
pub(crate) async fn follow<S, R>(
    layer: &FollowAcceptedLayer,
    server: S,
    request: Request<Body>,
) -> Result<Answer, BoxError>
where
    S: Service<Request<Body>, Response = Response<R>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Error + Send + Sync + 'static,
    R: http_body::Body + Send + 'static,
    R::Error: Into<BoxError> + Send,
{
    let response = layer.layer(server).oneshot(request).await?;
    let (head, body) = response.into_parts();
    let body = body.collect().await.map_err(FollowError::into_boxed)?;
    Ok(Answer {
        status: head.status,
        headers: head.headers,
        extensions: head.extensions,
        trailers: body.trailers().cloned(),
        body: body.to_bytes(),
    })
}

/// Sends a POST to `/reports` through the layer with its default settings.
pub(crate) async fn post<S, R>(server: S) -> Result<Answer, BoxError>
where
    S: Service<Request<Body>, Response = Response<R>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Error + Send + Sync + 'static,
    R: http_body::Body + Send + 'static,
    R::Error: Into<BoxError> + Send,
{
    follow(
        &FollowAcceptedLayer::new(),
        server,
        request("POST", REPORTS),
    )
    .await
}

/// Returns the error of an accepted request. Panics on any other result.
pub(crate) fn failure(followed: Result<Answer, BoxError>) -> Box<Stopped> {
    let error = followed.expect_err("an error");
    match *error
        .downcast::<FollowError<Broken>>()
        .expect("the layer's error")
    {
        FollowError::Stopped(stopped) => stopped,
        FollowError::Service(error) => panic!("not accepted: {error}"),
    }
}

pub(crate) fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Reads a body up to its end or its error.
pub(crate) async fn read<R>(mut body: FollowBody<R>) -> (String, Option<FollowError<R::Error>>)
where
    R: http_body::Body + Unpin,
{
    let mut data = Vec::new();
    while let Some(frame) = body.frame().await {
        match frame {
            Ok(frame) => data.extend(frame.into_data().unwrap_or_default()),
            Err(error) => {
                assert!(body.frame().await.is_none(), "an error ends the body");
                return (String::from_utf8(data).expect("text"), Some(error));
            }
        }
    }
    (String::from_utf8(data).expect("text"), None)
}
