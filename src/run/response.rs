//! How a response becomes a job's outcome.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use http::{Response, header, response};
use http_body::Body;
use pin_project::pin_project;
use tower::BoxError;

use super::{
    drive::{Job, log},
    replay,
};
use crate::{
    job::ErrorCode,
    limit::{Charge, Collect, CollectError},
    protocol::has_length,
    store::{Outcome, Store},
};

/// Receives a response as a job's outcome.
pub(crate) trait Receive<St: Store> {
    fn poll(self: Pin<&mut Self>, job: &Job<St>, cx: &mut Context<'_>) -> Poll<Outcome>;
}

/// A response on its way in.
#[pin_project]
pub(crate) struct Incoming<R> {
    head: Option<response::Parts>,
    #[pin]
    body: R,
    collect: Collect,
    /// The head's place in the budget.
    charge: Option<Charge>,
}

impl<R> Incoming<R>
where
    R: Body,
    R::Error: Into<BoxError>,
{
    pub(crate) fn new<St: Store>(response: Response<R>, job: &Job<St>) -> Self {
        let (head, body) = response.into_parts();
        let fields = head.headers.iter();
        let bytes: usize = fields
            .map(|(name, value)| name.as_str().len() + value.len())
            .sum();
        Self {
            charge: job.registry.store.reserve(bytes),
            head: Some(head),
            body,
            collect: Collect::new(job.registry.config.result_limit),
        }
    }
}

impl<R, St> Receive<St> for Incoming<R>
where
    R: Body,
    R::Error: Into<BoxError>,
    St: Store,
{
    fn poll(self: Pin<&mut Self>, job: &Job<St>, cx: &mut Context<'_>) -> Poll<Outcome> {
        let this = self.project();
        if this.charge.is_none() {
            return Poll::Ready(Outcome::Broke(ErrorCode::ResultTooLarge));
        }
        let reserve = |bytes| job.registry.store.reserve(bytes);
        let code = match ready!(this.collect.poll(this.body, cx, reserve)) {
            Ok(()) => match this.head.take() {
                Some(head) => {
                    return Poll::Ready(kept(head, this.collect, this.charge.take(), job));
                }
                None => return Poll::Pending,
            },
            Err(CollectError::TooLarge | CollectError::NoRoom) => ErrorCode::ResultTooLarge,
            Err(CollectError::Body(error)) => {
                log("the response's body broke", error.into());
                ErrorCode::BodyError
            }
        };
        Poll::Ready(Outcome::Broke(code))
    }
}

/// The outcome of a response that is there to its end.
fn kept<St: Store>(
    mut head: response::Parts,
    collect: &mut Collect,
    charge: Option<Charge>,
    job: &Job<St>,
) -> Outcome {
    let mut collected = collect.finish();
    let declared = head
        .headers
        .get(header::CONTENT_LENGTH)
        .filter(|_| !job.is_head && has_length(head.status))
        .and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    if declared.is_some_and(|declared| declared != collected.bytes.len()) {
        log(
            "the response's body broke",
            "not of its declared length".into(),
        );
        return Outcome::Broke(ErrorCode::BodyError);
    }
    collected.charge = match (charge, collected.charge.take()) {
        (Some(mut all), Some(body)) => {
            all.merge(body);
            Some(all)
        }
        (one, other) => one.or(other),
    };
    replay::strip(&mut head, &job.registry.config, job.is_owned);
    Outcome::Response(Response::from_parts(head, collected))
}
