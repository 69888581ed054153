//! Records, settles and redelivers deliveries, each as a step of a transaction.

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

    /// Settles a delivery that was leased after so many attempts, unless it was settled meanwhile.
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
        if !delivery.redeliver(from_unix_millis(self.now)) {
            return Ok(false);
        }
        self.effects.has_due_deliveries = true;
        save_delivery(self.connection, &delivery, self.now)?;
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures_util::FutureExt;
    use tempfile::TempDir;

    use super::*;
    use crate::{
        JobId,
        store::{
            CallbackTarget, NewJob, Revisions,
            sqlite::{open::open, options::SqliteOptions, shared::Shared, transaction::FileWriter},
        },
    };

    fn new_writer(directory: &TempDir) -> (FileWriter, Arc<Shared>) {
        let options = SqliteOptions::new();
        let file = open(&directory.path().join("jobs.db"), &options).expect("the file opens");
        let shared = Arc::new(Shared::new(&file, options));
        let writer = FileWriter::new(file, shared.clone());
        (writer.expect("totals"), shared)
    }

    /// Inserts a job, and cancels it.
    fn end(writer: &mut FileWriter, callbacks: Option<Arc<[CallbackTarget]>>) {
        let mut new = NewJob::new(JobId::random());
        new.callbacks = callbacks;
        let ended = writer.transact(1, |step| {
            let mut row = JobRow::new(&new, false, &SqliteOptions::new());
            step.insert(&mut row, None, b"", b"", None)?;
            step.cancel(new.id, &Revisions::Any).map(drop)
        });
        ended.expect("a commit");
    }

    #[test]
    fn only_deliveries_wake_senders() {
        let directory = TempDir::new().expect("a directory");
        let (mut one, one_shared) = new_writer(&directory);
        let (mut other, other_shared) = new_writer(&directory);
        let is_woken = |shared: &Shared| shared.deliveries_due.notified().now_or_never().is_some();
        one.look().expect("the other process");
        end(&mut one, None);
        other.look().expect("a change");
        assert!(!is_woken(&one_shared) && !is_woken(&other_shared));
        let target = CallbackTarget::new("https://a.example/", ["job.canceled".to_owned()]);
        end(&mut one, Some([target].into()));
        assert!(is_woken(&one_shared));
        other.look().expect("a change");
        assert!(is_woken(&other_shared));
        // Once.
        other.look().expect("no change");
        assert!(!is_woken(&other_shared));
    }
}
