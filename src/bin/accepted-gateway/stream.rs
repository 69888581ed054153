//! The stream of a client's connection, which ends if the client stops reading.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use pin_project::pin_project;
use tokio::{
    net::TcpStream,
    time::{Sleep, sleep},
};

use crate::connections::Activity;

/// The stream of a client's connection.
///
/// A write fails if it makes no progress for a time. Otherwise clients that never read a response
/// would keep all connections, and with them their results in memory.
#[pin_project]
#[derive(Debug)]
pub(crate) struct ClientStream {
    #[pin]
    stream: TokioIo<TcpStream>,
    max_stall: Duration,
    /// Runs while a write is pending.
    stall: Option<Pin<Box<Sleep>>>,
    activity: Activity,
}

impl ClientStream {
    pub(crate) fn new(stream: TcpStream, max_stall: Duration, activity: Activity) -> Self {
        Self {
            stream: TokioIo::new(stream),
            max_stall,
            stall: None,
            activity,
        }
    }

    fn limit<T>(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        let this = self.project();
        this.activity.set_writing(written.is_pending());
        if written.is_ready() {
            *this.stall = None;
            return written;
        }
        let max_stall = *this.max_stall;
        let stall = this.stall.get_or_insert_with(|| Box::pin(sleep(max_stall)));
        let stalled = stall.as_mut().poll(cx);
        stalled.map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl Read for ClientStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        self.project().stream.poll_read(cx, buffer)
    }
}

impl Write for ClientStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = self.as_mut().project().stream.poll_write(cx, bytes);
        self.limit(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let stream = self.as_mut().project().stream;
        let written = stream.poll_write_vectored(cx, slices);
        self.limit(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.project().stream.poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.project().stream.poll_shutdown(cx)
    }
}
