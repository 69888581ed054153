//! Lists an owner's jobs: `GET /jobs`.

use std::num::NonZeroUsize;

use http::{Response, header, request::Parts};
use serde::Serialize;
use serde_json::value::RawValue;

use super::{
    document::linked_document,
    status::{JSON, NO_STORE},
};
use crate::{
    config::{LinkOrigin, Links, Settings},
    job::{Filter, Owner, Page},
    problem::Problem,
    registry::Registry,
    store::{ResultBody, Store},
};

/// Responds with one page of the jobs of `owner`.
pub(super) async fn list<St: Store>(
    registry: &Registry<St>,
    owner: Owner,
    head: &Parts,
) -> Result<Response<ResultBody>, St::Error> {
    let Some(filter) = parse_filter(head.uri.query().unwrap_or_default()) else {
        return Ok(Problem::BadQuery.response());
    };
    let filter = filter.owner(owner);
    let page = registry.store.list(&filter).await?;
    for job in &page.jobs {
        job.teach(&registry.estimates);
    }
    let list = ListDocument::new(&page, &filter, &registry.settings);
    let json = serde_json::to_vec(&list).expect("texts and documents");
    let mut response = Response::new(ResultBody::new(json.into(), None));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, JSON);
    headers.insert(header::CACHE_CONTROL, NO_STORE);
    Ok(response)
}

/// Parses a query, and ignores unknown parameters. Returns `None` if a value is malformed, or if a
/// parameter is repeated.
fn parse_filter(query: &str) -> Option<Filter> {
    let (mut status, mut limit, mut cursor) = (None, None, None);
    for pair in query.split('&') {
        // No value that the monitor issues has percent-encoded characters.
        let is_first = match pair.split_once('=').unwrap_or((pair, "")) {
            ("status", value) => status.replace(value.parse().ok()?).is_none(),
            ("limit", value) => {
                let jobs: NonZeroUsize = value.parse().ok()?;
                limit.replace(jobs.get()).is_none()
            }
            ("cursor", value) => cursor.replace(value.parse().ok()?).is_none(),
            _ => true,
        };
        if !is_first {
            return None;
        }
    }
    let mut filter = Filter::new();
    if let Some(status) = status {
        filter = filter.status(status);
    }
    if let Some(jobs) = limit {
        filter = filter.limit(jobs);
    }
    if let Some(cursor) = cursor {
        filter = filter.after(cursor);
    }
    Some(filter)
}

#[derive(Serialize)]
struct ListDocument {
    jobs: Vec<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

impl ListDocument {
    fn new(page: &Page, filter: &Filter, settings: &Settings) -> Self {
        let jobs = page.jobs.iter().map(|job| {
            let json = String::from_utf8(linked_document(
                LinkOrigin::List,
                &job.id.encode(),
                job,
                settings,
            ));
            let json = json.ok().and_then(|json| RawValue::from_string(json).ok());
            json.unwrap_or_default()
        });
        let next = page.next.map(|cursor| {
            // A relative reference to the same path needs only the query.
            let list = match settings.links {
                Links::Relative => String::new(),
                _ => settings.list_link(),
            };
            let status = filter
                .get_status()
                .map(|status| format!("&status={status}"));
            let status = status.unwrap_or_default();
            format!(
                "{list}?limit={}{status}&cursor={cursor}",
                filter.get_limit()
            )
        });
        Self {
            jobs: jobs.collect(),
            next,
        }
    }
}
