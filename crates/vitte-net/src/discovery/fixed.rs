//! A list that is known beforehand.

use vitte_net_proto::PeerId;

use super::{Discovery, Sighting, Sightings};
use crate::address::Address;
use crate::network::BoxFuture;

/// Peers and addresses that are known beforehand. A peer may have several.
#[derive(Clone, Debug, Default)]
pub struct Fixed {
    list: Vec<(PeerId, Address)>,
}

impl Fixed {
    /// This list.
    #[must_use]
    pub fn new(list: impl IntoIterator<Item = (PeerId, Address)>) -> Self {
        Self { list: list.into_iter().collect() }
    }
}

impl Discovery for Fixed {
    fn run(self: Box<Self>, sightings: Sightings) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            for (peer, address) in self.list {
                if !sightings.report(Sighting { peer, address, provenance: "fixed" }).await {
                    return;
                }
            }
        })
    }
}
