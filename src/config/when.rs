use std::time::Duration;

use http::{Method, request::Parts};

use super::dialect::Dialect;
use crate::protocol::Prefer;

/// Which requests become jobs, and when.
///
/// What the client prefers (RFC 7240) is taken into account:
///
/// | | no `Prefer` | `respond-async` | `respond-async, wait=N` | `wait=N` |
/// |---|---|---|---|---|
/// | `Always` | 202 at once | 202 at once | inline if done in N s, else 202 | the same |
/// | `After(d)` | inline if done in d, else 202 | 202 at once | inline if done in N s, else 202 | the same |
/// | `Preferred` | inline, however long | 202 at once | inline if done in N s, else 202 | inline, however long |
/// | `Never` | inline, however long | the same | the same | the same |
///
/// `CONNECT`, requests with `Upgrade` (to anything but HTTP/2 itself) and gRPC calls always pass
/// through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum When {
    /// Answer 202 at once.
    #[default]
    Always,
    /// Answer 202 if the inner service has not answered (its head; the body may take as long as it
    /// likes) so long after the whole request is there.
    ///
    /// The call is the same before and after: it is moved, not started again. `After(ZERO)` asks it
    /// once: what is ready at once, as a router's 404, 405, 415, 422 or 401 is, stays an ordinary
    /// answer instead of a 202 for work that cannot succeed. It is the choice for a whole router.
    After(Duration),
    /// Answer 202 only where the client prefers `respond-async`.
    Preferred,
    /// Pass the request through, untouched and streaming.
    Never,
}

/// Chooses a [`When`] for each request.
///
/// A [`When`] itself does, for the unsafe methods: `GET`, `HEAD`, `OPTIONS` and `TRACE` (RFC 9110
/// §9.2.1) pass through. A closure over the request's head is taken at its word:
///
/// ```
/// use http::request::Parts;
/// use tower_accepted::{AcceptedLayer, When};
///
/// let layer = AcceptedLayer::new().when(|head: &Parts| match head.uri.path() {
///     "/reports" => When::Always,
///     _ => When::Never,
/// });
/// # let _ = layer;
/// ```
pub trait Policy {
    /// When to answer 202 to this request.
    fn when(&self, head: &Parts) -> When;

    /// Whether this speaks for safe methods, too. Default: yes; `false` leaves them to the layer, which
    /// passes them through, but for a `GET` with `respond-async` under
    /// [`Dialect::Pending202`](crate::Dialect::Pending202).
    fn is_for_safe_methods(&self) -> bool {
        true
    }
}

impl Policy for When {
    fn when(&self, _: &Parts) -> When {
        *self
    }

    fn is_for_safe_methods(&self) -> bool {
        false
    }
}

impl<F: Fn(&Parts) -> When> Policy for F {
    fn when(&self, head: &Parts) -> When {
        self(head)
    }
}

/// Whether requests of this method pass through, whatever else their heads say.
pub(crate) fn is_passed<P: Policy>(policy: &P, dialect: Dialect, method: &Method) -> bool {
    let may_be_asked_for = dialect == Dialect::Pending202 && method == Method::GET;
    method.is_safe() && !policy.is_for_safe_methods() && !may_be_asked_for
}

/// What the policy says of a request that is not passed, and where it says nothing, the dialect.
pub(crate) fn choose<P: Policy>(policy: &P, head: &Parts) -> When {
    let is_spoken_for = policy.is_for_safe_methods() || !head.method.is_safe();
    match policy.when(head) {
        When::Never => When::Never,
        when if is_spoken_for => when,
        _ => When::Preferred,
    }
}

/// What is to be done with one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Plan {
    /// Hand it to the inner service as it is.
    Pass,
    /// Answer 202, or refuse.
    Now,
    /// Answer inline within so long, else 202.
    Within(Duration),
}

impl When {
    pub(crate) fn plan(self, prefer: &Prefer) -> Plan {
        match (self, prefer.respond_async, prefer.wait) {
            (Self::Never, _, _) | (Self::Preferred, false, _) => Plan::Pass,
            (_, _, Some(wait)) => Plan::Within(wait),
            (_, true, None) | (Self::Always, false, None) => Plan::Now,
            (Self::After(delay), false, None) => Plan::Within(delay),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_when_and_preference_holds() {
        let (delay, wait) = (Duration::from_millis(300), Duration::from_secs(5));
        let prefer = |respond_async, wait| Prefer {
            respond_async,
            wait,
        };
        let columns = [
            prefer(false, None),
            prefer(true, None),
            prefer(true, Some(wait)),
            prefer(false, Some(wait)),
        ];
        let (pass, now, waits) = (Plan::Pass, Plan::Now, Plan::Within(wait));
        for (when, row) in [
            (When::Always, [now, now, waits, waits]),
            (When::After(delay), [Plan::Within(delay), now, waits, waits]),
            (When::Preferred, [pass, now, waits, pass]),
            (When::Never, [pass, pass, pass, pass]),
        ] {
            for (prefer, plan) in columns.iter().zip(row) {
                assert_eq!(when.plan(prefer), plan, "{when:?}, {prefer:?}");
            }
        }
    }
}
