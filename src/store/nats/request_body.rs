//! Large request bodies, stored in chunks.

use super::{
    chunks::{self, AssembledBody},
    error::NatsError,
    jetstream::JetStream,
    messages::WriteError,
    request::NatsRecord,
};
use crate::JobId;

impl JetStream {
    /// Writes a request's body in chunks. Returns their number.
    pub(super) async fn write_request_body(
        &self,
        id: JobId,
        request: &NatsRecord,
    ) -> Result<u32, WriteError> {
        let subject = |index| self.names.request_chunk(id, index);
        let (body, size) = (&request.body, self.chunk_bytes());
        let patience = self.client_patience();
        let written = chunks::write(&self.context, subject, body, size, patience).await;
        written.map_err(|error| match error {
            WriteError::Full => WriteError::Full,
            // `TooLarge` would be answered with 431, which blames the request's head.
            error => WriteError::Unknown(error.into_error()),
        })
    }

    /// Reads a request's body from its chunks. Returns `None` if they have expired.
    pub(super) async fn read_request_body(
        &self,
        id: JobId,
        count: u32,
    ) -> Result<Option<AssembledBody>, NatsError> {
        let subject = |index| self.names.request_chunk(id, index);
        chunks::read(
            &self.streams.requests,
            &self.request_barrier,
            subject,
            count,
        )
        .await
    }

    /// Removes a request's body.
    pub(super) async fn remove_request_body(&self, id: JobId, count: u32) -> Result<(), NatsError> {
        let subject = |index| self.names.request_chunk(id, index);
        chunks::remove(&self.streams.requests, subject, count).await
    }
}
