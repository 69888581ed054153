//! The deliveries of a job's callbacks, as a resource of their own.
//!
//! They change after the last revision of the job, so its document cannot have them.

use std::time::SystemTime;

use http::{Response, header};
use serde::Serialize;

use super::status::{JSON, NO_STORE};
#[cfg(feature = "webhook")]
use crate::notify::Notifier;
use crate::{
    job::{CallbackTarget, Snapshot, write_timestamp},
    problem::Problem,
    protocol::shown_url,
    registry::Registry,
    store::{Delivery, ResultBody, Store},
};

#[derive(Serialize)]
struct CallbacksDocument<'a> {
    callbacks: Vec<TargetDocument<'a>>,
}

#[derive(Serialize)]
struct KeysDocument {
    keys: Vec<String>,
}

#[derive(Serialize)]
struct TargetDocument<'a> {
    url: &'a str,
    events: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    delivery: Option<DeliveryDocument<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct DeliveryDocument<'a> {
    id: String,
    event: &'a str,
    state: &'static str,
    attempts: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_attempt_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_failure: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_attempt_at: Option<String>,
}

/// Responds with the targets of a job, and with their deliveries once the job has ended.
pub(super) async fn callbacks<St: Store>(
    registry: &Registry<St>,
    job: &Snapshot,
) -> Result<Response<ResultBody>, St::Error> {
    let (Some(targets), Some(outbox)) = (&job.callbacks, registry.store.outbox()) else {
        return Ok(Problem::NotFound.response());
    };
    let deliveries = outbox.of_job(job.id).await?;
    let document = CallbacksDocument {
        callbacks: (0..)
            .zip(&**targets)
            .map(|(number, target)| {
                let mut of_target = deliveries.iter().filter(|it| it.id.target() == number);
                TargetDocument::new(target, of_target.next())
            })
            .collect(),
    };
    Ok(json_response(&document))
}

/// Responds with the keys that verify the signatures of private keys.
pub(super) fn keys<St>(registry: &Registry<St>) -> Response<ResultBody> {
    let keys = public_keys(registry);
    if keys.is_empty() {
        return Problem::NotFound.response();
    }
    json_response(&KeysDocument { keys })
}

#[cfg(feature = "webhook")]
fn public_keys<St>(registry: &Registry<St>) -> Vec<String> {
    let keys = registry.notifier.iter().flat_map(Notifier::public_keys);
    keys.map(|key| key.to_string()).collect()
}

/// Without the feature `webhook`, nothing is signed.
#[cfg(not(feature = "webhook"))]
fn public_keys<St>(_: &Registry<St>) -> Vec<String> {
    Vec::new()
}

fn json_response(document: &impl Serialize) -> Response<ResultBody> {
    let json = serde_json::to_vec(document).expect("texts and numbers");
    let mut response = Response::new(ResultBody::new(json.into(), None));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, JSON);
    headers.insert(header::CACHE_CONTROL, NO_STORE);
    response
}

impl<'a> TargetDocument<'a> {
    fn new(target: &'a CallbackTarget, delivery: Option<&'a Delivery>) -> Self {
        Self {
            // A query may be a secret.
            url: shown_url(&target.url),
            events: &target.events,
            delivery: delivery.map(DeliveryDocument::new),
        }
    }
}

impl<'a> DeliveryDocument<'a> {
    fn new(delivery: &'a Delivery) -> Self {
        let last = delivery.last.as_ref();
        Self {
            id: delivery.id.to_string(),
            event: &delivery.event,
            state: delivery.state.as_str(),
            attempts: delivery.attempts,
            last_attempt_at: last.map(|last| timestamp(last.at)),
            last_status: last.and_then(|last| last.status),
            last_failure: last.and_then(|last| last.failure).map(|it| it.as_str()),
            next_attempt_at: delivery.due_at().map(timestamp),
        }
    }
}

fn timestamp(at: SystemTime) -> String {
    let mut text = Vec::new();
    write_timestamp(&mut text, at);
    String::from_utf8(text).unwrap_or_default()
}
