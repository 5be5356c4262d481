//! The bytes below HTTP: plain TCP, or TLS over it.

use std::io;
use std::os::fd::AsRawFd;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_util::FutureExt;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

/// A connection's bytes.
#[derive(Debug)]
pub enum Stream {
    /// As they are.
    Plain(TcpStream),
    /// Encrypted. Boxed, so that plain connections stay small.
    Tls(Box<TlsStream<TcpStream>>),
}

impl Stream {
    /// Whether a write that fails may have handed bytes to the kernel all the same: TLS writes what it has kept back, too.
    pub fn may_have_sent(&self) -> bool {
        matches!(self, Stream::Tls(_))
    }

    /// Whether an idle connection is of no use any more: one that is readable was closed by the other side, or sends what
    /// nobody asked for. Under TLS, session tickets may come at any time, and are no data.
    pub fn is_dead(&mut self) -> bool {
        let mut byte = [0u8; 1];
        match self {
            Stream::Plain(stream) => {
                !matches!(stream.try_read(&mut byte), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
            }
            Stream::Tls(stream) => stream.read(&mut byte).now_or_never().is_some(),
        }
    }
}

/// Sends what the kernel takes.
///
/// The C library's `send` and `recv` are points at which a thread can be cancelled, and in a process of several threads
/// each call pays for entering and leaving that state. Nobody cancels threads here, so the kernel is called directly.
fn poll_send(stream: &TcpStream, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
    loop {
        ready!(stream.poll_write_ready(cx))?;
        let (fd, flags) = (stream.as_raw_fd(), libc::MSG_NOSIGNAL);
        // SAFETY: the pointer and the length are those of one slice, which outlives the call and is only read; without an
        // address, the last two arguments are a null pointer and 0.
        let sent = stream.try_io(Interest::WRITABLE, || {
            counted(unsafe { libc::syscall(libc::SYS_sendto, fd, bytes.as_ptr(), bytes.len(), flags, 0usize, 0usize) })
        });
        match sent {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            sent => return Poll::Ready(sent),
        }
    }
}

/// Receives what there is.
fn poll_receive(stream: &TcpStream, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
    loop {
        ready!(stream.poll_read_ready(cx))?;
        // SAFETY: the bytes are only written to, and are not called initialized before they are.
        let room = unsafe { buf.unfilled_mut() };
        let (fd, pointer, length) = (stream.as_raw_fd(), room.as_mut_ptr(), room.len());
        let mut got = 0;
        let received = stream.try_io(Interest::READABLE, || {
            // SAFETY: the kernel writes at most as many bytes as there is room for; the rest is as above.
            got = counted(unsafe { libc::syscall(libc::SYS_recvfrom, fd, pointer, length, 0, 0usize, 0usize) })?;
            // Less than there was room for is all that there is, and the kernel tells when there is more: it need not be
            // asked once more. This is how the runtime is told so.
            if (1..length).contains(&got) { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
        });
        match received {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && got == 0 => continue,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) if got == 0 => return Poll::Ready(Err(error)),
            _ => {}
        }
        // SAFETY: so many bytes were just written by the kernel.
        unsafe { buf.assume_init(got) };
        buf.advance(got);
        return Poll::Ready(Ok(()));
    }
}

/// The result of a system call that gives a number of bytes.
fn counted(result: libc::c_long) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(stream) => poll_receive(stream, cx, buf),
            Stream::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Plain(stream) => poll_send(stream, cx, bytes),
            Stream::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Stream::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
