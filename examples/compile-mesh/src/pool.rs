//! Sends jobs to workers: to the one with most room, and to another one at once when a worker is lost.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout};
use vitte_net::{CallError, Mesh, MeshEvent, Peer, PeerId};

use crate::job::{Compile, Describe, Description, HEADROOM, Object, Refusal};

/// How often one job is tried on workers.
const TRIES_MAX: u32 = 8;
/// How long a job waits for a worker with room while no worker is reachable.
const NO_WORKER: Duration = Duration::from_secs(5);
/// How long a worker may take to say what it has.
const DESCRIBE: Duration = Duration::from_secs(2);
/// How long a job may take on a worker: a little more than a worker itself allows.
const DEADLINE: Duration = Duration::from_secs(130);
/// Most jobs that one worker is sent at once, whatever it says of itself.
const SLOTS_MAX: u32 = 1024;
/// How long a worker that refused is given before a job that every worker refused goes round again.
const BUSY: Duration = Duration::from_millis(50);

/// The workers of a mesh, and who does what.
#[derive(Debug)]
pub(crate) struct Pool {
    mesh: Mesh,
    compiler: [u8; 32],
    workers: Mutex<BTreeMap<PeerId, Worker>>,
    /// Told whenever a worker may have room.
    room: Notify,
    /// Jobs of lost workers that wait for room: they come before new ones.
    moving: AtomicU32,
}

#[derive(Debug)]
struct Worker {
    peer: Peer,
    slots: u32,
    running: u32,
    done: u32,
    /// Since when the worker is unreachable; its jobs are done elsewhere.
    lost: watch::Sender<Option<Instant>>,
    /// It takes nothing new, and ends what it has.
    draining: bool,
    /// When another worker took the latest of the jobs it was lost with.
    moved: Option<Instant>,
    /// How many were taken.
    moved_jobs: u32,
}

/// What a job came to.
#[derive(Debug)]
pub(crate) struct Done {
    /// The answer.
    pub(crate) object: Object,
    /// Which worker gave it.
    pub(crate) worker: PeerId,
    /// By which transport.
    pub(crate) transport: String,
    /// How often the job was sent before, in vain.
    pub(crate) retries: u32,
}

/// Why no worker did a job.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotDone {
    /// Nobody to ask.
    #[error("no worker with this compiler is reachable")]
    NoWorker,
    /// A worker refused, and so would the others.
    #[error("{0}")]
    Refused(Refusal),
    /// It was tried often enough.
    #[error("given up after {TRIES_MAX} tries, lastly because {0}")]
    Tries(String),
}

/// How a worker stands.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Standing {
    /// Which worker.
    pub(crate) id: PeerId,
    /// Jobs it runs now.
    pub(crate) running: u32,
    /// Jobs it has done.
    pub(crate) done: u32,
    /// Jobs that other workers took because it was lost.
    pub(crate) moved_jobs: u32,
    /// When the last of them was taken.
    pub(crate) moved: Option<Instant>,
    /// When the mesh said that it is gone; none while it is reachable.
    pub(crate) lost: Option<Instant>,
}

impl Pool {
    /// A pool for jobs of one compiler. It follows the events of `mesh` until `mesh` ends.
    pub(crate) fn new(mesh: &Mesh, compiler: [u8; 32]) -> Arc<Self> {
        let pool = Arc::new(Self {
            mesh: mesh.clone(),
            compiler,
            workers: Mutex::default(),
            room: Notify::new(),
            moving: AtomicU32::new(0),
        });
        let (following, mut events) = (Arc::clone(&pool), mesh.events());
        tokio::spawn(async move {
            while let Some(event) = events.next().await {
                following.follow(&event);
            }
        });
        pool
    }

    /// Asks `peer` what it has, and sends it jobs from now on if it has our compiler.
    ///
    /// # Errors
    ///
    /// It does not answer, or has another compiler.
    pub(crate) async fn add(&self, peer: Peer) -> anyhow::Result<()> {
        let description: Description =
            peer.call(Describe).deadline(DESCRIBE).await.map_err(|error| anyhow::anyhow!("{error}"))?;
        if !description.compilers.contains(&self.compiler) {
            anyhow::bail!("{}", Refusal::NoCompiler);
        }
        let id = peer.id();
        let worker = Worker {
            peer,
            slots: description.slots.clamp(1, SLOTS_MAX),
            running: 0,
            done: 0,
            lost: watch::Sender::new(None),
            draining: false,
            moved: None,
            moved_jobs: 0,
        };
        self.workers().entry(id).or_insert(worker);
        self.room.notify_waiters();
        Ok(())
    }

