//! Links over a byte stream: the TLS handshake and the records behind it, over a stream that cuts anywhere and
//! changes some bytes. What arrives is what was sent, or a beginning of it and an error.

use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use vitte_net::network::{
    BoxFuture, BoxStream, ByteStream, Datagrams, Network, TcpListen, TcpOptions, UdpOptions,
};
use vitte_net::tls::{MeshTls, default_provider};
use vitte_net::transport::{LinkError, LinkReader, LinkWriter, Transports};
use vitte_net::{Address, Identity, Transport};
use vitte_net_proto::Lane;

use super::stream::{NOWHERE, run as run_on};

/// A change of the byte at `at`.
#[derive(Clone, Copy, Debug)]
struct Change {
    at: usize,
    mask: u8,
}

/// One end of a pipe, whose bytes come in pieces of at most `step`, some of them changed.
#[derive(Debug)]
struct End {
    pipe: DuplexStream,
    step: usize,
    read: usize,
    change: Option<Change>,
}

impl AsyncRead for End {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut piece = [0; 512];
        let len = self.step.min(buf.remaining()).min(piece.len());
        let mut part = ReadBuf::new(&mut piece[..len]);
        std::task::ready!(Pin::new(&mut self.pipe).poll_read(cx, &mut part))?;
        let from = self.read;
        self.read += part.filled().len();
        if let Some(Change { at, mask }) = self.change.filter(|change| (from..self.read).contains(&change.at))
        {
            part.filled_mut()[at - from] ^= mask;
        }
        buf.put_slice(part.filled());
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for End {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.pipe).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_shutdown(cx)
    }
}

impl ByteStream for End {
    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(NOWHERE)
    }

    fn peer_addr(&self) -> io::Result<SocketAddr> {
        Ok(NOWHERE)
    }
}

/// Two ends that wait to be taken.
#[derive(Debug, Default)]
struct Wire {
    dialler: Mutex<Option<End>>,
    acceptor: Mutex<Option<End>>,
}

fn take(end: &Mutex<Option<End>>) -> io::Result<BoxStream> {
    let end = end.lock().unwrap_or_else(PoisonError::into_inner).take();
    end.map(|end| -> BoxStream { Box::new(end) }).ok_or_else(|| io::ErrorKind::ConnectionRefused.into())
}

#[derive(Debug)]
struct Listening(Arc<Wire>);

impl TcpListen for Listening {
    fn accept(&self) -> BoxFuture<'_, io::Result<(BoxStream, SocketAddr)>> {
        Box::pin(async { Ok((take(&self.0.acceptor)?, NOWHERE)) })
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(NOWHERE)
    }
}

/// A network of two ends, and none other.
#[derive(Debug, Default)]
pub(super) struct Wired(Arc<Wire>);

impl Network for Wired {
    fn connect_tcp<'a>(&'a self, _: SocketAddr, _: &'a TcpOptions) -> BoxFuture<'a, io::Result<BoxStream>> {
        Box::pin(async { take(&self.0.dialler) })
    }

    fn listen_tcp<'a>(
        &'a self,
        _: SocketAddr,
        _: &'a TcpOptions,
    ) -> BoxFuture<'a, io::Result<Box<dyn TcpListen>>> {
        Box::pin(async { Ok(Box::new(Listening(self.0.clone())) as Box<dyn TcpListen>) })
    }

    fn bind_udp<'a>(
        &'a self,
        _: SocketAddr,
        _: &'a UdpOptions,
    ) -> BoxFuture<'a, io::Result<Arc<dyn Datagrams>>> {
        Box::pin(async { Err(io::ErrorKind::Unsupported.into()) })
    }

    fn lookup<'a>(&'a self, _: &'a str) -> BoxFuture<'a, io::Result<Vec<IpAddr>>> {
        Box::pin(async { Ok(vec![IpAddr::V4(Ipv4Addr::LOCALHOST)]) })
    }

    fn wall_clock(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH
    }

    fn fill_random(&self, out: &mut [u8]) {
        out.fill(7);
    }
}

