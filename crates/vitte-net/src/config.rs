//! Every limit of a mesh, with its unit, default, range and cost.

use std::time::Duration;

use vitte_net_proto as proto;

/// The limits of a mesh. [`Config::wan`] is the default; [`Config::lan`] suits machines in one room, or one
/// machine. Setters are chained; [`Mesh::builder`](crate::Mesh::builder) checks the whole when it starts.
///
/// ```
/// use std::time::Duration;
/// use vitte_net::Config;
///
/// let config = Config::lan().resume_window(Duration::from_secs(10)).peers_max(64);
/// assert!(config.check().is_ok());
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    pub(crate) session: proto::Config,
    pub(crate) handshake_timeout: Duration,
    pub(crate) handshakes_max: usize,
    pub(crate) handshakes_per_address: usize,
    pub(crate) readmit_burst: u32,
    pub(crate) readmit_per_second: u32,
    pub(crate) dial_stagger: Duration,
    pub(crate) dial_timeout: Duration,
    pub(crate) improve_every: Duration,
    pub(crate) standby: bool,
    pub(crate) backoff_first: Duration,
    pub(crate) backoff_max: Duration,
    pub(crate) peers_max: usize,
    pub(crate) addresses_max: usize,
    pub(crate) handlers_max: usize,
    pub(crate) accept_queue: usize,
    pub(crate) events_max: usize,
}

/// A limit that is out of its range.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name} is {value}, which is not in {range}")]
pub struct ConfigError {
    name: &'static str,
    value: String,
    range: &'static str,
}

