//! Chooses when each request is answered with 202.

use std::fmt;

use http::{Method, request::Parts};

use super::{dialect::Dialect, when::When};

/// Chooses a [`When`] for each request.
///
/// Most applications need no type of their own: [`AcceptedLayer::when`] applies one [`When`] to all
/// requests, and [`AcceptedLayer::when_fn`] a closure. A policy is a type that decides about every
/// method, unless [`is_for_safe_methods`](Self::is_for_safe_methods) says otherwise:
///
/// ```
/// use http::{Method, request::Parts};
/// use tower_accepted::{AcceptedLayer, Policy, When};
///
/// #[derive(Clone)]
/// struct SlowPaths(Vec<String>);
///
/// impl Policy for SlowPaths {
///     fn when(&self, head: &Parts) -> When {
///         let is_slow = self.0.iter().any(|path| path == head.uri.path());
///         match head.method {
///             Method::GET | Method::POST if is_slow => When::Always,
///             _ => When::Never,
///         }
///     }
/// }
///
/// let layer = AcceptedLayer::new().policy(SlowPaths(vec!["/reports".to_owned()]));
/// # let _ = layer;
/// ```
///
/// [`AcceptedLayer::when`]: crate::AcceptedLayer::when
/// [`AcceptedLayer::when_fn`]: crate::AcceptedLayer::when_fn
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

/// The policy of [`AcceptedLayer::when_fn`](crate::AcceptedLayer::when_fn): a closure that leaves
/// safe methods alone.
#[derive(Clone, Copy)]
pub struct WhenFn<F>(F);

impl<F> WhenFn<F> {
    pub(crate) fn new(when: F) -> Self {
        Self(when)
    }
}

impl<F: Fn(&Parts) -> When> Policy for WhenFn<F> {
    fn when(&self, head: &Parts) -> When {
        self.0(head)
    }

    fn is_for_safe_methods(&self) -> bool {
        false
    }
}

impl<F> fmt::Debug for WhenFn<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WhenFn")
    }
}

/// The policy of [`AcceptedLayer::any_method`](crate::AcceptedLayer::any_method): another policy,
/// applied to safe methods too.
#[derive(Debug, Clone, Copy)]
pub struct AnyMethod<P>(P);

impl<P> AnyMethod<P> {
    pub(crate) fn new(policy: P) -> Self {
        Self(policy)
    }
}

impl<P: Policy> Policy for AnyMethod<P> {
    fn when(&self, head: &Parts) -> When {
        self.0.when(head)
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