/// The configurations cost more than a handshake: they are made once.
fn keys() -> &'static [MeshTls; 2] {
    static KEYS: OnceLock<[MeshTls; 2]> = OnceLock::new();
    KEYS.get_or_init(|| {
        let network: Arc<dyn Network> = Arc::new(Wired(Arc::default()));
        [1, 2].map(|number| {
            let identity = Identity::from_secret_key([number; 32]);
            MeshTls::new(&identity, default_provider(), &network).expect("keys can be used")
        })
    })
}

pub fn run(data: &[u8]) {
    let Some((head, lengths)) = data.split_first_chunk::<7>() else { return };
    let [steps_a, steps_b, changed, at_high, at_low, mask, _] = *head;
    let at = usize::from(at_high) << 8 | usize::from(at_low);
    let change = |side: u8| (changed % 4 == side && mask != 0).then_some(Change { at, mask });
    let (one, other) = tokio::io::duplex(1 << 20);
    let end = |pipe, step: u8, change| End { pipe, step: usize::from(step) * 2 + 1, read: 0, change };
    let wire = Arc::new(Wire {
        dialler: Mutex::new(Some(end(one, steps_a, change(0)))),
        acceptor: Mutex::new(Some(end(other, steps_b, change(1)))),
    });
    let untouched = change(0).or(change(1)).is_none();
    // A changed length lets a reader wait for bytes that never come.
    let play = play(wire, &lengths[..lengths.len().min(40)], untouched);
    let ended = run_on(async { tokio::time::timeout(Duration::from_secs(60), play).await });
    assert!(ended.is_ok() || !untouched, "honest sides wait for each other");
}

async fn play(wire: Arc<Wire>, lengths: &[u8], untouched: bool) {
    let network: Arc<dyn Network> = Arc::new(Wired(wire));
    let [dialler, acceptor] = keys().each_ref().map(|tls| Transports::new(network.clone(), tls.clone()));
    let address = Address::new(Transport::Tls, "here", 1);
    let expected = keys()[1].peer_id();
    let listener = acceptor.listen(&address).await.expect("it can listen");
    let accept = async { listener.accept().await?.handshake().await };
    let dial = dialler.dial(&address, Some(expected));
    let (one, other) = tokio::join!(dial, accept);
    let (mut one, mut other) = match (one, other) {
        (Ok(one), Ok(other)) => (one, other),
        failed => {
            assert!(!untouched, "honest sides did not meet: {failed:?}");
            return;
        }
    };
    assert_eq!((one.info.peer, other.info.peer), (expected, keys()[0].peer_id()));
    let intact = carry(&mut one.writer, &mut other.reader, lengths).await
        && carry(&mut other.writer, &mut one.reader, lengths).await;
    assert!(intact || !untouched, "honest bytes were lost");
    one.writer.close();
    other.writer.close();
}

/// Sends runs of these lengths; whether all of them came.
async fn carry(writer: &mut LinkWriter, reader: &mut LinkReader, lengths: &[u8]) -> bool {
    let mut sent = Vec::new();
    for (number, length) in lengths.iter().enumerate() {
        let run = vec![number.to_le_bytes()[0]; usize::from(*length) * 60 + 1];
        let written = writer.write(Lane::CONTROL, &run);
        if written.is_err() || poll_fn(|cx| writer.poll_flush(cx)).await.is_err() {
            return false;
        }
        sent.extend_from_slice(&run);
    }
    let mut heard = Vec::new();
    while heard.len() < sent.len() {
        let mut deliver = |_: Lane, run: &[u8]| heard.extend_from_slice(run);
        let read: Result<(), LinkError> = reader.read(&mut deliver).await;
        assert!(sent.starts_with(&heard), "other bytes than those that were sent");
        if read.is_err() {
            return false;
        }
    }
    true
}
