//! Lets pages of other origins read what the gateway answers (CORS, in the Fetch standard).

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Method, Request, Response, StatusCode,
    header::{
        ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS,
        ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS,
        ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD,
        ORIGIN, VARY,
    },
};
use http_body_util::Full;

/// The response fields of the layer and its monitor that a page could not read otherwise.
const EXPOSED_FIELDS: &str = "allow, asyncresult, content-disposition, content-location, \
    content-range, date, etag, idempotent-replayed, link, location, operation-location, \
    preference-applied, retry-after, vary, x-progress";

/// The methods of the monitor.
const METHODS: &str = "GET, HEAD, POST, DELETE";

/// The lifetime of a preflight in the browser's cache. Each poll with `Prefer` or
/// `If-None-Match` needs one otherwise.
const PREFLIGHT_SECONDS: &str = "3600";

/// The origins of `--cors-origin`.
///
/// tower-http's layer treats every OPTIONS request as a preflight and every response as its own.
/// Here both may be the upstream's.
#[derive(Debug, Clone)]
pub(crate) struct Cors {
    origins: Vec<HeaderValue>,
}

/// The mark of a response that the upstream sent, and whose CORS fields are the upstream's own.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FromUpstream;

impl Cors {
    /// Returns `None` without origins. `*` stands for every origin.
    pub(crate) fn new(origins: &[HeaderValue]) -> Option<Self> {
        let origins = origins.to_vec();
        (!origins.is_empty()).then_some(Self { origins })
    }

    /// Returns `true` if pages of this origin may read responses and cancel jobs.
    pub(crate) fn allows(&self, origin: &HeaderValue) -> bool {
        self.allows_any() || self.origins.contains(origin)
    }

    /// Returns the response to a preflight from an allowed origin.
    pub(crate) fn preflight<B>(&self, request: &Request<B>) -> Option<Response<Full<Bytes>>> {
        let headers = request.headers();
        let is_preflight = request.method() == Method::OPTIONS
            && headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD)
            && headers
                .get(ORIGIN)
                .is_some_and(|origin| self.allows(origin));
        if !is_preflight {
            return None;
        }
        let mut response = Response::new(Full::default());
        *response.status_mut() = StatusCode::NO_CONTENT;
        let answer = response.headers_mut();
        for (name, value) in [
            (ACCESS_CONTROL_ALLOW_METHODS, METHODS),
            (ACCESS_CONTROL_MAX_AGE, PREFLIGHT_SECONDS),
            (VARY, "access-control-request-headers"),
        ] {
            answer.insert(name, HeaderValue::from_static(value));
        }
        if let Some(names) = headers.get(ACCESS_CONTROL_REQUEST_HEADERS) {
            answer.insert(ACCESS_CONTROL_ALLOW_HEADERS, names.clone());
        }
        Some(response)
    }

    /// Lets a page of `origin` read a response, if its origin is allowed.
    pub(crate) fn expose(&self, origin: Option<&HeaderValue>, headers: &mut HeaderMap) {
        if !self.allows_any() {
            headers.append(VARY, HeaderValue::from_static("origin"));
        }
        let Some(origin) = origin.filter(|origin| self.allows(origin)) else {
            return;
        };
        // A result may have these fields from the upstream, for the origin of its submission.
        if self.allows_any() {
            let any = HeaderValue::from_static("*");
            headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, any);
            headers.remove(ACCESS_CONTROL_ALLOW_CREDENTIALS);
        } else {
            headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
            let yes = HeaderValue::from_static("true");
            headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, yes);
        }
        // Further lines add to the list, so what the upstream exposes stays exposed.
        let exposed = HeaderValue::from_static(EXPOSED_FIELDS);
        headers.append(ACCESS_CONTROL_EXPOSE_HEADERS, exposed);
    }

    /// Lets a page of `origin`, if it is allowed, read `Link` of a response that the server lets it
    /// read.
    pub(crate) fn expose_link(&self, origin: Option<&HeaderValue>, headers: &mut HeaderMap) {
        if origin.is_some_and(|origin| self.allows(origin)) {
            let link = HeaderValue::from_static("link");
            headers.append(ACCESS_CONTROL_EXPOSE_HEADERS, link);
        }
    }

    fn allows_any(&self) -> bool {
        self.origins.iter().any(|origin| origin == "*")
    }
}
