//! A connection whose client must receive data within a time limit.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// Number of bytes that a client must receive within the time limit, unless fewer were written.
const PART: usize = 16 << 10;

/// A stream whose writes fail after a time limit, so that a client that reads nothing, or very slowly, cannot hold its
/// connection any longer.
pub(super) struct WriteTimeout<S> {
    stream: S,
    timeout: Duration,
    /// Deadline of the pending write.
    deadline: Option<Pin<Box<Sleep>>>,
    /// Bytes written since the deadline was set.
    written: usize,
}

impl<S> WriteTimeout<S> {
    pub(super) fn new(stream: S, timeout: Duration) -> Self {
        Self { stream, timeout, deadline: None, written: 0 }
    }

    /// Fails a write that has waited until the deadline.
    fn within(&mut self, context: &mut Context<'_>, write: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match write {
            Poll::Ready(Ok(bytes)) => {
                self.written += bytes;
                if self.written >= PART {
                    self.deadline = None;
                }
                Poll::Ready(Ok(bytes))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => {
                let Self { deadline, written, timeout, .. } = self;
                let deadline = deadline.get_or_insert_with(|| {
                    *written = 0;
                    Box::pin(sleep(*timeout))
                });
                deadline.as_mut().poll(context).map(|()| Err(io::ErrorKind::TimedOut.into()))
            }
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for WriteTimeout<S> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for WriteTimeout<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let write = Pin::new(&mut this.stream).poll_write(context, bytes);
        this.within(context, write)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let write = Pin::new(&mut this.stream).poll_write_vectored(context, slices);
        this.within(context, write)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    // Everything is written before the stream is flushed.
    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.deadline = None;
        Pin::new(&mut this.stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
    use tokio::time::Instant;

    use super::*;

    const TIMEOUT: Duration = Duration::from_millis(200);

    fn run<T>(test: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test)
    }

    #[test]
    fn a_write_that_nobody_takes_fails_after_its_time() {
        run(async {
            let (ours, _theirs) = duplex(100);
            let begun = Instant::now();
            let error = WriteTimeout::new(ours, TIMEOUT).write_all(&[0; 1000]).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::TimedOut);
            assert!(begun.elapsed() >= TIMEOUT);
        });
    }

    #[test]
    fn a_write_that_is_taken_byte_by_byte_fails_as_well_and_one_that_is_taken_in_time_does_not() {
        let write = |taken: usize| {
            run(async move {
                let (ours, mut theirs) = duplex(PART);
                let reading = tokio::spawn(async move {
                    let mut buffer = vec![0; taken];
                    while theirs.read_exact(&mut buffer).await.is_ok() {
                        tokio::time::sleep(TIMEOUT / 10).await;
                    }
                });
                let written = WriteTimeout::new(ours, TIMEOUT).write_all(&vec![0; 20 * PART]).await;
                reading.abort();
                written.map_err(|error| error.kind())
            })
        };
        assert_eq!(write(1), Err(io::ErrorKind::TimedOut));
        assert_eq!(write(PART), Ok(()));
    }
}
