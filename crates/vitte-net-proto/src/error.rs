//! Codes on the wire and what they mean, with blame.

use core::fmt;

/// Why a link or a session is closed: the code of a CLOSE frame (`docs/WIRE.md`, "Close codes").
///
/// Every code is known by name, and one that is not known is kept as a number, so that both logs show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CloseCode(pub u64);

/// Why a stream ended: the code of a STOP or RESET frame (`docs/WIRE.md`, "Stream codes").
/// Codes from [`StreamCode::APPLICATION`] on belong to the application.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamCode(pub u64);

macro_rules! codes {
    ($type:ident { $($(#[doc = $doc:literal])+ $name:ident = $value:literal, $text:literal;)+ }) => {
        impl $type {
            $($(#[doc = $doc])+ pub const $name: Self = Self($value);)+

            /// The name of the code, if it has one.
            #[must_use]
            pub const fn name(self) -> Option<&'static str> {
                match self.0 {
                    $($value => Some($text),)+
                    _ => None,
                }
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self.name() {
                    Some(name) => f.write_str(name),
                    None => write!(f, "code {}", self.0),
                }
            }
        }
    };
}

codes!(CloseCode {
    /// The link or the session ended in order.
    NO_ERROR = 0, "closed in order";
    /// A frame could not be read, or a field was out of its range.
    MALFORMED = 1, "malformed frame";
    /// A frame was longer than the limit that the hello stated.
    FRAME_TOO_LARGE = 2, "frame too large";
    /// A frame of an unknown even type.
    UNKNOWN_FRAME = 3, "unknown mandatory frame";
    /// No version in common, or a mandatory extension is not known.
    VERSION = 4, "no version in common";
    /// The proof of the shared secret was wrong.
    AUTH_FAILED = 5, "the shared secret was not proven";
    /// The peer's key is not in the list of trusted keys.
    NOT_TRUSTED = 6, "key not trusted";
    /// Another live process uses the same key.
    DUPLICATE_IDENTITY = 7, "another live process has the same key";
    /// The hello belongs to a session that is over; dial again.
    STALE_GENERATION = 8, "the session in the hello is over";
    /// More bytes than the credit allowed, or more than sixteen gaps.
    FLOW_CONTROL = 9, "credit exceeded";
    /// A stream above the limit, or of the wrong parity.
    STREAM_LIMIT = 10, "stream limit exceeded";
    /// The node is draining or gone.
    SHUTDOWN = 11, "the node shuts down";
    /// Nothing was heard for too long.
    TIMEOUT = 12, "nothing was heard for too long";
    /// Too many peers, links or handshakes.
    TOO_MANY = 13, "too many peers, links or handshakes";
    /// A frame that this state does not allow: a second hello, data before the welcome.
    WRONG_STATE = 14, "a frame that this state does not allow";
    /// A spare link that is not needed.
    REDUNDANT = 15, "a spare link";
});

codes!(StreamCode {
    /// Everything was taken.
    FINISHED = 0, "finished";
    /// The application dropped its end.
    DROPPED = 1, "dropped by the application";
    /// Nobody accepts this name.
    NO_SUCH_NAME = 2, "nobody accepts this name";
    /// The two sides disagree about the types.
    SCHEMA_MISMATCH = 3, "the schemas differ";
    /// The bound on handlers or on channels waiting to be accepted is reached.
    BUSY = 4, "busy";
    /// The deadline passed.
    DEADLINE = 5, "the deadline passed";
    /// The handler panicked.
    PANICKED = 6, "the handler panicked";
    /// A message longer than the receiver's limit.
    TOO_LARGE = 7, "message too large";
    /// The node is shutting down.
    SHUTDOWN = 8, "the node shuts down";
    /// A payload that its type could not be read from.
    BAD_PAYLOAD = 9, "a payload that its type could not be read from";
    /// The stream is of another kind (channel, call, bytes) than the name stands for.
    WRONG_KIND = 10, "the name stands for another kind of stream";
    /// The stream is of another delivery class than the name stands for.
    WRONG_CLASS = 11, "the name stands for another delivery class";
});

impl CloseCode {
    /// It says that whoever reads it broke a rule of the protocol.
    #[must_use]
    pub const fn is_violation(self) -> bool {
        matches!(
            self,
            Self::MALFORMED
                | Self::FRAME_TOO_LARGE
                | Self::UNKNOWN_FRAME
                | Self::FLOW_CONTROL
                | Self::STREAM_LIMIT
                | Self::WRONG_STATE
        )
    }
}

impl StreamCode {
    /// The first code that belongs to the application.
    pub const APPLICATION: u64 = 256;
}

/// The peer broke the protocol: the link must be closed with this code and reason. The session lives and
/// may go on over another link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Violation {
    /// What the CLOSE frame says.
    pub code: CloseCode,
    /// Which rule, in words.
    pub reason: &'static str,
}

impl Violation {
    pub(crate) const fn new(code: CloseCode, reason: &'static str) -> Self {
        Self { code, reason }
    }

    pub(crate) const fn malformed(reason: &'static str) -> Self {
        Self::new(CloseCode::MALFORMED, reason)
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the peer broke the protocol ({}): {}", self.code, self.reason)
    }
}

impl core::error::Error for Violation {}
