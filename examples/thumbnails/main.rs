//! A form that uploads photos, and a handler that makes thumbnails and filters of each: an ordinary
//! form and an ordinary handler. That it takes a while is the business of one layer, which also shows
//! the page with the progress bar.
//!
//! ```text
//! cargo run --release --example thumbnails            # or with an address to listen on
//! xdg-open http://127.0.0.1:8080/
//! ```
//!
//! Upload several from several tabs: two are worked on at a time, the others wait their turn.

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

/// How many uploads are worked on at a time.
const AT_A_TIME: usize = 2;

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
                // What is answered at once, a wrong form say, is answered at once.
                .layer(jobs.layer().when(When::After(Duration::from_millis(100))))
                .layer(GlobalConcurrencyLimitLayer::new(AT_A_TIME)),
        )
        // Outside, or the form itself would wait for its turn.
        .route("/", get(async || Html(include_str!("form.html"))));
    axum::serve(listener, app)
        .with_graceful_shutdown(async move {
            let _ = signal::ctrl_c().await;
            jobs.drain(Duration::from_secs(30)).await;
        })
        .await?;
    Ok(())
}

/// Makes every version of every photo, and a page of them all.
async fn photos(mut form: Multipart) -> Result<Html<String>, (StatusCode, String)> {
    let mut uploads = Vec::new();
    while let Some(field) = form.next_field().await.map_err(bad_request)? {
        let bytes = field.bytes().await.map_err(bad_request)?;
        uploads.extend((!bytes.is_empty()).then_some(bytes));
    }
    if uploads.is_empty() {
        return Err(bad_request("Choose a photo first."));
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
        (status, format!("That is no JPEG or PNG: {error}"))
    })?;
    Ok(Html(
        include_str!("result.html").replace("{{figures}}", &figures),
    ))
}

fn bad_request(error: impl ToString) -> (StatusCode, String) {
    (StatusCode::BAD_REQUEST, error.to_string())
}
