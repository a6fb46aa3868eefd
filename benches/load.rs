//! What is measured, and how much of it.

use std::fmt;
use std::time::Duration;

use clap::ValueEnum;
use serde::Serialize;

/// Bytes of a request, and of its answer.
pub(crate) const REQUEST: usize = 64;
/// Bytes of a one-way message.
pub(crate) const MESSAGE: usize = 1 << 10;
/// Bytes that bulk is written in.
pub(crate) const BLOCK: usize = 64 << 10;
/// Bytes of a message of the bulk that goes over a channel.
pub(crate) const BLOB: usize = 256 << 10;
/// Calls in flight in [`Load::Flight`].
pub(crate) const IN_FLIGHT: u64 = 64;

/// How a connection travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Transport {
    Quic,
    Tls,
    Ws,
}

impl Transport {
    pub(crate) const ALL: [Self; 3] = [Self::Quic, Self::Tls, Self::Ws];
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Quic => "quic",
            Self::Tls => "tls",
            Self::Ws => "ws",
        })
    }
}

/// Whose code is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Side {
    /// vitte-net
    Ours,
    /// The layer below it
    Raw,
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ours => "ours",
            Self::Raw => "raw",
        })
    }
}

/// A load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) enum Load {
    /// Calls of 64 bytes, one after the other.
    #[serde(rename = "S")]
    Sequential,
    /// The same with 64 in flight.
    #[serde(rename = "B")]
    Flight,
    /// Messages of 1 KiB, one way, until the last was handled.
    #[serde(rename = "C")]
    Messages,
    /// Bulk, as a byte stream.
    #[serde(rename = "D")]
    Bulk,
    /// Bulk again, over a channel of blobs; raw as [`Load::Bulk`].
    #[serde(rename = "D-blobs")]
    Blobs,
}

impl Load {
    pub(crate) const ALL: [Self; 5] =
        [Self::Sequential, Self::Flight, Self::Messages, Self::Bulk, Self::Blobs];

    /// Requests, messages or bytes of one measurement.
    pub(crate) fn amount(self, short: bool) -> u64 {
        match (self, short) {
            (Self::Sequential, false) => 20_000,
            (Self::Sequential, true) => 200,
            (Self::Flight, false) => 200_000,
            (Self::Flight, true) => 2_000,
            (Self::Messages, false) => 500_000,
            (Self::Messages, true) => 5_000,
            (Self::Bulk | Self::Blobs, false) => 1 << 30,
            (Self::Bulk | Self::Blobs, true) => 16 << 20,
        }
    }

    pub(crate) fn lower_is_better(self) -> bool {
        self == Self::Sequential
    }

    /// The worst ratio that is good enough, where there is a bar.
    pub(crate) fn bar(self) -> Option<f64> {
        match self {
            Self::Sequential => Some(1.5),
            Self::Bulk => Some(0.7),
            Self::Flight | Self::Messages | Self::Blobs => None,
        }
    }

    pub(crate) fn unit(self) -> &'static str {
        match self {
            Self::Sequential => "µs p50",
            Self::Flight => "calls/s",
            Self::Messages => "msg/s",
            Self::Bulk | Self::Blobs => "Gbit/s",
        }
    }
}

impl fmt::Display for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sequential => "S",
            Self::Flight => "B",
            Self::Messages => "C",
            Self::Bulk => "D",
            Self::Blobs => "D-blobs",
        })
    }
}

/// One measurement.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Figure {
    /// In [`Load::unit`].
    pub(crate) value: f64,
    /// The 99th percentile of [`Load::Sequential`], in µs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) p99: Option<f64>,
}

impl Figure {
    /// Of the times of single requests, which are sorted here.
    pub(crate) fn of_times(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        let at = |percent: usize| {
            let index = (times.len() * percent / 100).min(times.len().saturating_sub(1));
            times.get(index).map_or(0.0, |time| time.as_secs_f64() * 1e6)
        };
        Self { value: at(50), p99: Some(at(99)) }
    }

    /// Of a load that took this long.
    #[expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]
    pub(crate) fn of_rate(load: Load, amount: u64, took: Duration) -> Self {
        let scale = if matches!(load, Load::Bulk | Load::Blobs) { 8e-9 } else { 1.0 };
        Self { value: amount as f64 * scale / took.as_secs_f64(), p99: None }
    }
}
