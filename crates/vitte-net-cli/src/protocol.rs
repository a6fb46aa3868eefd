//! What `vnet ping` asks and `vnet node` answers.

use serde::{Deserialize, Serialize};
use vitte_net::{Blob, Request, Schema};

/// Asks for the same bytes back.
#[derive(Debug, Deserialize, Schema, Serialize)]
pub(crate) struct Ping {
    pub(crate) sequence: u64,
    pub(crate) payload: Blob,
}

/// The bytes of a [`Ping`].
#[derive(Debug, Deserialize, Schema, Serialize)]
pub(crate) struct Pong {
    pub(crate) sequence: u64,
    pub(crate) payload: Blob,
}

impl Request for Ping {
    const NAME: &'static str = "vnet/ping/v1";
    type Response = Pong;
    type Error = ();
}
