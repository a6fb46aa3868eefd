//! The layer below vitte-net with as little as possible around it: one stream, frames with a length before
//! them, one task at each side, exclusive to the load that runs.
#![allow(clippy::disallowed_methods, reason = "raw means without the library's own network")]

mod quic;
mod ws;

use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use anyhow::{bail, ensure};
use bytes::{Buf as _, Bytes, BytesMut};
use quinn::{RecvStream, SendStream};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufWriter, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;
use tokio_rustls::{TlsAcceptor, TlsConnector};
use vitte_net::Identity;
use vitte_net::network::{Network, OsNetwork};
use vitte_net::tls::{MeshTls, default_provider};

use crate::load::{BLOCK, Figure, IN_FLIGHT, Load, MESSAGE, REQUEST, Transport};

/// Bytes of the length before a frame.
const LENGTH: usize = 4;
/// Operations that the near side asks for; behind the byte stands how many frames or bytes, as `u64`.
const ECHO: u8 = 0;
const MESSAGES: u8 = 1;
const BULK: u8 = 2;

trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// One stream of bytes, both ways.
enum Pipe {
    Bytes(Box<dyn Duplex>),
    Quic { send: SendStream, recv: RecvStream, _alive: Box<dyn Send> },
}

/// The TLS of the mesh: the same cipher, provider and kind of keys as in its links.
fn tls() -> anyhow::Result<MeshTls> {
    let network: Arc<dyn Network> = Arc::new(OsNetwork::default());
    Ok(MeshTls::new(&Identity::generate(), default_provider(), &network)?)
}

const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// Serves one connection, and no other.
pub(crate) async fn serve(
    transport: Transport,
    ready: impl FnOnce(String) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let tls = tls()?;
    let pipe = if transport == Transport::Quic {
        quic::accept(&tls, ready).await?
    } else {
        let listener = TcpListener::bind(LOOPBACK).await?;
        ready(listener.local_addr()?.to_string())?;
        let (tcp, _) = listener.accept().await?;
        tcp.set_nodelay(true)?;
        let acceptor = TlsAcceptor::from(tls.server_config());
        Pipe::Bytes(match transport {
            Transport::Ws => Box::new(acceptor.accept(ws::accept(tcp).await?).await?),
            _ => Box::new(acceptor.accept(tcp).await?),
        })
    };
    answer(pipe).await
}

async fn answer(mut pipe: Pipe) -> anyhow::Result<()> {
    loop {
        // The near side ends by leaving.
        let Ok(operation) = pipe.read_u8().await else { return std::future::pending().await };
        let amount = pipe.read_u64().await?;
        match operation {
            ECHO => echo(&mut pipe, amount).await?,
            MESSAGES => {
                let mut buffer = BytesMut::with_capacity(BLOCK);
                let mut left = amount;
                while left > 0 {
                    ensure!(pipe.read_buf(&mut buffer).await? > 0, "the stream ended");
                    left -= take_frames(&mut buffer, MESSAGE)?;
                    buffer.reserve(BLOCK);
                }
                pipe.write_u64(amount).await?;
                pipe.flush().await?;
            }
            BULK => {
                pipe.take_bulk(amount).await?;
                pipe.write_u64(amount).await?;
                pipe.flush().await?;
            }
            other => bail!("there is no operation {other}"),
        }
    }
}

/// Gives back all whole frames of each read in one write.
async fn echo(pipe: &mut Pipe, mut left: u64) -> anyhow::Result<()> {
    let frame = LENGTH + REQUEST;
    let mut buffer = BytesMut::with_capacity(BLOCK);
    while left > 0 {
        ensure!(pipe.read_buf(&mut buffer).await? > 0, "the stream ended");
        let mut whole = Bytes::new();
        let count = buffer.len() / frame;
        if count > 0 {
            whole = buffer.split_to(count * frame).freeze();
        }
        left -= take_frames(&mut BytesMut::from(&whole[..]), REQUEST)?;
        pipe.write_all(&whole).await?;
        pipe.flush().await?;
        buffer.reserve(BLOCK);
    }
    Ok(())
}

/// Takes all whole frames, whose payloads have this size, and says how many they were.
fn take_frames(buffer: &mut BytesMut, size: usize) -> anyhow::Result<u64> {
    let mut count = 0;
    while let Some(length) = buffer.first_chunk::<LENGTH>() {
        ensure!(u32::from_be_bytes(*length) as usize == size, "a frame has another length");
        if buffer.len() < LENGTH + size {
            break;
        }
        buffer.advance(LENGTH + size);
        count += 1;
    }
    Ok(count)
}

fn frame(size: usize) -> anyhow::Result<Vec<u8>> {
    let mut frame = u32::try_from(size)?.to_be_bytes().to_vec();
    frame.resize(LENGTH + size, 7);
    Ok(frame)
}

/// The side that asks.
pub(crate) struct Near {
    pipe: Pipe,
}

impl Near {
    pub(crate) async fn connect(transport: Transport, address: SocketAddr) -> anyhow::Result<Self> {
        let tls = tls()?;
        if transport == Transport::Quic {
            return Ok(Self { pipe: quic::connect(&tls, address).await? });
        }
        let tcp = TcpStream::connect(address).await?;
        tcp.set_nodelay(true)?;
        let connector = TlsConnector::from(tls.client_config(None));
        let name = ServerName::try_from("vitte")?;
        let stream: Box<dyn Duplex> = match transport {
            Transport::Ws => Box::new(connector.connect(name, ws::connect(tcp).await?).await?),
            _ => Box::new(connector.connect(name, tcp).await?),
        };
        Ok(Self { pipe: Pipe::Bytes(stream) })
    }

