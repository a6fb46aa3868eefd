//! Ten million datagrams and frames that are random, or nearly right, against nodes that live through it.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::ops::AddAssign;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout};
use vitte_net::network::{Network, OsNetwork, TcpOptions};
use vitte_net::transport::LinkError;
use vitte_net::{Address, CloseCode, Config, Mesh, Priority, StreamCode, Transport};
use vitte_net_proto::codec::put_varint;
use vitte_net_proto::frame::{Frame, Offsets, Open, StreamKind, kind};
use vitte_net_proto::{DeliveryClass, Lane, StreamId};

use crate::cycles::Held;
use crate::initials::{Counting, initials};
use crate::peer::{HONEST, HOSTILE, Raw, SOON, VICTIM, echo, hello, id, mesh, mesh_on, transports};
use crate::{alone, form, report};

/// Frames before each question.
const BATCH: u64 = 32;
/// How long an answer is waited for before the attacker hangs up.
const PATIENCE: Duration = Duration::from_millis(5);

/// Panics of this process, in whatever task.
static PANICS: AtomicUsize = AtomicUsize::new(0);

fn count_panics() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            PANICS.fetch_add(1, Ordering::Relaxed);
            usual(panic);
        }));
    });
}

/// Numbers that are the same in every run (xorshift64*).
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() >> 33).expect("31 bits") % end.max(1)
    }

    fn byte(&mut self) -> u8 {
        self.next().to_be_bytes()[0]
    }

    /// Small for the most part, but also of every other size.
    fn number(&mut self) -> u64 {
        let bits = [4, 4, 4, 8, 16, 32, 62][self.below(7)];
        self.next() >> (64 - bits)
    }

    fn noise(&mut self, most: usize) -> Vec<u8> {
        (0..self.below(most + 1)).map(|_| self.byte()).collect()
    }

    /// Changes something, or all of it.
    fn mutate(&mut self, bytes: &mut Vec<u8>) {
        for _ in 0..=self.below(3) {
            let at = self.below(bytes.len());
            match self.below(8) {
                0 if !bytes.is_empty() => bytes[at] ^= 1 << self.below(8),
                1 if !bytes.is_empty() => bytes[at] = self.byte(),
                2 if !bytes.is_empty() => {
                    bytes[at] = [0, 1, 0x3f, 0x40, 0x7f, 0x80, 0xc0, 0xff][self.below(8)]
                }
                3 => bytes.insert(at, self.byte()),
                4 => bytes.truncate(at),
                5 => drop(bytes.drain(at..(at + self.below(8)).min(bytes.len()))),
                6 => bytes.extend_from_within(at..),
                _ if self.below(16) == 0 => *bytes = self.noise(1400),
                _ => {}
            }
        }
    }
}

/// A node that is attacked, with what it holds when it is left alone.
struct Attacked {
    victim: Mesh,
    address: Address,
    at: SocketAddr,
    before: Held,
    panics: usize,
}

impl Attacked {
    async fn new(network: Arc<dyn Network>, scheme: &str) -> Self {
        let config = Config::wan()
            .handshake_timeout(Duration::from_secs(2))
            .resume_window(Duration::from_millis(200))
            .readmit_burst(1 << 20)
            .readmit_per_second(1_000_000);
        let victim = mesh_on(network, VICTIM, &[scheme], config).await;
        let address = victim.addresses().remove(0);
        let at = SocketAddr::from(([127, 0, 0, 1], address.port()));
        let before = Held::now();
        serves(&address).await;
        Self { victim, address, at, before, panics: PANICS.load(Ordering::Relaxed) }
    }

    /// It serves a good peer, and holds no more than before.
    async fn end_unharmed(self, what: &str) {
        serves(&self.address).await;
        let after = Held::settle(self.before).await;
        let counts = |held: Held| (held.tasks, held.descriptors);
        assert_eq!(counts(after), counts(self.before), "{what}: tasks and descriptors");
        assert_eq!(PANICS.load(Ordering::Relaxed), self.panics, "{what}: panics");
        self.victim.drain(Duration::ZERO, Duration::from_secs(1)).await;
    }
}

