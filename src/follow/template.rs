//! Builds follow-up requests from the original request.

use http::{Extensions, HeaderMap, HeaderName, HeaderValue, Method, Request, Version, header};

use super::origin::FollowTarget;
use crate::protocol::{IDEMPOTENCY_KEY, PREFER, strip_hop_by_hop};

/// The fields that apply to the original request alone, besides `Content-*` and `If-*`.
const SINGLE_USE: [HeaderName; 9] = [
    header::ACCEPT,
    header::EXPECT,
    header::RANGE,
    header::TRAILER,
    IDEMPOTENCY_KEY,
    PREFER,
    // These replace the method of a POST. Follow-up requests must stay GETs.
    HeaderName::from_static("x-http-method"),
    HeaderName::from_static("x-http-method-override"),
    HeaderName::from_static("x-method-override"),
];

/// Prefers the status document to a page or a stream of events, and allows any result.
///
/// It leaves out `application/http`, so an OData service sends the result unwrapped (OData 4.01
/// §11.6).
const ACCEPT_MONITOR: HeaderValue = HeaderValue::from_static("application/json, */*;q=0.5");

/// The parts of the original request that follow-up requests repeat.
#[derive(Debug)]
pub(super) struct RequestTemplate {
    version: Version,
    headers: HeaderMap,
    /// The original `Accept`, sent with the request for the result.
    accept: Vec<HeaderValue>,
    extensions: Extensions,
    /// The headers that are sent to other origins.
    shared: Vec<HeaderName>,
}

impl RequestTemplate {
    pub(super) fn new<B>(request: &Request<B>, shared: &[HeaderName]) -> Self {
        let accept = request.headers().get_all(header::ACCEPT);
        let accept = accept.into_iter().cloned().collect();
        let mut headers = request.headers().clone();
        strip_hop_by_hop(&mut headers);
        let single_use: Vec<_> = headers
            .keys()
            .filter(|name| {
                let text = name.as_str();
                SINGLE_USE.contains(name) || text.starts_with("content-") || text.starts_with("if-")
            })
            .cloned()
            .collect();
        for name in single_use {
            headers.remove(name);
        }
        Self {
            version: request.version(),
            headers,
            accept,
            extensions: request.extensions().clone(),
            shared: shared.to_vec(),
        }
    }

    /// Returns a request for the job's status.
    pub(super) fn poll<B: Default>(&self, target: &FollowTarget) -> Request<B> {
        let mut request = self.request(Method::GET, target);
        request.headers_mut().insert(header::ACCEPT, ACCEPT_MONITOR);
        request
    }

    /// Returns a request for the job's status as events.
    pub(super) fn events<B: Default>(&self, target: &FollowTarget) -> Request<B> {
        let mut request = self.request(Method::GET, target);
        let events = HeaderValue::from_static("text/event-stream");
        request.headers_mut().insert(header::ACCEPT, events);
        // A coder on the way could hold events back.
        let identity = HeaderValue::from_static("identity");
        request
            .headers_mut()
            .insert(header::ACCEPT_ENCODING, identity);
        request
    }

    /// Returns a request for the job's result.
    pub(super) fn fetch<B: Default>(&self, target: &FollowTarget) -> Request<B> {
        let mut request = self.request(Method::GET, target);
        if target.is_home || self.shared.contains(&header::ACCEPT) {
            for accept in &self.accept {
                request.headers_mut().append(header::ACCEPT, accept.clone());
            }
        }
        request
    }

    /// Returns a request for the job's output, while it is produced.
    pub(super) fn stream<B: Default>(&self, target: &FollowTarget) -> Request<B> {
        let mut request = self.fetch(target);
        // Offsets count the bytes that the server keeps, so nothing on the way may code them. With
        // this field, clients that decode content by themselves leave it alone.
        let identity = HeaderValue::from_static("identity");
        request
            .headers_mut()
            .insert(header::ACCEPT_ENCODING, identity);
        request
    }

    /// Returns a request that cancels the job.
    pub(super) fn cancel<B: Default>(&self, target: &FollowTarget) -> Request<B> {
        self.request(Method::DELETE, target)
    }

    fn request<B: Default>(&self, method: Method, target: &FollowTarget) -> Request<B> {
        let mut request = Request::new(B::default());
        *request.method_mut() = method;
        *request.uri_mut() = target.uri.clone();
        *request.version_mut() = self.version;
        if target.is_home {
            *request.headers_mut() = self.headers.clone();
            *request.extensions_mut() = self.extensions.clone();
        } else {
            // `Host` would send the request back to the first origin.
            for name in self.shared.iter().filter(|&name| name != header::HOST) {
                for value in self.headers.get_all(name) {
                    request.headers_mut().append(name, value.clone());
                }
            }
        }
        request
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names<B>(request: &Request<B>) -> Vec<&str> {
        let mut names: Vec<_> = request.headers().keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        names
    }

    fn original() -> Request<()> {
        let mut request = Request::post("http://a/x");
        for name in [
            "authorization",
            "cookie",
            "host",
            "x-tenant",
            "accept",
            "content-type",
            "content-length",
            "content-encoding",
            "transfer-encoding",
            "expect",
            "if-match",
            "if-none-match",
            "range",
            "prefer",
            "idempotency-key",
            "x-http-method-override",
            "x-hop",
        ] {
            request = request.header(name, "1");
        }
        let request = request.header("connection", "x-hop").extension(7_u32);
        request.body(()).expect("a request")
    }

    fn target(uri: &'static str, is_home: bool) -> FollowTarget {
        let uri = http::Uri::from_static(uri);
        FollowTarget { uri, is_home }
    }

    #[test]
    fn home_gets_all_but_single_use_headers() {
        let template = RequestTemplate::new(&original(), &[]);
        let home = target("http://a/jobs/1", true);
        let poll: Request<()> = template.poll(&home);
        assert_eq!(
            names(&poll),
            ["accept", "authorization", "cookie", "host", "x-tenant"]
        );
        assert_eq!(poll.headers()["accept"], "application/json, */*;q=0.5");
        assert_eq!(poll.extensions().get::<u32>(), Some(&7));
        let fetch: Request<()> = template.fetch(&home);
        assert_eq!(fetch.headers()["accept"], "1");
        let stream: Request<()> = template.stream(&home);
        assert_eq!(stream.headers()["accept"], "1");
        assert_eq!(stream.headers()["accept-encoding"], "identity");
        let cancel: Request<()> = template.cancel(&home);
        assert_eq!(cancel.method(), Method::DELETE);
        assert_eq!(
            names(&cancel),
            ["authorization", "cookie", "host", "x-tenant"]
        );
    }

    #[test]
    fn other_origins_get_shared_headers_only() {
        let shared = [HeaderName::from_static("x-tenant"), header::HOST, PREFER];
        let template = RequestTemplate::new(&original(), &shared);
        let away = target("http://b/jobs/1", false);
        let fetch: Request<()> = template.fetch(&away);
        assert_eq!(names(&fetch), ["x-tenant"]);
        assert!(fetch.extensions().get::<u32>().is_none());
        let poll: Request<()> = template.poll(&away);
        assert_eq!(names(&poll), ["accept", "x-tenant"]);
    }
}
