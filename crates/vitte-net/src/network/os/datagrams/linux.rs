//! Linux says how long a datagram was, whatever fits into the buffer.

use std::io;
use std::net::SocketAddr;

use rustix::io::Errno;
use rustix::net::{self, RecvFlags, SendFlags};
use tokio::io::Interest;
use tokio::net::UdpSocket;

use super::{Received, plain};

#[derive(Debug, Default)]
pub(super) struct Receiver {}

impl Receiver {
    /// Takes the next datagram into `buf`.
    #[inline]
    pub(super) fn take(&self, socket: &UdpSocket, buf: &mut [u8]) -> io::Result<Received> {
        let room = buf.len();
        let ask = || Ok(net::recvfrom(socket, buf, RecvFlags::TRUNC)?);
        let (_, arrived, from) = socket.try_io(Interest::READABLE, ask)?;
        let from = from.ok_or(io::ErrorKind::InvalidData)?.try_into()?;
        Ok(Received { len: arrived.min(room), from: plain(from), truncated: arrived > room })
    }
}

/// Sends to the peer that the socket is connected to.
#[inline]
pub(super) fn send(socket: &UdpSocket, datagram: &[u8]) -> io::Result<usize> {
    now(socket, || net::send(socket, datagram, SendFlags::empty()))
}

#[inline]
pub(super) fn send_to(socket: &UdpSocket, datagram: &[u8], to: &SocketAddr) -> io::Result<usize> {
    now(socket, || net::sendto(socket, datagram, SendFlags::empty(), to))
}

/// There is room for a datagram nearly always: that is tried first, and tokio has to know only of the exception.
#[inline]
fn now(socket: &UdpSocket, send: impl Fn() -> Result<usize, Errno>) -> io::Result<usize> {
    match send() {
        Err(Errno::AGAIN) => socket.try_io(Interest::WRITABLE, || Ok(send()?)),
        sent => Ok(sent?),
    }
}
