//! Sessions under arbitrary drivers. Even inputs drive two honest sides over links that hold back, overtake
//! each other, swallow and are cut; odd ones drive one side against a peer that says anything.
#![no_main]

mod honest;
mod hostile;
mod side;

use libfuzzer_sys::arbitrary::Unstructured;
use libfuzzer_sys::fuzz_target;
use vitte_net_proto::Config;

fuzz_target!(|data: &[u8]| {
    let Some((&mode, data)) = data.split_first() else { return };
    // What runs out of bytes ends the run; it is no error.
    let _ = match mode % 2 {
        0 => honest::run(&mut Unstructured::new(data)),
        _ => hostile::run(&mut Unstructured::new(data)),
    };
});

/// Limits so small that every one of them is met.
fn config() -> Config {
    let mut config = Config::default();
    config.max_message = 8 << 10;
    config.stream_window = 1 << 10;
    config.stream_window_max = 4 << 10;
    config.window_budget = 8 << 10;
    config.assembly_budget = 12 << 10;
    config.send_queue = 8 << 10;
    config.send_queue_messages = 8;
    config.max_streams = 4;
    config.max_links = 3;
    config.link_window = 4 << 10;
    config
}
