//! Names of things: peers, streams, links and lanes.

use core::fmt;

/// Who a node is: the 32 bytes of its Ed25519 public key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId(pub [u8; 32]);

impl PeerId {
    /// The first eight hexadecimal digits, for logs.
    #[must_use]
    pub fn short(&self) -> impl fmt::Display + '_ {
        Hex(&self.0[..4])
    }
}

/// All 64 hexadecimal digits: the form that [`core::str::FromStr`] reads.
impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Hex(&self.0).fmt(f)
    }
}

impl fmt::Debug for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PeerId({}…)", self.short())
    }
}

/// A text that is not 64 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ParsePeerIdError;

impl fmt::Display for ParsePeerIdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a peer id is 64 hexadecimal digits")
    }
}

impl core::error::Error for ParsePeerIdError {}

impl core::str::FromStr for PeerId {
    type Err = ParsePeerIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = text.as_bytes();
        if digits.len() != 64 {
            return Err(ParsePeerIdError);
        }
        let mut id = [0; 32];
        for (byte, pair) in id.iter_mut().zip(digits.chunks_exact(2)) {
            let value = |digit: u8| (digit as char).to_digit(16).and_then(|v| u8::try_from(v).ok());
            *byte = match (value(pair[0]), value(pair[1])) {
                (Some(high), Some(low)) => high << 4 | low,
                _ => return Err(ParsePeerIdError),
            };
        }
        Ok(Self(id))
    }
}

struct Hex<'a>(&'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// The number of a stream within a session: parity follows the order of the two [`PeerId`]s.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub u64);

/// A link of a session, named by the local side alone. Never on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(pub u64);

/// How urgent a stream is. Lower classes are never starved: each gets at least one frame in sixteen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Priority {
    /// Small control traffic that others wait for.
    Urgent = 0,
    /// The default.
    #[default]
    Normal = 1,
    /// Large transfers that may take their time.
    Bulk = 2,
}

impl Priority {
    /// All classes, the most urgent first.
    pub const ALL: [Self; 3] = [Self::Urgent, Self::Normal, Self::Bulk];
}

/// What becomes of the messages of a channel when newer ones come, or when the network loses some
/// (`docs/WIRE.md`, "Delivery classes").
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum DeliveryClass {
    /// Every message arrives, in order. The default.
    #[default]
    Reliable = 0,
    /// Only the newest value matters: older ones that wait are superseded. Order is kept.
    Latest = 1,
    /// Messages may be lost, and are never sent again. Those that arrive do so in order, and are counted.
    Datagram = 2,
}

impl DeliveryClass {
    /// All of them, by their numbers on the wire.
    pub const ALL: [Self; 3] = [Self::Reliable, Self::Latest, Self::Datagram];
}

/// One ordered sequence of frames on a link.
///
/// A byte link has lane 0 alone. A QUIC link has [`Lane::COUNT`] of them, each a QUIC stream of its own,
/// so that a lost packet of one does not hold up the others. A frame always names its stream: its meaning
/// never depends on the lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lane(pub u8);

impl Lane {
    /// Hello, acknowledgements, keep-alive: frames that belong to no class.
    pub const CONTROL: Self = Self(0);
    /// Lanes of a link that has several: control, urgent, normal, and eight for bulk.
    pub const COUNT: u8 = 11;
    /// No lane: a frame that travels alone, unordered, and may be lost. Only links with several lanes have it.
    pub const DATAGRAM: Self = Self(u8::MAX);
    const BULK_FIRST: u8 = 3;
    const BULK_COUNT: u8 = Self::COUNT - Self::BULK_FIRST;

    /// The lane that frames of a stream take on a link with several lanes. Bulk streams are spread over
    /// eight lanes, so that neighbours do not wait for each other's lost packets.
    #[must_use]
    pub fn of(priority: Priority, stream: StreamId) -> Self {
        match priority {
            Priority::Urgent => Self(1),
            Priority::Normal => Self(2),
            #[expect(clippy::cast_possible_truncation, reason = "a remainder of eight fits")]
            Priority::Bulk => Self(Self::BULK_FIRST + ((stream.0 / 2) % u64::from(Self::BULK_COUNT)) as u8),
        }
    }

    /// The class whose frames this lane carries: control counts as [`Priority::Urgent`].
    #[must_use]
    pub fn priority(self) -> Priority {
        match self.0 {
            0 | 1 => Priority::Urgent,
            2 => Priority::Normal,
            _ => Priority::Bulk,
        }
    }
}
