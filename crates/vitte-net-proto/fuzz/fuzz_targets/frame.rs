//! Arbitrary bytes as frames: what is read is the same when it is written again, however it was cut.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vitte_net_proto::Violation;
use vitte_net_proto::frame::{DATA_MAX, Decoded, Deframer, Frame, read_frame};

fuzz_target!(|data: &[u8]| {
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
    assert_eq!((whole_end, whole), (cut_end, cut));
});

fn collect(deframer: &mut Deframer, run: &[u8], out: &mut Vec<String>) -> Result<(), Violation> {
    deframer
        .push(run, &mut |frame| {
            write_again(&frame);
            out.push(format!("{frame:?}"));
            Ok(true)
        })
        .map(|rest| assert!(rest.is_empty()))
}

fn write_again(frame: &Frame<'_>) {
    let mut bytes = Vec::new();
    frame.put(&mut bytes);
    match read_frame(&bytes) {
        Ok(Decoded::Frame(again, len)) => {
            assert_eq!(len, bytes.len());
            // The entries of a RESUME are kept as they were written, and need not be the shortest.
            assert_eq!(&again, frame);
        }
        other => panic!("{frame:?} was written as {bytes:?}, which is {other:?}"),
    }
    for end in 0..bytes.len().min(64) {
        match read_frame(&bytes[..end]) {
            Ok(Decoded::Incomplete(need)) => assert!(need > end && need <= bytes.len()),
            other => panic!("{end} bytes of {frame:?} are {other:?}"),
        }
    }
}
