//! What happened, as lines and as one digest.
//!
//! The digest covers exactly the packets that crossed the seam and the events that applications
//! reported. Faults stand among the lines, because a reader wants them there, but not in the digest.

use std::collections::VecDeque;
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

/// The protocol of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// A TCP segment.
    Tcp,
    /// A UDP datagram.
    Udp,
}

/// What became of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fate {
    /// It arrived.
    Delivered,
    /// A copy of a datagram arrived too.
    Duplicated,
    /// The link lost the datagram.
    Lost,
    /// Its protocol is blocked between the two nodes, or the connection has fallen into a black hole: a
    /// datagram is gone, a segment waits for its retransmission.
    Blocked,
    /// The nodes are partitioned: a datagram is gone, a segment waits for its retransmission.
    Partitioned,
    /// The receiving node is down: a datagram is gone, a segment waits for its retransmission.
    HostDown,
    /// The receiver's socket buffer was full.
    Overflow,
    /// Nobody listens there: a datagram is gone, a connection is refused or reset.
    NoSocket,
    /// The listener's queue is full; the connection request will be sent again.
    Backlog,
    /// The packet is a reset.
    Reset,
    /// The datagram arrived with flipped bits.
    Corrupted,
}

/// One line of the trace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    /// A packet that crossed the seam.
    Packet {
        /// When its fate was decided, since the start.
        at: Duration,
        /// When it was sent (for a retransmission: first sent), since the start.
        sent: Duration,
        /// Who sent it.
        from: SocketAddr,
        /// Where it was going.
        to: SocketAddr,
        /// TCP or UDP.
        protocol: Protocol,
        /// Bytes of payload; zero for a handshake, a close and a reset.
        len: usize,
        /// What became of it.
        fate: Fate,
    },
    /// Something an application reported.
    Event {
        /// When, since the start.
        at: Duration,
        /// The reporting node.
        node: String,
        /// What it said.
        text: String,
    },
    /// A fault that was applied. Not part of the digest.
    Fault {
        /// When, since the start.
        at: Duration,
        /// The fault, as JSON.
        fault: String,
    },
}

impl Line {
    /// When it happened, since the start.
    pub fn at(&self) -> Duration {
        match self {
            Self::Packet { at, .. } | Self::Event { at, .. } | Self::Fault { at, .. } => *at,
        }
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Packet { at, sent, from, to, protocol, len, fate } => {
                let millis = at.as_secs_f64() * 1e3;
                let sent = sent.as_secs_f64() * 1e3;
                write!(
                    f,
                    "{millis:>10.1} ms  {protocol:?} {from} > {to}  {len} bytes, sent {sent:.1}: {fate:?}"
                )
            }
            Self::Event { at, node, text } => {
                write!(f, "{:>10.1} ms  [{node}] {text}", at.as_secs_f64() * 1e3)
            }
            Self::Fault { at, fault } => write!(f, "{:>10.1} ms  FAULT {fault}", at.as_secs_f64() * 1e3),
        }
    }
}

/// The running digest and the last lines.
#[derive(Debug)]
pub(crate) struct Trace {
    hasher: blake3::Hasher,
    events: u64,
    tail: VecDeque<Line>,
    keep: usize,
}

impl Trace {
    /// Keeps the last `keep` lines.
    pub(crate) fn new(keep: usize) -> Self {
        Self { hasher: blake3::Hasher::new(), events: 0, tail: VecDeque::new(), keep }
    }

    pub(crate) fn set_keep(&mut self, keep: usize) {
        self.keep = keep;
        while self.tail.len() > keep {
            self.tail.pop_front();
        }
    }

    pub(crate) fn push(&mut self, line: Line) {
        match &line {
            Line::Packet { at, sent, from, to, protocol, len, fate } => {
                let mut record = [0_u8; 1 + 8 + 8 + 18 + 18 + 1 + 8 + 1];
                record[0] = 1;
                record[1..9].copy_from_slice(&nanos(*at));
                record[9..17].copy_from_slice(&nanos(*sent));
                record[17..35].copy_from_slice(&address(from));
                record[35..53].copy_from_slice(&address(to));
                record[53] = *protocol as u8;
                record[54..62].copy_from_slice(&(*len as u64).to_le_bytes());
                record[62] = *fate as u8;
                self.hasher.update(&record);
                self.events += 1;
            }
            Line::Event { at, node, text } => {
                self.hasher.update(&[2]);
                self.hasher.update(&nanos(*at));
                for field in [node, text] {
                    self.hasher.update(&(field.len() as u64).to_le_bytes());
                    self.hasher.update(field.as_bytes());
                }
                self.events += 1;
            }
            Line::Fault { .. } => {}
        }
        if self.keep > 0 {
            if self.tail.len() == self.keep {
                self.tail.pop_front();
            }
            self.tail.push_back(line);
        }
    }

    /// The digest so far, as hexadecimal text.
    pub(crate) fn digest(&self) -> String {
        self.hasher.finalize().to_hex().to_string()
    }

    pub(crate) fn events(&self) -> u64 {
        self.events
    }

    pub(crate) fn tail(&self) -> Vec<Line> {
        self.tail.iter().cloned().collect()
    }
}

/// A virtual time as eight bytes; a run is far shorter than the 584 years that fit.
fn nanos(time: Duration) -> [u8; 8] {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX).to_le_bytes()
}

fn address(address: &SocketAddr) -> [u8; 18] {
    let mut out = [0_u8; 18];
    let ip = match address {
        SocketAddr::V4(v4) => v4.ip().to_ipv6_mapped(),
        SocketAddr::V6(v6) => *v6.ip(),
    };
    out[..16].copy_from_slice(&ip.octets());
    out[16..].copy_from_slice(&address.port().to_be_bytes());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(len: usize, fate: Fate) -> Line {
        Line::Packet {
            at: Duration::from_millis(2),
            sent: Duration::from_millis(1),
            from: ([192, 168, 0, 1], 1).into(),
            to: ([192, 168, 0, 2], 2).into(),
            protocol: Protocol::Udp,
            len,
            fate,
        }
    }

    fn digest(lines: &[Line]) -> String {
        let mut trace = Trace::new(2);
        lines.iter().for_each(|line| trace.push(line.clone()));
        trace.digest()
    }

    #[test]
    fn every_field_counts_and_faults_do_not() {
        let base = digest(&[packet(1, Fate::Delivered)]);
        assert_ne!(base, digest(&[packet(2, Fate::Delivered)]));
        assert_ne!(base, digest(&[packet(1, Fate::Lost)]));
        let fault = Line::Fault { at: Duration::ZERO, fault: String::new() };
        assert_eq!(base, digest(&[fault, packet(1, Fate::Delivered)]));
    }

    #[test]
    fn the_tail_is_bounded() {
        let mut trace = Trace::new(2);
        for len in 0..5 {
            trace.push(packet(len, Fate::Delivered));
        }
        assert_eq!(trace.tail(), [packet(3, Fate::Delivered), packet(4, Fate::Delivered)]);
        assert_eq!(trace.events(), 5);
    }
}
