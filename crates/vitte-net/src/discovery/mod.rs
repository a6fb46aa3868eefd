//! Where peers may be found. A source reports sightings; the mesh decides whom to dial.

pub mod fixed;

use tokio::sync::mpsc;
use vitte_net_proto::PeerId;

use crate::address::Address;
use crate::network::BoxFuture;

pub use fixed::Fixed;

/// Sightings that wait for the mesh, of one source; then the source waits.
pub(crate) const SIGHTINGS_MAX: usize = 256;

/// A peer was seen at an address. Nothing of it is proven before TLS agrees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sighting {
    /// Whom.
    pub peer: PeerId,
    /// Where.
    pub address: Address,
    /// Which source says so, for logs.
    pub provenance: &'static str,
}

/// Where a source puts what it sees.
#[derive(Clone, Debug)]
pub struct Sightings {
    queue: mpsc::Sender<Sighting>,
}

impl Sightings {
    pub(crate) fn new() -> (Self, mpsc::Receiver<Sighting>) {
        let (queue, receiver) = mpsc::channel(SIGHTINGS_MAX);
        (Self { queue }, receiver)
    }

    /// Reports a sighting, when the mesh has room for it. False when the mesh is gone: the source may end.
    ///
    /// # Cancel safety
    /// A dropped future has reported nothing.
    pub async fn report(&self, sighting: Sighting) -> bool {
        self.queue.send(sighting).await.is_ok()
    }
}

/// A source of sightings.
pub trait Discovery: Send + 'static {
    /// Reports what it sees until there is nothing more to see, or the mesh is gone. The future is dropped
    /// with the mesh.
    fn run(self: Box<Self>, sightings: Sightings) -> BoxFuture<'static, ()>;
}
