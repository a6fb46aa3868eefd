//! Any [`Datagrams`] as the socket of a quinn endpoint.

use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, Runtime, TokioRuntime, UdpPoller};

use crate::network::Datagrams;

/// The operating system's socket, where there is one, goes to quinn's own runtime, which knows GSO, GRO
/// and ECN. Everything else goes one datagram at a time through [`Adapter`].
pub(crate) fn for_quinn(datagrams: Arc<dyn Datagrams>) -> io::Result<Arc<dyn AsyncUdpSocket>> {
    match datagrams.os_socket() {
        Some(socket) => TokioRuntime.wrap_udp_socket(socket?),
        None => Ok(Arc::new(Adapter { datagrams, writers: Arc::default() })),
    }
}

#[derive(Debug)]
struct Adapter {
    datagrams: Arc<dyn Datagrams>,
    writers: Arc<Writers>,
}

impl AsyncUdpSocket for Adapter {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        let place = self.writers.enter();
        Box::pin(Poller { socket: self, place })
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let size = transmit.segment_size.unwrap_or(transmit.contents.len()).max(1);
        for datagram in transmit.contents.chunks(size) {
            match self.datagrams.try_send(datagram, transmit.destination) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(error),
                // An error here would end every connection of the endpoint. A datagram that could not be
                // sent is a lost one: QUIC sends it again or gives up in its own time.
                Err(error) => tracing::debug!(%error, to = %transmit.destination, "datagram not sent"),
                Ok(()) => {}
            }
        }
        Ok(())
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let most = bufs.len().min(meta.len());
        let mut count = 0;
        while count < most {
            match self.datagrams.poll_recv(cx, &mut bufs[count]) {
                Poll::Ready(Ok(received)) if received.truncated => {}
                Poll::Ready(Ok(received)) => {
                    meta[count] = RecvMeta {
                        addr: received.from,
                        len: received.len,
                        stride: received.len,
                        ecn: None,
                        dst_ip: None,
                    };
                    count += 1;
                }
                Poll::Ready(Err(error)) if count == 0 => return Poll::Ready(Err(transient(error))),
                // The socket tells again, or it was an answer to one datagram and is over.
                Poll::Ready(Err(_)) => break,
                Poll::Pending if count == 0 => return Poll::Pending,
                Poll::Pending => break,
            }
        }
        Poll::Ready(Ok(count))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.datagrams.local_addr()
    }

    fn may_fragment(&self) -> bool {
        false
    }
}

/// An error that answers one datagram sent earlier (ICMP) must not end the endpoint: quinn ignores
/// [`io::ErrorKind::ConnectionReset`] and takes everything else for the end of the socket.
fn transient(error: io::Error) -> io::Error {
    use io::ErrorKind::{ConnectionRefused, ConnectionReset, HostUnreachable, NetworkUnreachable};
    match error.kind() {
        ConnectionRefused | HostUnreachable | NetworkUnreachable => io::Error::new(ConnectionReset, error),
        _ => error,
    }
}

/// Every connection of an endpoint waits for the same socket, and a socket may remember one task only. It
/// is given this one waker, which wakes them all.
#[derive(Debug, Default)]
struct Writers(Mutex<Vec<Place>>);

#[derive(Debug, Default)]
struct Place {
    taken: bool,
    waiting: Option<Waker>,
}

impl Writers {
    fn places(&self) -> MutexGuard<'_, Vec<Place>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(&self) -> usize {
        let mut places = self.places();
        let index = places.iter().position(|place| !place.taken).unwrap_or(places.len());
        if index == places.len() {
            places.push(Place::default());
        }
        places[index].taken = true;
        index
    }
}

impl Wake for Writers {
    fn wake(self: Arc<Self>) {
        let waiting: Vec<_> = self.places().iter_mut().filter_map(|place| place.waiting.take()).collect();
        waiting.into_iter().for_each(Waker::wake);
    }
}

#[derive(Debug)]
struct Poller {
    socket: Arc<Adapter>,
    place: usize,
}

impl UdpPoller for Poller {
    fn poll_writable(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let writers = &self.socket.writers;
        writers.places()[self.place].waiting = Some(cx.waker().clone());
        let all = Waker::from(Arc::clone(writers));
        let ready = self.socket.datagrams.poll_writable(&mut Context::from_waker(&all));
        if ready.is_ready() {
            writers.places()[self.place].waiting = None;
            // Whoever waited before may go on as well; the socket need not tell again.
            all.wake();
        }
        ready
    }
}

impl Drop for Poller {
    fn drop(&mut self) {
        self.socket.writers.places()[self.place] = Place::default();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::io::ErrorKind;
    use std::net::Ipv4Addr;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::network::Received;

    const SOMEBODY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 7000);

