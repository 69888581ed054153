//! An upload form and a slow handler that creates thumbnails, with a progress page from the layer.
//!
//! Neither the form nor the handler knows about 202.
//!
//! ```text
//! cargo run --release --example thumbnails            # optionally with an address to listen on
//! xdg-open http://127.0.0.1:8080/
//! ```
//!
//! Upload photos from several tabs: two uploads run at a time, the others are queued.

mod picture;

use std::{error::Error, fmt::Write, time::Duration};

use axum::{
    Router,
    extract::{DefaultBodyLimit, Multipart},
    http::StatusCode,
    response::Html,
    routing::{get, post},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use tokio::{net::TcpListener, signal, task::spawn_blocking};
use tower::{ServiceBuilder, limit::GlobalConcurrencyLimitLayer};
use tower_accepted::{JobHandle, Jobs, When};

/// The largest upload, in bytes.
const UPLOAD_LIMIT: usize = 32 << 20;

/// The maximum number of uploads that run at a time.
const MAX_CONCURRENT_UPLOADS: usize = 2;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let address = std::env::args().nth(1);
    let listener = TcpListener::bind(address.as_deref().unwrap_or("127.0.0.1:8080")).await?;
    println!("Listening on http://{}", listener.local_addr()?);

    let jobs = Jobs::builder().max_body(UPLOAD_LIMIT).build();
    let app = Router::new()
        .route("/photos", post(photos))
        .layer(DefaultBodyLimit::max(UPLOAD_LIMIT))
        .layer(
            ServiceBuilder::new()
                // An early error, such as for an invalid form, stays an ordinary response.
                .layer(jobs.layer().when(When::After(Duration::from_millis(100))))
                .layer(GlobalConcurrencyLimitLayer::new(MAX_CONCURRENT_UPLOADS)),
        )
        // Added after the layers, so that the form itself is never queued.
        .route("/", get(async || Html(include_str!("form.html"))));
    axum::serve(listener, app)
        .with_graceful_shutdown(async move {
            let _ = signal::ctrl_c().await;
            jobs.drain(Duration::from_secs(30)).await;
        })
        .await?;
    Ok(())
}

/// Creates every version of every photo, and a page that shows them.
async fn photos(mut form: Multipart) -> Result<Html<String>, (StatusCode, String)> {
    let mut uploads = Vec::new();
    while let Some(field) = form.next_field().await.map_err(bad_request)? {
        let bytes = field.bytes().await.map_err(bad_request)?;
        uploads.extend((!bytes.is_empty()).then_some(bytes));
    }
    if uploads.is_empty() {
        return Err(bad_request("choose a photo first"));
    }
    let job = JobHandle::current();
    let made = spawn_blocking(move || {
        let steps = uploads.len() * picture::VERSIONS.len();
        let mut figures = String::new();
        for (number, upload) in uploads.iter().enumerate() {
            let photo = picture::open(upload)?;
            for (step, version) in picture::VERSIONS.iter().enumerate() {
                if job.is_canceled() {
                    return Ok(figures);
                }
                let done = number * picture::VERSIONS.len() + step;
                job.progress(done as f64 / steps as f64);
                job.message(format!(
                    "photo {} of {}: {}",
                    number + 1,
                    uploads.len(),
                    version.name
                ));
                let png = STANDARD.encode(version.png(&photo)?);
                let _ = write!(
                    figures,
                    "<figure><img alt=\"\" src=\"data:image/png;base64,{png}\">\
                     <figcaption>{}</figcaption></figure>",
                    version.name
                );
            }
        }
        job.progress(1.0);
        Ok::<_, image::ImageError>(figures)
    });
    let made = made.await.map_err(|panic| {
        let status = StatusCode::INTERNAL_SERVER_ERROR;
        (status, panic.to_string())
    })?;
    let figures = made.map_err(|error| {
        let status = StatusCode::UNPROCESSABLE_ENTITY;
        (status, format!("not a JPEG or PNG: {error}"))
    })?;
    Ok(Html(
        include_str!("result.html").replace("{{figures}}", &figures),
    ))
}

fn bad_request(error: impl ToString) -> (StatusCode, String) {
    (StatusCode::BAD_REQUEST, error.to_string())
}
