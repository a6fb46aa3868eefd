//! A UDP socket that sends and receives several datagrams with one call to the system, by quinn-udp.

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use quinn_udp::{RecvMeta, Transmit, UdpSocketState};
use socket2::SockRef;
use tokio::io::Interest;
use tokio::net::UdpSocket;

use super::{Datagrams, Interface, Received, mapped, options, plain};
use crate::network::Outgoing;

/// So many buffers are filled by one call, each with as many datagrams of one sender as the system joined (GRO).
const SLOTS: usize = 16;

/// Bytes of a buffer. The system joins no more than the length field of IP can say, so nothing is ever cut here.
const SLOT: usize = 65_536;

/// Bytes that are sent with one call, at most: what one datagram could hold.
const RUN: usize = 65_507;

#[derive(Debug)]
pub(super) struct OsBatches {
    socket: UdpSocket,
    ipv6: bool,
    state: UdpSocketState,
    inbox: Mutex<Inbox>,
    /// Where the datagrams of a run are put together.
    outbox: Mutex<Vec<u8>>,
}

impl OsBatches {
    pub(super) fn new(socket: UdpSocket, ipv6: bool) -> io::Result<Self> {
        let state = UdpSocketState::new((&socket).into())?;
        Ok(Self { socket, ipv6, state, inbox: Mutex::default(), outbox: Mutex::default() })
    }

    fn send_run(&self, run: &[Outgoing<'_>], segment: usize, to: SocketAddr) -> io::Result<()> {
        let mut contents = self.outbox.lock().unwrap_or_else(PoisonError::into_inner);
        contents.clear();
        for datagram in run {
            contents.extend_from_slice(datagram.bytes);
        }
        let transmit = Transmit {
            destination: mapped(to, self.ipv6),
            ecn: None,
            contents: &contents,
            segment_size: Some(segment),
            src_ip: None,
        };
        self.socket.try_io(Interest::WRITABLE, || self.state.try_send((&self.socket).into(), &transmit))
    }
}

/// How many datagrams from the first on go with one call: to one address, all as long as the first but for the last,
/// which may be shorter, `most` in number.
fn run(datagrams: &[Outgoing<'_>], most: usize) -> usize {
    let Some(first) = datagrams.first().filter(|first| !first.bytes.is_empty()) else {
        return datagrams.len().min(1);
    };
    let size = first.bytes.len();
    let most = most.min(RUN / size).max(1);
    let alike = |other: &&Outgoing<'_>| other.to == first.to && other.bytes.len() == size;
    let count = datagrams.iter().take(most).take_while(alike).count();
    let last = datagrams.get(count).filter(|_| count < most);
    let shorter = |last: &Outgoing<'_>| last.to == first.to && (1..size).contains(&last.bytes.len());
    count + usize::from(last.is_some_and(shorter))
}

/// What one call received and nobody has taken yet.
#[derive(Debug, Default)]
struct Inbox {
    buffers: Vec<u8>,
    metas: Vec<RecvMeta>,
    /// So many slots are filled, this one is next, and so many of its bytes are taken.
    filled: usize,
    slot: usize,
    taken: usize,
}

impl Inbox {
    /// Takes the next datagram.
    fn next(&mut self) -> Option<(&[u8], SocketAddr)> {
        let meta = self.metas[..self.filled].get(self.slot)?;
        let (begin, at) = (self.slot * SLOT, self.taken);
        let len = meta.stride.min(meta.len - at);
        self.taken += len;
        if self.taken >= meta.len || len == 0 {
            (self.slot, self.taken) = (self.slot + 1, 0);
        }
        Some((&self.buffers[begin + at..begin + at + len], plain(meta.addr)))
    }

    fn fill(&mut self, socket: &UdpSocket, state: &UdpSocketState) -> io::Result<()> {
        // The pages of a new buffer cost nothing before something is written there.
        self.buffers.resize(SLOTS * SLOT, 0);
        self.metas.resize(SLOTS, RecvMeta::default());
        let mut slots = self.buffers.chunks_mut(SLOT);
        let mut slots: [_; SLOTS] =
            std::array::from_fn(|_| IoSliceMut::new(slots.next().unwrap_or_default()));
        (self.filled, self.slot, self.taken) = (0, 0, 0);
        self.filled =
            socket.try_io(Interest::READABLE, || state.recv(socket.into(), &mut slots, &mut self.metas))?;
        Ok(())
    }
}

impl Datagrams for OsBatches {
    fn poll_recv(&self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<Received>> {
        let mut inbox = self.inbox.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some((bytes, from)) = inbox.next() {
                let len = bytes.len().min(buf.len());
                buf[..len].copy_from_slice(&bytes[..len]);
                return Poll::Ready(Ok(Received { len, from, truncated: bytes.len() > len }));
            }
            ready!(self.socket.poll_recv_ready(cx))?;
            match inbox.fill(&self.socket, &self.state) {
                // Somebody else was faster, or (Windows) an ICMP message for an earlier send.
                Err(error)
                    if [io::ErrorKind::WouldBlock, io::ErrorKind::ConnectionReset]
                        .contains(&error.kind()) => {}
                Err(error) => return Poll::Ready(Err(error)),
                Ok(()) => {}
            }
        }
    }

    fn try_send(&self, datagram: &[u8], to: SocketAddr) -> io::Result<()> {
        self.socket.try_send_to(datagram, mapped(to, self.ipv6)).map(|_| ())
    }

    fn try_send_batch(&self, datagrams: &[Outgoing<'_>]) -> io::Result<usize> {
        let Some(first) = datagrams.first() else { return Ok(0) };
        let count = run(datagrams, self.state.max_gso_segments());
        if count > 1 {
            match self.send_run(&datagrams[..count], first.bytes.len(), first.to) {
                Ok(()) => return Ok(count),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(error),
                // A card or a path that cannot do it: the first alone tells whether anything goes there.
                Err(error) => tracing::debug!(%error, count, "datagrams go one by one"),
            }
        }
        self.try_send(first.bytes, first.to).map(|()| 1)
    }

    fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket.poll_send_ready(cx)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
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
mod tests {
    use super::*;

    #[test]
    fn a_run_has_one_address_and_one_length_but_for_its_last() {
        let bytes = vec![0; 40_000];
        let (one, other) = (SocketAddr::from(([127, 0, 0, 1], 1)), SocketAddr::from(([127, 0, 0, 1], 2)));
        let list = |sizes: &[(usize, SocketAddr)]| -> Vec<Outgoing<'_>> {
            sizes.iter().map(|(len, to)| Outgoing { bytes: &bytes[..*len], to: *to }).collect()
        };
        for (sizes, expected) in [
            (&[][..], 0),
            (&[(5, one)], 1),
            (&[(5, one), (5, one), (5, one)], 3),
            (&[(5, one), (5, one), (5, other)], 2),
            (&[(5, one), (3, one), (3, one)], 2),
            (&[(5, one), (6, one)], 1),
            (&[(5, one), (0, one)], 1),
            (&[(0, one), (0, one)], 1),
            (&[(5, one); 9], 4),
            (&[(5, one), (5, one), (5, one), (5, one), (1, one)], 4),
            (&[(30_000, one); 3], 2),
            (&[(40_000, one), (1, one)], 1),
        ] {
            assert_eq!(run(&list(sizes), 4), expected, "{sizes:?}");
        }
        assert_eq!(run(&list(&[(5, one); 3]), 1), 1, "a system without segmentation");
    }
}
