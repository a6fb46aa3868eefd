//! Takes a worker away in the middle of its work, and sees how the mesh takes it.

use std::time::Duration;

use rustix::process::Signal;
use serde::Serialize;
use tokio::time::{Instant, sleep};

use crate::demo::fleet::Worker;
use crate::pool::{Pool, Standing};

/// What happens to the worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Fault {
    /// SIGKILL.
    Kill,
    /// SIGSTOP: its sockets stay open and silent.
    Freeze,
}

/// A fault that was done.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Struck {
    /// Which worker of the fleet.
    pub(crate) victim: usize,
    /// When.
    pub(crate) at: Instant,
}

/// The most that may pass until the jobs of a lost worker run elsewhere.
pub(crate) const MOVED_WITHIN: Duration = Duration::from_secs(3);
/// How often the pool is looked at for the right moment.
const LOOK: Duration = Duration::from_millis(2);
/// How long an answer that is on its way may take on loopback.
const ON_ITS_WAY: Duration = Duration::from_millis(40);

impl Fault {
    /// Waits until every worker has done a job and some worker has one running, and strikes that worker.
    ///
    /// # Errors
    ///
    /// A signal cannot be sent.
    pub(crate) async fn strike(self, pool: &Pool, fleet: &[Worker]) -> anyhow::Result<Struck> {
        loop {
            sleep(LOOK).await;
            let standings = pool.standings();
            if standings.iter().any(|standing| standing.done == 0) {
                continue;
            }
            let Some(busiest) = standings.iter().max_by_key(|standing| standing.running) else { continue };
            let Some(victim) = fleet.iter().position(|worker| worker.id == busiest.id) else { continue };
            if busiest.running == 0 {
                continue;
            }
            // Stopped first: an answer may already be on its way, and then no job would be running.
            fleet[victim].signal(Signal::STOP)?;
            let at = Instant::now();
            sleep(ON_ITS_WAY).await;
            if standing(pool, &fleet[victim]).is_none_or(|standing| standing.running == 0) {
                fleet[victim].signal(Signal::CONT)?;
                continue;
            }
            if self == Self::Freeze {
                return Ok(Struck { victim, at });
            }
            let at = Instant::now();
            fleet[victim].signal(Signal::KILL)?;
            return Ok(Struck { victim, at });
        }
    }
}

/// How `worker` stands in `pool`.
pub(crate) fn standing(pool: &Pool, worker: &Worker) -> Option<Standing> {
    pool.standings().into_iter().find(|standing| standing.id == worker.id)
}
