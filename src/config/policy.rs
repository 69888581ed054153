//! Chooses when each request is answered with 202.

use http::{Method, request::Parts};

use super::{dialect::Dialect, when::When};

/// Chooses a [`When`] for each request.
///
/// A [`When`] is a policy for the unsafe methods: `GET`, `HEAD`, `OPTIONS` and `TRACE` (RFC 9110
/// §9.2.1) pass through. A closure over the request's head decides about every method:
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
    /// Chooses when this request is answered with 202.
    fn when(&self, head: &Parts) -> When;

    /// Returns `true` if this decides about safe methods too. Default: `true`.
    ///
    /// If it returns `false`, safe methods pass through, except for a `GET` with `respond-async`
    /// under [`Dialect::Pending202`].
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

/// Returns `true` if requests with this method pass through, whatever else their heads contain.
pub(crate) fn passes_through<P: Policy>(policy: &P, dialect: Dialect, method: &Method) -> bool {
    let may_be_preferred = dialect == Dialect::Pending202 && method == Method::GET;
    method.is_safe() && !policy.is_for_safe_methods() && !may_be_preferred
}

/// Chooses for a request whose method alone does not let it pass through.
pub(crate) fn choose<P: Policy>(policy: &P, head: &Parts) -> When {
    let is_decided = policy.is_for_safe_methods() || !head.method.is_safe();
    match policy.when(head) {
        When::Never => When::Never,
        when if is_decided => when,
        _ => When::Preferred,
    }
}
