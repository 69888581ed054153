//! Records, settles and repeats deliveries, each as a step of a transaction.

use super::{
    clock::from_unix_millis,
    delivery_row::{insert_delivery, load_delivery, save_delivery},
    error::SqliteError,
    row::JobRow,
    step::Step,
};
use crate::store::{Delivery, DeliveryId, Settlement};

impl Step<'_> {
    /// Records the deliveries of a job that this step ends. Its row must be as it stays.
    pub(super) fn record_deliveries(&mut self, row: &JobRow) -> Result<(), SqliteError> {
        if row.callbacks.is_none() {
            return Ok(());
        }
        for delivery in Delivery::of_end(&row.snapshot()) {
            insert_delivery(self.connection, &delivery)?;
            self.effects.has_due_deliveries = true;
        }
        Ok(())
    }

    /// Settles a delivery that has been attempted `attempts` times, unless it was settled meanwhile.
    pub(super) fn settle(
        &mut self,
        id: DeliveryId,
        attempts: u32,
        settlement: &Settlement,
    ) -> Result<(), SqliteError> {
        let Some(mut delivery) = load_delivery(self.connection, id)? else {
            return Ok(());
        };
        if delivery.due_at().is_none() || delivery.attempts != attempts {
            return Ok(());
        }
        delivery.settle(settlement, from_unix_millis(self.now));
        self.effects.has_due_deliveries |= matches!(settlement, Settlement::Release);
        save_delivery(self.connection, &delivery, self.now)
    }

    /// Makes a delivery due at once. Returns `false` if there is none, or if it has been delivered.
    pub(super) fn redeliver(&mut self, id: DeliveryId) -> Result<bool, SqliteError> {
        let Some(mut delivery) = load_delivery(self.connection, id)? else {
            return Ok(false);
        };
        if !delivery.repeat(from_unix_millis(self.now)) {
            return Ok(false);
        }
        self.effects.has_due_deliveries = true;
        save_delivery(self.connection, &delivery, self.now)?;
        Ok(true)
    }
}