async fn serves(address: &Address) {
    let node = mesh(HONEST, &[], Config::wan()).await;
    let peer = node.connect(address).await.expect("a good peer is served");
    echo(&peer).await;
    node.drain(Duration::ZERO, Duration::from_secs(1)).await;
}

/// Sends mutants of these until so many have arrived.
fn pelt(real: &[Vec<u8>], to: SocketAddr, arrived: impl Fn() -> u64, count: u64) -> u64 {
    let sockets: Vec<UdpSocket> = (1..=16)
        .map(|last| UdpSocket::bind((Ipv4Addr::new(127, 2, 0, last), 0)).expect("a socket"))
        .collect();
    let mut dice = Dice(0x5eed);
    let mut sent = 0;
    loop {
        let before = arrived();
        if before >= count {
            return sent;
        }
        for _ in 0..64 {
            let mut datagram = match dice.below(8) {
                0 => dice.noise(1400),
                _ => real[dice.below(real.len())].clone(),
            };
            dice.mutate(&mut datagram);
            datagram.truncate(1400);
            // What finds no room in the victim's socket is sent in vain.
            let _ = sockets[dice.below(sockets.len())].send_to(&datagram, to);
            sent += 1;
        }
        // Most of them are read before the next ones come.
        for _ in 0..100 {
            if arrived() >= before + 32 {
                break;
            }
            std::thread::sleep(Duration::from_micros(20));
        }
    }
}

#[test]
fn mutated_datagrams_do_no_harm() {
    count_panics();
    alone(async |_| {
        let count = form(10_000, 6_000_000);
        let network = Arc::new(Counting::default());
        let arrived = network.datagrams.0.clone();
        let attacked = Attacked::new(network, "quic").await;
        // What a good peer sends in a connection, which goes on all the while, and first packets of others.
        let recorder = Arc::new(Counting::default());
        let (first, good) = (recorder.first.clone(), recorder.datagrams.1.clone());
        let node = mesh_on(recorder, HONEST, &[], Config::wan()).await;
        let peer = node.connect(&attacked.address).await.expect("a good peer");
        for _ in 0..64 {
            echo(&peer).await;
        }
        let mut real = first.lock().expect("whole").clone();
        assert!(real.len() > 64, "{} datagrams of a real connection", real.len());
        real.extend(initials(64, attacked.at));
        let (start, at) = (Instant::now(), attacked.at);
        let others = move || arrived.load(Ordering::Relaxed).saturating_sub(good.load(Ordering::Relaxed));
        let before = others();
        let seen = move || others().saturating_sub(before);
        let pelting = std::thread::spawn(move || pelt(&real, at, seen, count));
        while !pelting.is_finished() {
            echo(&peer).await;
        }
        let sent = pelting.join().expect("the generator");
        report("mutants", &format!("{count} datagrams of {sent} arrived in {:?}", start.elapsed()));
        assert!(!peer.is_lost(), "the connection of the good peer lives");
        node.drain(Duration::ZERO, Duration::from_secs(1)).await;
        drop((peer, node));
        attacked.end_unharmed("datagrams").await;
    });
}