    /// How every worker stands.
    pub(crate) fn standings(&self) -> Vec<Standing> {
        let workers = self.workers();
        let standing = |(id, worker): (&PeerId, &Worker)| Standing {
            id: *id,
            running: worker.running,
            done: worker.done,
            moved_jobs: worker.moved_jobs,
            moved: worker.moved,
            lost: *worker.lost.borrow(),
        };
        workers.iter().map(standing).collect()
    }

    /// Jobs that all workers together run at once.
    pub(crate) fn slots(&self) -> usize {
        self.workers().values().map(|worker| worker.slots as usize).sum()
    }

    /// Has `job` done by some worker.
    ///
    /// # Errors
    ///
    /// No worker is there, or refused, or every try failed.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future ends the job on its worker too.
    pub(crate) async fn compile(&self, job: &Compile) -> Result<Done, NotDone> {
        let mut avoid = BTreeSet::new();
        let mut why = String::new();
        let mut moving = None;
        for retries in 0..TRIES_MAX {
            let mut slot = self.slot(&mut avoid, moving.is_some()).await?;
            if let Some(Moving { from, .. }) = moving.take() {
                self.moved(from);
            }
            let transport = slot.peer.transport().map(|transport| transport.to_string()).unwrap_or_default();
            match slot.run(job).await {
                Ok(object) => {
                    slot.done = true;
                    return Ok(Done { object, worker: slot.id, transport, retries });
                }
                Err(Failure::Refused(refusal)) if !refusal.elsewhere() => {
                    return Err(NotDone::Refused(refusal));
                }
                Err(Failure::Refused(refusal)) => why = refusal.to_string(),
                Err(Failure::Lost) => {
                    moving = Some(Moving::new(self, slot.id));
                    "the worker was lost".clone_into(&mut why);
                }
                Err(Failure::Call(error)) => why = error,
            }
            tracing::debug!(worker = %slot.id, %why, "a job goes elsewhere");
            avoid.insert(slot.id);
        }
        Err(NotDone::Tries(why))
    }