    /// A socket with room for one waiting task, as tokio's has.
    #[derive(Debug, Default)]
    struct Narrow {
        open: Mutex<bool>,
        waiting: Mutex<Option<Waker>>,
        arriving: Mutex<VecDeque<io::Result<(usize, bool)>>>,
        sending: Mutex<VecDeque<ErrorKind>>,
    }

    impl Datagrams for Narrow {
        fn poll_recv(&self, _: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<Received>> {
            let Some(next) = self.arriving.lock().unwrap().pop_front() else { return Poll::Pending };
            Poll::Ready(next.map(|(len, truncated)| {
                buf[..len].fill(7);
                Received { len, from: SOMEBODY, truncated }
            }))
        }

        fn try_send(&self, _: &[u8], _: SocketAddr) -> io::Result<()> {
            self.sending.lock().unwrap().pop_front().map_or(Ok(()), |kind| Err(kind.into()))
        }

        fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            if *self.open.lock().unwrap() {
                return Poll::Ready(Ok(()));
            }
            *self.waiting.lock().unwrap() = Some(cx.waker().clone());
            Poll::Pending
        }

        fn local_addr(&self) -> io::Result<SocketAddr> {
            Ok(SOMEBODY)
        }

        fn os_socket(&self) -> Option<io::Result<std::net::UdpSocket>> {
            None
        }
    }

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn transmit(contents: &[u8]) -> Transmit<'_> {
        Transmit { destination: SOMEBODY, ecn: None, contents, segment_size: None, src_ip: None }
    }

    #[test]
    fn everybody_who_waits_to_write_is_woken() {
        let narrow = Arc::new(Narrow::default());
        let socket = for_quinn(narrow.clone()).unwrap();
        let counts: [Arc<Count>; 3] = Default::default();
        let mut pollers = [(); 3].map(|()| socket.clone().create_io_poller());
        for (poller, count) in pollers.iter_mut().zip(&counts) {
            let waker = Waker::from(Arc::clone(count));
            assert!(poller.as_mut().poll_writable(&mut Context::from_waker(&waker)).is_pending());
        }
        let [gone, mut first, mut second] = pollers;
        drop(gone);
        narrow.waiting.lock().unwrap().take().unwrap().wake();
        assert_eq!(counts.each_ref().map(|count| count.0.load(Ordering::Relaxed)), [0, 1, 1]);

        // One of them finds the socket writable before the socket has told anybody.
        let waker = Waker::from(Arc::clone(&counts[1]));
        assert!(first.as_mut().poll_writable(&mut Context::from_waker(&waker)).is_pending());
        *narrow.open.lock().unwrap() = true;
        assert!(second.as_mut().poll_writable(&mut Context::from_waker(Waker::noop())).is_ready());
        assert_eq!(counts.each_ref().map(|count| count.0.load(Ordering::Relaxed)), [0, 2, 1]);
    }

    #[test]
    fn a_datagram_that_cannot_be_sent_is_a_lost_one() {
        let narrow = Arc::new(Narrow::default());
        let socket = for_quinn(narrow.clone()).unwrap();
        narrow.sending.lock().unwrap().extend([ErrorKind::NetworkUnreachable, ErrorKind::WouldBlock]);
        socket.try_send(&transmit(b"lost")).unwrap();
        let full = socket.try_send(&transmit(b"later")).unwrap_err();
        assert_eq!(full.kind(), ErrorKind::WouldBlock);
        socket.try_send(&transmit(b"later")).unwrap();
    }

    #[test]
    fn datagrams_come_in_batches_without_what_was_cut() {
        let narrow = Arc::new(Narrow::default());
        let socket = for_quinn(narrow.clone()).unwrap();
        let unreachable = || Err(ErrorKind::ConnectionRefused.into());
        narrow.arriving.lock().unwrap().extend([
            Ok((9, true)),
            Ok((5, false)),
            Ok((6, false)),
            unreachable(),
        ]);
        narrow.arriving.lock().unwrap().extend([unreachable(), Err(ErrorKind::BrokenPipe.into())]);
        let mut buffers = [[0; 10]; 4];
        let mut slices = buffers.each_mut().map(|buffer| IoSliceMut::new(buffer));
        let mut metas = [RecvMeta::default(); 4];
        let mut poll = || {
            let polled = socket.poll_recv(&mut Context::from_waker(Waker::noop()), &mut slices, &mut metas);
            (polled.map_err(|error| error.kind()), metas.map(|meta| meta.len))
        };
        assert_eq!(poll(), (Poll::Ready(Ok(2)), [5, 6, 0, 0]));
        // What answers an earlier datagram is harmless to quinn, the end of the socket is not.
        assert_eq!(poll().0, Poll::Ready(Err(ErrorKind::ConnectionReset)));
        assert_eq!(poll().0, Poll::Ready(Err(ErrorKind::BrokenPipe)));
        assert_eq!(poll().0, Poll::Pending);
    }
}
