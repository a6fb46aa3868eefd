//! UDP: datagrams that arrive, are lost, are held back or come twice, as the link says.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use vitte_net::network::{Datagrams, Received};

use crate::link::Verdict;
use crate::trace::{Fate, Protocol};
use crate::world::{HostId, State, What, World, register};

/// Bytes that wait in a socket before further datagrams are dropped, unless the socket's options say
/// otherwise: the default of Linux.
pub const UDP_RECEIVE_BUFFER: usize = 212_992;
/// The longest payload of a datagram over IPv4.
pub const MAX_DATAGRAM: usize = 65_507;
/// What a waiting datagram costs beyond its payload.
const DATAGRAM_OVERHEAD: usize = 64;

/// A bound socket.
#[derive(Debug)]
pub(crate) struct Socket {
    pub(crate) address: SocketAddr,
    pub(crate) capacity: usize,
    held: usize,
    queue: VecDeque<(SocketAddr, Bytes)>,
    pub(crate) wakers: Vec<Waker>,
}

impl Socket {
    pub(crate) fn new(address: SocketAddr, capacity: Option<usize>) -> Self {
        let capacity = capacity.unwrap_or(UDP_RECEIVE_BUFFER);
        Self { address, capacity, held: 0, queue: VecDeque::new(), wakers: Vec::new() }
    }
}

/// A datagram under way.
#[derive(Debug)]
pub(crate) struct Packet {
    from_host: HostId,
    to_host: HostId,
    from: SocketAddr,
    to: SocketAddr,
    sent: Duration,
    /// What its arrival is called.
    fate: Fate,
    bytes: Bytes,
}

impl State {
    fn send_datagram(&mut self, packet: Packet) {
        let (now, len) = (self.now, packet.bytes.len());
        let route = (packet.from, packet.to);
        let link = self.link(packet.from_host, packet.to_host);
        let fate = match link.obstacle(Protocol::Udp) {
            Some(obstacle) => obstacle,
            None => match link.datagram(now, len) {
                Verdict::Lost => Fate::Lost,
                Verdict::Arrives { at, again, noise } => {
                    if let Some(again) = again {
                        let (bytes, fate) = (packet.bytes.clone(), Fate::Duplicated);
                        self.schedule(again, What::Datagram(Packet { bytes, fate, ..packet }));
                    }
                    let packet = match noise {
                        Some(noise) if len > 0 => {
                            let bytes = flipped(&packet.bytes, noise);
                            Packet { bytes, fate: Fate::Corrupted, ..packet }
                        }
                        _ => packet,
                    };
                    return self.schedule(at, What::Datagram(packet));
                }
            },
        };
        self.packet(Protocol::Udp, route, now, len, fate);
    }

    pub(crate) fn datagram_arrives(&mut self, packet: Packet) {
        let Packet { from, to, sent, .. } = packet;
        let link = self.link(packet.from_host, packet.to_host);
        let obstacle = link.obstacle(Protocol::Udp);
        let len = packet.bytes.len();
        let host = &mut self.hosts[packet.to_host];
        let up = host.up;
        let socket = host.udp.get_mut(&to.port()).filter(|socket| {
            let at = socket.address.ip();
            at.is_unspecified() || at == to.ip()
        });
        let fate = match socket {
            _ if obstacle.is_some() => obstacle.unwrap_or(Fate::Blocked),
            _ if !up => Fate::HostDown,
            None => Fate::NoSocket,
            Some(socket) if socket.held + len + DATAGRAM_OVERHEAD > socket.capacity => Fate::Overflow,
            Some(socket) => {
                socket.held += len + DATAGRAM_OVERHEAD;
                socket.queue.push_back((from, packet.bytes));
                self.wakes.append(&mut socket.wakers);
                packet.fate
            }
        };
        self.packet(Protocol::Udp, (from, to), sent, len, fate);
    }
}

/// The bytes with one to four bits flipped, as `noise` says.
fn flipped(bytes: &Bytes, noise: u64) -> Bytes {
    let mut out = bytes.to_vec();
    let mut dice = noise;
    for _ in 0..=noise >> 62 {
        // The multiplier of Knuth's MMIX generator; the upper bits are the good ones.
        dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let bit = (dice >> 32) % (out.len() as u64 * 8);
        if let Some(byte) = usize::try_from(bit / 8).ok().and_then(|at| out.get_mut(at)) {
            *byte ^= 1 << (bit % 8);
        }
    }
    out.into()
}

/// The handle of a bound socket of one life of a host.
#[derive(Debug)]
pub(crate) struct UdpSocket {
    pub(crate) world: World,
    pub(crate) host: HostId,
    pub(crate) life: u32,
    pub(crate) address: SocketAddr,
}

impl Datagrams for UdpSocket {
    fn poll_recv(&self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<Received>> {
        self.world.with(|state| {
            let host = &mut state.hosts[self.host];
            let socket = host.udp.get_mut(&self.address.port());
            let Some(socket) = socket.filter(|_| host.life == self.life) else {
                return Poll::Ready(Err(ErrorKind::NetworkDown.into()));
            };
            let Some((from, bytes)) = socket.queue.pop_front() else {
                register(&mut socket.wakers, cx, &mut state.wakes);
                return Poll::Pending;
            };
            socket.held -= bytes.len() + DATAGRAM_OVERHEAD;
            let len = bytes.len().min(buf.len());
            buf[..len].copy_from_slice(&bytes[..len]);
            Poll::Ready(Ok(Received { len, from, truncated: len < bytes.len() }))
        })
    }

    fn try_send(&self, datagram: &[u8], to: SocketAddr) -> io::Result<()> {
        if datagram.len() > MAX_DATAGRAM {
            return Err(ErrorKind::InvalidInput.into());
        }
        self.world.with(|state| {
            if state.hosts[self.host].life != self.life {
                return Err(ErrorKind::NetworkDown.into());
            }
            let to_host = state.route(self.host, to.ip()).ok_or(ErrorKind::HostUnreachable)?;
            let ip = match self.address.ip() {
                any if any.is_unspecified() => state.source(self.host, to.ip()),
                bound => bound,
            };
            state.send_datagram(Packet {
                from_host: self.host,
                to_host,
                from: SocketAddr::new(ip, self.address.port()),
                to,
                sent: state.now,
                fate: Fate::Delivered,
                bytes: Bytes::copy_from_slice(datagram),
            });
            Ok(())
        })
    }

    fn poll_writable(&self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // A simulated send buffer is never full: what the link cannot carry now, it carries later.
        Poll::Ready(Ok(()))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }

    fn os_socket(&self) -> Option<io::Result<std::net::UdpSocket>> {
        None
    }
}

impl Drop for UdpSocket {
    fn drop(&mut self) {
        self.world.with(|state| {
            let host = &mut state.hosts[self.host];
            if host.life == self.life {
                host.udp.remove(&self.address.port());
            }
        });
    }
}
