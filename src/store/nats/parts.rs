//! Writes, finds and removes the parts of a response that is published while it is produced.
//!
//! Each part creates the subject of its index, after the one before it was stored. So the parts
//! that exist are the first ones. A process that creates the next subject instead seals the output.

use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};

use super::{
    chunks,
    clock::{as_millis, unix_now},
    error::NatsError,
    jetstream::JetStream,
    messages::{self, WriteError},
    part::{OutputId, Part, encode_seal},
    response::{ResponseRecord, StreamedParts},
    retry::Retry,
    streams::MAX_RESULT_SLACK,
};
use crate::ErrorCode;

/// The number of parts that are renewed concurrently.
const RENEW_CONCURRENCY: usize = 8;

impl JetStream {
    /// Creates the part at `index`, or a seal. Returns the message that is there instead, if any.
    ///
    /// The other message may be the same one, written by an attempt whose acknowledgement was lost.
    pub(super) async fn create_part(
        &self,
        output: OutputId,
        index: u32,
        payload: &Bytes,
        patience: Duration,
    ) -> Result<Option<Part>, WriteError> {
        let subject = output.subject(&self.names, index);
        let mut retry = Retry::within(patience);
        loop {
            let context = &self.context;
            let created =
                messages::publish(context, &subject, Some(0), None, payload, patience).await;
            match created {
                Ok(_) => return Ok(None),
                Err(WriteError::Conflict) => {}
                Err(error) => return Err(error),
            }
            match self.part(output, index).await {
                Ok(Some(found)) => return Ok(Some(found)),
                // A new leader has not applied it yet, or it has just been removed.
                Ok(None) => {
                    let error = NatsError::unavailable("the conflicting part is missing");
                    let waited = retry.wait(error, &subject).await;
                    waited.map_err(WriteError::Unknown)?;
                }
                Err(error) => {
                    let waited = retry.wait(error, &subject).await;
                    waited.map_err(WriteError::Unknown)?;
                }
            }
        }
    }

    /// Reads a part from the stream's leader.
    pub(super) async fn part(
        &self,
        output: OutputId,
        index: u32,
    ) -> Result<Option<Part>, NatsError> {
        let subject = output.subject(&self.names, index);
        let found = messages::last(&self.streams.results, &subject).await?;
        found.map(Part::try_from).transpose()
    }

    /// Reads a part. Returns `None` only if it is certain to be missing.
    pub(super) async fn stored_part(
        &self,
        output: OutputId,
        index: u32,
    ) -> Result<Option<Part>, NatsError> {
        let read = async || self.part(output, index).await;
        let found = self.result_barrier.read(read).await?;
        Ok(found.filter(|part| part.seal.is_none()))
    }

    /// Finds the last part, and its index, among those from index `first` on.
    ///
    /// Reads about twice the logarithm of their number.
    pub(super) async fn last_part(
        &self,
        output: OutputId,
        first: u32,
    ) -> Result<Option<(u32, Part)>, NatsError> {
        let part = async |index| {
            let found = self.part(output, index).await?;
            Ok::<_, NatsError>(found.filter(|part| part.seal.is_none()))
        };
        let Some(found) = part(first).await? else {
            return Ok(None);
        };
        let mut last = (first, found);
        let mut missing = None;
        // Doubles the step until a part is missing, then halves the range.
        let mut step = 1;
        loop {
            let next = match missing {
                None => last.0.saturating_add(step),
                Some(missing) if missing - last.0 <= 1 => return Ok(Some(last)),
                Some(missing) => last.0 + (missing - last.0) / 2,
            };
            match part(next).await? {
                Some(found) => last = (next, found),
                None => missing = Some(next),
            }
            step = step.saturating_mul(2);
        }
    }

    /// Makes the parts that exist the last ones: their producer can add none. Returns the response
    /// so far, or `None` if there is no part.
    ///
    /// `code` is why the job is to end.
    pub(super) async fn seal(
        &self,
        output: OutputId,
        code: ErrorCode,
    ) -> Result<Option<ResponseRecord>, NatsError> {
        let (mut count, mut bytes) = (0, 0);
        loop {
            if let Some((index, last)) = self.last_part(output, count).await? {
                (count, bytes) = (index + 1, last.end());
            }
            let payload = encode_seal(bytes, code);
            let created = self.create_part(output, count, &payload, self.client_patience());
            match created.await {
                Ok(None) => break,
                Ok(Some(found)) if found.seal.is_some() => break,
                Ok(Some(_)) => {}
                // An operator has set a limit. The producer cannot add parts either.
                Err(WriteError::Full) => break,
                Err(error) => return Err(error.into_error()),
            }
        }
        if count == 0 {
            return Ok(None);
        }
        let first = self.part(output, 0).await?;
        let start = first.and_then(|part| part.start);
        let parts = StreamedParts {
            claim: output.claim,
            count,
        };
        Ok(start.map(|start| start.response.with_parts(bytes, parts)))
    }

    /// Removes an output, and its seal.
    pub(super) async fn remove_output(&self, output: OutputId) -> Result<(), NatsError> {
        let last = self.last_part(output, 0).await?;
        let count = last.map_or(0, |(index, _)| index + 1);
        self.remove_parts(output, count, true).await
    }

    /// Removes the first `count` parts of an output, and the seal that may follow.
    pub(super) async fn remove_parts(
        &self,
        output: OutputId,
        count: u32,
        with_seal: bool,
    ) -> Result<(), NatsError> {
        let subject = |index| output.subject(&self.names, index);
        let messages = count.saturating_add(u32::from(with_seal));
        chunks::remove(&self.streams.results, subject, messages).await
    }

    /// Writes the first `count` parts again that are older than `max_age`, so that they do not
    /// expire.
    pub(super) async fn renew_parts(
        &self,
        output: OutputId,
        count: u32,
        max_age: Duration,
    ) -> Result<(), NatsError> {
        let (stream, patience) = (&self.streams.results, self.client_patience());
        let max_age = as_millis(max_age);
        let renewals = (0..count).map(|index| async move {
            let subject = output.subject(&self.names, index);
            let Some(found) = messages::last(stream, &subject).await? else {
                return Ok(());
            };
            if unix_now().saturating_sub(found.written_at) <= max_age {
                return Ok(());
            }
            let context = &self.context;
            let renewed =
                messages::publish(context, &subject, None, None, &found.payload, patience);
            renewed.await.map_err(WriteError::into_error)?;
            messages::delete(stream, found.sequence).await
        });
        let renewals = stream::iter(renewals).buffer_unordered(RENEW_CONCURRENCY);
        renewals.try_collect().await
    }

    /// Returns the time that the stream of results keeps a message beyond the retention.
    pub(super) fn result_slack(&self) -> Duration {
        self.options.retain.min(MAX_RESULT_SLACK)
    }
}
