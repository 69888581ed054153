//! Bytes of a result that is being sent, and their charge.

use bytes::Bytes;

use super::error::NatsError;
use crate::store::{Budget, Charge};

/// Bytes that hold their charge for as long as any part of them is in use.
struct ChargedFrame {
    bytes: Bytes,
    _charge: Charge,
}

impl AsRef<[u8]> for ChargedFrame {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Returns bytes that hold `charge` for as long as any part of them is in use.
pub(super) fn charged(bytes: Bytes, charge: Charge) -> Bytes {
    Bytes::from_owner(ChargedFrame {
        bytes,
        _charge: charge,
    })
}

/// Waits until replays have room for `bytes`, at most for the time that the budget allows.
pub(super) async fn reserve_replay(budget: &Budget, bytes: usize) -> Result<Charge, NatsError> {
    let reserved = budget.reserve_replay(bytes).await;
    reserved.ok_or_else(NatsError::no_budget)
}
