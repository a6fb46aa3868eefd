//! What the first frame on a link says: who the sender is in this life, what it asks for, what it grants
//! (`docs/WIRE.md`, "Handshake").

use alloc::string::String;
use alloc::vec::Vec;

use crate::codec::{Reader, put_varint};
use crate::error::{CloseCode, Violation};

/// Begins every HELLO.
pub const MAGIC: [u8; 4] = *b"VTTE";
/// The protocol version of this crate.
pub const VERSION: u64 = 1;

/// How a node wants its peers to show that they belong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// By the key that TLS proved, which must be in a list.
    Keys,
    /// By a shared secret.
    Secret,
}

/// One life of a node: 128 random bits, drawn when the process starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Incarnation(pub [u8; 16]);

/// The limits a side states in its hello. They bound what the *other* side may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Longest message, in bytes.
    pub max_message: u64,
    /// Credit of each stream at its start, in bytes.
    pub stream_window: u64,
    /// Streams the other side may open before it hears of more.
    pub max_streams: u64,
}

/// The body of a HELLO frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Oldest version the sender speaks.
    pub version_min: u64,
    /// Newest version the sender speaks.
    pub version_max: u64,
    /// Bits of optional features; unknown ones are ignored, and only those that both sides set are used.
    pub features: u64,
    /// The life of the sending node.
    pub incarnation: Incarnation,
    /// Raised by the sender each time it loses its session with this peer.
    pub generation: u64,
    /// 256 random bits, fresh for every link.
    pub nonce: [u8; 32],
    /// What the sender asks for.
    pub proof: Proof,
    /// What the sender grants.
    pub limits: Limits,
}

impl Hello {
    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&MAGIC);
        put_varint(out, self.version_min);
        put_varint(out, self.version_max);
        put_varint(out, self.features);
        out.extend_from_slice(&self.incarnation.0);
        put_varint(out, self.generation);
        out.extend_from_slice(&self.nonce);
        out.push(match self.proof {
            Proof::Keys => 0,
            Proof::Secret => 1,
        });
        put_varint(out, self.limits.max_message);
        put_varint(out, self.limits.stream_window);
        put_varint(out, self.limits.max_streams);
    }

    pub(crate) fn read(body: &mut Reader<'_>) -> Result<Self, Violation> {
        if body.array()? != MAGIC {
            return Err(Violation::malformed("a HELLO without the magic"));
        }
        let (version_min, version_max) = (body.varint()?, body.varint()?);
        // Before the rest, which other versions may lay out otherwise.
        if version_min > VERSION || version_max < VERSION {
            return Err(Violation::new(
                CloseCode::VERSION,
                "no version in common: this side speaks version 1",
            ));
        }
        let hello = Self {
            version_min,
            version_max,
            features: body.varint()?,
            incarnation: Incarnation(body.array()?),
            generation: body.varint()?,
            nonce: body.array()?,
            proof: match body.array()? {
                [0] => Proof::Keys,
                [1] => Proof::Secret,
                _ => {
                    return Err(Violation::new(
                        CloseCode::VERSION,
                        "a HELLO asks for an unknown kind of proof",
                    ));
                }
            },
            limits: Limits {
                max_message: body.varint()?,
                stream_window: body.varint()?,
                max_streams: body.varint()?,
            },
        };
        while !body.0.is_empty() {
            let id = body.varint()?;
            let len = body.varint()?;
            body.bytes(usize::try_from(len).unwrap_or(usize::MAX))?;
            if id % 2 == 0 {
                return Err(Violation::new(CloseCode::VERSION, "a HELLO has an unknown mandatory extension"));
            }
        }
        Ok(hello)
    }
}

/// What the driver must do after [`Handshake::handle`](crate::Handshake::handle).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Read more bytes.
    NeedBytes,
    /// The peer's hello is here: compute the local proof and call [`Handshake::welcome`](crate::Handshake::welcome).
    Hello(Hello),
    /// The peer's welcome is here: check its proof. The link carries the session from now on; bytes that
    /// came behind the welcome are its first.
    Welcome {
        /// What the peer proved with; 32 zero bytes where keys are the proof.
        proof: [u8; 32],
        /// The first bytes of the session.
        rest: Vec<u8>,
    },
    /// The peer refused this side with a CLOSE frame.
    Refused {
        /// Why.
        code: CloseCode,
        /// Why, in the peer's words. Escape it before it reaches a terminal.
        reason: String,
    },
}
