//! What travels between a client and a worker.

use std::fmt;

use postcard_schema::Schema;
use serde::{Deserialize, Serialize};
use vitte_net::Request;

/// Bytes that travel in one run.
pub(crate) type Payload = vitte_net::Blob;

/// The language of a preprocessed source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, Schema)]
pub(crate) enum Language {
    /// C.
    C,
    /// C++.
    Cxx,
}

impl Language {
    /// What `-x` calls it once it is preprocessed.
    pub(crate) const fn preprocessed(self) -> &'static str {
        match self {
            Self::C => "cpp-output",
            Self::Cxx => "c++-cpp-output",
        }
    }

    /// The ending of a preprocessed file.
    pub(crate) const fn extension(self) -> &'static str {
        match self {
            Self::C => "i",
            Self::Cxx => "ii",
        }
    }
}

/// One source file to compile.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Schema)]
pub(crate) struct Compile {
    /// Which compiler: [`crate::compiler::Compiler::identity`].
    pub(crate) compiler: [u8; 32],
    /// Its language.
    pub(crate) language: Language,
    /// Arguments for code generation and warnings; no file, no include path.
    pub(crate) args: Vec<String>,
    /// `SOURCE_DATE_EPOCH` of the client.
    pub(crate) source_date_epoch: Option<u64>,
    /// The preprocessed text.
    pub(crate) source: Payload,
}

/// What the compiler answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Schema)]
pub(crate) struct Object {
    /// The object file; empty if the compiler failed.
    pub(crate) object: Payload,
    /// What it wrote to standard output and standard error.
    pub(crate) stdout: Payload,
    /// What it wrote to standard error.
    pub(crate) stderr: Payload,
    /// Its exit code.
    pub(crate) exit_code: i32,
    /// Milliseconds the compiler took.
    pub(crate) compile_ms: u64,
}

/// Why a worker did not run a compiler to its end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Schema)]
pub(crate) enum Refusal {
    /// Every slot is taken: try elsewhere, or later.
    Busy,
    /// It has no such compiler: try elsewhere.
    NoCompiler,
    /// An argument that is not on the worker's list.
    Argument(String),
    /// The source wants something of the worker that it does not give.
    Source(String),
    /// A limit of time, memory or size was reached.
    Limit(String),
    /// The worker could not do its part: try elsewhere.
    Worker(String),
}

impl Refusal {
    /// Whether another worker may well answer otherwise.
    pub(crate) const fn elsewhere(&self) -> bool {
        match self {
            Self::Busy | Self::NoCompiler | Self::Worker(_) => true,
            Self::Argument(_) | Self::Source(_) | Self::Limit(_) => false,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Busy => f.write_str("the worker has no free slot"),
            Self::NoCompiler => f.write_str("the worker has no such compiler"),
            Self::Argument(why) => write!(f, "argument refused: {why}"),
            Self::Source(why) => write!(f, "source refused: {why}"),
            Self::Limit(why) => write!(f, "limit reached: {why}"),
            Self::Worker(why) => write!(f, "the worker failed: {why}"),
        }
    }
}

/// A worker takes this many times the jobs it announces: a job of a lost worker does not wait for room.
pub(crate) const HEADROOM: u32 = 2;

/// Asks a worker what it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, Schema)]
pub(crate) struct Describe;

/// What a worker has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Schema)]
pub(crate) struct Description {
    /// Jobs it runs at once; [`HEADROOM`] times as many in need.
    pub(crate) slots: u32,
    /// The identities of its compilers.
    pub(crate) compilers: Vec<[u8; 32]>,
}

impl Request for Compile {
    const NAME: &'static str = "compile-mesh/compile/v1";
    type Response = Object;
    type Error = Refusal;
}

impl Request for Describe {
    const NAME: &'static str = "compile-mesh/describe/v1";
    type Response = Description;
    type Error = Refusal;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_another_worker_may_do_is_tried_elsewhere() {
        assert!(Refusal::Busy.elsewhere() && Refusal::NoCompiler.elsewhere());
        assert!(!Refusal::Argument("-fplugin=x".into()).elsewhere());
        assert!(!Refusal::Limit("wall time".into()).elsewhere());
    }
}
