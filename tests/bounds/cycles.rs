//! Connections that come and go: what is left behind by twenty thousand of them.

use std::process::Command;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::{Instant, sleep, timeout};
use vitte_net::{Address, CloseCode, Config, Mesh};
use vitte_net_proto::frame::Frame;

use crate::peer::{HONEST, HOSTILE, Raw, VICTIM, echo, mesh, transports};
use crate::{alone, form, live, report};

/// So many of the cycles are a whole node that starts, calls and drains; the others a link and its session alone.
const WHOLE: usize = 10;

/// Within this a session that its peer has closed ends its links: before the first alarm for a silent one.
const AT_ONCE: Duration = Duration::from_secs(4);

/// Within this nothing is left. Most of it is gone at once; a QUIC connection closes for three probe timeouts, which are
/// long where the machine was slow, and has gone after a minute at the latest.
const SETTLED: Duration = Duration::from_secs(90);

/// The allocator of glibc raises by itself the size from which memory goes back to the system as soon as it is freed, also
/// above that of an endpoint's buffer for datagrams (2.9 MiB): then up to six of them, freed, are resident now and then.
/// It leaves the size alone where this is set. Other allocators do not know the variable.
const STEADY: (&str, &str) = ("MALLOC_MMAP_THRESHOLD_", "131072");

/// Pieces that may be allocated at the end and were not when warm, for what a look finds that is under way: fewer than
/// one for each connection.
const PIECES: usize = 20;

/// And their bytes: in the long form fewer than two for each connection.
const BYTES: usize = 32 << 10;

/// What a process holds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Held {
    pub(crate) tasks: usize,
    pub(crate) descriptors: usize,
    /// KiB of memory that are resident.
    pub(crate) resident: u64,
    /// Pieces that are allocated, and their bytes.
    pub(crate) live: (usize, usize),
}

impl Held {
    pub(crate) fn now() -> Self {
        let status = std::fs::read_to_string("/proc/self/status").expect("Linux says");
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let resident = resident.and_then(|rest| rest.trim().strip_suffix(" kB")).expect("in KiB");
        Self {
            tasks: Handle::current().metrics().num_alive_tasks(),
            descriptors: std::fs::read_dir("/proc/self/fd").expect("Linux says").count(),
            resident: resident.parse().expect("a number"),
            live: live(),
        }
    }

    /// Waits until there are no more tasks and descriptors than there were, or says what there are.
    pub(crate) async fn settle(before: Self) -> Self {
        let start = Instant::now();
        loop {
            let now = Self::now();
            let flat = now.tasks <= before.tasks && now.descriptors <= before.descriptors;
            if flat || start.elapsed() > SETTLED {
                return now;
            }
            sleep(Duration::from_millis(10)).await;
        }
    }
}

/// Connects, begins a session, ends it in order, and waits until the victim has ended its link.
async fn session(dialler: &vitte_net::transport::Transports, address: &Address, life: usize) {
    let mut raw = Raw::greeted(dialler, address, life.to_le_bytes()[0]).await;
    let close = Frame::Close { code: CloseCode::SHUTDOWN, session: true, reason: "bye" };
    raw.say(&[close]).await.expect("the link lives");
    raw.last_word().await;
    raw.link.writer.close();
}

async fn node(address: &Address) {
    let node = mesh(HONEST, &[], Config::wan()).await;
    let peer = node.connect(address).await.expect("connected");
    echo(&peer).await;
    node.drain(Duration::ZERO, Duration::from_secs(1)).await;
}

async fn cycles(victim: &Mesh, count: usize) {
    let address = victim.addresses().remove(0);
    let dialler = transports(HOSTILE);
    for cycle in 0..count {
        if cycle % WHOLE == 0 {
            node(&address).await;
        }
        timeout(AT_ONCE, session(&dialler, &address, cycle)).await.expect("the session ends");
    }
}

/// What is held at rest: of five looks the least, since what one finds beyond that was under way.
async fn least(victim: &Mesh, before: Held) -> Held {
    let mut least = Held::settle(before).await;
    for _ in 0..4 {
        cycles(victim, form(1, 100)).await;
        let held = Held::settle(before).await;
        let live = (least.live.0.min(held.live.0), least.live.1.min(held.live.1));
        least = Held { resident: least.resident.min(held.resident), live, ..held };
    }
    least
}

async fn leave_nothing(scheme: &'static str) {
    let victim = mesh(VICTIM, &[scheme], Config::wan()).await;
    let before = Held::now();
    cycles(&victim, form(10, 2_000)).await;
    let warm = least(&victim, before).await;
    let start = Instant::now();
    let count = form(40, 20_000);
    cycles(&victim, count).await;
    let took = start.elapsed();
    let after = least(&victim, before).await;
    report("cycles", &format!("{scheme}: {count} in {took:?}; {before:?}, warm {warm:?}, after {after:?}"));
    assert_eq!((warm.tasks, warm.descriptors), (before.tasks, before.descriptors), "after warming up");
    assert_eq!((after.tasks, after.descriptors), (before.tasks, before.descriptors), "at the end");
    let (pieces, bytes) = (warm.live.0 + PIECES, warm.live.1 + BYTES);
    assert!(after.live.0 <= pieces && after.live.1 <= bytes, "{:?}, {:?} when warm", after.live, warm.live);
    // The short form has not warmed up: the bar is that of the long one.
    let most = form(warm.resident + 8 * 1024, warm.resident * 105 / 100);
    assert!(after.resident <= most, "{} KiB, and {} when warm", after.resident, warm.resident);
    assert_eq!(victim.peers().len(), 0, "no session is left");
    victim.drain(Duration::ZERO, Duration::from_secs(1)).await;
}

/// Runs the case in a process of its own, so that its memory is that of this case, in which the allocator is steady.
fn in_its_own_process(scheme: &'static str) {
    if std::env::var_os(STEADY.0).is_some() {
        return alone(async |_| leave_nothing(scheme).await);
    }
    let this = std::env::current_exe().expect("a test knows its program");
    let case = format!("cycles::connections_leave_nothing_behind_{scheme}");
    let flags = [&case, "--exact", "--nocapture", "--test-threads=1"];
    let mut process = Command::new(this);
    process.args(flags).env(STEADY.0, STEADY.1);
    let output = alone(async |_| process.output().expect("it starts"));
    let said = String::from_utf8_lossy(&output.stdout);
    for line in said.lines().filter_map(|line| line.split_once("cycles: ")) {
        report("cycles", line.1);
    }
    let why = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("1 passed"), "{said}{why}");
}

#[test]
fn connections_leave_nothing_behind_quic() {
    in_its_own_process("quic");
}

#[test]
fn connections_leave_nothing_behind_tls() {
    in_its_own_process("tls");
}

#[test]
fn connections_leave_nothing_behind_ws() {
    in_its_own_process("ws");
}

#[test]
fn connections_leave_nothing_behind_wss() {
    in_its_own_process("wss");
}
