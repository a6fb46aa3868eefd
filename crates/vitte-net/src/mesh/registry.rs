//! Who takes the streams that peers open.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::marker::PhantomData;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::mpsc::{self, Receiver, Sender};
use vitte_net_proto::{DeliveryClass, OpenInfo, StreamCode, StreamId, StreamKind};

use crate::call::Serve;
use crate::channel::Stream;
use crate::channel::bytes::PeerStream;
use crate::channel::datagrams::{Datagrams, RawDatagrams};
use crate::channel::payload::{Fingerprint, describe};
use crate::channel::raw::RawChannel;
use crate::channel::typed::{Channel, Message};
use crate::peer::{Peer, Shared};

/// Why a name was not registered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// Somebody takes this name already.
    #[error("{0:?} is taken already")]
    Taken(String),
    /// The name is longer than 255 bytes.
    #[error("a name is at most 255 bytes")]
    NameTooLong,
}

/// The types of a channel, as its acceptor sees them.
#[derive(Clone, Copy)]
struct Types {
    incoming: u64,
    outgoing: u64,
    describe: fn() -> String,
}

struct Acceptor {
    class: DeliveryClass,
    types: Types,
    queue: Sender<(Peer, Stream)>,
}

#[derive(Default)]
struct Names {
    calls: BTreeMap<String, Arc<dyn Serve>>,
    streams: BTreeMap<(StreamKind, String), Acceptor>,
    /// The mesh is gone.
    closed: bool,
}

#[derive(Default)]
pub(super) struct Registry {
    names: Mutex<Names>,
}

impl Registry {
    /// Nothing comes any more: what was accepted and waits may still be taken.
    pub(super) fn close(&self) {
        let closed = Names { closed: true, ..Names::default() };
        let names =
            std::mem::replace(&mut *self.names.lock().unwrap_or_else(PoisonError::into_inner), closed);
        // Handlers are the application's: they are dropped without the lock.
        drop(names);
    }

    pub(super) fn serve(&self, name: &str, handler: Arc<dyn Serve>) -> Result<(), ServeError> {
        check(name)?;
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        if names.calls.contains_key(name) {
            return Err(ServeError::Taken(name.into()));
        }
        if !names.closed {
            names.calls.insert(name.into(), handler);
        }
        Ok(())
    }

    fn accept(
        &self,
        (kind, class): (StreamKind, DeliveryClass),
        name: &str,
        types: Types,
        most: usize,
    ) -> Result<Receiver<(Peer, Stream)>, ServeError> {
        check(name)?;
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (kind, String::from(name));
        if names.streams.get(&key).is_some_and(|acceptor| !acceptor.queue.is_closed()) {
            return Err(ServeError::Taken(name.into()));
        }
        let (queue, receiver) = mpsc::channel(most);
        if !names.closed {
            names.streams.insert(key, Acceptor { class, types, queue });
        }
        Ok(receiver)
    }

    pub(super) fn channels<Out: Message, In: Message>(
        &self,
        name: &str,
        class: DeliveryClass,
        most: usize,
    ) -> Result<Incoming<Channel<Out, In>>, ServeError> {
        let types = Types::of::<Out, In>();
        let queue = self.accept((StreamKind::Channel, class), name, types, most)?;
        Ok(Incoming { queue, make: |stream| Channel::new(RawChannel::new(stream)), made: PhantomData })
    }

    pub(super) fn raw(
        &self,
        name: &str,
        class: DeliveryClass,
        most: usize,
    ) -> Result<Incoming<RawChannel>, ServeError> {
        let queue = self.accept((StreamKind::Channel, class), name, Types::RAW, most)?;
        Ok(Incoming { queue, make: RawChannel::new, made: PhantomData })
    }

    pub(super) fn datagrams<Out: Message, In: Message>(
        &self,
        name: &str,
        most: usize,
    ) -> Result<Incoming<Datagrams<Out, In>>, ServeError> {
        let kind = (StreamKind::Channel, DeliveryClass::Datagram);
        let queue = self.accept(kind, name, Types::of::<Out, In>(), most)?;
        Ok(Incoming { queue, make: |stream| Datagrams::new(RawDatagrams::new(stream)), made: PhantomData })
    }

    pub(super) fn raw_datagrams(
        &self,
        name: &str,
        most: usize,
    ) -> Result<Incoming<RawDatagrams>, ServeError> {
        let queue = self.accept((StreamKind::Channel, DeliveryClass::Datagram), name, Types::RAW, most)?;
        Ok(Incoming { queue, make: RawDatagrams::new, made: PhantomData })
    }

    pub(super) fn bytes(&self, name: &str, most: usize) -> Result<Incoming<PeerStream>, ServeError> {
        let queue = self.accept((StreamKind::Bytes, DeliveryClass::Reliable), name, Types::RAW, most)?;
        Ok(Incoming { queue, make: PeerStream::new, made: PhantomData })
    }

