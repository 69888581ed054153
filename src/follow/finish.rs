//! Turns the response of a job into that of the original request.

use http::{Request, Response, header};
use http_body::Body;
use tower_service::Service;

use super::{
    Followed,
    body::{FollowBody, FollowResponse},
    final_status::final_status,
    follower::{FollowedResponse, Follower},
    parts::{WholeHead, content_length},
    peeked::ClientResponse,
    resumable::{ReceivedPart, ResumableBody},
    resume::{JobResources, Resumer, run_tag},
    schedule::PollSchedule,
};
use crate::protocol::{BoxError, RESULT_ETAG_START, resolve_references};

impl<S, B, R> Follower<S, B, R>
where
    S: Service<Request<B>, Response = Response<R>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Into<BoxError> + Send,
    B: Default + Send + 'static,
    R: Body + Send + 'static,
    R::Error: Into<BoxError> + Send,
{
    /// Returns the response to the original request.
    pub(super) fn finish(&self, found: FollowedResponse<R>) -> ClientResponse<R> {
        let FollowedResponse { to, answer } = found;
        let at = to.at;
        let mut response = Response::from_parts(answer.head, answer.body);
        *response.status_mut() = final_status(response.status(), response.headers());
        // The caller of a PUT would take it for the tag of its resource.
        let headers = response.headers_mut();
        let etag = headers.get(header::ETAG);
        if etag.is_some_and(|etag| etag.as_bytes().starts_with(RESULT_ETAG_START.as_bytes())) {
            headers.remove(header::ETAG);
        }
        // The caller knows the URI of its request only.
        let (home, other) = (&self.home.uri, &at.uri);
        let is_same_origin =
            home.scheme() == other.scheme() && home.authority() == other.authority();
        if is_same_origin && home != other {
            let target = other.path_and_query().map_or("/", |target| target.as_str());
            resolve_references(response.headers_mut(), target, |to, path| {
                to.extend_from_slice(path);
            });
        }
        response.extensions_mut().insert(Followed {
            uri: at.uri.clone(),
            monitor: self.monitor.target.uri.clone(),
            polls: self.polls,
        });
        response
    }

    /// Returns the response to the original request, which is still being produced.
    pub(super) fn finish_stream(self, found: FollowedResponse<R>) -> FollowResponse<R> {
        let head = WholeHead::new(&found.answer.head, true);
        let run = run_tag(&found.answer.head.headers);
        let length = content_length(&found.answer.head.headers);
        let resources = self.monitor.link().and_then(JobResources::below);
        let response = self.finish(found);
        let Some(resources) = resources else {
            return response.map(FollowBody::plain);
        };
        let resumer = Resumer {
            resources,
            head,
            run,
            from_monitor: true,
            monitor: self.monitor.target.uri,
            schedule: PollSchedule::new(&self.poller.options),
            poller: self.poller,
            origins: self.origins,
            observer: self.observer,
            document: self.document,
            polls: self.polls,
            received: 0,
            last_end: None,
            cancel: self.cancel,
        };
        response.map(|body| {
            let first = ReceivedPart { body, length };
            FollowBody::resumable(ResumableBody::new(first, Box::new(resumer)))
        })
    }
}
