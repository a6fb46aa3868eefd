//! A peer that opens streams and gives them up, a million of them.

use std::sync::LazyLock;
use std::time::Duration;

use tokio::task::yield_now;
use tokio::time::{Instant, sleep};
use vitte_net::{Address, CloseCode, Config, MeshEvent, StreamCode};
use vitte_net_proto::frame::{Decoded, Frame, Open, StreamKind, read_frame};
use vitte_net_proto::{DeliveryClass, Lane, Priority, StreamId};

use crate::peer::{HONEST, HOSTILE, Raw, VICTIM, echo, id, mesh, transports, until};
use crate::{Times, alone, form, growth, long, mib, report};

/// What all of it may cost, the flooder in the same process included.
const MOST: usize = 32 << 20;
/// Streams that the victim grants at first: the default.
const GRANTED: u64 = 1024;
/// Rounds of the long form.
const ROUNDS: u8 = 5;
/// Between two calls of the honest peer, which would otherwise be a flood itself.
const PAUSE: Duration = Duration::from_millis(1);

/// Of the flooder's streams. Found once: to derive keys costs more than a stream.
static PARITY: LazyLock<u64> = LazyLock::new(|| u64::from(id(HOSTILE) > id(VICTIM)));

/// A stream of the flooder, which is opened and given up in both directions.
fn open_and_reset(count: u64, out: &mut Vec<u8>) {
    let stream = StreamId(count * 2 + *PARITY);
    let open = Open {
        kind: StreamKind::Call,
        priority: Priority::Normal,
        class: DeliveryClass::Reliable,
        deadline_micros: None,
        schema_out: 0,
        schema_in: 0,
        name: "echo/v1",
    };
    let code = StreamCode::DROPPED;
    Frame::Open { stream, open }.put(out);
    Frame::Reset { stream, code, reason: "" }.put(out);
    Frame::Stop { stream, code, taken: 0, reason: "" }.put(out);
}

/// What the victim has said on each lane, frame by frame.
#[derive(Default)]
struct Ears {
    torn: Vec<Vec<u8>>,
}

