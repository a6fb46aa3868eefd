//! The limits of a session. Every queue and every wait has one.

use core::time::Duration;

/// What a session may hold and how long it waits. Build one from [`Config::default`] and change fields.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Config {
    /// Longest message this side accepts, in bytes. Default 8 MiB; larger things are byte streams.
    pub max_message: usize,
    /// Credit of a stream at its start, in bytes: what a peer may make this side hold for every stream it
    /// opens. Default 64 KiB.
    pub stream_window: u64,
    /// How far the credit of a stream grows while its reader keeps up, in bytes. Default 1 MiB.
    pub stream_window_max: u64,
    /// Bytes beyond [`stream_window`](Self::stream_window) that all streams of a session share for grown
    /// credit. Default 32 MiB.
    pub window_budget: u64,
    /// Bytes for messages larger than their stream's window, all streams together; one `max_message` of it
    /// is reserved for the oldest. At least `max_message`. Default 32 MiB.
    pub assembly_budget: usize,
    /// Bytes a stream holds that were not yet transmitted; one message is always accepted into an empty
    /// queue. Default 1 MiB.
    pub send_queue: usize,
    /// Messages a stream holds that were not yet transmitted. Default 16,384.
    pub send_queue_messages: usize,
    /// Bytes a stream keeps until the peer has acknowledged them; then it begins no further message. Default
    /// 4 MiB. A peer can give credit without end: this is what bounds the replay.
    pub replay_max: u64,
    /// The same for all streams of a session together. Default 64 MiB.
    pub replay_budget: u64,
    /// Bytes of datagrams that a channel holds at each end: those that wait to be transmitted, and those that
    /// wait to be taken. Then the oldest is dropped; one is always held. Default 64 KiB.
    pub datagram_queue: usize,
    /// The same as a count of datagrams. Default 256.
    pub datagram_queue_messages: usize,
    /// Streams the peer may have open at once. Default 1,024.
    pub max_streams: u64,
    /// Streams the peer may open and give up in a row: by a RESET, or by a STOP before anything was answered.
    /// Default 1,024. What was answered, and what this side refused, does not count.
    pub abandoned_burst: u32,
    /// How many of those it may give up each second after that; the place of one above it is not given back
    /// before its time, so that the peer opens no faster. Default 1,000.
    pub abandoned_per_second: u32,
    /// Links of one session at once. Default 4.
    pub max_links: usize,
    /// Bytes transmitted and not yet acknowledged before there is a measurement of the link: what may stand
    /// in buffers before an urgent message. Default 512 KiB.
    pub link_window: u64,
    /// The most that the measured window may grow to, in bytes. Default 16 MiB.
    pub link_window_max: u64,
    /// An acknowledgement waits at most this long for company. Default 5 ms.
    pub ack_delay: Duration,
    /// A link that was silent for this long is asked for a sign of life. Default 5 s.
    pub keep_alive: Duration,
    /// A link that does not answer for this long, counted from the question, is dead. Default 10 s.
    pub link_timeout: Duration,
    /// A link that owes an answer for this long, or for three round trips if that is more, has stalled: the
    /// session moves to another one as soon as there is one. Five times as long while the round trip is not
    /// known. Default 200 ms.
    pub stall_after: Duration,
    /// A better link takes over from a live one when it has answered in time for this long. Default 1 s.
    pub probation: Duration,
    /// After a link has stalled or died, its kind does not take over from a live one for this long; twice as
    /// long each time, up to sixty-four times, until it has carried the session for as long. Default 5 s.
    pub hold: Duration,
    /// How long a session without a link waits for the next. Default 60 s.
    pub resume_window: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_message: 8 << 20,
            stream_window: 64 << 10,
            stream_window_max: 1 << 20,
            window_budget: 32 << 20,
            assembly_budget: 32 << 20,
            send_queue: 1 << 20,
            send_queue_messages: 16_384,
            replay_max: 4 << 20,
            replay_budget: 64 << 20,
            datagram_queue: 64 << 10,
            datagram_queue_messages: 256,
            max_streams: 1024,
            abandoned_burst: 1024,
            abandoned_per_second: 1000,
            max_links: 4,
            link_window: 512 << 10,
            link_window_max: 16 << 20,
            ack_delay: Duration::from_millis(5),
            keep_alive: Duration::from_secs(5),
            link_timeout: Duration::from_secs(10),
            stall_after: Duration::from_millis(200),
            probation: Duration::from_secs(1),
            hold: Duration::from_secs(5),
            resume_window: Duration::from_secs(60),
        }
    }
}