    /// Waits for room on a worker outside `avoid`, which is emptied when nobody else is there.
    async fn slot(&self, avoid: &mut BTreeSet<PeerId>, moving: bool) -> Result<Slot<'_>, NotDone> {
        loop {
            let told = self.room.notified();
            tokio::pin!(told);
            told.as_mut().enable();
            match self.take(avoid, moving) {
                Take::Taken(slot) => return Ok(slot),
                Take::Full => told.await,
                Take::Avoided => {
                    avoid.clear();
                    tokio::time::sleep(BUSY).await;
                }
                Take::Nobody => timeout(NO_WORKER, told).await.map_err(|_| NotDone::NoWorker)?,
            }
        }
    }

    fn take(&self, avoid: &BTreeSet<PeerId>, moving: bool) -> Take<'_> {
        let mut workers = self.workers();
        let here = |worker: &Worker| worker.lost.borrow().is_none() && !worker.draining;
        if !workers.values().any(here) {
            return Take::Nobody;
        }
        if !workers.iter().any(|(id, worker)| here(worker) && !avoid.contains(id)) {
            return Take::Avoided;
        }
        if !moving && self.moving.load(Ordering::Relaxed) > 0 {
            return Take::Full;
        }
        let times = if moving { HEADROOM } else { 1 };
        let free = workers.iter_mut().filter(|(id, worker)| {
            here(worker) && worker.running < worker.slots * times && !avoid.contains(id)
        });
        // The one with least to do for its size, and of equals the one that has done least.
        let best = free.min_by_key(|(_, worker)| (worker.running * 1024 / worker.slots, worker.done));
        let Some((id, worker)) = best else { return Take::Full };
        worker.running += 1;
        let gone = worker.lost.subscribe();
        Take::Taken(Slot { pool: self, id: *id, peer: worker.peer.clone(), gone, done: false })
    }

    fn follow(&self, event: &MeshEvent) {
        match event {
            MeshEvent::Up { peer, .. } | MeshEvent::Resumed { peer, .. } => self.found(*peer),
            MeshEvent::Unreachable { peer } | MeshEvent::Down { peer, .. } => self.lost(*peer),
            MeshEvent::Draining { peer } => self.draining(*peer),
            // What was missed may have been the end of a worker: look at all of them.
            MeshEvent::Lagged { .. } => self.look(),
            _ => {}
        }
    }

    fn look(&self) {
        let reachable: BTreeSet<PeerId> =
            self.mesh.peers().iter().filter(|peer| peer.is_reachable()).map(Peer::id).collect();
        let known: Vec<PeerId> = self.workers().keys().copied().collect();
        for id in known {
            if reachable.contains(&id) { self.found(id) } else { self.lost(id) }
        }
    }

    fn moved(&self, from: PeerId) {
        if let Some(worker) = self.workers().get_mut(&from) {
            worker.moved_jobs += 1;
            worker.moved = Some(Instant::now());
        }
    }

    fn lost(&self, id: PeerId) {
        if let Some(worker) = self.workers().get_mut(&id) {
            worker.lost.send_if_modified(|lost| {
                let now = lost.is_none();
                lost.get_or_insert_with(Instant::now);
                now
            });
        }
        self.room.notify_waiters();
    }

    fn draining(&self, id: PeerId) {
        if let Some(worker) = self.workers().get_mut(&id) {
            worker.draining = true;
        }
        self.room.notify_waiters();
    }

    fn found(&self, id: PeerId) {
        if let Some(worker) = self.workers().get_mut(&id) {
            worker.lost.send_replace(None);
            // A new session has a new handle.
            if let Some(peer) = self.mesh.peers().into_iter().find(|peer| peer.id() == id) {
                worker.peer = peer;
                worker.draining = false;
            }
        }
        self.room.notify_waiters();
    }

    fn workers(&self) -> MutexGuard<'_, BTreeMap<PeerId, Worker>> {
        self.workers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

enum Take<'a> {
    Taken(Slot<'a>),
    /// Everybody has enough to do.
    Full,
    /// Only workers that this job avoids are there.
    Avoided,
    /// No worker is reachable.
    Nobody,
}

/// Room for one job on a worker; given back when dropped.
struct Slot<'a> {
    pool: &'a Pool,
    id: PeerId,
    peer: Peer,
    gone: watch::Receiver<Option<Instant>>,
    done: bool,
}

/// A job on its way from a lost worker to another one.
struct Moving<'a> {
    pool: &'a Pool,
    from: PeerId,
}

impl<'a> Moving<'a> {
    fn new(pool: &'a Pool, from: PeerId) -> Self {
        pool.moving.fetch_add(1, Ordering::Relaxed);
        Self { pool, from }
    }
}

impl Drop for Moving<'_> {
    fn drop(&mut self) {
        self.pool.moving.fetch_sub(1, Ordering::Relaxed);
        self.pool.room.notify_waiters();
    }
}

enum Failure {
    Refused(Refusal),
    Lost,
    Call(String),
}

impl Slot<'_> {
    async fn run(&mut self, job: &Compile) -> Result<Object, Failure> {
        let call = self.peer.call(job.clone()).deadline(DEADLINE);
        let answer = tokio::select! {
            biased;
            _ = self.gone.wait_for(Option::is_some) => return Err(Failure::Lost),
            answer = call => answer,
        };
        answer.map_err(|error| match error {
            CallError::Failed(refusal) => Failure::Refused(refusal),
            error if self.gone.borrow().is_some() || !self.peer.is_reachable() => {
                tracing::debug!(%error, "a call ended with its worker");
                Failure::Lost
            }
            error => Failure::Call(error.to_string()),
        })
    }
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        if let Some(worker) = self.pool.workers().get_mut(&self.id) {
            worker.running -= 1;
            worker.done += u32::from(self.done);
        }
        self.pool.room.notify_waiters();
    }
}