impl Ears {
    fn frames(&mut self, raw: &mut Raw, mut each: impl FnMut(Frame<'_>)) {
        self.torn.resize(Lane::COUNT.into(), Vec::new());
        for (lane, torn) in (0..).zip(&mut self.torn) {
            torn.extend(raw.take(Lane(lane)));
            let mut at = 0;
            while let Ok(Decoded::Frame(frame, len)) = read_frame(&torn[at..]) {
                each(frame);
                at += len;
            }
            torn.drain(..at);
        }
    }
}

/// What a flooder came to.
#[derive(Debug, Default)]
struct Flood {
    opened: u64,
    links: u64,
    /// How many of them ended with a reason.
    told: u64,
}

/// Opens without asking, and comes again as another life whenever it is cut for that.
async fn blind(address: &Address, total: u64, round: u8) -> Flood {
    let dialler = transports(HOSTILE);
    let mut flood = Flood::default();
    while flood.opened < total {
        flood.links += 1;
        let life = ((flood.links + u64::from(round) * 100) % 255).to_le_bytes()[0];
        let mut raw = Raw::greeted(&dialler, address, life).await;
        let mut count = 0;
        loop {
            let mut out = Vec::new();
            for _ in 0..64 {
                open_and_reset(count, &mut out);
                (count, flood.opened) = (count + 1, flood.opened + 1);
            }
            if raw.say_bytes(&out).await.is_err() {
                break;
            }
            // So that what was said is sent, and what is answered is seen.
            yield_now().await;
        }
        // Over QUIC the last word may be lost with the packet that it was in.
        if let Some((code, _)) = raw.last_word().await {
            assert_eq!(code, CloseCode::STREAM_LIMIT);
            flood.told += 1;
        }
    }
    flood
}

/// Opens as fast as it is allowed to, and settles each stream as a session would.
async fn allowed(address: &Address, total: u64, round: u8) -> Flood {
    let mut raw = Raw::greeted(&transports(HOSTILE), address, round).await;
    let (mut ears, mut granted, mut opened) = (Ears::default(), GRANTED, 0);
    while opened < total {
        let mut out = Vec::new();
        ears.frames(&mut raw, |frame| match frame {
            Frame::Stop { stream, .. } => Frame::Retire { stream }.put(&mut out),
            Frame::Reset { stream, code, .. } => {
                Frame::Stop { stream, code, taken: 0, reason: "" }.put(&mut out);
            }
            Frame::Ping { token } => Frame::Pong { token }.put(&mut out),
            Frame::MaxStreams { count } => granted = granted.max(count),
            _ => {}
        });
        while opened < granted.min(total) && out.len() < 8 << 10 {
            open_and_reset(opened, &mut out);
            opened += 1;
        }
        if out.is_empty() {
            raw.listen().await.expect("the link lives");
        } else {
            raw.converse(&out).await.expect("the link lives");
        }
    }
    Flood { opened, links: 1, told: 0 }
}

/// Lets one flood a node, on threads of its own, while an honest peer calls it: in rounds, each with its own calls
/// before, because the machine may do other things meanwhile.
fn under<F: Future<Output = Flood>>(
    what: &str,
    scheme: &'static str,
    config: Config,
    rounds: u8,
    total: u64,
    unnoticed: bool,
    flooder: impl Fn(Address, u64, u8) -> F + Copy + Send + 'static,
) {
    alone(async |_| {
        let victim = mesh(VICTIM, &[scheme], config).await;
        let mut events = victim.events();
        let address = victim.addresses().remove(0);
        let mesh = mesh(HONEST, &[], Config::wan()).await;
        let honest = mesh.connect(&address).await.expect("an honest peer");
        let mut slower = Vec::new();
        for round in 1..=rounds {
            let (mut idle, mut busy) = (Times::default(), Times::with_room(form(10_000, 1_000_000)));
            for _ in 0..form(200, 2_000) {
                idle.measure(echo(&honest)).await;
                sleep(PAUSE).await;
            }
            let start = Instant::now();
            let (flood, grown) = growth(async {
                let (address, total) = (address.clone(), total / u64::from(rounds));
                let thread = std::thread::spawn(move || {
                    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                    runtime.expect("a runtime starts").block_on(flooder(address, total, round))
                });
                while !thread.is_finished() {
                    busy.measure(echo(&honest)).await;
                    sleep(PAUSE).await;
                }
                thread.join().expect("the flooder has not failed")
            })
            .await;
            let took = start.elapsed();
            let (before, meanwhile) = (idle.percentile(99), busy.percentile(99));
            report(
                "streams",
                &format!(
                    "{scheme}, {what}: {} opened and given up in {took:?}, {} links, {} of them cut with the reason; {:.1} \
                     MiB; p99 of a call of another peer {before:?} before, {meanwhile:?} meanwhile",
                    flood.opened,
                    flood.links,
                    flood.told,
                    mib(grown),
                ),
            );
            slower.push(meanwhile.as_secs_f64() / before.as_secs_f64());
            assert!(flood.links == 1 || flood.told > 0, "{flood:?}");
            assert!(grown < MOST, "{grown} bytes");
            // It was slowed down, or cut with a code: somebody was told.
            let told = until(&mut events, |event| match event {
                MeshEvent::Throttled { peer } if peer == id(HOSTILE) => Some(None),
                MeshEvent::Violation { peer, code, ours: false, .. } if peer == id(HOSTILE) => {
                    Some(Some(code))
                }
                _ => None,
            });
            assert!(matches!(told.await, None | Some(CloseCode::STREAM_LIMIT)));
            echo(&honest).await;
        }
        slower.sort_by(f64::total_cmp);
        report("streams", &format!("{scheme}, {what}: p99 meanwhile in proportion to before: {slower:.2?}"));
        // One round says little on a machine that does other things, too.
        assert!(!unnoticed || !long() || slower[slower.len() / 2] < 2.0, "{slower:.2?}");
        victim.drain(Duration::ZERO, Duration::from_secs(1)).await;
    });
}

/// It is throttled: after the burst it gets a place for each that comes back.
fn throttled(scheme: &'static str) {
    let start = Instant::now();
    // Ten times the default rate, so that a million take less than two minutes: what others notice is for the next case.
    let (burst, rate, total) = form((100, 500, 2_000), (1024, 10_000, 1_000_000));
    let config = Config::wan().abandoned_burst(burst).abandoned_per_second(rate);
    under("waiting", scheme, config, form(1, ROUNDS), total, false, async |address, total, round| {
        allowed(&address, total, round).await
    });
    // Each round is a session of its own, with a burst of its own.
    let free = (GRANTED + u64::from(burst) + GRANTED / 4) * u64::from(form(1, ROUNDS));
    let least = Duration::from_secs(1) * u32::try_from(total - free).expect("a count") / rate;
    assert!(start.elapsed() >= least, "{:?} for {total}", start.elapsed());
}

/// It is throttled to the default rate, which nobody else notices.
fn unnoticed(scheme: &'static str) {
    let total = form(3_000, 5 * 15_000);
    under(
        "waiting at the default rate",
        scheme,
        Config::wan(),
        form(1, ROUNDS),
        total,
        true,
        async |address, total, round| allowed(&address, total, round).await,
    );
}

/// It is cut, again and again, and comes again no faster than it is let in.
fn cut(scheme: &'static str) {
    let total = form(5_000, 1_000_000);
    // A link over QUIC has ten times as many in its buffers when it is cut: the others are let in at five times the
    // default rate, so that a million take two minutes.
    let config = Config::wan().readmit_per_second(if scheme == "quic" { 1 } else { 5 });
    under("blind", scheme, config, 1, total, true, async |address, total, round| {
        blind(&address, total, round).await
    });
}

macro_rules! streams {
    ($($name:ident: $case:ident, $scheme:literal;)+) => {
        $(#[test]
        fn $name() {
            $case($scheme);
        })+
    };
}

streams! {
    a_million_streams_one_by_one_are_throttled_quic: throttled, "quic";
    a_million_streams_one_by_one_are_throttled_tls: throttled, "tls";
    a_million_streams_one_by_one_are_throttled_ws: throttled, "ws";
    a_flood_at_the_default_rate_is_not_noticed_quic: unnoticed, "quic";
    a_flood_at_the_default_rate_is_not_noticed_tls: unnoticed, "tls";
    a_flood_at_the_default_rate_is_not_noticed_ws: unnoticed, "ws";
    a_million_streams_at_once_are_cut_quic: cut, "quic";
    a_million_streams_at_once_are_cut_tls: cut, "tls";
    a_million_streams_at_once_are_cut_ws: cut, "ws";
}
