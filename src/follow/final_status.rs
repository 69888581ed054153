//! The status of a job's response.

use http::{HeaderMap, StatusCode};

use crate::protocol::ASYNC_RESULT;

/// Returns the status of a job's response that a monitor has sent.
///
/// OData services send it in `AsyncResult`, with a 200 (OData 4.01 §8.3.1).
pub(super) fn final_status(status: StatusCode, headers: &HeaderMap) -> StatusCode {
    let sent = headers
        .get(ASYNC_RESULT)
        .filter(|_| status == StatusCode::OK);
    let sent = sent.and_then(|value| value.to_str().ok()?.trim().parse().ok());
    sent.filter(|sent: &StatusCode| (200..600).contains(&sent.as_u16()))
        .unwrap_or(status)
}
