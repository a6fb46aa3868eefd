//! The sweep: clusters of three or four nodes under a mixed workload, over all transports, while links and
//! machines fail; then everything heals, and every promise is checked against what each node saw.
//!
//! `cargo test` runs a few seeds. The long form is `VITTE_SIM_SEEDS=10000 cargo test --release --test sweep`;
//! `VITTE_SIM_FIRST` is the first seed. A failure prints its seed, its faults, a smaller scenario that fails
//! too, and the line that replays it: `VITTE_SIM_SEED` runs one seed alone, `VITTE_SIM_SCENARIO` replaces its
//! faults, and `VITTE_SIM_LOG=1` prints what the library says meanwhile. `VITTE_SIM_TIMELINE` is a file: the
//! picture of the first run goes there, or of a part of it with `VITTE_SIM_TIMELINE_MS=1000-1500`.
//! `VITTE_SIM_STRICT=1` asks for more than is promised, so that the ways of a failure can be seen.

#[path = "../simulated/mod.rs"]
mod simulated;

mod node;
mod plan;
mod run;
mod shrinking;
mod sum;
mod watch;
mod workload;

use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use vitte_net_sim::{Report, Scenario, Shrunk, seeds, shrink};

use plan::Plan;
use run::{Bad, Done, Mode, run};
use sum::Sum;

const SEEDS: u64 = 20;
/// One seed of so many runs twice: its digests must be equal.
const REPLAY_EVERY: u64 = 20;
/// A sweep of so many seeds draws everything that can be drawn.
const LONG: u64 = 500;

#[test]
fn sweep() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    let first = number("VITTE_SIM_FIRST").unwrap_or(0);
    let count = number("VITTE_SIM_SEEDS").unwrap_or(SEEDS);
    let seeds = seeds(first..first + count);
    let scenario = Scenario::from_env();
    let mode = Mode::from_env();
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
                    one(*seed, scenario.as_ref(), mode, &sum);
                }
            });
        }
    });
    if let (Some(path), Some(seed)) = (std::env::var_os("VITTE_SIM_TIMELINE"), seeds.first()) {
        picture(*seed, scenario.as_ref(), mode, Path::new(&path));
    }
    let sum = sum.into_inner().expect("no panic");
    println!("{sum}");
    assert!(sum.runs > 0, "no seed ran");
    assert!(sum.failed.is_empty(), "{} of {} seeds failed: {:?}", sum.failed.len(), sum.runs, sum.failed);
    let missing = sum.missing();
    assert!(sum.runs < LONG || scenario.is_some() || missing.is_empty(), "never drawn: {missing:?}");
}

fn one(seed: u64, scenario: Option<&Scenario>, mode: Mode, sum: &Mutex<Sum>) {
    let scenario = scenario.cloned().unwrap_or_else(|| Plan::of(seed).scenario);
    let mut result = run(seed, &scenario, mode);
    let replays = seed.is_multiple_of(REPLAY_EVERY) && result.is_ok();
    if replays {
        result = result.and_then(|done| same_again(done, run(seed, &scenario, mode)));
    }
    let mut sum = sum.lock().expect("no panic");
    sum.drew(seed, &scenario);
    match result {
        Ok(done) => {
            sum.replayed += u64::from(replays);
            sum.add(done);
        }
        Err(bad) => {
            sum.failed.push(seed);
            drop(sum);
            println!("{}", tell(seed, &scenario, mode, &bad));
        }
    }
}

/// The same seed gives the same run.
fn same_again(first: Done, second: Result<Done, Box<Bad>>) -> Result<Done, Box<Bad>> {
    let second = second?;
    let digests = [&first, &second].map(|done| (done.report.digest.clone(), done.report.events, done.tally));
    if digests[0] == digests[1] {
        return Ok(first);
    }
    let violations = vec![format!("two runs of one seed differ: {digests:?}")];
    Err(Box::new(Bad { violations, report: first.report }))
}

fn tell(seed: u64, scenario: &Scenario, mode: Mode, bad: &Bad) -> String {
    let Bad { violations, report } = bad;
    let mut lines = vec![format!(
        "seed {seed}: {} violations after {:?} of virtual time",
        violations.len(),
        report.elapsed
    )];
    lines.extend(violations.iter().take(10).map(|violation| format!("  {violation}")));
    lines.push(format!("  faults: {}", scenario.to_json()));
    lines.push(format!("  {:?}", Plan::of(seed).config));
    lines.push(format!("  replay: {}", replay_line(seed, scenario, mode)));
    let smaller = shrink(scenario.clone(), |scenario| run(seed, scenario, mode).map(|_| ()));
    if let Some(Shrunk { scenario, error, runs, .. }) = smaller {
        let (count, violation) = (scenario.faults.len(), &error.violations[0]);
        lines.push(format!("  {count} faults are enough, found in {runs} runs: {violation}"));
        lines.push(format!("  replay: {}", replay_line(seed, &scenario, mode)));
    }
    lines.join("\n")
}

fn replay_line(seed: u64, scenario: &Scenario, mode: Mode) -> String {
    let profile = if cfg!(debug_assertions) { "" } else { " --release" };
    let strict = if mode.strict { "VITTE_SIM_STRICT=1 " } else { "" };
    let list = scenario.to_line();
    format!(
        "{strict}VITTE_SIM_SEED={seed} VITTE_SIM_SCENARIO='{list}' \
         cargo test{profile} -p vitte-net --test sweep -- --exact sweep --nocapture"
    )
}

/// Runs a seed once more, and draws what happened.
fn picture(seed: u64, scenario: Option<&Scenario>, mode: Mode, path: &Path) {
    let scenario = scenario.cloned().unwrap_or_else(|| Plan::of(seed).scenario);
    let _watching = tracing::subscriber::set_default(watch::Watcher::new());
    let report: Report = match run(seed, &scenario, Mode { traced: true, ..mode }) {
        Ok(done) => done.report,
        Err(bad) => bad.report,
    };
    let millis = |text: &str| Duration::from_millis(text.parse().expect("milliseconds"));
    let (from, to) = match std::env::var("VITTE_SIM_TIMELINE_MS") {
        Ok(part) => part.split_once('-').map(|(from, to)| (millis(from), millis(to))).expect("FROM-TO"),
        Err(_) => (Duration::ZERO, report.elapsed.min(plan::SPAN + plan::TALK_WITHIN)),
    };
    let page = report.timeline().between(from, to).to_html();
    std::fs::write(path, page).expect("the picture can be written");
    println!("the picture of seed {seed} is in {}", path.display());
}
