//! When a direction is finished, and who may say so.

use super::*;

/// Else a peer would make what it has not taken look as if it had.
#[test]
fn a_direction_is_finished_at_its_end_alone() {
    let finished = |stream, taken| Frame::Stop { stream, code: StreamCode::FINISHED, taken, reason: "" };
    let sent = || {
        let mut bare = Bare::linked();
        let stream = bare.opens();
        assert_eq!(bare.session.send(stream, message(1, 8), 1, None, false), Ok(()));
        bare.says();
        (bare, stream)
    };
    let (mut bare, stream) = sent();
    assert_eq!(bare.hears_frame(&finished(stream, 9)), Err(CloseCode::MALFORMED), "without a FIN");
    let (mut bare, stream) = sent();
    bare.session.finish(stream);
    bare.says();
    assert_eq!(bare.hears_frame(&finished(stream, 8)), Err(CloseCode::MALFORMED), "before the end");
    let (mut bare, stream) = sent();
    assert_eq!(bare.session.send(stream, message(2, 8), 2, None, false), Ok(()));
    bare.session.finish(stream);
    assert_eq!(bare.hears_frame(&finished(stream, 9)), Err(CloseCode::MALFORMED), "before what waits");
    assert_eq!((bare.session.counters().delivered, bare.session.counters().in_flight), (0, 2));
    let (mut bare, stream) = sent();
    bare.session.finish(stream);
    bare.says();
    assert_eq!(bare.hears_frame(&finished(stream, 9)), Ok(()));
    assert_eq!((bare.session.counters().delivered, bare.session.counters().in_flight), (1, 0));
}

#[test]
fn who_gives_up_does_not_say_that_it_has_finished() {
    let mut bare = Bare::linked();
    bare.accepts(0, StreamKind::Channel);
    bare.says();
    bare.session.stop(StreamId(0), StreamCode::FINISHED, "enough", bare.now);
    bare.session.reset(StreamId(0), StreamCode::FINISHED, "enough", bare.now);
    let said = bare.says();
    let dropped = format!("code: {:?}", StreamCode::DROPPED);
    assert!(said.len() == 2 && said.iter().all(|frame| frame.contains(&dropped)), "{said:?}");
}
