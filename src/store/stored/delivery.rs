//! Deliveries in a form that can be stored.

use std::{fmt, time::SystemTime};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{
    job::Owner,
    store::{Attempt, Delivery, DeliveryId, DeliveryState},
};

/// A [`Delivery`] in a form that can be stored, without its id and its body.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredDelivery {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    owner: Option<Owner>,
    event: String,
    url: String,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    is_get: bool,
    created_at: SystemTime,
    state: StateName,
    /// Present while the delivery is pending.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    due_at: Option<SystemTime>,
    #[serde(default)]
    attempts: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    last: Option<Attempt>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum StateName {
    Pending,
    Delivered,
    Failed,
}

impl From<&Delivery> for StoredDelivery {
    fn from(delivery: &Delivery) -> Self {
        Self {
            owner: delivery.owner,
            event: delivery.event.clone(),
            url: delivery.url.clone(),
            is_get: delivery.is_get,
            created_at: delivery.created_at,
            state: match delivery.state {
                DeliveryState::Pending(_) => StateName::Pending,
                DeliveryState::Delivered => StateName::Delivered,
                DeliveryState::Failed => StateName::Failed,
            },
            due_at: delivery.due_at(),
            attempts: delivery.attempts,
            last: delivery.last.clone(),
        }
    }
}

impl StoredDelivery {
    /// Restores the delivery with this id.
    ///
    /// Stores keep the body apart, so that a list need not read it.
    pub fn into_delivery(self, id: DeliveryId, body: Bytes) -> Delivery {
        Delivery {
            id,
            owner: self.owner,
            event: self.event,
            url: self.url,
            is_get: self.is_get,
            body,
            created_at: self.created_at,
            state: match self.state {
                StateName::Pending => {
                    DeliveryState::Pending(self.due_at.unwrap_or(self.created_at))
                }
                StateName::Delivered => DeliveryState::Delivered,
                StateName::Failed => DeliveryState::Failed,
            },
            attempts: self.attempts,
            last: self.last,
        }
    }
}

impl fmt::Debug for StoredDelivery {
    /// Leaves out the URL, since its query may be a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoredDelivery")
            .field("event", &self.event)
            .field("state", &self.state)
            .field("attempts", &self.attempts)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use super::*;
    use crate::{
        job::{CallbackTarget, JobId, Snapshot, Status},
        store::{AttemptFailure, Settlement},
    };

    #[test]
    fn each_state_survives_the_encoding() {
        let now = SystemTime::now();
        let mut job = Snapshot::new(JobId::random(), now);
        job.status = Status::Succeeded;
        job.owner = Some(Owner::new("me"));
        let target = CallbackTarget::new("https://example.com/?key=1", ["job.succeeded".into()]);
        job.callbacks = Some(Arc::new([target]));
        let fresh = Delivery::of_end(&job).pop().expect("one delivery");
        let settled = |settlement| {
            let mut delivery = fresh.clone();
            delivery.settle(&settlement, now);
            delivery
        };
        let failed = Attempt::failed(now, AttemptFailure::Dns);
        let later = now + Duration::from_nanos(300_000_000_001);
        let states = [
            fresh.clone(),
            settled(Settlement::Delivered(Attempt::answered(now, 204))),
            settled(Settlement::Retry(failed.clone(), later)),
            settled(Settlement::Failed(failed)),
        ];
        for delivery in states {
            let json = serde_json::to_string(&StoredDelivery::from(&delivery)).expect("JSON");
            let stored: StoredDelivery = serde_json::from_str(&json).expect("a delivery");
            assert!(!format!("{stored:?}").contains("key"));
            let again = stored.into_delivery(delivery.id, delivery.body.clone());
            assert_eq!(again, delivery);
        }
    }
}
