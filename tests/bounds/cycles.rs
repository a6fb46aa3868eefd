//! Connections that come and go: what is left behind by twenty thousand of them.

use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::{Instant, sleep, timeout};
use vitte_net::{Address, CloseCode, Config, Mesh};
use vitte_net_proto::frame::Frame;

use crate::peer::{HONEST, HOSTILE, Raw, VICTIM, echo, mesh, transports};
use crate::{alone, form, report};

/// So many of the cycles are a whole node that starts, calls and drains; the others a link and its session alone.
const WHOLE: usize = 10;

/// Within this a session that its peer has closed ends its links: before the first alarm for a silent one.
const AT_ONCE: Duration = Duration::from_secs(4);

/// Within this nothing is left. Most of it is gone at once; a QUIC connection closes for three probe timeouts, which are
/// long where the machine was slow, and has gone after a minute at the latest.
const SETTLED: Duration = Duration::from_secs(90);

/// What a process holds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Held {
    pub(crate) tasks: usize,
    pub(crate) descriptors: usize,
    /// KiB of memory that are resident.
    pub(crate) resident: u64,
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

/// What is held at rest. The allocator gives memory back when it likes, so that a look may find megabytes more than the
/// looks before and behind it: the least of five counts.
async fn least(victim: &Mesh, before: Held) -> Held {
    let mut least = Held::settle(before).await;
    for _ in 0..4 {
        cycles(victim, form(1, 100)).await;
        let held = Held::settle(before).await;
        least.resident = least.resident.min(held.resident);
        (least.tasks, least.descriptors) = (held.tasks, held.descriptors);
    }
    least
}

fn leave_nothing(scheme: &'static str) {
    alone(async |_| {
        let victim = mesh(VICTIM, &[scheme], Config::wan()).await;
        let before = Held::now();
        cycles(&victim, form(10, 2_000)).await;
        let warm = least(&victim, before).await;
        let start = Instant::now();
        let count = form(40, 20_000);
        cycles(&victim, count).await;
        let took = start.elapsed();
        let after = least(&victim, before).await;
        report(
            "cycles",
            &format!("{scheme}: {count} in {took:?}; {before:?}, warm {warm:?}, after {after:?}"),
        );
        assert_eq!((warm.tasks, warm.descriptors), (before.tasks, before.descriptors), "after warming up");
        assert_eq!((after.tasks, after.descriptors), (before.tasks, before.descriptors), "at the end");
        // The short form has not warmed up: the bar is that of the long one.
        let most = form(warm.resident + 8 * 1024, warm.resident * 105 / 100);
        assert!(after.resident <= most, "{} KiB, and {} when warm", after.resident, warm.resident);
        assert_eq!(victim.peers().len(), 0, "no session is left");
        victim.drain(Duration::ZERO, Duration::from_secs(1)).await;
    });
}

#[test]
fn connections_leave_nothing_behind_quic() {
    leave_nothing("quic");
}

#[test]
fn connections_leave_nothing_behind_tls() {
    leave_nothing("tls");
}

#[test]
fn connections_leave_nothing_behind_ws() {
    leave_nothing("ws");
}

#[test]
fn connections_leave_nothing_behind_wss() {
    leave_nothing("wss");
}
