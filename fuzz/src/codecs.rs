//! Typed streams: every codec reads the same values however the bytes are cut, and holds no more than its
//! limit.

use std::collections::BTreeMap;
use std::fmt::Debug;

use bytes::{Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use vitte_net::Blob;
use vitte_net::stream::{Codec, ContentLength, JsonLines, LengthDelimited, Lines, Postcard};

const MAX: usize = 300;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Shape {
    Nothing,
    Bytes(Blob),
    Many { names: Vec<String>, numbers: BTreeMap<i64, Option<char>> },
    Pair(Box<Shape>, u128),
}

pub fn run(data: &[u8]) {
    let Some((&choice, rest)) = data.split_first() else { return };
    let Some((&step, bytes)) = rest.split_first() else { return };
    let step = usize::from(step) % 40 + 1;
    match choice % 5 {
        0 => check::<Bytes, _>(|| LengthDelimited::with_frame_max(MAX), bytes, step),
        1 => check::<String, _>(|| Lines::with_line_max(MAX), bytes, step),
        2 => check::<Bytes, _>(|| ContentLength::with_message_max(MAX), bytes, step),
        3 => check::<Shape, _>(|| Postcard::with_frame_max(MAX), bytes, step),
        _ => check::<BTreeMap<String, u32>, _>(|| JsonLines::with_line_max(MAX), bytes, step),
    }
}

fn check<T: Debug + PartialEq, C: Codec<T>>(codec: impl Fn() -> C, bytes: &[u8], step: usize) {
    let (whole, whole_ok) = read_all(&mut codec(), bytes, bytes.len().max(1));
    let (cut, cut_ok) = read_all(&mut codec(), bytes, step);
    assert_eq!((&whole, whole_ok), (&cut, cut_ok), "cuts matter");
    let mut written = BytesMut::new();
    let mut writer = codec();
    // Readers are more generous than writers: a line may have a carriage return in it.
    let writable: Vec<T> =
        whole.into_iter().filter(|value| writer.encode(value, &mut written).is_ok()).collect();
    let (again, ok) = read_all(&mut codec(), &written, step);
    assert_eq!((again, ok), (writable, true), "what was written is read");
}

/// The values up to the end or the first error, and whether there was none.
fn read_all<T, C: Codec<T>>(codec: &mut C, bytes: &[u8], step: usize) -> (Vec<T>, bool) {
    let mut values = Vec::new();
    let mut input = BytesMut::new();
    for run in bytes.chunks(step) {
        input.extend_from_slice(run);
        loop {
            match codec.decode(&mut input) {
                Ok(Some(value)) => values.push(value),
                Ok(None) => break,
                Err(_) => return (values, false),
            }
        }
        assert!(input.len() <= 8 * 1024 + MAX + step, "{} bytes wait for their end", input.len());
    }
    loop {
        match codec.decode_end(&mut input) {
            Ok(Some(value)) => values.push(value),
            Ok(None) => return (values, true),
            Err(_) => return (values, false),
        }
    }
}
