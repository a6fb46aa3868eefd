//! One receiving half, fed in any order.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use proptest::prelude::*;

use super::*;

const WINDOW: u64 = 4096;

fn half() -> ReceiveHalf {
    ReceiveHalf::new(Content::Bytes, 1 << 20, WINDOW)
}

/// The byte that every sender has at an offset.
fn byte(offset: u64) -> u8 {
    (offset * 7 + offset / 256).to_le_bytes()[0]
}

fn give(half: &mut ReceiveHalf, offset: u64, len: u64) -> Result<Progress, Violation> {
    let payload: Vec<u8> = (offset..offset + len).map(byte).collect();
    half.handle_data(offset, &payload, false, true)
}

fn assert_taken(half: &mut ReceiveHalf, len: u64) {
    let Taken::Payload(bytes) = half.take(usize::MAX) else { panic!("bytes are here") };
    assert!(bytes.iter().copied().eq((0..len).map(byte)), "{} bytes came back changed", bytes.len());
}

#[test]
fn runs_that_touch_are_one_gap() {
    let mut half = half();
    // Every second byte is a run of its own: sixteen of them may be.
    for run in 0..16 {
        assert_eq!(give(&mut half, 1 + run * 2, 1), Ok(Progress::default()));
    }
    let refused = give(&mut half, 40, 1);
    assert_eq!(refused.map_err(|violation| violation.code), Err(CloseCode::FLOW_CONTROL));
    // What touches a run is no new one, from behind, from before, between two.
    for (offset, len) in [(32, 1), (31, 3), (2, 1)] {
        assert_eq!(give(&mut half, offset, len), Ok(Progress::default()));
    }
    // Two have become one: there is room for another.
    assert_eq!(half.gaps.len(), 15);
    assert_eq!(give(&mut half, 40, 1), Ok(Progress::default()));
    assert_eq!(give(&mut half, 0, 41), Ok(Progress { readable: true }));
    assert!(half.gaps.is_empty());
    assert_taken(&mut half, 41);
}

#[test]
fn what_overlaps_is_held_once() {
    let mut half = half();
    for offset in (1..2000).rev() {
        assert_eq!(give(&mut half, offset, 100), Ok(Progress::default()));
    }
    assert_eq!((half.gaps.len(), half.held_bytes()), (1, 2098));
    assert!(half.gaps.values().all(|run| run.capacity() <= 2 * 2098 + 200), "more room than bytes");
    assert_eq!(give(&mut half, 0, 1), Ok(Progress { readable: true }));
    assert_taken(&mut half, 2099);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: crate::cases(400), failure_persistence: None, ..ProptestConfig::default() })]

    /// Against a model that remembers which bytes came.
    #[test]
    fn any_order_gives_the_same_bytes(runs in proptest::collection::vec((0_u64..600, 1_u64..60), 1..200)) {
        let mut half = half();
        let mut came = BTreeSet::new();
        for (offset, len) in runs {
            let received = half.offsets().received;
            match give(&mut half, offset, len) {
                Ok(_) => came.extend(offset..offset + len),
                Err(violation) => {
                    prop_assert_eq!(violation.code, CloseCode::FLOW_CONTROL);
                    prop_assert_eq!(half.gaps.len(), GAPS_MAX);
                    prop_assert!(offset > received);
                }
            }
            let contiguous = (0..660).take_while(|at| came.contains(at)).count() as u64;
            prop_assert_eq!(half.offsets().received, contiguous);
            prop_assert_eq!(half.held_bytes(), came.len() as u64);
            // The ends of a run are the ends of what came: the runs are as few as they can be.
            for (start, run) in &half.gaps {
                let end = *start + run.len() as u64;
                prop_assert!(!came.contains(&(*start - 1)) && !came.contains(&end));
            }
        }
        if half.offsets().received > 0 {
            let len = half.offsets().received;
            assert_taken(&mut half, len);
        }
    }
}
