//! The body of a response for one reader, while it is written and afterwards.

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, Weak},
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::Response;
use http_body::{Body, Frame, SizeHint};
use tokio::sync::futures::OwnedNotified;

use super::{
    live::{LivePart, LiveResponse},
    reader::ReplayReader,
    table::JobTable,
};
use crate::{
    job::JobId,
    protocol::BoxError,
    store::{Reading, ResultBody},
};

/// The error of a response that broke off.
const BROKEN_OFF: &str = "the response broke off";

/// Reads the response of an unfinished job from byte `from` of its body on.
pub(super) fn read(
    response: &Arc<LiveResponse>,
    table: &Arc<JobTable>,
    id: JobId,
    from: u64,
) -> Reading {
    let body = UnfinishedBody {
        source: UnfinishedSource::Live {
            response: Arc::downgrade(response),
            change: None,
        },
        table: table.clone(),
        id,
        offset: from,
    };
    let mut live = Response::new(ResultBody::streamed(body));
    *live.status_mut() = response.status();
    *live.headers_mut() = response.headers().clone();
    Reading::new(1, response.len(), live)
}

/// The body of a response that may still be written.
///
/// While its job is unfinished, it keeps nothing of the response. Once the job has ended, it reads
/// on as any other reader of the result, whose bytes count as a replay.
struct UnfinishedBody {
    source: UnfinishedSource,
    table: Arc<JobTable>,
    id: JobId,
    offset: u64,
}

enum UnfinishedSource {
    Live {
        response: Weak<LiveResponse>,
        change: Option<Pin<Box<OwnedNotified>>>,
    },
    /// Replays have no room for the result yet.
    Beginning(Pin<Box<dyn Future<Output = Option<Arc<ReplayReader>>> + Send>>),
    Kept(ResultBody),
    Done,
}

impl Body for UnfinishedBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        loop {
            match &mut this.source {
                UnfinishedSource::Live { response, change } => {
                    if let Some(waiting) = change {
                        ready!(waiting.as_mut().poll(cx));
                        *change = None;
                    }
                    let live = response.upgrade();
                    // A response that has ended is in its job before the job has ended.
                    let live = live.filter(|live| {
                        !live.has_ended() || this.table.find_ended(this.id).is_none()
                    });
                    let Some(live) = live else {
                        this.source = UnfinishedSource::Beginning(this.begin());
                        continue;
                    };
                    match live.part(this.offset) {
                        LivePart::Data(chunk) => {
                            this.offset += chunk.len() as u64;
                            return Poll::Ready(Some(Ok(Frame::data(chunk))));
                        }
                        LivePart::Wait(next) => *change = Some(Box::pin(next)),
                        LivePart::End(trailers) => {
                            this.source = UnfinishedSource::Done;
                            return Poll::Ready(trailers.map(|all| Ok(Frame::trailers(all))));
                        }
                        LivePart::Broken => {
                            this.source = UnfinishedSource::Done;
                            return Poll::Ready(Some(Err(BROKEN_OFF.into())));
                        }
                    }
                }
                UnfinishedSource::Beginning(beginning) => match ready!(beginning.as_mut().poll(cx))
                {
                    Some(reader) => {
                        let reading = reader.read(this.offset);
                        this.source = UnfinishedSource::Kept(reading.response.into_body());
                    }
                    None => {
                        this.source = UnfinishedSource::Done;
                        return Poll::Ready(Some(Err("the job was removed".into())));
                    }
                },
                UnfinishedSource::Kept(body) => return Pin::new(body).poll_frame(cx),
                UnfinishedSource::Done => return Poll::Ready(None),
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            UnfinishedSource::Live { response, .. } => match response.upgrade() {
                Some(live) => live.size_hint(self.offset),
                None => SizeHint::default(),
            },
            UnfinishedSource::Kept(body) => body.size_hint(),
            UnfinishedSource::Beginning(_) | UnfinishedSource::Done => SizeHint::default(),
        }
    }
}

impl UnfinishedBody {
    fn begin(&self) -> Pin<Box<dyn Future<Output = Option<Arc<ReplayReader>>> + Send>> {
        let (table, id) = (self.table.clone(), self.id);
        Box::pin(async move { ReplayReader::begin(&table, id).await })
    }
}
