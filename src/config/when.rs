//! Decides whether and when a request is answered with 202.

use std::time::Duration;

use crate::protocol::Prefer;

/// Decides which requests become jobs, and when.
///
/// The method and the client's preferences (RFC 7240) count. For `POST`, `PUT`, `PATCH`, `DELETE`
/// and any other unsafe method:
///
/// | | no `Prefer` | `respond-async` | `respond-async, wait=N` | `wait=N` |
/// |---|---|---|---|---|
/// | `Always` | 202 at once | 202 at once | inline if done in N s, else 202 | the same |
/// | `After(d)` | inline if done in d, else 202 | 202 at once | inline if done in N s, else 202 | the same |
/// | `Preferred` | inline, however long | 202 at once | inline if done in N s, else 202 | inline, however long |
/// | `Streamed` | streamed | 202 at once | streamed if its head is there in N s, else 202 | streamed |
/// | `Never` | inline, however long | the same | the same | the same |
///
/// For `GET`, `HEAD`, `OPTIONS` and `TRACE`, which are safe (RFC 9110 §9.2.1):
///
/// | | by default | `GET` with `respond-async`, under [`Pending202`] | after [`any_method`] |
/// |---|---|---|---|
/// | `Always` | passes through | 202 at once | as above |
/// | `After(d)` | passes through, however long | 202 at once | as above |
/// | `Preferred` | passes through, whatever it prefers | 202 at once | as above |
/// | `Streamed` | passes through: streamed, but not as a job, so it cannot be resumed | 202 at once, not streamed | as above |
/// | `Never` | passes through | passes through | passes through |
///
/// In the third column, `respond-async, wait=N` is answered inline if it is done in N s.
///
/// Under `After`, `Preferred` and `Streamed`, a preference that cannot be honored is ignored:
/// without an `Idempotency-Key`, a request over a limit runs inline. See
/// [`shed_when_full`](crate::JobsBuilder::shed_when_full) to refuse it instead.
///
/// A client may disconnect while it waits. Under `Always` or `Streamed`, with `respond-async`, or
/// with an `Idempotency-Key` under `After`, the call then goes on as a job. Otherwise the call is
/// dropped.
///
/// `CONNECT`, requests with `Upgrade` (except to HTTP/2) and gRPC calls always pass through.
///
/// [`Pending202`]: crate::Dialect::Pending202
/// [`any_method`]: crate::AcceptedLayer::any_method
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum When {
    /// Answers 202 at once.
    #[default]
    Always,
    /// Answers 202 if the inner service has not responded this long after the whole request was
    /// received. The head of the response counts; its body may take any time.
    ///
    /// The call is moved to the background, not started again. `After(Duration::ZERO)` polls it
    /// once: a response that is ready at once, such as a router's 404, 405, 415, 422 or 401, stays
    /// an ordinary response. Choose it for a whole router.
    After(Duration),
    /// Answers 202 only if the client prefers `respond-async`.
    Preferred,
    /// Makes the request a job from the start, and sends its response as the service produces it,
    /// with a `Link` to the monitor.
    ///
    /// A client that is cut off reads on at `/jobs/{id}/stream`, or repeats the request with its
    /// `Idempotency-Key`. If the response exceeds
    /// [`max_result`](crate::JobsBuilder::max_result) or the budget, the client still gets all of
    /// it. The job then ends as [`ResultTooLarge`](crate::ErrorCode::ResultTooLarge).
    Streamed,
    /// Passes the request through, unchanged and streaming.
    Never,
}

/// The decision for one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Schedule {
    /// The request passes through to the inner service.
    PassThrough,
    /// The request is answered 202 at once, or refused.
    AcceptNow,
    /// The request is answered inline within this time, else 202.
    InlineWithin(Duration),
    /// The request is a job. Its response is streamed if its head is there within this time, else
    /// 202.
    Streamed(Option<Duration>),
}

impl When {
    pub(crate) fn schedule(self, prefer: &Prefer) -> Schedule {
        match (self, prefer.respond_async, prefer.wait) {
            (Self::Never, _, _) | (Self::Preferred, false, _) => Schedule::PassThrough,
            (Self::Streamed, false, _) => Schedule::Streamed(None),
            (Self::Streamed, true, Some(wait)) => Schedule::Streamed(Some(wait)),
            (_, _, Some(wait)) => Schedule::InlineWithin(wait),
            (_, true, None) | (Self::Always, false, None) => Schedule::AcceptNow,
            (Self::After(delay), false, None) => Schedule::InlineWithin(delay),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedule_follows_the_documented_table() {
        let (delay, wait) = (Duration::from_millis(300), Duration::from_secs(5));
        let prefer = |respond_async, wait| Prefer {
            respond_async,
            wait,
            callback: None,
        };
        let columns = [
            prefer(false, None),
            prefer(true, None),
            prefer(true, Some(wait)),
            prefer(false, Some(wait)),
        ];
        let (pass, now) = (Schedule::PassThrough, Schedule::AcceptNow);
        let (waits, delayed) = (Schedule::InlineWithin(wait), Schedule::InlineWithin(delay));
        for (when, row) in [
            (When::Always, [now, now, waits, waits]),
            (When::After(delay), [delayed, now, waits, waits]),
            (When::Preferred, [pass, now, waits, pass]),
            (
                When::Streamed,
                [
                    Schedule::Streamed(None),
                    now,
                    Schedule::Streamed(Some(wait)),
                    Schedule::Streamed(None),
                ],
            ),
            (When::Never, [pass, pass, pass, pass]),
        ] {
            for (prefer, schedule) in columns.iter().zip(row) {
                assert_eq!(when.schedule(prefer), schedule, "{when:?}, {prefer:?}");
            }
        }
    }
}