    /// Puts a load on the stream.
    pub(crate) async fn run(&mut self, load: Load, amount: u64) -> anyhow::Result<Figure> {
        match load {
            Load::Sequential => {
                self.sequential(amount / 10).await?;
                Ok(Figure::of_times(self.sequential(amount).await?))
            }
            Load::Flight => {
                self.flight(amount / 10).await?;
                Ok(Figure::of_rate(load, amount, self.flight(amount).await?))
            }
            Load::Messages => Ok(Figure::of_rate(load, amount, self.messages(amount).await?)),
            Load::Bulk | Load::Blobs => Ok(Figure::of_rate(load, amount, self.bulk(amount).await?)),
        }
    }

    async fn ask(&mut self, operation: u8, amount: u64) -> anyhow::Result<()> {
        self.pipe.write_u8(operation).await?;
        self.pipe.write_u64(amount).await?;
        Ok(self.pipe.flush().await?)
    }

    async fn sequential(&mut self, calls: u64) -> anyhow::Result<Vec<Duration>> {
        self.ask(ECHO, calls).await?;
        let request = frame(REQUEST)?;
        let mut answer = vec![0; request.len()];
        let mut times = Vec::with_capacity(usize::try_from(calls)?);
        for _ in 0..calls {
            let start = Instant::now();
            self.pipe.write_all(&request).await?;
            self.pipe.flush().await?;
            self.pipe.read_exact(&mut answer).await?;
            times.push(start.elapsed());
            ensure!(answer == request, "the echo is another one");
        }
        Ok(times)
    }

    /// One task: as many requests leave in one write as answers came in one read.
    async fn flight(&mut self, calls: u64) -> anyhow::Result<Duration> {
        let start = Instant::now();
        self.ask(ECHO, calls).await?;
        let one = frame(REQUEST)?;
        let mut requests = Vec::new();
        let mut buffer = BytesMut::with_capacity(BLOCK);
        let (mut unsent, mut unanswered) = (calls, calls);
        let mut room = IN_FLIGHT;
        while unanswered > 0 {
            requests.clear();
            let now = room.min(unsent);
            (0..now).for_each(|_| requests.extend_from_slice(&one));
            unsent -= now;
            self.pipe.write_all(&requests).await?;
            self.pipe.flush().await?;
            ensure!(self.pipe.read_buf(&mut buffer).await? > 0, "the stream ended");
            room = take_frames(&mut buffer, REQUEST)?;
            unanswered -= room;
            buffer.reserve(BLOCK);
        }
        Ok(start.elapsed())
    }

    async fn messages(&mut self, count: u64) -> anyhow::Result<Duration> {
        self.ask(MESSAGES, count).await?;
        let message = frame(MESSAGE)?;
        let start = Instant::now();
        let mut out = BufWriter::with_capacity(BLOCK, &mut self.pipe);
        for _ in 0..count {
            out.write_all(&message).await?;
        }
        out.flush().await?;
        ensure!(self.pipe.read_u64().await? == count, "some messages are missing");
        Ok(start.elapsed())
    }

    async fn bulk(&mut self, bytes: u64) -> anyhow::Result<Duration> {
        self.ask(BULK, bytes).await?;
        let start = Instant::now();
        self.pipe.send_bulk(bytes).await?;
        ensure!(self.pipe.read_u64().await? == bytes, "some bytes are missing");
        Ok(start.elapsed())
    }
}

impl Pipe {
    async fn send_bulk(&mut self, bytes: u64) -> anyhow::Result<()> {
        let block = Bytes::from(vec![7; BLOCK]);
        for _ in 0..bytes / BLOCK as u64 {
            match self {
                Self::Bytes(stream) => stream.write_all(&block).await?,
                // quinn's way without a copy.
                Self::Quic { send, .. } => send.write_chunk(block.clone()).await?,
            }
        }
        Ok(self.flush().await?)
    }

    async fn take_bulk(&mut self, mut left: u64) -> anyhow::Result<()> {
        let mut block = vec![0; BLOCK];
        while left > 0 {
            let read = match self {
                Self::Bytes(stream) => stream.read(&mut block).await?,
                Self::Quic { recv, .. } => {
                    let chunk = recv.read_chunk(BLOCK, true).await?;
                    chunk.map_or(0, |chunk| chunk.bytes.len())
                }
            };
            ensure!(read > 0, "the stream ended");
            left -= read as u64;
        }
        Ok(())
    }

    fn reader(&mut self) -> &mut (dyn AsyncRead + Unpin) {
        match self {
            Self::Bytes(stream) => stream,
            Self::Quic { recv, .. } => recv,
        }
    }

    fn writer(&mut self) -> &mut (dyn AsyncWrite + Unpin) {
        match self {
            Self::Bytes(stream) => stream,
            Self::Quic { send, .. } => send,
        }
    }
}

impl AsyncRead for Pipe {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(self.get_mut().reader()).poll_read(cx, buf)
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(self.get_mut().writer()).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(self.get_mut().writer()).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(self.get_mut().writer()).poll_shutdown(cx)
    }
}
