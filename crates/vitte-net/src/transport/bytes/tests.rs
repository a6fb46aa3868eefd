use std::net::{Ipv4Addr, SocketAddr};

use proptest::prelude::*;
use tokio::io::DuplexStream;

use super::*;
use crate::identity::Identity;
use crate::network::{ByteStream, Network, OsNetwork};
use crate::tls::default_provider;

const LIMIT: Duration = Duration::from_secs(10);

fn node(number: u8) -> MeshTls {
    let network: Arc<dyn Network> = Arc::new(OsNetwork);
    MeshTls::new(&Identity::from_secret_key([number; 32]), default_provider(), &network).unwrap()
}

#[derive(Debug)]
struct Pipe(DuplexStream);

impl ByteStream for Pipe {
    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok((Ipv4Addr::LOCALHOST, 1).into())
    }

    fn peer_addr(&self) -> io::Result<SocketAddr> {
        Ok((Ipv4Addr::LOCALHOST, 2).into())
    }
}

impl AsyncRead for Pipe {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

fn pipe(room: usize) -> (BoxStream, BoxStream) {
    let (a, b) = tokio::io::duplex(room);
    (Box::new(Pipe(a)), Box::new(Pipe(b)))
}

async fn links(room: usize) -> (Link, Link) {
    let (a, b) = pipe(room);
    let (client, server) = (node(1), node(2));
    let (client, server) = tokio::join!(
        handshake_client(a, &client, Some(server.peer_id()), Transport::Tls, LIMIT),
        handshake_server(b, &server, Transport::Tls, LIMIT),
    );
    (client.unwrap(), server.unwrap())
}

fn halves(link: Link) -> (Reader, Writer) {
    match (link.reader, link.writer) {
        (LinkReader::Bytes(reader), LinkWriter::Bytes(writer)) => (reader, writer),
        #[cfg(feature = "quic")]
        other => panic!("a byte link is not {other:?}"),
    }
}

async fn flush(writer: &mut Writer) -> Result<(), LinkError> {
    poll_fn(|cx| writer.poll_flush(cx)).await
}

async fn read(reader: &mut Reader) -> Result<Vec<u8>, LinkError> {
    let mut all = Vec::new();
    reader
        .read(&mut |lane, bytes| {
            assert_eq!(lane, Lane::CONTROL);
            all.extend_from_slice(bytes);
        })
        .await?;
    assert!(!all.is_empty(), "read returns when something was delivered");
    Ok(all)
}

async fn read_until(reader: &mut Reader, len: usize) -> Vec<u8> {
    let mut all = Vec::new();
    while all.len() < len {
        all.extend(read(reader).await.unwrap());
    }
    all
}

#[tokio::test]
async fn a_link_says_who_is_there() {
    let (client, server) = links(1 << 16).await;
    assert_eq!(client.info.peer, node(2).peer_id());
    assert_eq!(server.info.peer, node(1).peer_id());
    assert!(client.info.dialled && !server.info.dialled);
    assert_eq!((client.info.local.port(), client.info.remote.port()), (1, 2));
}

#[tokio::test]
async fn bytes_go_both_ways_and_a_close_is_heard() {
    let (client, server) = links(1 << 16).await;
    let ((mut client_reader, mut client), (mut server_reader, mut server)) = (halves(client), halves(server));
    client.write(b"question").unwrap();
    flush(&mut client).await.unwrap();
    assert_eq!(read(&mut server_reader).await.unwrap(), b"question");
    server.write(b"answer").unwrap();
    server.close();
    assert_eq!(read(&mut client_reader).await.unwrap(), b"answer", "a close sends what was written");
    assert!(matches!(read(&mut client_reader).await, Err(LinkError::Closed)));
    assert!(server.write(b"more").is_err());
    let error = read(&mut server_reader).await.unwrap_err();
    assert!(matches!(&error, LinkError::Io(e) if e.kind() == io::ErrorKind::ConnectionAborted), "{error}");
}

#[tokio::test]
async fn a_cut_is_no_goodbye() {
    let (client, server) = links(1 << 16).await;
    let (mut reader, _writer) = halves(client);
    drop(server);
    let error = read(&mut reader).await.unwrap_err();
    assert!(matches!(&error, LinkError::Io(e) if e.kind() == io::ErrorKind::UnexpectedEof), "{error}");
}

#[tokio::test]
async fn a_close_ends_a_read_that_waits() {
    let (client, _server) = links(1 << 16).await;
    let (mut reader, mut writer) = halves(client);
    let waiting = tokio::spawn(async move { read(&mut reader).await });
    tokio::task::yield_now().await;
    writer.close();
    assert!(matches!(waiting.await.unwrap(), Err(LinkError::Io(_))));
}

#[tokio::test]
async fn a_writer_stops_before_it_holds_too_much() {
    let (client, server) = links(1024).await;
    let ((_reader, mut writer), (mut server_reader, _server)) = (halves(client), halves(server));
    let mut written = 0;
    while writer.capacity() > 0 {
        assert_eq!(writer.capacity(), MAX_PLAINTEXT);
        writer.write(&vec![7; MAX_PLAINTEXT]).unwrap();
        written += MAX_PLAINTEXT;
    }
    assert!((HIGH_WATER - MAX_PLAINTEXT..HIGH_WATER + MAX_PLAINTEXT).contains(&written), "{written}");
    let pending = poll_fn(|cx| Poll::Ready(writer.poll_flush(cx).is_pending())).await;
    assert!(pending, "a pipe of 1 KiB is full");
    let (flushed, received) = tokio::join!(flush(&mut writer), read_until(&mut server_reader, written));
    flushed.unwrap();
    assert!(received.len() == written && received.iter().all(|byte| *byte == 7));
    assert_eq!(writer.capacity(), MAX_PLAINTEXT);
}

/// Whoever takes bytes may write at once: no lock is held meanwhile.
#[tokio::test]
async fn what_is_delivered_can_be_answered_inside() {
    let (client, server) = links(1 << 16).await;
    let ((mut client_reader, mut client), (mut server_reader, mut server)) = (halves(client), halves(server));
    client.write(b"ping").unwrap();
    flush(&mut client).await.unwrap();
    server_reader.read(&mut |_, bytes| server.write(bytes).unwrap()).await.unwrap();
    flush(&mut server).await.unwrap();
    assert_eq!(read(&mut client_reader).await.unwrap(), b"ping");
}

/// A read that is given up half way loses nothing.
#[tokio::test]
async fn a_read_that_is_dropped_loses_nothing() {
    let (client, server) = links(64).await;
    let ((_keep, mut client), (mut reader, _server)) = (halves(client), halves(server));
    let content: Vec<u8> = (0..40_000_u32).map(|at| (at % 253) as u8).collect();
    let expected = content.clone();
    let sender = tokio::spawn(async move {
        for chunk in content.chunks(MAX_PLAINTEXT) {
            client.write(chunk).unwrap();
        }
        flush(&mut client).await.unwrap();
        client
    });
    let mut received = Vec::new();
    while received.len() < expected.len() {
        let mut deliver = |_: Lane, bytes: &[u8]| received.extend_from_slice(bytes);
        let mut reading = Box::pin(reader.read(&mut deliver));
        for _ in 0..3 {
            // Polled a few times, then dropped, whatever came of it.
            if poll_fn(|cx| Poll::Ready(reading.as_mut().poll(cx))).await.is_ready() {
                break;
            }
            tokio::task::yield_now().await;
        }
    }
    assert!(received == expected);
    drop(sender.await.unwrap());
}

#[tokio::test]
async fn the_last_task_that_flushed_is_woken() {
    let (client, server) = links(256).await;
    let ((_reader, mut writer), (mut server_reader, _server)) = (halves(client), halves(server));
    writer.write(&[1; 10_000]).unwrap();
    let first = probe();
    assert!(writer.poll_flush(&mut Context::from_waker(&first.0)).is_pending());
    let second = probe();
    assert!(writer.poll_flush(&mut Context::from_waker(&second.0)).is_pending());
    let mut deliver = |_: Lane, _: &[u8]| ();
    let mut reading = Box::pin(server_reader.read(&mut deliver));
    assert!(poll_fn(|cx| Poll::Ready(reading.as_mut().poll(cx).is_pending())).await, "no whole record yet");
    assert!(second.woken() && !first.woken(), "only the later one");
}

struct Flag(std::sync::atomic::AtomicBool);

impl std::task::Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, std::sync::atomic::Ordering::SeqCst);
    }
}

