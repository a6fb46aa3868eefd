//! The two halves of a QUIC link. Each lane of each direction is one unidirectional stream, opened by its
//! sender when it is first used; the first byte of the stream is the number of the lane.

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::slice;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use ::bytes::{Bytes, BytesMut};
use quinn::{Connection, ConnectionError, ReadError, RecvStream, SendStream, VarInt, WriteError};
use vitte_net_proto::Lane;

use super::config::{SEND_WINDOW, URGENT_RESERVE};
use super::datagrams::Datagrams;
use super::failure::{CLOSE_BROKEN, CLOSE_ORDERLY, Failure};
use crate::quic::{Seat, Use};
use crate::transport::LinkError;

const LANES: usize = Lane::COUNT as usize;
/// What [`Writer::write`] takes at once, and what may wait in a lane before it takes no more. So a lane
/// never holds twice as much.
const FULL: usize = 64 << 10;
/// The smallest block that is allocated for small frames.
const BLOCK_MIN: usize = 4 << 10;
/// Runs that one lane hands over before the next lane has its turn: about 46 KiB in packets of 1452 bytes.
const RUNS: usize = 32;
/// Datagrams that are handed over before the lanes have their turn.
const DATAGRAMS: usize = 64;
/// How long a closed link may take to hand over what was flushed before.
const LINGER: Duration = Duration::from_secs(1);

/// What both halves of a link hold until the last word is said.
#[derive(Debug)]
struct Shared {
    /// Streams of a reader that was dropped. To drop them as well would tell the peer to stop sending, which
    /// it could notice before it has read the last frames of this side.
    parked: Mutex<Vec<RecvStream>>,
    _used: Use,
}

pub(super) fn split(connection: Connection, seat: Seat, used: Use) -> (Reader, Writer) {
    let shared = Arc::new(Shared { parked: Mutex::default(), _used: used });
    let writer = Writer {
        connection: connection.clone(),
        lanes: Box::new(std::array::from_fn(|_| Outbound::default())),
        datagrams: Datagrams::default(),
        opening: None,
        failure: None,
        closed: false,
        shared: Arc::clone(&shared),
    };
    let reader = Reader {
        accepting: Waiting::accept(&connection),
        datagram: Waiting::datagram(&connection),
        connection,
        fresh: Vec::new(),
        lanes: Box::new(std::array::from_fn(|_| Inbound::Unseen)),
        runs: Box::new(std::array::from_fn(|_| Bytes::new())),
        failure: None,
        shared,
        seat,
    };
    (reader, writer)
}

/// A future of quinn's that keeps its place in the queue while it is pending.
pub(super) struct Waiting<T, E = ConnectionError>(
    pub(super) Pin<Box<dyn Future<Output = Result<T, E>> + Send + Sync>>,
);

impl<T, E> fmt::Debug for Waiting<T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Waiting")
    }
}

impl Waiting<RecvStream> {
    fn accept(connection: &Connection) -> Self {
        let connection = connection.clone();
        Self(Box::pin(async move { connection.accept_uni().await }))
    }
}

impl Waiting<Bytes> {
    fn datagram(connection: &Connection) -> Self {
        let connection = connection.clone();
        Self(Box::pin(async move { connection.read_datagram().await }))
    }
}

impl Waiting<SendStream> {
    fn open(connection: &Connection) -> Self {
        let connection = connection.clone();
        Self(Box::pin(async move { connection.open_uni().await }))
    }
}

/// The receiving half: polls every lane, the most urgent first.
#[derive(Debug)]
pub struct Reader {
    connection: Connection,
    accepting: Waiting<RecvStream>,
    datagram: Waiting<Bytes>,
    /// Streams whose first byte has not come. The peer may have [`Lane::COUNT`] streams open, no more.
    fresh: Vec<RecvStream>,
    lanes: Box<[Inbound; LANES]>,
    runs: Box<[Bytes; RUNS]>,
    failure: Option<Failure>,
    shared: Arc<Shared>,
    seat: Seat,
}

#[derive(Debug)]
enum Inbound {
    Unseen,
    Open(RecvStream),
    Ended,
}

impl Reader {
    pub(crate) fn seat(&self) -> Seat {
        self.seat.clone()
    }