/// A frame that may be sent for the most part, about one of a few streams of the hostile peer's.
fn frame(dice: &mut Dice, out: &mut Vec<u8>) {
    let parity = u64::from(id(HOSTILE) > id(VICTIM));
    let stream = StreamId(u64::try_from(dice.below(24)).expect("small") * 2 + parity);
    let code = [StreamCode::DROPPED, StreamCode::FINISHED, StreamCode::BUSY][dice.below(3)];
    let offset = u64::try_from(dice.below(64)).expect("small");
    match dice.below(20) {
        0..3 => {
            let open = Open {
                kind: [StreamKind::Call, StreamKind::Channel, StreamKind::Bytes][dice.below(3)],
                priority: [Priority::Urgent, Priority::Normal, Priority::Bulk][dice.below(3)],
                class: DeliveryClass::Reliable,
                deadline_micros: (dice.below(4) == 0).then(|| dice.number()),
                schema_out: dice.number(),
                schema_in: dice.number(),
                name: ["echo/v1", "sink", "none", ""][dice.below(4)],
            };
            Frame::Open { stream, open }.put(out);
        }
        3..9 => {
            let payload = [&[0_u8; 32][..], b"\x03abc", b"\x01x\x01y"][dice.below(3)];
            Frame::Data { stream, offset, push: dice.below(2) == 0, payload }.put(out);
        }
        9 => Frame::Reset { stream, code, reason: "no" }.put(out),
        10 => Frame::Stop { stream, code: StreamCode::DROPPED, taken: 0, reason: "" }.put(out),
        11 => Frame::Retire { stream }.put(out),
        12 | 13 => {
            let offsets = Offsets { taken: 0, received: 0, limit: dice.number() };
            Frame::Offsets { stream, offsets }.put(out);
        }
        14 => Frame::Datagram { stream, number: dice.number(), payload: b"abc" }.put(out),
        15 => Frame::MaxStreams { count: dice.number() }.put(out),
        16 => Frame::Ping { token: dice.next() >> 2 }.put(out),
        17 => Frame::Pong { token: dice.next() >> 2 }.put(out),
        18 => {
            let body = dice.noise(64);
            put_varint(out, 0x4243);
            put_varint(out, body.len() as u64);
            out.extend(body);
        }
        _ => Frame::Drain.put(out),
    }
}

/// A frame that may be anything.
fn mutant(dice: &mut Dice, out: &mut Vec<u8>) {
    let mut bytes = Vec::new();
    let stream = StreamId(dice.number());
    let code = StreamCode(dice.number());
    match dice.below(10) {
        0 => Frame::Fin { stream, end: dice.number() }.put(&mut bytes),
        1 => Frame::Stop { stream, code, taken: dice.number(), reason: "why" }.put(&mut bytes),
        2 => Frame::Latest { stream, count: dice.number(), delivered: dice.next() }.put(&mut bytes),
        3 => {
            let offsets = Offsets { taken: dice.number(), received: dice.number(), limit: dice.number() };
            Frame::Offsets { stream, offsets }.put(&mut bytes);
        }
        4 => Frame::Hello(hello(dice.byte())).put(&mut bytes),
        5 => {
            let session = dice.below(4) == 0;
            Frame::Close { code: CloseCode(dice.number()), session, reason: "so" }.put(&mut bytes);
        }
        6 => {
            let body = dice.noise(200);
            put_varint(&mut bytes, kind::RESUME);
            put_varint(&mut bytes, body.len() as u64);
            bytes.extend(body);
        }
        7 => {
            let body = dice.noise(100);
            put_varint(&mut bytes, dice.number());
            put_varint(&mut bytes, if dice.below(4) == 0 { dice.number() } else { body.len() as u64 });
            bytes.extend(body);
        }
        _ => frame(dice, &mut bytes),
    }
    if dice.below(4) > 0 {
        dice.mutate(&mut bytes);
    }
    out.extend(bytes);
}

/// What an attacker has said.
#[derive(Clone, Copy, Debug, Default)]
struct Said {
    frames: u64,
    links: u64,
    refused: u64,
}

impl AddAssign for Said {
    fn add_assign(&mut self, other: Self) {
        self.frames += other.frames;
        self.links += other.links;
        self.refused += other.refused;
    }
}

/// One link, until the victim has enough of it: a mutant, frames behind it, and a question. The answer says that all
/// of them were read; how many that were.
async fn link(raw: &mut Raw, dice: &mut Dice, most: u64) -> u64 {
    let mut said = 0;
    for token in 0.. {
        let mut out = Vec::new();
        if token > 0 {
            mutant(dice, &mut out);
        }
        for _ in 1..BATCH {
            frame(dice, &mut out);
        }
        Frame::Ping { token }.put(&mut out);
        let mut pong = Vec::new();
        Frame::Pong { token }.put(&mut pong);
        let answered = async {
            raw.converse(&out).await?;
            let mut heard = Vec::new();
            loop {
                heard.extend(raw.take(Lane::CONTROL));
                if heard.windows(pong.len()).any(|window| window == pong) {
                    return Ok::<(), LinkError>(());
                }
                raw.forget();
                raw.listen().await?;
            }
        };
        // What claims to be long may have swallowed the question: nothing will come then.
        match timeout(PATIENCE, answered).await {
            Ok(Ok(())) => said += BATCH,
            Ok(Err(_)) | Err(_) => return said + 1,
        }
        if said >= most {
            break;
        }
    }
    said
}

