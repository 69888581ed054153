//! Lists the deliveries of callbacks, as text or as JSON.

use serde::Serialize;
use tower::BoxError;
use tower_accepted::{
    Jobs,
    store::{Delivery, DeliveryFilter, sqlite::SqliteStore},
};

use super::{
    document::{millis, seconds},
    print::print,
    text::{absent, printable},
};

/// The first line of the table.
pub(super) const DELIVERIES_HEAD: &str = "\
ID                        EVENT          STATE      ATTEMPTS  LAST       NEXT                  \
URL\n";

/// A delivery as JSON, with the members of a job's `callbacks`. A member without a value is
/// omitted.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct DeliveryLine<'a> {
    id: String,
    event: &'a str,
    /// Without its query, which may be a secret.
    url: &'a str,
    created_at: String,
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

impl<'a> DeliveryLine<'a> {
    fn new(delivery: &'a Delivery) -> Self {
        let last = delivery.last.as_ref();
        Self {
            id: delivery.id.to_string(),
            event: &delivery.event,
            url: delivery.shown_url(),
            created_at: millis(delivery.created_at),
            state: delivery.state.as_str(),
            attempts: delivery.attempts,
            last_attempt_at: last.map(|last| millis(last.at)),
            last_status: last.and_then(|last| last.status),
            last_failure: last.and_then(|last| last.failure).map(|it| it.as_str()),
            next_attempt_at: delivery.due_at().map(millis),
        }
    }
}

/// Prints deliveries page by page, the newest first.
pub(super) async fn list_deliveries(
    jobs: &Jobs<SqliteStore>,
    mut filter: DeliveryFilter,
    mut limit: usize,
    json: bool,
) -> Result<(), BoxError> {
    if !json && !print(DELIVERIES_HEAD)? {
        return Ok(());
    }
    while limit > 0 {
        filter = filter.limit(limit);
        let page = jobs.deliveries(&filter).await?;
        let mut text = String::new();
        for delivery in &page.deliveries {
            text += &if json {
                serde_json::to_string(&DeliveryLine::new(delivery))? + "\n"
            } else {
                delivery_row(delivery)
            };
        }
        let is_read = print(&text)?;
        let Some(next) = page.next.filter(|_| is_read) else {
            break;
        };
        limit = limit.saturating_sub(page.deliveries.len());
        filter = filter.after(next);
    }
    Ok(())
}

/// Returns the line of a delivery in the table.
pub(super) fn delivery_row(delivery: &Delivery) -> String {
    let line = format!(
        "{:24}  {:13}  {:9}  {:8}  {:9}  {:20}  {}",
        delivery.id.to_string(),
        delivery.event,
        delivery.state.as_str(),
        delivery.attempts,
        last_outcome(delivery),
        delivery.due_at().map_or_else(absent, seconds),
        printable(delivery.shown_url()),
    );
    line + "\n"
}

/// Returns the status of the last response, or why there was none.
fn last_outcome(delivery: &Delivery) -> String {
    let Some(last) = &delivery.last else {
        return absent();
    };
    let failure = last.failure.map(|failure| failure.as_str().to_owned());
    let status = last.status.map(|status| status.to_string());
    status.or(failure).unwrap_or_else(absent)
}