    /// See [`LinkReader::read`](crate::transport::LinkReader::read). Every lane that has bytes has its turn
    /// in each call, in the order of their numbers.
    pub(crate) async fn read(
        &mut self,
        deliver: &mut (dyn FnMut(Lane, &[u8]) + Send),
    ) -> Result<(), LinkError> {
        poll_fn(|cx| self.poll_read(cx, deliver)).await
    }

    fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        deliver: &mut (dyn FnMut(Lane, &[u8]) + Send),
    ) -> Poll<Result<(), LinkError>> {
        if let Some(failure) = &self.failure {
            return Poll::Ready(Err(failure.to_error()));
        }
        let streams = self.poll_accept(cx).and_then(|()| self.poll_fresh(cx));
        let mut failure = streams.err();
        let mut delivered = match self.poll_datagrams(cx, deliver) {
            Ok(any) => any,
            Err(error) => {
                failure = failure.or(Some(error));
                false
            }
        };
        for index in 0..LANES {
            match self.poll_lane(index, cx, deliver) {
                Ok(any) => delivered |= any,
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        match failure {
            // A broken connection still hands out what had arrived before: the last frames say why.
            Some(failure) => {
                if let Failure::Broken(reason) = &failure {
                    self.connection.close(CLOSE_BROKEN, reason.as_bytes());
                }
                if delivered && matches!(failure, Failure::Lost(_)) {
                    return Poll::Ready(Ok(()));
                }
                let error = failure.to_error();
                self.failure = Some(failure);
                Poll::Ready(if delivered { Ok(()) } else { Err(error) })
            }
            None if delivered => Poll::Ready(Ok(())),
            None => Poll::Pending,
        }
    }

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Result<(), Failure> {
        while let Poll::Ready(stream) = self.accepting.0.as_mut().poll(cx) {
            self.accepting = Waiting::accept(&self.connection);
            self.fresh.push(stream?);
        }
        Ok(())
    }

    fn poll_datagrams(
        &mut self,
        cx: &mut Context<'_>,
        deliver: &mut (dyn FnMut(Lane, &[u8]) + Send),
    ) -> Result<bool, Failure> {
        let mut delivered = false;
        for _ in 0..DATAGRAMS {
            let Poll::Ready(datagram) = self.datagram.0.as_mut().poll(cx) else { break };
            self.datagram = Waiting::datagram(&self.connection);
            deliver(Lane::DATAGRAM, &datagram?);
            delivered = true;
        }
        Ok(delivered)
    }

    fn poll_fresh(&mut self, cx: &mut Context<'_>) -> Result<(), Failure> {
        let mut index = 0;
        while let Some(stream) = self.fresh.get_mut(index) {
            let Poll::Ready(first) = pin!(stream.read_chunk(1, true)).poll(cx) else {
                index += 1;
                continue;
            };
            let stream = self.fresh.remove(index);
            let first = first?.and_then(|chunk| chunk.bytes.first().copied());
            let number = first.ok_or(Failure::Broken("a stream ended before it named its lane"))?;
            match self.lanes.get_mut(usize::from(number)) {
                Some(lane @ Inbound::Unseen) => *lane = Inbound::Open(stream),
                Some(_) => return Err(Failure::Broken("two streams named the same lane")),
                None => return Err(Failure::Broken("a stream named a lane that does not exist")),
            }
        }
        Ok(())
    }

    fn poll_lane(
        &mut self,
        index: usize,
        cx: &mut Context<'_>,
        deliver: &mut (dyn FnMut(Lane, &[u8]) + Send),
    ) -> Result<bool, Failure> {
        let Inbound::Open(stream) = &mut self.lanes[index] else { return Ok(false) };
        let Poll::Ready(read) = pin!(stream.read_chunks(&mut *self.runs)).poll(cx) else { return Ok(false) };
        let Some(count) = read? else {
            self.lanes[index] = Inbound::Ended;
            return Ok(false);
        };
        #[expect(clippy::cast_possible_truncation, reason = "there are eleven lanes")]
        let lane = Lane(index as u8);
        for run in &mut self.runs[..count] {
            deliver(lane, &std::mem::take(run));
        }
        Ok(count > 0)
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let lanes = self.lanes.iter_mut().map(|lane| std::mem::replace(lane, Inbound::Ended));
        let open = lanes.filter_map(|lane| match lane {
            Inbound::Open(stream) => Some(stream),
            Inbound::Unseen | Inbound::Ended => None,
        });
        let mut parked = self.shared.parked.lock().unwrap_or_else(PoisonError::into_inner);
        parked.extend(self.fresh.drain(..).chain(open));
    }
}

/// The sending half: collects frames per lane and hands them to quinn in blocks.
#[derive(Debug)]
pub struct Writer {
    connection: Connection,
    lanes: Box<[Outbound; LANES]>,
    datagrams: Datagrams,
    opening: Option<Waiting<SendStream>>,
    failure: Option<Failure>,
    closed: bool,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Outbound {
    stream: Option<SendStream>,
    /// What quinn is being offered.
    offered: Bytes,
    /// What was written since.
    filling: BytesMut,
    /// Bytes to allocate for the next block.
    block: usize,
    named: bool,
}

impl Outbound {
    fn waiting(&self) -> usize {
        self.offered.len() + self.filling.len()
    }

    fn append(&mut self, number: u8, frames: &[u8]) {
        let need = frames.len() + usize::from(!self.named);
        if self.filling.capacity() - self.filling.len() < need {
            self.filling.reserve(need.max(self.block));
        }
        if !self.named {
            self.named = true;
            self.filling.extend_from_slice(&[number]);
        }
        self.filling.extend_from_slice(frames);
    }

    /// Makes sure that something is offered, if anything waits.
    fn offer(&mut self) {
        if self.offered.is_empty() && !self.filling.is_empty() {
            let size = self.filling.len();
            self.offered = self.filling.split().freeze();
            self.block = size.next_power_of_two().clamp(BLOCK_MIN, FULL);
            // Small frames share a block; an idle lane does not keep a large one.
            if size > BLOCK_MIN {
                self.filling = BytesMut::new();
            }
        }
    }
}

impl Writer {
    /// See [`LinkWriter::capacity`](crate::transport::LinkWriter::capacity): 64 KiB, or 0 while as much
    /// waits in the lane.
    pub(crate) fn capacity(&self, lane: Lane) -> usize {
        if lane == Lane::DATAGRAM {
            return self.datagrams.capacity(&self.connection);
        }
        match self.lanes.get(usize::from(lane.0)) {
            Some(outbound) if outbound.waiting() < FULL => FULL,
            _ => 0,
        }
    }

    /// See [`LinkWriter::write`](crate::transport::LinkWriter::write).
    pub(crate) fn write(&mut self, lane: Lane, frames: &[u8]) -> Result<(), LinkError> {
        debug_assert!(frames.len() <= self.capacity(lane), "more than the lane takes");
        if let Some(failure) = &self.failure {
            return Err(failure.to_error());
        }
        if lane == Lane::DATAGRAM {
            self.datagrams.write(&self.connection, frames);
        } else if let Some(outbound) = self.lanes.get_mut(usize::from(lane.0)) {
            outbound.append(lane.0, frames);
        }
        Ok(())
    }

    /// See [`LinkWriter::poll_flush`](crate::transport::LinkWriter::poll_flush). The most urgent lane goes
    /// first, and a lane that is blocked holds up no other.
    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        if let Some(failure) = &self.failure {
            return Poll::Ready(Err(failure.to_error()));
        }
        match self.push_all(cx) {
            Ok(true) => Poll::Ready(Ok(())),
            Ok(false) => Poll::Pending,
            Err(failure) => {
                let error = failure.to_error();
                self.failure = Some(failure);
                Poll::Ready(Err(error))
            }
        }
    }

    /// Bytes of a lane that quinn has not taken.
    #[cfg(test)]
    pub(super) fn waiting(&self, lane: Lane) -> usize {
        self.lanes[usize::from(lane.0)].waiting()
    }

    /// Ends the link at once, with a code that is not that of an end in order.
    pub(super) fn abort(&self, code: VarInt, reason: &[u8]) {
        self.connection.close(code, reason);
    }

    fn push_all(&mut self, cx: &mut Context<'_>) -> Result<bool, Failure> {
        let mut all = self.datagrams.poll(&self.connection, cx);
        for index in 0..LANES {
            if self.lanes[index].waiting() > 0 {
                self.datagrams.share(&self.connection);
                all &= self.poll_open(index, cx)? && self.push(index, cx)?;
            }
        }
        Ok(all)
    }

    fn poll_open(&mut self, index: usize, cx: &mut Context<'_>) -> Result<bool, Failure> {
        if self.lanes[index].stream.is_some() {
            return Ok(true);
        }
        let opening = self.opening.get_or_insert_with(|| Waiting::open(&self.connection));
        let Poll::Ready(stream) = opening.0.as_mut().poll(cx) else { return Ok(false) };
        self.opening = None;
        let stream = stream?;
        // Three classes and control above them: quinn sends the greater number first.
        let urgency = match index {
            0 => 3,
            1 => 2,
            2 => 1,
            _ => 0,
        };
        stream.set_priority(urgency).map_err(|_| Failure::Closed)?;
        self.lanes[index].stream = Some(stream);
        Ok(true)
    }

    fn push(&mut self, index: usize, cx: &mut Context<'_>) -> Result<bool, Failure> {
        let Outbound { stream: Some(_), .. } = &self.lanes[index] else { return Ok(false) };
        let urgent = index <= 1;
        loop {
            let lane = &mut self.lanes[index];
            lane.offer();
            if lane.offered.is_empty() {
                return Ok(true);
            }
            if poll_write(lane, cx)?.is_ready() {
                continue;
            }
            if !urgent {
                return Ok(false);
            }
            // Bulk of all lanes counts against one window. What is urgent must not wait until the peer
            // has acknowledged some of it.
            self.connection.set_send_window(SEND_WINDOW + URGENT_RESERVE);
            let taken = poll_write(lane, cx);
            self.connection.set_send_window(SEND_WINDOW);
            if taken?.is_pending() {
                return Ok(false);
            }
        }
    }

    /// See [`LinkWriter::close`](crate::transport::LinkWriter::close). QUIC throws away what is unsent when
    /// it closes; so a task of its own ends the streams, waits at most one second until the peer has
    /// acknowledged them, and closes then. What quinn does not take any more is given up.
    pub(crate) fn close(&mut self) {
        if std::mem::replace(&mut self.closed, true) {
            return;
        }
        let flushed =
            self.failure.is_none() && self.push_all(&mut Context::from_waker(Waker::noop())).is_ok();
        self.failure = Some(Failure::Lost(ConnectionError::LocallyClosed));
        let runtime = tokio::runtime::Handle::try_current();
        let (true, Ok(runtime)) = (flushed, runtime) else {
            self.connection.close(CLOSE_ORDERLY, &[]);
            return;
        };
        let streams = self.lanes.iter_mut().filter_map(|lane| lane.stream.take()).collect();
        runtime.spawn(linger(self.connection.clone(), streams, Arc::clone(&self.shared)));
    }
}

fn poll_write(lane: &mut Outbound, cx: &mut Context<'_>) -> Result<Poll<()>, Failure> {
    let Some(stream) = &mut lane.stream else { return Ok(Poll::Pending) };
    match pin!(stream.write_chunks(slice::from_mut(&mut lane.offered))).poll(cx) {
        Poll::Ready(written) => Ok(Poll::Ready(written.map(drop)?)),
        Poll::Pending => Ok(Poll::Pending),
    }
}

async fn linger(connection: Connection, mut streams: Vec<SendStream>, shared: Arc<Shared>) {
    let acknowledged = async {
        for stream in &mut streams {
            // An error means that the stream or the link has ended already.
            if stream.finish().is_ok() {
                stream.stopped().await.ok();
            }
        }
    };
    // Over or not, the link ends now.
    tokio::time::timeout(LINGER, acknowledged).await.ok();
    connection.close(CLOSE_ORDERLY, &[]);
    drop(shared);
}

impl From<ReadError> for Failure {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::ConnectionLost(error) => Self::Lost(error),
            ReadError::Reset(_) => Self::Broken("a lane was reset"),
            ReadError::ClosedStream | ReadError::IllegalOrderedRead | ReadError::ZeroRttRejected => {
                Self::Closed
            }
        }
    }
}

impl From<WriteError> for Failure {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::ConnectionLost(error) => Self::Lost(error),
            // quinn says so when both halves of the peer are gone; its last word may come a moment later.
            WriteError::Stopped(code) if code == CLOSE_ORDERLY => Self::Gone,
            WriteError::Stopped(_) => Self::Broken("the peer stopped a lane"),
            WriteError::ClosedStream | WriteError::ZeroRttRejected => Self::Closed,
        }
    }
}
