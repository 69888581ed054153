use http::{Extensions, HeaderMap, HeaderName, HeaderValue, Method, Request, Version, header};

use super::origin::Target;
use crate::protocol::{IDEMPOTENCY_KEY, PREFER, strip_hop_by_hop};

/// What is said of the one original request, and not true of the questions that follow it, besides
/// all of `Content-*` and of `If-*`.
const ONCE: [HeaderName; 9] = [
    header::ACCEPT,
    header::EXPECT,
    header::RANGE,
    header::TRAILER,
    IDEMPOTENCY_KEY,
    PREFER,
    // A POST that stands for another method: the questions are GETs, and stay so.
    HeaderName::from_static("x-http-method"),
    HeaderName::from_static("x-http-method-override"),
    HeaderName::from_static("x-method-override"),
];

/// What a monitor is asked for: its document rather than a page or a stream of events, and the
/// result as it is where the monitor hands that out. `application/http` is not among it, so that an
/// OData service sends the result unwrapped (OData 4.01 §11.6).
const OF_A_MONITOR: HeaderValue = HeaderValue::from_static("application/json, */*;q=0.5");

/// What of the original request goes along with those that follow it.
#[derive(Debug)]
pub(super) struct Carried {
    version: Version,
    headers: HeaderMap,
    /// What the original request asked for: it asks for the result so, too.
    accept: Vec<HeaderValue>,
    extensions: Extensions,
    /// What goes along to other origins.
    shared: Vec<HeaderName>,
}

impl Carried {
    pub(super) fn of<B>(request: &Request<B>, shared: &[HeaderName]) -> Self {
        let accept = request.headers().get_all(header::ACCEPT);
        let accept = accept.into_iter().cloned().collect();
        let mut headers = request.headers().clone();
        strip_hop_by_hop(&mut headers);
        let once: Vec<_> = headers
            .keys()
            .filter(|name| {
                let text = name.as_str();
                ONCE.contains(name) || text.starts_with("content-") || text.starts_with("if-")
            })
            .cloned()
            .collect();
        for name in once {
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

    /// A question for the monitor.
    pub(super) fn poll<B: Default>(&self, target: &Target) -> Request<B> {
        let mut request = self.request(Method::GET, target);
        request.headers_mut().insert(header::ACCEPT, OF_A_MONITOR);
        request
    }

    /// A question for the result.
    pub(super) fn fetch<B: Default>(&self, target: &Target) -> Request<B> {
        let mut request = self.request(Method::GET, target);
        if target.is_home || self.shared.contains(&header::ACCEPT) {
            for accept in &self.accept {
                request.headers_mut().append(header::ACCEPT, accept.clone());
            }
        }
        request
    }

    /// The wish that nothing more be done.
    pub(super) fn cancel<B: Default>(&self, target: &Target) -> Request<B> {
        self.request(Method::DELETE, target)
    }

    fn request<B: Default>(&self, method: Method, target: &Target) -> Request<B> {
        let mut request = Request::new(B::default());
        *request.method_mut() = method;
        *request.uri_mut() = target.uri.clone();
        *request.version_mut() = self.version;
        if target.is_home {
            *request.headers_mut() = self.headers.clone();
            *request.extensions_mut() = self.extensions.clone();
        } else {
            // Another host's name would make the request one for the first origin again.
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

    fn target(uri: &'static str, is_home: bool) -> Target {
        let uri = http::Uri::from_static(uri);
        Target { uri, is_home }
    }

    #[test]
    fn at_home_all_goes_along_but_what_was_said_of_the_original_request_alone() {
        let carried = Carried::of(&original(), &[]);
        let home = target("http://a/jobs/1", true);
        let poll: Request<()> = carried.poll(&home);
        assert_eq!(
            names(&poll),
            ["accept", "authorization", "cookie", "host", "x-tenant"]
        );
        assert_eq!(poll.headers()["accept"], "application/json, */*;q=0.5");
        assert_eq!(poll.extensions().get::<u32>(), Some(&7));
        let fetch: Request<()> = carried.fetch(&home);
        assert_eq!(fetch.headers()["accept"], "1");
        let cancel: Request<()> = carried.cancel(&home);
        assert_eq!(cancel.method(), Method::DELETE);
        assert_eq!(
            names(&cancel),
            ["authorization", "cookie", "host", "x-tenant"]
        );
    }

    #[test]
    fn elsewhere_only_what_is_on_the_list_goes_along() {
        let shared = [HeaderName::from_static("x-tenant"), header::HOST, PREFER];
        let carried = Carried::of(&original(), &shared);
        let away = target("http://b/jobs/1", false);
        let fetch: Request<()> = carried.fetch(&away);
        assert_eq!(names(&fetch), ["x-tenant"]);
        assert!(fetch.extensions().get::<u32>().is_none());
        let poll: Request<()> = carried.poll(&away);
        assert_eq!(names(&poll), ["accept", "x-tenant"]);
    }
}
