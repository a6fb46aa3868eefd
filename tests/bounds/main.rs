//! What a peer, or a stranger, can cost a node: measured, one case at a time, since memory and sockets are those of the
//! whole process. Every case has a short form that always runs; with `VITTE_BOUNDS=long` it runs with the numbers of
//! its bar ([docs/TESTING.md](../../docs/TESTING.md)). Bounds of memory are asserted in both, times are reported.

#[allow(dead_code, reason = "shared with tests/hostile: each uses a part")]
#[path = "../hostile/peer.rs"]
mod peer;

mod cycles;
mod initials;
mod lies;
mod mutants;
mod strangers;
mod streams;
mod unread;

use std::alloc::System;
use std::future::Future;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use peakmem_alloc::{PeakMemAlloc, PeakMemAllocTrait};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use tokio::runtime::Runtime;
use tokio::time::Instant;

#[global_allocator]
static ALLOCATOR: PeakMemAlloc<&StatsAlloc<System>> = PeakMemAlloc::new(&INSTRUMENTED_SYSTEM);

static TURN: Mutex<()> = Mutex::new(());

/// Whether this is the long form.
pub(crate) fn long() -> bool {
    std::env::var("VITTE_BOUNDS").is_ok_and(|form| form == "long")
}

/// The number of this form.
pub(crate) fn form<T>(short: T, whole: T) -> T {
    if long() { whole } else { short }
}

/// Runs a case alone, on a runtime of its own.
pub(crate) fn alone<T>(case: impl AsyncFnOnce(&Runtime) -> T) -> T {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.expect("a runtime starts");
    let result = runtime.block_on(case(&runtime));
    runtime.shutdown_timeout(Duration::from_secs(5));
    result
}

/// Bytes that are allocated above today's while something is done.
pub(crate) async fn growth<T>(work: impl Future<Output = T>) -> (T, usize) {
    ALLOCATOR.reset_peak_memory();
    let done = work.await;
    (done, ALLOCATOR.get_peak_memory())
}

/// What is allocated and not yet freed: pieces, and bytes in all.
pub(crate) fn live() -> (usize, usize) {
    let stats = INSTRUMENTED_SYSTEM.stats();
    let bytes = stats.bytes_allocated.wrapping_sub(stats.bytes_deallocated);
    (stats.allocations.wrapping_sub(stats.deallocations), bytes)
}

/// Prints a line of the report, in the long form.
pub(crate) fn report(case: &str, figures: &str) {
    println!("{case}: {figures}");
}

#[expect(clippy::cast_precision_loss, reason = "sizes of memory are far below 2^52")]
pub(crate) fn mib(bytes: usize) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// Durations, sorted, and what can be said of them.
#[derive(Debug, Default)]
pub(crate) struct Times(Vec<Duration>);

impl Times {
    /// With room for so many, so that they do not count as growth.
    pub(crate) fn with_room(count: usize) -> Self {
        Self(Vec::with_capacity(count))
    }

    pub(crate) async fn measure<T>(&mut self, work: impl Future<Output = T>) -> T {
        let start = Instant::now();
        let done = work.await;
        self.0.push(start.elapsed());
        done
    }

    /// The duration that so many per cent are not above.
    pub(crate) fn percentile(&mut self, percent: usize) -> Duration {
        self.0.sort();
        let at = (self.0.len() * percent).div_ceil(100).saturating_sub(1);
        self.0.get(at).copied().unwrap_or_default()
    }
}
