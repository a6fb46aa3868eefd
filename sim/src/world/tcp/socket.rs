//! The handles that programs hold: a stream and a listening socket.

use std::fmt;
use std::future::poll_fn;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use vitte_net::network::{BoxFuture, BoxStream, ByteStream, TcpListen};

use super::{Fin, Phase};
use crate::world::{HostId, State, World, register};

/// One end of a connection.
pub(crate) struct Stream {
    world: World,
    connection: u64,
    end: usize,
    local: SocketAddr,
    peer: SocketAddr,
    /// Bytes written but not sent beyond which the stream counts as full.
    notsent_low_water: u64,
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream").field("local", &self.local).field("peer", &self.peer).finish()
    }
}

impl Stream {
    /// Takes over an end. `None`: the connection does not exist any more.
    pub(crate) fn new(
        world: World,
        state: &State,
        connection: u64,
        end: usize,
        low_water: Option<u32>,
    ) -> Option<Self> {
        let ends = &state.connections.get(&connection)?.ends;
        Some(Self {
            world,
            connection,
            end,
            local: ends[end].address,
            peer: ends[1 - end].address,
            notsent_low_water: low_water.map_or(u64::MAX, |bytes| u64::from(bytes.max(1))),
        })
    }

    /// Waits until the other side has answered.
    pub(crate) async fn connected(&self) -> io::Result<()> {
        poll_fn(|cx| {
            self.world.with(|state| {
                let Some(connection) = state.connections.get_mut(&self.connection) else {
                    return Poll::Ready(Err(ErrorKind::ConnectionAborted.into()));
                };
                let end = &mut connection.ends[self.end];
                match (end.error, end.phase) {
                    (Some(error), _) => Poll::Ready(Err(error.into())),
                    (None, Phase::Open) => Poll::Ready(Ok(())),
                    (None, Phase::Gone) => Poll::Ready(Err(ErrorKind::ConnectionAborted.into())),
                    (None, Phase::Connecting) => {
                        register(&mut end.writers, cx, &mut state.wakes);
                        Poll::Pending
                    }
                }
            })
        })
        .await
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let (connection, end) = (self.connection, self.end);
        self.world.with(|state| {
            let held = state
                .connections
                .get(&connection)
                .is_some_and(|connection| connection.ends[end].phase != Phase::Gone);
            if held {
                state.close(connection, end);
            }
        });
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let direction = 1 - self.end;
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        self.world.with(|state| {
            let Some(connection) = state.connections.get_mut(&self.connection) else {
                return Poll::Ready(Err(ErrorKind::ConnectionAborted.into()));
            };
            let lane = &mut connection.directions[direction];
            let before = buf.remaining();
            while let Some(front) = lane.inbox.front_mut() {
                let count = front.len().min(buf.remaining());
                buf.put_slice(&front[..count]);
                front.advance(count);
                if !front.is_empty() {
                    break;
                }
                lane.inbox.pop_front();
            }
            let count = before - buf.remaining();
            if count > 0 {
                lane.read += count as u64;
                state.send_acknowledgement(self.connection, direction);
                return Poll::Ready(Ok(()));
            }
            let ended = lane.ended;
            let end = &mut connection.ends[self.end];
            match end.error {
                Some(error) => Poll::Ready(Err(error.into())),
                None if end.phase == Phase::Gone => Poll::Ready(Err(ErrorKind::ConnectionAborted.into())),
                None if ended => Poll::Ready(Ok(())),
                None => {
                    register(&mut end.readers, cx, &mut state.wakes);
                    Poll::Pending
                }
            }
        })
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[io::IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.world.with(|state| {
            let Some(connection) = state.connections.get_mut(&self.connection) else {
                return Poll::Ready(Err(ErrorKind::ConnectionAborted.into()));
            };
            let end = &mut connection.ends[self.end];
            if let Some(error) = end.error {
                return Poll::Ready(Err(error.into()));
            }
            let lane = &mut connection.directions[self.end];
            if end.phase == Phase::Gone || lane.fin != Fin::No {
                return Poll::Ready(Err(ErrorKind::BrokenPipe.into()));
            }
            let mut room = usize::try_from(lane.room()).unwrap_or(usize::MAX);
            if lane.queued_bytes >= self.notsent_low_water {
                room = 0;
            }
            let wanted: usize = bufs.iter().map(|buf| buf.len()).sum();
            if room == 0 && wanted > 0 {
                register(&mut end.writers, cx, &mut state.wakes);
                return Poll::Pending;
            }
            let count = wanted.min(room);
            if count > 0 {
                let mut bytes = Vec::with_capacity(count);
                for buf in bufs {
                    let part = buf.len().min(count - bytes.len());
                    bytes.extend_from_slice(&buf[..part]);
                }
                lane.queued_bytes += count as u64;
                lane.queued.push_back(Bytes::from(bytes));
                state.transmit(self.connection, self.end);
            }
            Poll::Ready(Ok(count))
        })
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.world.with(|state| {
            let Some(connection) = state.connections.get_mut(&self.connection) else {
                return Poll::Ready(Err(ErrorKind::NotConnected.into()));
            };
            let end = &connection.ends[self.end];
            if end.error.is_some() || end.phase == Phase::Gone {
                return Poll::Ready(Err(ErrorKind::NotConnected.into()));
            }
            let lane = &mut connection.directions[self.end];
            if lane.fin == Fin::No {
                lane.fin = Fin::Queued;
                state.transmit(self.connection, self.end);
            }
            Poll::Ready(Ok(()))
        })
    }
}

impl ByteStream for Stream {
    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.local)
    }

    fn peer_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.peer)
    }
}

/// A listening socket of one life of a host.
#[derive(Debug)]
pub(crate) struct Acceptor {
    pub(crate) world: World,
    pub(crate) host: HostId,
    pub(crate) life: u32,
    pub(crate) address: SocketAddr,
    pub(crate) notsent_low_water: Option<u32>,
}

impl Acceptor {
    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<Stream>> {
        self.world.with(|state| {
            let host = &mut state.hosts[self.host];
            let listener = host.listeners.get_mut(&self.address.port());
            let Some(listener) = listener.filter(|_| host.life == self.life) else {
                return Poll::Ready(Err(ErrorKind::NetworkDown.into()));
            };
            let Some(connection) = listener.queue.pop_front() else {
                register(&mut listener.wakers, cx, &mut state.wakes);
                return Poll::Pending;
            };
            let stream = Stream::new(self.world.clone(), state, connection, 1, self.notsent_low_water);
            Poll::Ready(stream.ok_or_else(|| ErrorKind::ConnectionAborted.into()))
        })
    }
}

impl TcpListen for Acceptor {
    fn accept(&self) -> BoxFuture<'_, io::Result<(BoxStream, SocketAddr)>> {
        Box::pin(poll_fn(|cx| {
            let stream = ready!(self.poll_accept(cx))?;
            let peer = stream.peer;
            Poll::Ready(Ok((Box::new(stream) as BoxStream, peer)))
        }))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }
}

impl Drop for Acceptor {
    fn drop(&mut self) {
        self.world.with(|state| {
            let host = &mut state.hosts[self.host];
            if host.life != self.life {
                return;
            }
            let listener = host.listeners.remove(&self.address.port());
            for connection in listener.into_iter().flat_map(|listener| listener.queue) {
                state.abort(connection, 1);
            }
        });
    }
}
