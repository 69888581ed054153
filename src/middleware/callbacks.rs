//! The receivers that are notified of the job of a request.

use http::request::Parts;

#[cfg(feature = "webhook")]
use crate::config::Dialect;
use crate::{job::CallbackTarget, problem::Problem, protocol::Prefer, registry::Registry};

/// Returns the receivers that are notified if the request becomes a job. Marks the preference that
/// is honored then.
#[cfg(feature = "webhook")]
pub(super) fn named_callbacks<St>(
    registry: &Registry<St>,
    head: &Parts,
    prefer: &mut Prefer,
) -> Result<Vec<CallbackTarget>, Problem> {
    let Some(notifier) = &registry.notifier else {
        return Ok(Vec::new());
    };
    notifier.start();
    let by_get = registry.settings.dialect == Dialect::Pending202;
    let selected = notifier.webhooks().select(head, by_get);
    let selected = selected.map_err(|_| Problem::BadCallback)?;
    prefer.callback = selected.applied;
    let targets = selected.targets.into_iter().map(|target| {
        let events = target.events.iter().map(|event| event.as_str().to_owned());
        let mut callback = CallbackTarget::new(target.url, events);
        callback.is_get = target.is_get;
        callback
    });
    Ok(targets.collect())
}

/// Without the feature `webhook`, no one is notified.
#[cfg(not(feature = "webhook"))]
pub(super) fn named_callbacks<St>(
    _: &Registry<St>,
    _: &Parts,
    _: &mut Prefer,
) -> Result<Vec<CallbackTarget>, Problem> {
    Ok(Vec::new())
}

/// Notifies the receivers of a new job that want it while the job runs.
#[cfg(feature = "webhook")]
pub(super) fn follow<St: crate::store::Store>(registry: &Registry<St>, new: &crate::store::NewJob) {
    if let (Some(notifier), Some(targets)) = (&registry.notifier, &new.callbacks) {
        let (store, id) = (registry.store.clone(), new.id);
        notifier.follow(targets, move || store.changes(id));
    }
}
