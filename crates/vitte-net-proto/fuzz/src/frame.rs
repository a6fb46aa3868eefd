//! Arbitrary bytes as frames: what is read is the same when it is written again, however it was cut.

use vitte_net_proto::Violation;
use vitte_net_proto::frame::{DATA_MAX, Decoded, Deframer, Frame, read_frame};

pub fn run(data: &[u8]) {
    let Some((&step, bytes)) = data.split_first() else { return };
    let mut whole = Vec::new();
    let whole_end = collect(&mut Deframer::default(), bytes, &mut whole);

    let mut cut = Vec::new();
    let mut deframer = Deframer::default();
    let mut cut_end = Ok(());
    for run in bytes.chunks(usize::from(step) % 37 + 1) {
        cut_end = collect(&mut deframer, run, &mut cut);
        assert!(deframer.buffered() <= DATA_MAX + 16);
        if cut_end.is_err() {
            break;
        }
    }
    assert!((whole_end, whole) == (cut_end, cut), "cuts matter");
}

/// Writes every frame again, and keeps what was written.
fn collect(deframer: &mut Deframer, run: &[u8], out: &mut Vec<u8>) -> Result<(), Violation> {
    deframer
        .push(run, &mut |frame| {
            write_again(&frame, out);
            Ok(true)
        })
        .map(|rest| assert!(rest.is_empty()))
}

fn write_again(frame: &Frame<'_>, out: &mut Vec<u8>) {
    let start = out.len();
    frame.put(out);
    let bytes = &out[start..];
    match read_frame(bytes) {
        Ok(Decoded::Frame(again, len)) => {
            assert_eq!(len, bytes.len());
            // The entries of a RESUME are kept as they were written, and need not be the shortest.
            assert_eq!(&again, frame);
        }
        other => panic!("{frame:?} was written as {bytes:?}, which is {other:?}"),
    }
    for end in [0, 1, 2, 3, bytes.len() / 2, bytes.len() - 1] {
        match read_frame(&bytes[..end.min(bytes.len() - 1)]) {
            Ok(Decoded::Incomplete(need)) => assert!(need > end.min(bytes.len() - 1) && need <= bytes.len()),
            other => panic!("{end} bytes of {frame:?} are {other:?}"),
        }
    }
}
