//! A UDP socket of the system: one datagram with each call.

#[cfg(any(target_os = "android", target_os = "linux"))]
mod linux;
#[cfg(any(test, not(any(target_os = "android", target_os = "linux"))))]
mod portable;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::task::{Context, Poll, ready};

use socket2::SockRef;
use tokio::net::UdpSocket;

#[cfg(any(target_os = "android", target_os = "linux"))]
use linux as system;
#[cfg(not(any(target_os = "android", target_os = "linux")))]
use portable as system;

use super::{Datagrams, Interface, Received, mapped, options, plain};

/// Elsewhere a connected socket sends to nobody else: there none is connected.
const CONNECTS: bool = cfg!(any(target_os = "android", target_os = "linux"));

#[derive(Debug)]
pub(super) struct OsDatagrams {
    socket: UdpSocket,
    ipv6: bool,
    receiver: system::Receiver,
}

impl OsDatagrams {
    pub(super) fn new(socket: UdpSocket, ipv6: bool) -> Self {
        Self { socket, ipv6, receiver: system::Receiver::default() }
    }
}

/// The ICMP message "port unreachable" for an earlier datagram, as Windows tells it to every socket and others to
/// connected ones. It says nothing about this socket, nor anything that can be relied upon.
fn is_echo(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused)
}

/// Sends by `attempt`. A datagram is sent whole or not at all, so the count says nothing.
#[inline]
fn past_echo(attempt: impl Fn() -> io::Result<usize>) -> io::Result<()> {
    match attempt() {
        // Of an earlier datagram: this one was not even looked at.
        Err(error) if is_echo(&error) => attempt().map(|_| ()),
        sent => sent.map(|_| ()),
    }
}

impl Datagrams for OsDatagrams {
    fn poll_recv(&self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<Received>> {
        loop {
            ready!(self.socket.poll_recv_ready(cx))?;
            match self.try_recv(buf) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                answer => return Poll::Ready(answer),
            }
        }
    }

    fn try_recv(&self, buf: &mut [u8]) -> io::Result<Received> {
        match self.receiver.take(&self.socket, buf) {
            Err(error) if is_echo(&error) => Err(io::ErrorKind::WouldBlock.into()),
            answer => answer,
        }
    }

    fn try_send(&self, datagram: &[u8], to: SocketAddr) -> io::Result<()> {
        past_echo(|| system::send_to(&self.socket, datagram, &mapped(to, self.ipv6)))
    }

    fn try_send_peer(&self, datagram: &[u8], peer: SocketAddr) -> io::Result<()> {
        if CONNECTS {
            return past_echo(|| system::send(&self.socket, datagram));
        }
        self.try_send(datagram, peer)
    }

    fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket.poll_send_ready(cx)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    fn connect(&self, peer: SocketAddr) -> io::Result<()> {
        if CONNECTS {
            SockRef::from(&self.socket).connect(&mapped(peer, self.ipv6).into())?;
        }
        Ok(())
    }

    fn join_group(&self, group: IpAddr, interface: Interface) -> io::Result<()> {
        options::group(SockRef::from(&self.socket), group, interface, true)
    }

    fn leave_group(&self, group: IpAddr, interface: Interface) -> io::Result<()> {
        options::group(SockRef::from(&self.socket), group, interface, false)
    }

    fn os_socket(&self) -> Option<io::Result<std::net::UdpSocket>> {
        Some(SockRef::from(&self.socket).try_clone().map(Into::into))
    }
}

#[cfg(test)]
mod tests;