struct Probe(Waker, Arc<Flag>);

fn probe() -> Probe {
    let flag = Arc::new(Flag(false.into()));
    Probe(flag.clone().into(), flag)
}

impl Probe {
    fn woken(&self) -> bool {
        self.1.0.load(std::sync::atomic::Ordering::SeqCst)
    }
}

#[tokio::test(start_paused = true)]
async fn a_silent_peer_costs_a_bounded_time() {
    let (a, _b) = pipe(1 << 16);
    let started = tokio::time::Instant::now();
    let error = handshake_server(a, &node(1), Transport::Tls, LIMIT).await.unwrap_err();
    assert!(matches!(error, LinkError::HandshakeTimeout));
    assert_eq!(started.elapsed(), LIMIT);
}

#[tokio::test]
async fn an_endless_handshake_costs_bounded_bytes() {
    let (a, b) = pipe(1 << 20);
    let (mut read, mut write) = b.into_split();
    let flood = tokio::spawn(async move {
        // Records that a TLS 1.3 server has to skip in front of a ClientHello it waits for.
        let record = [&[22, 3, 1, 0x3f, 0xff, 1, 0, 0xff, 0xff][..], &[0; 0x3fff - 4]].concat();
        while write.write_all(&record).await.is_ok() {}
    });
    let error = handshake_server(a, &node(1), Transport::Tls, LIMIT).await.unwrap_err();
    assert!(matches!(error, LinkError::Protocol { protocol: "TLS", .. }), "{error}");
    let mut answer = Vec::new();
    let _ = read.read_to_end(&mut answer).await;
    flood.await.unwrap();
}