macro_rules! setters {
    ($($(#[doc = $doc:literal])+ $name:ident: $type:ty => $($field:ident).+;)+) => {
        $(
            $(#[doc = $doc])+
            #[must_use]
            pub fn $name(mut self, value: $type) -> Self {
                self.$($field).+ = value;
                self
            }
        )+
    };
}

impl Config {
    /// For links over the internet: patient, and frugal with keep-alives.
    #[must_use]
    pub fn wan() -> Self {
        Self {
            session: proto::Config::default(),
            handshake_timeout: Duration::from_secs(10),
            handshakes_max: 4096,
            handshakes_per_address: 1024,
            readmit_burst: 16,
            readmit_per_second: 1,
            dial_stagger: Duration::from_millis(250),
            dial_timeout: Duration::from_secs(10),
            improve_every: Duration::from_secs(30),
            standby: false,
            backoff_first: Duration::from_millis(200),
            backoff_max: Duration::from_secs(30),
            peers_max: 1024,
            addresses_max: 16,
            handlers_max: 256,
            accept_queue: 64,
            events_max: 1024,
        }
    }

    /// For a local network: a silent link is dead within two seconds, and is dialled again soon.
    #[must_use]
    pub fn lan() -> Self {
        Self::wan()
            .keep_alive(Duration::from_millis(500))
            .link_timeout(Duration::from_millis(1500))
            .dial_stagger(Duration::from_millis(100))
            .dial_timeout(Duration::from_secs(3))
            .improve_every(Duration::from_secs(5))
            .backoff_first(Duration::from_millis(100))
            .backoff_max(Duration::from_secs(2))
    }

    setters! {
        /// Longest message that is accepted, in bytes. Default 8 MiB; from 1 KiB to 1 GiB. A peer can make
        /// this side hold four times as much ([`assembly_budget`](Self::assembly_budget)).
        max_message: usize => session.max_message;
        /// Credit of a stream at its start, in bytes: what a peer can make this side hold for each of its
        /// streams. Default 64 KiB; from 4 KiB to 16 MiB.
        stream_window: u64 => session.stream_window;
        /// How far the credit of a stream grows while its reader keeps up, in bytes. Default 1 MiB; from
        /// `stream_window` to 1 GiB. Throughput of a stream is at most this per round trip.
        stream_window_max: u64 => session.stream_window_max;
        /// Bytes a session may hold for messages longer than their stream's window. Default 32 MiB; at least
        /// twice `max_message`, so that one of them is always reserved for the oldest.
        assembly_budget: usize => session.assembly_budget;
        /// Bytes that a channel holds before they are transmitted; then `send` waits. Default 1 MiB; from 1
        /// byte (one message at a time) to 1 GiB.
        send_queue: usize => session.send_queue;
        /// Bytes of datagrams that a channel holds at each end, those that wait to be transmitted and those that
        /// wait to be taken: then the oldest is dropped. One is always held. Default 64 KiB; from 1 byte to 16 MiB.
        datagram_queue: usize => session.datagram_queue;
        /// The same as a count of datagrams. Default 256; from 1 to 65,536.
        datagram_queue_messages: usize => session.datagram_queue_messages;
        /// Streams (channels, calls, byte streams) that a peer may have open at once. Default 1,024; from 1
        /// to 1,048,576.
        max_streams: u64 => session.max_streams;
        /// Bytes that a stream keeps until the peer has acknowledged them; then no further message is begun.
        /// Default 4 MiB; from 64 KiB to 1 GiB. A peer decides how much credit it gives: this bounds what it can make
        /// this side keep.
        replay_max: u64 => session.replay_max;
        /// The same for all streams of a peer together. Default 64 MiB; from `replay_max` to 16 GiB.
        replay_budget: u64 => session.replay_budget;
        /// Streams that a peer may open and give up in a row: by a reset, or by a stop before anything was
        /// answered. Default 1,024; from 1 to 1,048,576. Calls that are answered, refused or finish do not count.
        abandoned_burst: u32 => session.abandoned_burst;
        /// Streams that a peer may open and give up each second after that. Above it the peer is throttled: places
        /// for new streams come back at this rate. Default 1,000; from 1 to 1,000,000.
        abandoned_per_second: u32 => session.abandoned_per_second;
        /// Bytes in flight on a link, all streams together, before its rate and its round trip are measured: what
        /// can stand in buffers before an urgent message. Default 512 KiB; from 64 KiB to 1 GiB.
        link_window: u64 => session.link_window;
        /// The most that the measured window may grow to, in bytes: throughput of a link is at most this per
        /// round trip. Default 16 MiB; from `link_window` to 1 GiB.
        link_window_max: u64 => session.link_window_max;
        /// A link that owes an answer for this long, or for three round trips if that is more, has stalled: other
        /// ways are tried, and the session moves to the first link that there is. Five times as long while the round
        /// trip is not known. Default 200 ms; from 10 ms to 1 h. Shorter moves sooner, and more often for nothing.
        stall_after: Duration => session.stall_after;
        /// A better link takes over from a live one when it has answered in time for this long. Default 1 s; from
        /// 10 ms to 1 h.
        probation: Duration => session.probation;
        /// After a link has stalled or died, its transport does not take over from a live one for this long;
        /// twice as long each time, up to sixty-four times, until it has carried the session for as long. Default
        /// 5 s; up to 1 h.
        hold: Duration => session.hold;
        /// How often a better transport than the present one is dialled, if an address is known; up to eight times
        /// as long while it fails. Default 30 s (LAN: 5 s); from 10 ms to 24 h.
        improve_every: Duration => improve_every;
        /// Keep a second link over another transport, which takes over at once when the first one stalls. It costs
        /// a connection and its keep-alives. Default: no.
        standby: bool => standby;
        /// Silence after which a link is asked for a sign of life. Default 5 s (LAN: 0.5 s); from 10 ms to 1 h.
        keep_alive: Duration => session.keep_alive;
        /// How long the answer may take before the link counts as dead. Default 10 s (LAN: 1.5 s); from 10 ms
        /// to 1 h.
        link_timeout: Duration => session.link_timeout;
        /// How long a session waits for its next link; after that it is lost, and what was under way is
        /// unknown. Default 60 s; up to 24 h.
        resume_window: Duration => session.resume_window;
        /// Time for a connection that comes in to become part of a session, from its first packet: TLS, WebSocket,
        /// key and hello together. Where this side dials, the hello has as much again. Default 10 s; from 10 ms to
        /// 1 h. A QUIC connection that is silent for a minute is given up before.
        handshake_timeout: Duration => handshake_timeout;
        /// Connections that came in and are not part of a session yet, all listeners together. A newcomer above it
        /// takes the place of the oldest that has proven no key, of the address that has most of them. Default 4,096;
        /// from 1 to 65,536. Each is an open file, and costs about 8 KiB while it is silent.
        handshakes_max: usize => handshakes_max;
        /// The same for those of one address, or of one IPv6 network of 64 bits. Default 1,024; from 1 to 65,536.
        handshakes_per_address: usize => handshakes_per_address;
        /// Links that a peer gets in a row after one of its links was cut for a broken rule; each further cut takes one
        /// of them. Default 16; from 1 to 1,048,576.
        readmit_burst: u32 => readmit_burst;
        /// Links that such a peer gets each second after that, until all of `readmit_burst` have come back. Others wait
        /// at the door, within [`handshake_timeout`](Self::handshake_timeout). Default 1; from 1 to 1,000,000.
        readmit_per_second: u32 => readmit_per_second;
        /// Head start of each address over the next when a peer is dialled. Default 250 ms (LAN: 100 ms).
        dial_stagger: Duration => dial_stagger;
        /// Time for one round of attempts over all addresses of a peer. Default 10 s (LAN: 3 s).
        dial_timeout: Duration => dial_timeout;
        /// First wait before an unreachable peer is dialled again. Default 200 ms (LAN: 100 ms); at least 1 ms. Rounds
        /// of dialling one peer begin at least a second apart all the same.
        backoff_first: Duration => backoff_first;
        /// Longest wait before an unreachable peer is dialled again. Default 30 s (LAN: 2 s).
        backoff_max: Duration => backoff_max;
        /// Peers at once; more are refused. Default 1,024; from 1 to 65,536.
        peers_max: usize => peers_max;
        /// Addresses that are remembered of one peer; more are ignored. Default 16; from 1 to 256.
        addresses_max: usize => addresses_max;
        /// Calls of one name that run at once; more are refused as busy. One whose request is not here whole has no
        /// place yet. Default 256; from 1 to 1,048,576.
        handlers_max: usize => handlers_max;
        /// Channels or byte streams of one name that wait to be accepted; more are refused as busy. Default
        /// 64; from 1 to 65,536.
        accept_queue: usize => accept_queue;
        /// Events that wait for a slow reader of [`Mesh::events`](crate::Mesh::events) before it misses the
        /// oldest. Default 1,024; from 1 to 65,536.
        events_max: usize => events_max;
    }

    /// Whether every limit is in its range.
    ///
    /// # Errors
    /// The first that is not.
    pub fn check(&self) -> Result<(), ConfigError> {
        fn within<T: PartialOrd + std::fmt::Debug>(
            name: &'static str,
            value: T,
            least: T,
            most: T,
            range: &'static str,
        ) -> Result<(), ConfigError> {
            if (least..=most).contains(&value) {
                Ok(())
            } else {
                Err(ConfigError { name, value: format!("{value:?}"), range })
            }
        }
        let session = &self.session;
        let ms = Duration::from_millis;
        let hour = Duration::from_secs(3600);
        within("max_message", session.max_message, 1 << 10, 1 << 30, "1 KiB to 1 GiB")?;
        within("stream_window", session.stream_window, 4 << 10, 16 << 20, "4 KiB to 16 MiB")?;
        within(
            "stream_window_max",
            session.stream_window_max,
            session.stream_window,
            1 << 30,
            "stream_window to 1 GiB",
        )?;
        within(
            "assembly_budget",
            session.assembly_budget,
            session.max_message.saturating_mul(2),
            1 << 34,
            "twice max_message to 16 GiB",
        )?;
        within("send_queue", session.send_queue, 1, 1 << 30, "1 byte to 1 GiB")?;
        within("datagram_queue", session.datagram_queue, 1, 16 << 20, "1 byte to 16 MiB")?;
        within("datagram_queue_messages", session.datagram_queue_messages, 1, 1 << 16, "1 to 65,536")?;
        within("max_streams", session.max_streams, 1, 1 << 20, "1 to 1,048,576")?;
        within("replay_max", session.replay_max, 64 << 10, 1 << 30, "64 KiB to 1 GiB")?;
        within("replay_budget", session.replay_budget, session.replay_max, 1 << 34, "replay_max to 16 GiB")?;
        within("abandoned_burst", session.abandoned_burst, 1, 1 << 20, "1 to 1,048,576")?;
        within("abandoned_per_second", session.abandoned_per_second, 1, 1_000_000, "1 to 1,000,000")?;
        within("link_window", session.link_window, 64 << 10, 1 << 30, "64 KiB to 1 GiB")?;
        within(
            "link_window_max",
            session.link_window_max,
            session.link_window,
            1 << 30,
            "link_window to 1 GiB",
        )?;
        within("stall_after", session.stall_after, ms(10), hour, "10 ms to 1 h")?;
        within("probation", session.probation, ms(10), hour, "10 ms to 1 h")?;
        within("hold", session.hold, ms(0), hour, "0 to 1 h")?;
        within("improve_every", self.improve_every, ms(10), hour * 24, "10 ms to 24 h")?;
        within("keep_alive", session.keep_alive, ms(10), hour, "10 ms to 1 h")?;
        within("link_timeout", session.link_timeout, ms(10), hour, "10 ms to 1 h")?;
        within("resume_window", session.resume_window, ms(0), hour * 24, "0 to 24 h")?;
        within("handshake_timeout", self.handshake_timeout, ms(10), hour, "10 ms to 1 h")?;
        within("handshakes_max", self.handshakes_max, 1, 1 << 16, "1 to 65,536")?;
        within("handshakes_per_address", self.handshakes_per_address, 1, 1 << 16, "1 to 65,536")?;
        within("readmit_burst", self.readmit_burst, 1, 1 << 20, "1 to 1,048,576")?;
        within("readmit_per_second", self.readmit_per_second, 1, 1_000_000, "1 to 1,000,000")?;
        within("dial_stagger", self.dial_stagger, ms(0), hour, "0 to 1 h")?;
        within("dial_timeout", self.dial_timeout, ms(10), hour, "10 ms to 1 h")?;
        within("backoff_first", self.backoff_first, ms(1), hour, "1 ms to 1 h")?;
        within("backoff_max", self.backoff_max, self.backoff_first, hour, "backoff_first to 1 h")?;
        within("peers_max", self.peers_max, 1, 1 << 16, "1 to 65,536")?;
        within("addresses_max", self.addresses_max, 1, 256, "1 to 256")?;
        within("handlers_max", self.handlers_max, 1, 1 << 20, "1 to 1,048,576")?;
        within("accept_queue", self.accept_queue, 1, 1 << 16, "1 to 65,536")?;
        within("events_max", self.events_max, 1, 1 << 16, "1 to 65,536")
    }
}

impl Default for Config {
    fn default() -> Self {
        Self::wan()
    }
}
