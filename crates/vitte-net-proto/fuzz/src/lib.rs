//! What the fuzz targets do with their bytes, as plain functions: `tests/fuzzed.rs` runs the committed corpus
//! and random inputs through the same functions, on any compiler.

pub mod frame;
pub mod handshake;
pub mod hostile;
mod input;
pub mod session;
mod side;
mod watch;

use vitte_net_proto::Config;

/// Limits so small that every one of them is met.
fn config() -> Config {
    let mut config = Config::default();
    config.max_message = 2 << 10;
    config.stream_window = 256;
    config.stream_window_max = 1 << 10;
    config.window_budget = 2 << 10;
    config.assembly_budget = 3 << 10;
    config.send_queue = 2 << 10;
    config.send_queue_messages = 8;
    config.max_streams = 4;
    config.max_links = 3;
    config.link_window = 1 << 10;
    config
}