#[tokio::test]
async fn a_wrong_peer_is_named() {
    let (a, b) = pipe(1 << 16);
    let (client, server, other) = (node(1), node(2), node(3));
    let (client, server) = tokio::join!(
        handshake_client(a, &client, Some(other.peer_id()), Transport::Tls, LIMIT),
        handshake_server(b, &server, Transport::Tls, LIMIT),
    );
    let error = client.unwrap_err();
    assert!(matches!(error, LinkError::WrongPeer { expected, found }
        if expected == node(3).peer_id() && found == node(2).peer_id()));
    assert!(matches!(server.unwrap_err(), LinkError::Protocol { protocol: "TLS", .. }));
}

#[tokio::test]
async fn an_idle_link_keeps_little_memory() {
    let (client, server) = links(1 << 20).await;
    let ((_reader, mut client), (mut reader, _server)) = (halves(client), halves(server));
    for _ in 0..20 {
        while client.capacity() > 0 {
            client.write(&[0; MAX_PLAINTEXT]).unwrap();
        }
        let len = client.outgoing.len() / MAX_PLAINTEXT * MAX_PLAINTEXT;
        tokio::join!(async { flush(&mut client).await.unwrap() }, read_until(&mut reader, len));
    }
    assert!(client.outgoing.footprint() >= HIGH_WATER && reader.incoming.footprint() >= READ_MOST);
    for _ in 0..200 {
        client.write(b"keep-alive").unwrap();
        flush(&mut client).await.unwrap();
        read(&mut reader).await.unwrap();
    }
    assert!(client.outgoing.footprint() <= READ_LEAST, "{}", client.outgoing.footprint());
    assert!(reader.incoming.footprint() <= 2 * READ_LEAST, "{}", reader.incoming.footprint());
    assert!(reader.plain.capacity() <= READ_LEAST, "{}", reader.plain.capacity());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    /// In both directions at once, through a pipe of any size, everything arrives in order.
    #[test]
    fn everything_arrives(
        room in 16_usize..100_000,
        sizes in proptest::collection::vec(1_usize..=MAX_PLAINTEXT, 1..20),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let (client, server) = links(room).await;
            let total: usize = sizes.iter().sum();
            let send = async |mut writer: Writer| {
                for (number, size) in sizes.iter().enumerate() {
                    while writer.capacity() < *size {
                        poll_fn(|cx| {
                            let flushed = writer.poll_flush(cx)?;
                            if writer.capacity() > 0 { Poll::Ready(Ok(())) } else { flushed.map(Ok) }
                        }).await.unwrap_or_else(|error: LinkError| panic!("{error}"));
                    }
                    writer.write(&vec![u8::try_from(number).unwrap(); *size]).unwrap();
                }
                flush(&mut writer).await.unwrap();
                writer
            };
            let expected: Vec<u8> = sizes
                .iter()
                .enumerate()
                .flat_map(|(number, size)| vec![u8::try_from(number).unwrap(); *size])
                .collect();
            let ((mut a, a_writer), (mut b, b_writer)) = (halves(client), halves(server));
            let (_a, _b, to_a, to_b) = tokio::join!(
                send(a_writer), send(b_writer), read_until(&mut a, total), read_until(&mut b, total),
            );
            assert!(to_a == expected && to_b == expected);
        });
    }
}
