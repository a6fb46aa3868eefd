//! The link model: one for each ordered pair of nodes.

use std::num::NonZeroU64;
use std::time::Duration;

use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::RngCore;

use crate::seed::{generator, unit};
use crate::trace::{Fate, Protocol};

/// How packets travel from one node to another.
///
/// Times are multiples of the cluster's tick when packets arrive: a packet is handed over at the first tick
/// that is not before its arrival, and never in the tick in which it was sent.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct LinkSettings {
    /// The time every packet takes. Default: 1 ms.
    pub latency: Duration,
    /// Up to this much more, uniformly distributed, drawn for each packet. Datagrams overtake each other by
    /// it, TCP segments do not. Default: none.
    pub jitter: Duration,
    /// Bytes of payload per second, shared by all packets of this direction. Default: unlimited.
    pub bandwidth: Option<NonZeroU64>,
    /// With a bandwidth: datagrams that would wait longer than this for the link are lost. Default: 100 ms.
    pub queue: Duration,
    /// Share of datagrams that are lost, `0.0..=1.0`. TCP is not concerned. Default: 0.
    pub loss: f64,
    /// Share of datagrams that arrive twice, `0.0..=1.0`. Default: 0.
    pub duplicate: f64,
    /// Share of datagrams that are held back by [`reorder_delay`](Self::reorder_delay). Default: 0.
    pub reorder: f64,
    /// How long a held back datagram waits. Default: 5 ms.
    pub reorder_delay: Duration,
    /// Share of datagrams that arrive with flipped bits, `0.0..=1.0`. Default: 0.
    pub corrupt: f64,
}

impl Default for LinkSettings {
    fn default() -> Self {
        Self {
            latency: Duration::from_millis(1),
            jitter: Duration::ZERO,
            bandwidth: None,
            queue: Duration::from_millis(100),
            loss: 0.0,
            duplicate: 0.0,
            reorder: 0.0,
            reorder_delay: Duration::from_millis(5),
            corrupt: 0.0,
        }
    }
}

/// One direction between two nodes.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) settings: LinkSettings,
    pub(crate) udp_blocked: bool,
    pub(crate) tcp_blocked: bool,
    pub(crate) partitioned: bool,
    free_at: Duration,
    rng: ChaCha20Rng,
}

/// What the link does with a datagram.
pub(crate) enum Verdict {
    Lost,
    /// `noise` says which bits arrive flipped, of the first copy.
    Arrives {
        at: Duration,
        again: Option<Duration>,
        noise: Option<u64>,
    },
}

impl Link {
    /// Each link rolls its own dice: traffic elsewhere does not change them.
    pub(crate) fn new(seed: u64, from: &str, to: &str, settings: LinkSettings) -> Self {
        Self {
            settings,
            udp_blocked: false,
            tcp_blocked: false,
            partitioned: false,
            free_at: Duration::ZERO,
            rng: generator(seed, &["link", from, to]),
        }
    }

    /// Why packets of this protocol do not get through, if they do not.
    pub(crate) fn obstacle(&self, protocol: Protocol) -> Option<Fate> {
        let blocked = match protocol {
            Protocol::Tcp => self.tcp_blocked,
            Protocol::Udp => self.udp_blocked,
        };
        if self.partitioned { Some(Fate::Partitioned) } else { blocked.then_some(Fate::Blocked) }
    }

    /// When `len` bytes sent now arrive.
    pub(crate) fn arrival(&mut self, now: Duration, len: usize) -> Duration {
        let mut departs = now;
        if let Some(rate) = self.settings.bandwidth {
            let nanos = (len as u128 * 1_000_000_000).div_ceil(u128::from(rate.get()));
            let nanos = u64::try_from(nanos).unwrap_or(u64::MAX);
            departs = self.free_at.max(now).saturating_add(Duration::from_nanos(nanos));
            self.free_at = departs;
        }
        let jitter = match self.settings.jitter {
            Duration::ZERO => Duration::ZERO,
            jitter => jitter.mul_f64(unit(self.rng.next_u64())),
        };
        departs.saturating_add(self.settings.latency).saturating_add(jitter)
    }

    /// Rolls the dice for one datagram.
    pub(crate) fn datagram(&mut self, now: Duration, len: usize) -> Verdict {
        let queue_is_full = self.free_at.saturating_sub(now) > self.settings.queue;
        if self.chance(self.settings.loss) || queue_is_full {
            return Verdict::Lost;
        }
        let mut at = self.arrival(now, len);
        if self.chance(self.settings.reorder) {
            at = at.saturating_add(self.settings.reorder_delay);
        }
        let again = self.chance(self.settings.duplicate).then(|| self.arrival(now, len));
        let noise = self.chance(self.settings.corrupt).then(|| self.rng.next_u64());
        Verdict::Arrives { at, again, noise }
    }

    fn chance(&mut self, share: f64) -> bool {
        share > 0.0 && unit(self.rng.next_u64()) < share
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bandwidth_queues_packets_behind_each_other() {
        let settings = LinkSettings { bandwidth: NonZeroU64::new(1_000_000), ..LinkSettings::default() };
        let mut link = Link::new(1, "a", "b", settings);
        assert_eq!(link.arrival(Duration::ZERO, 5000), Duration::from_millis(6));
        assert_eq!(link.arrival(Duration::ZERO, 5000), Duration::from_millis(11));
    }

    #[test]
    fn loss_is_about_its_rate() {
        let mut link = Link::new(1, "a", "b", LinkSettings { loss: 0.25, ..LinkSettings::default() });
        let lost = (0..10_000).filter(|_| matches!(link.datagram(Duration::ZERO, 1), Verdict::Lost)).count();
        assert!((2300..2700).contains(&lost), "{lost}");
    }
}
