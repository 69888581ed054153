//! Sends the deliveries of a store's outbox, and the events of running jobs.

mod courier;
mod live;
mod notifier;
mod receiver_state;
mod receivers;
mod send;

pub(crate) use self::notifier::Notifier;
