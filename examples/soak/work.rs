//! The work of one request, whose response is a function of the request.

use std::{fmt, io, panic, str::FromStr, time::Duration};

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::Incoming;
use rand::RngExt;
use tokio::time::sleep;
use tower::BoxError;
use tower_accepted::{JobHandle, RequestBody};

/// The size of a frame of a response, in bytes.
const FRAME_BYTES: usize = 16 * 1024;

/// The work of a request. Its text is the query of the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Work {
    /// The seed of both bodies.
    pub(crate) seed: u64,
    /// The size of the request's body, in bytes.
    pub(crate) upload: usize,
    /// The size of the response's body, in bytes.
    pub(crate) size: usize,
    /// The time that the work takes, in milliseconds.
    pub(crate) millis: u64,
    pub(crate) end: WorkEnd,
}

/// The end of the work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WorkEnd {
    Success,
    /// A response with an error status.
    ServerError,
    Panic,
    /// A body that breaks off in the middle.
    BrokenBody,
}

impl WorkEnd {
    const ALL: [(Self, &str); 4] = [
        (Self::Success, "success"),
        (Self::ServerError, "error"),
        (Self::Panic, "panic"),
        (Self::BrokenBody, "broken"),
    ];
}

impl Work {
    /// Returns short work that ends in any way.
    pub(crate) fn random(random: &mut impl RngExt) -> Self {
        let (end, _) = match random.random_range(0..10) {
            end @ 1..4 => WorkEnd::ALL[end],
            _ => WorkEnd::ALL[0],
        };
        let size_bits = random.random_range(1..19);
        Self {
            seed: random.random(),
            // Mostly small, at times many frames.
            upload: 1 << random.random_range(0..17),
            size: random.random_range(0..1 << size_bits),
            millis: random.random_range(0..40),
            end,
        }
    }

    /// Returns the body of the request.
    pub(crate) fn request_body(&self) -> Bytes {
        pattern(self.seed, 0, self.upload)
    }

    /// Returns the body of the response.
    pub(crate) fn response_body(&self) -> Bytes {
        pattern(!self.seed, 0, self.size)
    }

    pub(crate) fn status(&self) -> StatusCode {
        match self.end {
            WorkEnd::ServerError => StatusCode::BAD_GATEWAY,
            _ => StatusCode::OK,
        }
    }

    fn frame(&self, at: usize) -> Option<io::Result<Frame<Bytes>>> {
        if self.end == WorkEnd::BrokenBody && at * 2 >= self.size {
            return Some(Err(io::Error::other("broken on purpose")));
        }
        let bytes = FRAME_BYTES.min(self.size - at);
        (bytes > 0).then(|| Ok(Frame::data(pattern(!self.seed, at, bytes))))
    }
}

impl fmt::Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            seed,
            upload,
            size,
            millis,
            end,
        } = self;
        let end = WorkEnd::ALL.iter().find(|(one, _)| one == end);
        let end = end.map_or("", |(_, name)| name);
        write!(f, "{seed}-{upload}-{size}-{millis}-{end}")
    }
}

impl FromStr for Work {
    type Err = BoxError;

    fn from_str(text: &str) -> Result<Self, BoxError> {
        let mut parts = text.split('-');
        let mut next = || parts.next().ok_or("too few parts");
        let (seed, upload, size, millis) = (next()?, next()?, next()?, next()?);
        let name = next()?;
        let end = WorkEnd::ALL.into_iter().find(|(_, one)| *one == name);
        Ok(Self {
            seed: seed.parse()?,
            upload: upload.parse()?,
            size: size.parse()?,
            millis: millis.parse()?,
            end: end.ok_or("unknown end")?.0,
        })
    }
}

/// The service: does the work, and reports progress.
pub(crate) async fn work(
    request: Request<RequestBody<Incoming>>,
) -> Result<Response<UnsyncBoxBody<Bytes, io::Error>>, BoxError> {
    let work: Work = request.uri().query().unwrap_or_default().parse()?;
    let upload = request.into_body().collect().await?.to_bytes();
    let job = JobHandle::current();
    for step in 0..4 {
        job.progress(f64::from(step) / 4.0);
        sleep(Duration::from_millis(work.millis / 4)).await;
    }
    if work.end == WorkEnd::Panic {
        // Unlike `panic!`, it prints nothing.
        panic::resume_unwind(Box::new("a panic on purpose"));
    }
    let frames = stream::unfold(0, move |at| async move {
        // The response takes several polls.
        tokio::task::yield_now().await;
        let frame = work.frame(at)?;
        let next = frame
            .as_ref()
            .ok()
            .and_then(Frame::data_ref)
            .map_or(at, |data| at + data.len());
        Some((frame, next))
    });
    let mut response = Response::new(StreamBody::new(frames).boxed_unsync());
    *response.status_mut() = if upload == work.request_body() {
        work.status()
    } else {
        StatusCode::UNPROCESSABLE_ENTITY
    };
    let headers = response.headers_mut();
    headers.insert("x-seed", work.seed.into());
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/octet-stream"),
    );
    Ok(response)
}

/// Returns `length` bytes of the sequence of a seed, from byte `start` on.
fn pattern(seed: u64, start: usize, length: usize) -> Bytes {
    let mut bytes = Vec::with_capacity(length + 16);
    for block in start / 8..(start + length).div_ceil(8) {
        let mut bits = seed.wrapping_add((block as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bytes.extend_from_slice(&(bits ^ (bits >> 31)).to_le_bytes());
    }
    let first = start % 8;
    Bytes::from(bytes).slice(first..first + length)
}
