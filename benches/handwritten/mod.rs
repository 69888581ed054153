//! The handler one would write by hand to answer 202: the yardstick of the benchmarks.
//!
//! It reads the body, inserts the job into a map, spawns the work, and answers with `Location` and
//! a small document. Other handlers read the status, return the result, and delete a job.
//!
//! It lacks what the layer does beyond that, which keeps the yardstick hard: limits on jobs and
//! bytes, timeouts, panics, cancel, drain, retention and progress. The same holds for times in the
//! document, trailers, and safe headers on a replay.

use std::sync::Arc;

use axum::{
    Json, Router,
    body::{Body, to_bytes},
    extract::{Path, State},
    response::IntoResponse,
    routing::{get, post},
};
use bytes::Bytes;
use dashmap::DashMap;
use http::{Response, StatusCode, header};
use serde::Serialize;
use uuid::Uuid;

use crate::subjects::render;

/// The maximum size of a result, in bytes: the layer's default.
const MAX_RESULT_BYTES: usize = 16 << 20;

/// The jobs by id.
#[derive(Clone, Default)]
pub(crate) struct Jobs {
    entries: Arc<DashMap<Uuid, Entry>>,
}

struct Entry {
    status: Status,
    /// The response, once the work has succeeded.
    response: Option<Response<Bytes>>,
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Status {
    Running,
    Succeeded,
    Failed,
}

#[derive(Serialize)]
struct Document {
    id: Uuid,
    status: Status,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<String>,
}

impl Jobs {
    /// Creates the application: [`render`] behind a 202.
    pub(crate) fn router(&self) -> Router {
        Router::new()
            .route("/reports", post(accept))
            .route("/jobs/{id}", get(status).delete(delete))
            .route("/jobs/{id}/result", get(result))
            .with_state(self.clone())
    }
}

impl Document {
    fn new(id: Uuid, status: Status) -> Self {
        let ended = status == Status::Succeeded;
        Self {
            id,
            status,
            result: ended.then(|| format!("/jobs/{id}/result")),
        }
    }
}

async fn accept(State(jobs): State<Jobs>, body: Bytes) -> impl IntoResponse {
    let id = Uuid::new_v4();
    let entry = Entry {
        status: Status::Running,
        response: None,
    };
    jobs.entries.insert(id, entry);
    tokio::spawn(async move {
        let ended = match collect(render(body).await.into_response()).await {
            Ok(response) => Entry {
                status: Status::Succeeded,
                response: Some(response),
            },
            Err(_) => Entry {
                status: Status::Failed,
                response: None,
            },
        };
        if let Some(mut entry) = jobs.entries.get_mut(&id) {
            *entry = ended;
        }
    });
    let location = [(header::LOCATION, format!("/jobs/{id}"))];
    let document = Document::new(id, Status::Running);
    (StatusCode::ACCEPTED, location, Json(document))
}

async fn status(
    State(jobs): State<Jobs>,
    Path(id): Path<Uuid>,
) -> Result<Json<Document>, StatusCode> {
    let entry = jobs.entries.get(&id).ok_or(StatusCode::NOT_FOUND)?;
    Ok(Json(Document::new(id, entry.status)))
}

async fn result(
    State(jobs): State<Jobs>,
    Path(id): Path<Uuid>,
) -> Result<Response<Body>, StatusCode> {
    let entry = jobs.entries.get(&id).ok_or(StatusCode::NOT_FOUND)?;
    let response = entry.response.clone().ok_or(StatusCode::CONFLICT)?;
    Ok(response.map(Body::from))
}

async fn delete(State(jobs): State<Jobs>, Path(id): Path<Uuid>) -> StatusCode {
    match jobs.entries.remove(&id) {
        Some(_) => StatusCode::NO_CONTENT,
        None => StatusCode::NOT_FOUND,
    }
}

async fn collect(response: Response<Body>) -> Result<Response<Bytes>, axum::Error> {
    let (head, body) = response.into_parts();
    let body = to_bytes(body, MAX_RESULT_BYTES).await?;
    Ok(Response::from_parts(head, body))
}
