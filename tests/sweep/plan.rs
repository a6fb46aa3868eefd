//! What a seed stands for: nodes, their addresses, limits, links, faults.

use std::num::NonZeroU64;
use std::time::Duration;

use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use vitte_net::{Address, Config, Transport};
use vitte_net_sim::{LinkSettings, Scenario};

/// Faults happen within this time; at its end everything is as it was.
pub(crate) const SPAN: Duration = Duration::from_secs(4);
/// Live pairs talk within this time after the last fault has healed.
pub(crate) const TALK_WITHIN: Duration = Duration::from_secs(5);

const NAMES: [&str; 4] = ["a", "b", "c", "d"];

/// Chance, from a generator that follows from the seed.
pub(crate) struct Dice(pub(crate) ChaCha20Rng);

impl Dice {
    /// `low..=high`.
    pub(crate) fn within(&mut self, low: u64, high: u64) -> u64 {
        low + self.0.next_u64() % (high - low + 1)
    }

    /// One in `of`.
    pub(crate) fn one_in(&mut self, of: u64) -> bool {
        self.within(1, of) == 1
    }

    pub(crate) fn index(&mut self, count: usize) -> usize {
        usize::try_from(self.within(0, count as u64 - 1)).expect("an index")
    }

    pub(crate) fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.index(choices.len())]
    }

    pub(crate) fn millis(&mut self, low: u64, high: u64) -> Duration {
        Duration::from_millis(self.within(low, high))
    }
}

/// A node: its name, and what it listens on.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    pub(crate) name: &'static str,
    pub(crate) addresses: Vec<Address>,
}

#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) members: Vec<Member>,
    /// A source of discovery names the peers; otherwise they are dialled when they are asked for.
    pub(crate) kept: bool,
    /// Workers for each ordered pair of nodes.
    pub(crate) workers: u64,
    /// Nodes leave by a drain, or their meshes are dropped.
    pub(crate) drains: bool,
    pub(crate) config: Config,
    /// Links of another transport stand by.
    pub(crate) standby: bool,
    pub(crate) resume_window: Duration,
    pub(crate) link: LinkSettings,
    pub(crate) scenario: Scenario,
}

impl Plan {
    pub(crate) fn of(seed: u64) -> Self {
        let mut dice = Dice(ChaCha20Rng::seed_from_u64(seed));
        let names = &NAMES[..dice.of(&[3, 3, 4])];
        let members = names.iter().map(|name| Member { name, addresses: listens(name, &mut dice) }).collect();
        let resume_window = dice.of(&[1, 3, 10].map(Duration::from_secs));
        let scenario = Scenario::random(seed, names, SPAN);
        let standby = dice.one_in(3);
        Self {
            members,
            kept: dice.one_in(2),
            workers: dice.within(1, 2),
            drains: dice.one_in(2),
            config: config(resume_window, standby, &mut dice),
            standby,
            resume_window,
            link: link(&mut dice),
            scenario,
        }
    }

    /// When everything that was offered must have its outcome, in virtual time.
    pub(crate) fn settled_by(&self) -> Duration {
        SPAN + TALK_WITHIN + self.resume_window
    }
}

/// One to three of the transports.
fn listens(name: &str, dice: &mut Dice) -> Vec<Address> {
    let ways = [(Transport::Quic, 7000), (Transport::Tls, 7000), (Transport::Ws, 7001)];
    let set = dice.within(1, 7);
    let chosen = ways.iter().zip([1, 2, 4]).filter(|(_, bit)| set & bit != 0);
    chosen.map(|((transport, port), _)| Address::new(*transport, name, *port)).collect()
}

fn config(resume_window: Duration, standby: bool, dice: &mut Dice) -> Config {
    let small = dice.one_in(2);
    Config::lan()
        .keep_alive(Duration::from_millis(200))
        .link_timeout(Duration::from_millis(500))
        .dial_timeout(Duration::from_secs(2))
        .handshake_timeout(Duration::from_secs(3))
        .resume_window(resume_window)
        .max_message(128 << 10)
        .assembly_budget(256 << 10)
        .stream_window(if small { 4 << 10 } else { 64 << 10 })
        .stream_window_max(if small { 16 << 10 } else { 1 << 20 })
        .send_queue(if small { 8 << 10 } else { 256 << 10 })
        .max_streams(dice.of(&[4, 64, 1024]))
        .handlers_max(dice.of(&[2, 256]))
        .accept_queue(dice.of(&[1, 64]))
        .datagram_queue(dice.of(&[4 << 10, 64 << 10]))
        .datagram_queue_messages(dice.of(&[4, 256]))
        .standby(standby)
        .improve_every(dice.millis(200, 2_000))
        .probation(dice.millis(50, 1_000))
        .hold(dice.millis(0, 2_000))
}

fn link(dice: &mut Dice) -> LinkSettings {
    let mut link = LinkSettings::default();
    link.latency = dice.millis(1, 20);
    link.jitter = dice.millis(0, 5);
    if dice.one_in(4) {
        link.bandwidth = NonZeroU64::new(dice.within(200_000, 5_000_000));
    }
    if dice.one_in(4) {
        link.loss = f64::from(u8::try_from(dice.within(1, 10)).expect("small")) / 100.0;
    }
    link
}