async fn attack(address: &Address, count: u64) -> Said {
    let dialler = transports(HOSTILE);
    let (mut said, mut dice) = (Said::default(), Dice(0xfee1));
    let mut life = 0_u8;
    while said.frames < count {
        // Now and then the session goes on over the next link.
        life = if dice.below(4) == 0 { life } else { life.wrapping_add(1) };
        let mut raw = Raw::new(dialler.dial(address, None).await.expect("a link"));
        let greeted = timeout(SOON, raw.try_greet(&hello(life))).await.expect("an answer");
        let (mut frames, mut refused) = (0, 0);
        match greeted {
            Ok(Ok(())) => frames = link(&mut raw, &mut dice, count - said.frames).await,
            Ok(Err(_)) | Err(_) => refused = 1,
        }
        said += Said { frames, links: 1, refused };
        raw.link.writer.close();
    }
    said
}

fn mutated_frames(scheme: &'static str) {
    count_panics();
    alone(async |_| {
        let count = form(1_000, 1_000_000);
        let attacked = Attacked::new(Arc::new(OsNetwork::new()), scheme).await;
        let (start, address) = (Instant::now(), attacked.address.clone());
        let said = tokio::spawn(async move { attack(&address, count).await }).await.expect("the attacker");
        report("mutants", &format!("{scheme}: {said:?} in {:?}", start.elapsed()));
        assert!(said.refused * 2 <= said.links, "{said:?}");
        attacked.end_unharmed(scheme).await;
    });
}

#[test]
fn mutated_frames_do_no_harm_quic() {
    mutated_frames("quic");
}

#[test]
fn mutated_frames_do_no_harm_tls() {
    mutated_frames("tls");
}

#[test]
fn mutated_frames_do_no_harm_ws() {
    mutated_frames("ws");
}

#[test]
fn mutated_frames_do_no_harm_wss() {
    mutated_frames("wss");
}

/// What a TLS client or a WebSocket client says first.
fn speeches(transport: Transport) -> Vec<Vec<u8>> {
    let hello =
        [&b"\x16\x03\x01\x00\x2f\x01\x00\x00\x2b\x03\x03"[..], &[7; 32], b"\0\0\x02\x13\x02\x01\0\0\0"]
            .concat();
    let request = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: vitte.1\r\n\r\n";
    if transport == Transport::Ws {
        let frame = [&request[..], b"\x82\xb4\0\0\0\0", &hello].concat();
        vec![request.to_vec(), frame]
    } else {
        vec![hello]
    }
}

/// Strangers, each with a mutant of what a client says first.
fn mutated_bytes(scheme: &'static str) {
    count_panics();
    alone(async |_| {
        let count = form(100, 100_000);
        let attacked = Attacked::new(Arc::new(OsNetwork::new()), scheme).await;
        let real = speeches(attacked.address.transport());
        let (start, mut dice) = (Instant::now(), Dice(0xb17e));
        for _ in 0..count {
            let mut speech = real[dice.below(real.len())].clone();
            dice.mutate(&mut speech);
            let mut socket =
                OsNetwork::new().connect_tcp(attacked.at, &TcpOptions::default()).await.expect("connected");
            // It may be cut in the middle. A stranger that hangs up says that nothing follows.
            let _ = socket.write_all(&speech).await;
            let _ = socket.shutdown().await;
            let end = async { while socket.read(&mut [0; 1024]).await.is_ok_and(|len| len > 0) {} };
            timeout(SOON, end).await.expect("the connection is gone");
        }
        report("mutants", &format!("{scheme}: {count} strangers in {:?}", start.elapsed()));
        attacked.end_unharmed(scheme).await;
    });
}

#[test]
fn mutated_strangers_do_no_harm_tls() {
    mutated_bytes("tls");
}

#[test]
fn mutated_strangers_do_no_harm_ws() {
    mutated_bytes("ws");
}

#[test]
fn mutated_strangers_do_no_harm_wss() {
    mutated_bytes("wss");
}
