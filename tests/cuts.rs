//! Link cuts: a thousand messages each way arrive exactly once and in order, however often the link dies.
//!
//! Each transport runs with 50 seeds. For 500: `VITTE_SIM_SEEDS=500 cargo test --release --test cuts`.
//! A failure names its seed; `VITTE_SIM_SEED` runs that one alone.

mod simulated;
#[path = "simulated/transfer.rs"]
mod transfer;

use vitte_net::Transport;
use vitte_net_sim::seeds;

const SEEDS: u64 = 50;

#[test]
fn over_quic() {
    cuts(Transport::Quic);
}

#[test]
fn over_tls() {
    cuts(Transport::Tls);
}

#[test]
fn over_websocket() {
    cuts(Transport::Ws);
}

fn cuts(transport: Transport) {
    let count = match std::env::var("VITTE_SIM_SEEDS") {
        Ok(text) => text.parse().expect("VITTE_SIM_SEEDS is a number"),
        Err(_) => SEEDS,
    };
    let (mut runs, mut cuts, mut events, mut failures) = (0, 0, 0, Vec::new());
    for seed in seeds(0..count) {
        runs += 1;
        match transfer::run(seed, transport, simulated::builder) {
            Ok(done) => {
                assert!((1..=10).contains(&done.cuts), "seed {seed}: {} cuts", done.cuts);
                cuts += done.cuts;
                events += done.report.events;
            }
            Err(failure) => {
                println!("{failure}");
                failures.push(seed);
            }
        }
    }
    assert!(failures.is_empty(), "{transport}: {} of {runs} failed: seeds {failures:?}", failures.len());
    assert!(runs > 0, "no seed ran");
    println!(
        "{transport}: {runs} seeds, {cuts} cuts, {} messages each way, {events} events",
        transfer::MESSAGES
    );
}
