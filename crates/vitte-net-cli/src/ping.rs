//! `vnet ping`: calls, one after another, and how long their answers took.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde_json::json;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use vitte_net::{Address, Blob, Config, Identity, Mesh, Peer, Trust};

use crate::problem::Problem;
use crate::protocol::Ping;
use crate::terminal::Output;
use crate::{id, interrupted, pace, secret};

/// Longest payload, in bytes: half of the longest message that a node accepts.
const SIZE_MAX: u32 = 4 << 20;

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Where the node is: quic://HOST:PORT, tls://HOST:PORT, ws://HOST:PORT/PATH or wss://HOST:PORT/PATH.
    address: Address,
    /// How many calls [default: until Ctrl-C]
    #[arg(long, short = 'c', value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Time from one call to the next: 200ms, 1s, 2m.
    #[arg(long, short = 'i', default_value = "1s", value_parser = pace::parse)]
    interval: Duration,
    /// How long to wait for the connection, and for each answer.
    #[arg(long, short = 'W', default_value = "5s", value_parser = pace::parse_timeout)]
    timeout: Duration,
    /// Bytes of payload, up to 4 MiB.
    #[arg(long, short = 's', default_value_t = 56, value_parser = clap::value_parser!(u32).range(..=i64::from(SIZE_MAX)))]
    size: u32,
    /// The file with the secret of the mesh (mode 0600) [default: the environment variable VITTE_SECRET]
    #[arg(long, value_name = "FILE")]
    secret_file: Option<PathBuf>,
    /// The key file [default: a new key for this command alone, so that it differs from the node's]
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
}

