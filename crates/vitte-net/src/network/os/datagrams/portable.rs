//! Where nobody says how long a datagram was that did not fit.

use std::io;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};

use tokio::net::UdpSocket;

use super::{Received, plain};

/// No UDP datagram that a socket receives is longer (65,535 bytes: the length field of RFC 768).
const LONGEST_DATAGRAM: usize = 65_535;

/// Where datagrams land when the caller's buffer is smaller than the longest one: one byte more than that buffer
/// tells a full datagram from a truncated one.
#[derive(Debug, Default)]
pub(super) struct Receiver(Mutex<Vec<u8>>);

impl Receiver {
    /// Takes the next datagram into `buf`.
    pub(super) fn take(&self, socket: &UdpSocket, buf: &mut [u8]) -> io::Result<Received> {
        if buf.len() >= LONGEST_DATAGRAM {
            let (len, from) = socket.try_recv_from(buf)?;
            return Ok(Received { len, from: plain(from), truncated: false });
        }
        let mut scratch = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Windows makes an error of a datagram that does not fit, and keeps its sender to itself.
        let room = if cfg!(windows) { LONGEST_DATAGRAM } else { buf.len() + 1 };
        if scratch.len() < room {
            scratch.resize(room, 0);
        }
        let (arrived, from) = socket.try_recv_from(&mut scratch[..room])?;
        let len = arrived.min(buf.len());
        buf[..len].copy_from_slice(&scratch[..len]);
        Ok(Received { len, from: plain(from), truncated: arrived > len })
    }
}

/// Sends to the peer that the socket is connected to.
pub(super) fn send(socket: &UdpSocket, datagram: &[u8]) -> io::Result<usize> {
    socket.try_send(datagram)
}

pub(super) fn send_to(socket: &UdpSocket, datagram: &[u8], to: &SocketAddr) -> io::Result<usize> {
    socket.try_send_to(datagram, *to)
}
