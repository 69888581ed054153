//! A connection to a receiver, which counts for the limit of idle connections.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll},
};

use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::{
    client::legacy::connect::{Connected, Connection},
    rt::TokioIo,
};
use pin_project::pin_project;
use tokio::{net::TcpStream, sync::OwnedSemaphorePermit};

/// A TCP connection. The pool keeps it for a second request only if it has a permit.
///
/// The pool bounds the idle connections of each host. The permits bound those of all hosts.
#[pin_project]
#[derive(Debug)]
pub(super) struct CountedStream {
    #[pin]
    stream: TokioIo<TcpStream>,
    permit: Option<OwnedSemaphorePermit>,
}

impl CountedStream {
    pub(super) fn new(stream: TokioIo<TcpStream>, permit: Option<OwnedSemaphorePermit>) -> Self {
        Self { stream, permit }
    }
}

impl Connection for CountedStream {
    fn connected(&self) -> Connected {
        let connected = self.stream.connected();
        if self.permit.is_none() {
            connected.poison();
        }
        connected
    }
}

impl Read for CountedStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        self.project().stream.poll_read(cx, buffer)
    }
}

impl Write for CountedStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.project().stream.poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.project().stream.poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.project().stream.poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.project().stream.poll_write_vectored(cx, buffers)
    }
}
