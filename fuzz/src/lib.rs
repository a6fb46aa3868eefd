//! What the fuzz targets do with their bytes, as plain functions: `tests/fuzzed.rs` runs the committed corpus
//! through the same functions, on any compiler.

pub mod codecs;
pub mod link;
pub mod scenario;
mod stream;
pub mod text;
pub mod websocket;
