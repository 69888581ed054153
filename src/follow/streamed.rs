//! Makes a response resumable that a server streams instead of a 202.

use std::marker::PhantomData;

use http::{Method, Request, Response};
use http_body::Body;
use tower_service::Service;

use super::{
    FollowBody,
    body::FollowResponse,
    cancel::CancelOnDrop,
    deadline::Deadline,
    links::linked,
    origin::{FollowTarget, OriginPolicy},
    original::OriginalRequest,
    parts::{WholeHead, content_length},
    peeked::ClientResponse,
    poll::Poller,
    resumable::{ReceivedPart, ResumableBody},
    resume::{JobResources, Resumer},
    schedule::PollSchedule,
    template::RequestTemplate,
};
use crate::protocol::BoxError;

/// Returns a response that is not followed. Its body can be resumed if it names a monitor.
pub(super) fn resumable<S, B, R>(
    original: OriginalRequest,
    service: S,
    response: ClientResponse<R>,
) -> FollowResponse<R>
where
    S: Service<Request<B>, Response = Response<R>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Into<BoxError> + Send,
    B: Default + Send + 'static,
    R: Body + Send + 'static,
    R::Error: Into<BoxError> + Send,
{
    let has_content = original.request.method() != Method::HEAD
        && !response.status().is_informational()
        && !response.body().is_end_stream();
    if !original.options.is_streaming || !has_content {
        return response.map(FollowBody::plain);
    }
    let (head, body) = response.into_parts();
    let OriginalRequest { options, request } = original;
    let origins = OriginPolicy::new(request.uri(), &options.origins);
    let home = FollowTarget {
        uri: request.uri().clone(),
        is_home: true,
    };
    let monitor = linked(&head.headers, "monitor");
    let monitor = monitor.and_then(|reference| origins.resolve(&home, reference).ok());
    let resources = monitor.as_ref().and_then(JobResources::below);
    let (Some(monitor), Some(resources)) = (monitor, resources) else {
        return Response::from_parts(head, FollowBody::plain(body));
    };
    let first = ReceivedPart {
        body,
        length: content_length(&head.headers),
    };
    let resumer = Resumer {
        resources,
        head: WholeHead::new(&head, false),
        run: None,
        from_monitor: false,
        monitor: monitor.uri,
        origins,
        observer: request
            .extensions()
            .get()
            .or(options.observer.as_ref())
            .cloned(),
        document: None,
        polls: 0,
        schedule: PollSchedule::new(&options),
        received: 0,
        last_end: None,
        // The server would go on without this client, so a drop does not cancel the job.
        cancel: CancelOnDrop::default(),
        poller: Poller {
            service,
            template: RequestTemplate::new(&request, &options.shared_headers),
            deadline: Deadline::new(options.timeout),
            options,
            _body: PhantomData,
        },
    };
    let body = ResumableBody::new(first, Box::new(resumer));
    Response::from_parts(head, FollowBody::resumable(body))
}