pub(crate) async fn run(options: Options, output: &Output) -> Result<ExitCode, Problem> {
    let trust = Trust::secret(secret::load(options.secret_file.as_deref())?);
    let identity = match &options.key {
        Some(path) => id::load(path)?,
        None => Identity::generate(),
    };
    let config = Config::wan().dial_timeout(options.timeout).handshake_timeout(options.timeout);
    let mesh = Mesh::builder().identity(identity).trust(trust).config(config).start().await?;
    let mut pinger = Pinger { mesh, output, tally: Tally::default(), options };
    let begin = Instant::now();
    let ended = tokio::select! {
        biased;
        ended = interrupted() => ended,
        ended = pinger.run() => ended,
    };
    let told = match ended {
        Ok(()) => pinger.tell_summary(begin.elapsed()),
        Err(problem) => Err(problem),
    };
    pinger.mesh.drain(Duration::ZERO, Duration::from_secs(1)).await;
    told?;
    Ok(if pinger.tally.is_complete() { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

struct Pinger<'a> {
    mesh: Mesh,
    output: &'a Output,
    tally: Tally,
    options: Options,
}

impl Pinger<'_> {
    async fn run(&mut self) -> Result<(), Problem> {
        let mut peer = self.connect().await?;
        self.tell_peer(&peer)?;
        let payload: Vec<u8> = (0..=u8::MAX).cycle().take(self.options.size as usize).collect();
        let payload = Blob::from(payload);
        let mut ticks = interval(self.options.interval.max(Duration::from_nanos(1)));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut sequence = 0;
        while self.options.count.is_none_or(|count| sequence < count) {
            ticks.tick().await;
            sequence += 1;
            if peer.is_lost() {
                match self.connect().await {
                    Ok(again) => peer = again,
                    Err(problem) => {
                        self.tell_loss(sequence, &problem.summary())?;
                        continue;
                    }
                }
            }
            match self.ask(&peer, sequence, payload.clone()).await {
                Ok(took) => self.tell_answer(&peer, sequence, took)?,
                Err(reason) => self.tell_loss(sequence, &reason)?,
            }
        }
        Ok(())
    }

    async fn connect(&self) -> Result<Peer, Problem> {
        let address = &self.options.address;
        self.mesh.connect(address).await.map_err(|error| Problem::dial(&address.to_string(), &error))
    }

    /// One call; the error says why there was no answer.
    async fn ask(&self, peer: &Peer, sequence: u64, payload: Blob) -> Result<Duration, String> {
        let begin = Instant::now();
        let call = peer.call(Ping { sequence, payload: payload.clone() }).deadline(self.options.timeout);
        // The call keeps its deadline itself; this is for a library that does not.
        let patience = self.options.timeout + Duration::from_secs(1);
        let answer =
            timeout(patience, call.into_future()).await.map_err(|_| String::from("no end of the call"))?;
        let took = begin.elapsed();
        let pong = answer.map_err(|error| error.to_string())?;
        if pong.sequence != sequence || pong.payload != payload {
            return Err(String::from("the answer has other bytes than the question"));
        }
        Ok(took)
    }

    fn tell_peer(&self, peer: &Peer) -> Result<(), Problem> {
        let Options { address, size, .. } = &self.options;
        let line = format!("PING {address}: node {}, {size} bytes", peer.id());
        let record = json!({
            "event": "connected",
            "address": address.to_string(),
            "peer": peer.id().to_string(),
            "bytes": size,
        });
        Ok(self.output.tell(&[line], &record)?)
    }

    fn tell_answer(&mut self, peer: &Peer, sequence: u64, took: Duration) -> Result<(), Problem> {
        self.tally.answered(took);
        let size = self.options.size;
        let over = peer.transport().unwrap_or(self.options.address.transport());
        let from = peer.id();
        let line = format!(
            "{size} bytes from {} over {over}: seq={sequence} time={:.3} ms",
            from.short(),
            millis(took)
        );
        let record = json!({
            "event": "answer",
            "sequence": sequence,
            "bytes": size,
            "transport": over.scheme(),
            "ms": millis(took),
        });
        Ok(self.output.tell(&[line], &record)?)
    }

    fn tell_loss(&mut self, sequence: u64, reason: &str) -> Result<(), Problem> {
        self.tally.sent += 1;
        let line = format!("no answer: seq={sequence}: {reason}");
        let record = json!({ "event": "no-answer", "sequence": sequence, "reason": reason });
        Ok(self.output.tell(&[line], &record)?)
    }

    fn tell_summary(&self, within: Duration) -> Result<(), Problem> {
        let Tally { sent, answered, .. } = self.tally;
        let (loss, spread) = (self.tally.loss(), self.tally.spread());
        let mut text =
            format!("{sent} sent, {answered} answered, {loss:.1}% lost, in {:.0} ms", millis(within));
        if let Some((min, avg, max)) = spread {
            // Writing to a string does not fail.
            let _ = write!(text, "; round trip min/avg/max = {min:.3}/{avg:.3}/{max:.3} ms");
        }
        let record = json!({
            "event": "summary",
            "sent": sent,
            "answered": answered,
            "lost_percent": loss,
            "min_ms": spread.map(|(min, _, _)| min),
            "avg_ms": spread.map(|(_, avg, _)| avg),
            "max_ms": spread.map(|(_, _, max)| max),
        });
        Ok(self.output.tell(&[format!("--- {} ---", self.options.address), text], &record)?)
    }
}

fn millis(span: Duration) -> f64 {
    span.as_secs_f64() * 1000.0
}

/// What became of the calls.
#[derive(Debug, Default)]
struct Tally {
    sent: u64,
    answered: u64,
    total: Duration,
    min: Option<Duration>,
    max: Duration,
}

impl Tally {
    fn answered(&mut self, took: Duration) {
        self.sent += 1;
        self.answered += 1;
        self.total += took;
        self.min = Some(self.min.map_or(took, |min| min.min(took)));
        self.max = self.max.max(took);
    }

    /// There was a call, and every call was answered.
    fn is_complete(&self) -> bool {
        self.sent > 0 && self.sent == self.answered
    }

    /// Calls without an answer, in per cent.
    #[allow(clippy::cast_precision_loss, reason = "a percentage for people")]
    fn loss(&self) -> f64 {
        if self.sent == 0 { 0.0 } else { (self.sent - self.answered) as f64 * 100.0 / self.sent as f64 }
    }

    /// Least, mean and greatest round trip, in milliseconds.
    #[allow(clippy::cast_precision_loss, reason = "a mean for people")]
    fn spread(&self) -> Option<(f64, f64, f64)> {
        let min = self.min?;
        Some((millis(min), millis(self.total) / self.answered as f64, millis(self.max)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tally_adds_up() {
        let mut tally = Tally::default();
        assert!(!tally.is_complete());
        assert_eq!(tally.spread(), None);
        tally.answered(Duration::from_millis(1));
        tally.answered(Duration::from_millis(3));
        assert!(tally.is_complete());
        assert_eq!(tally.spread(), Some((1.0, 2.0, 3.0)));
        tally.sent += 2;
        assert!(!tally.is_complete());
        assert!((tally.loss() - 50.0).abs() < f64::EPSILON);
    }
}
