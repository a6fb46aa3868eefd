//! The sweep: clusters of three or four nodes under a mixed workload, over all transports, while links and
//! machines fail; then everything heals, and every promise is checked against what each node saw.
//!
//! `cargo test` runs a few seeds. The long form is `VITTE_SIM_SEEDS=10000 cargo test --release --test sweep`;
//! `VITTE_SIM_FIRST` is the first seed. A failure prints its seed, its faults, a smaller scenario that fails
//! too, and the line that replays it: `VITTE_SIM_SEED` runs one seed alone, `VITTE_SIM_SCENARIO` replaces its
//! faults, and `VITTE_SIM_LOG=1` prints what the library says meanwhile.

#[path = "../simulated/mod.rs"]
mod simulated;

mod node;
mod plan;
mod run;
mod watch;
mod workload;

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use vitte_net_sim::invariants::Tally;
use vitte_net_sim::{Scenario, Shrunk, seeds, shrink};

use plan::Plan;
use run::{Bad, run};

const SEEDS: u64 = 20;

/// What the seeds of a sweep came to.
#[derive(Default)]
struct Sum {
    runs: u64,
    faults: usize,
    events: u64,
    virtual_time: Duration,
    slowest_talk: Duration,
    most_dials: usize,
    tally: Tally,
    failed: Vec<u64>,
}

#[test]
fn sweep() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    let first = number("VITTE_SIM_FIRST").unwrap_or(0);
    let count = number("VITTE_SIM_SEEDS").unwrap_or(SEEDS);
    let seeds = seeds(first..first + count);
    let scenario = Scenario::from_env();
    run::collect_panics();
    let (next, sum) = (AtomicU64::new(0), Mutex::new(Sum::default()));
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(seeds.len());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let _watching = tracing::subscriber::set_default(watch::Watcher::new());
                loop {
                    let index = usize::try_from(next.fetch_add(1, Ordering::Relaxed)).expect("an index");
                    let Some(seed) = seeds.get(index) else { return };
                    one(*seed, scenario.as_ref(), &sum);
                }
            });
        }
    });
    let sum = sum.into_inner().expect("no panic");
    println!(
        "{} seeds, {} faults, {:.0} s of virtual time, {} events\n{}\nafter healing: all pairs talked within {:?}, \
         an address was dialled at most {} times in 5 s",
        sum.runs,
        sum.faults,
        sum.virtual_time.as_secs_f64(),
        sum.events,
        sum.tally,
        sum.slowest_talk,
        sum.most_dials
    );
    assert!(sum.runs > 0, "no seed ran");
    assert!(sum.failed.is_empty(), "{} of {} seeds failed: {:?}", sum.failed.len(), sum.runs, sum.failed);
}

fn one(seed: u64, scenario: Option<&Scenario>, sum: &Mutex<Sum>) {
    let scenario = scenario.cloned().unwrap_or_else(|| Plan::of(seed).scenario);
    let result = run(seed, &scenario);
    let mut sum = sum.lock().expect("no panic");
    sum.runs += 1;
    sum.faults += scenario.faults.len();
    match result {
        Ok(done) => {
            sum.events += done.report.events;
            sum.virtual_time += done.report.elapsed;
            sum.slowest_talk = sum.slowest_talk.max(done.slowest_talk);
            sum.most_dials = sum.most_dials.max(done.most_dials);
            sum.tally.add(&done.tally);
        }
        Err(bad) => {
            sum.failed.push(seed);
            drop(sum);
            tell(seed, &scenario, &bad);
        }
    }
}

fn tell(seed: u64, scenario: &Scenario, bad: &Bad) {
    let Bad { violations, report } = bad;
    println!("seed {seed}: {} violations after {:?} of virtual time", violations.len(), report.elapsed);
    violations.iter().take(10).for_each(|violation| println!("  {violation}"));
    println!("  faults: {}", scenario.to_json());
    println!("  {:?}", Plan::of(seed).config);
    println!("  replay: {}", replay_line(seed, scenario));
    let smaller = shrink(scenario.clone(), |scenario| run(seed, scenario).map(|_| ()));
    if let Some(Shrunk { scenario, error, runs, .. }) = smaller {
        println!(
            "  {} faults are enough, found in {runs} runs: {}",
            scenario.faults.len(),
            error.violations[0]
        );
        println!("  replay: {}", replay_line(seed, &scenario));
    }
}

fn replay_line(seed: u64, scenario: &Scenario) -> String {
    let profile = if cfg!(debug_assertions) { "" } else { " --release" };
    let list = scenario.to_line();
    format!("VITTE_SIM_SEED={seed} VITTE_SIM_SCENARIO='{list}' cargo test{profile} -p vitte-net --test sweep")
}