    /// Finds who takes a stream that `peer` opened, or refuses it.
    pub(super) fn opened(&self, peer: &Arc<Shared>, id: StreamId, info: &OpenInfo) {
        let stream = Stream::new(peer.clone(), id);
        let refuse = |stream: &Stream, code, reason: &str| stream.carrier.refuse(id, code, reason);
        if info.kind == StreamKind::Call {
            let names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
            let handler = names.calls.get(&info.name).cloned();
            drop(names);
            return match handler {
                None => refuse(&stream, StreamCode::NO_SUCH_NAME, "no handler of this name"),
                Some(handler) => match handler.check(info) {
                    Ok(()) => handler.start(stream, info),
                    Err(why) => refuse(&stream, StreamCode::SCHEMA_MISMATCH, &why),
                },
            };
        }
        let names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        let acceptor = names.streams.get(&(info.kind, info.name.clone()));
        let found = acceptor.map(|acceptor| (acceptor.class, acceptor.types, acceptor.queue.clone()));
        drop(names);
        let Some((class, types, queue)) = found else {
            return refuse(&stream, StreamCode::NO_SUCH_NAME, "nothing of this name is accepted");
        };
        if class != info.class {
            return refuse(&stream, StreamCode::WRONG_CLASS, described(class));
        }
        if (types.incoming, types.outgoing) != (info.schema_out, info.schema_in) {
            return refuse(&stream, StreamCode::SCHEMA_MISMATCH, &(types.describe)());
        }
        match queue.try_reserve() {
            Ok(slot) => {
                stream.carrier.accept(id);
                slot.send((Peer::new(peer.clone()), stream));
                if queue.is_closed() {
                    // Nobody takes it: it goes with its queue.
                    self.forget(&(info.kind, info.name.clone()), &queue);
                }
            }
            Err(TrySendError::Full(())) => refuse(&stream, StreamCode::BUSY, "too many wait to be accepted"),
            Err(TrySendError::Closed(())) => {
                refuse(&stream, StreamCode::NO_SUCH_NAME, "nothing of this name is accepted any more");
            }
        }
    }
}

impl Registry {
    /// The queue of a name has no reader any more. The name may have another one already.
    fn forget(&self, name: &(StreamKind, String), queue: &Sender<(Peer, Stream)>) {
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        let gone = match names.streams.entry(name.clone()) {
            Entry::Occupied(entry) if entry.get().queue.same_channel(queue) => Some(entry.remove()),
            _ => None,
        };
        drop(names);
        drop(gone);
    }
}

impl Types {
    fn of<Out: Message, In: Message>() -> Self {
        Self {
            incoming: Fingerprint::<In>::VALUE,
            outgoing: Fingerprint::<Out>::VALUE,
            describe: || format!("here it takes {} and sends {}", describe::<In>(), describe::<Out>()),
        }
    }

    const RAW: Self = Self { incoming: 0, outgoing: 0, describe: || String::from("here it carries bytes") };
}

fn described(class: DeliveryClass) -> &'static str {
    match class {
        DeliveryClass::Reliable => "here every message counts",
        DeliveryClass::Latest => "here only the newest message counts",
        DeliveryClass::Datagram => "here messages are datagrams",
    }
}

fn check(name: &str) -> Result<(), ServeError> {
    if name.len() <= vitte_net_proto::frame::NAME_MAX { Ok(()) } else { Err(ServeError::NameTooLong) }
}

/// Channels or byte streams of one name that peers have opened. Dropping it refuses those that wait, and
/// all that come.
#[derive(Debug)]
pub struct Incoming<C> {
    queue: Receiver<(Peer, Stream)>,
    make: fn(Stream) -> C,
    made: PhantomData<fn() -> C>,
}

impl<C> Incoming<C> {
    /// Waits for the next one; `None` when the mesh is gone.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn next(&mut self) -> Option<(Peer, C)> {
        let (peer, stream) = self.queue.recv().await?;
        Some((peer, (self.make)(stream)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIND: (StreamKind, DeliveryClass) = (StreamKind::Channel, DeliveryClass::Reliable);

    #[test]
    fn a_queue_without_a_reader_goes_and_the_next_of_its_name_stays() {
        let registry = Registry::default();
        let name = (KIND.0, String::from("log"));
        let queue =
            || registry.names.lock().unwrap().streams.get(&name).map(|acceptor| acceptor.queue.clone());
        let receiver = registry.accept(KIND, "log", Types::RAW, 1).unwrap();
        let first = queue().unwrap();
        // A stream gets a place, and then nobody reads any more.
        drop(receiver);
        let receiver = registry.accept(KIND, "log", Types::RAW, 1).unwrap();
        registry.forget(&name, &first);
        assert!(queue().is_some_and(|second| !second.same_channel(&first)), "it has a reader");
        drop(receiver);
        let second = queue().unwrap();
        registry.forget(&name, &second);
        assert!(queue().is_none());
        assert_eq!(second.strong_count(), 1, "what is in it goes with the last who could add to it");
    }
}
