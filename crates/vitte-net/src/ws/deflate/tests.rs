use super::*;

fn pair(deflate: &Deflate) -> (Deflater, Inflater) {
    let client = offer(deflate);
    let (server, answer) = agree(deflate, [client.as_str()].into_iter()).unwrap();
    let client = check_answer(Some(deflate), [answer.as_str()].into_iter()).unwrap().unwrap();
    (Deflater::new(&client), Inflater::new(&server))
}

#[test]
fn messages_come_out_as_they_went_in() {
    for (takeover, window_bits, level) in [(true, 15, 1), (false, 15, 6), (true, 9, 9), (false, 12, 3)] {
        let deflate = Deflate {
            level,
            least: 1,
            context_takeover: takeover,
            peer_context_takeover: takeover,
            window_bits,
        };
        let (mut deflater, mut inflater) = pair(&deflate);
        let mut sizes = Vec::new();
        for len in [1, 2, 100, 65_536, 100_000, 300_000, 300_000] {
            let message: Vec<u8> = (0..len).map(|at: u32| (at / 7 % 97) as u8).collect();
            let compressed = deflater.deflate(&message).unwrap().to_vec();
            sizes.push(compressed.len());
            let mut back = Vec::new();
            for piece in compressed.chunks(1000) {
                inflater.inflate(piece, &mut back, message.len()).unwrap();
            }
            inflater.finish(&mut back, message.len()).unwrap();
            assert!(back == message, "{len} bytes, {window_bits} bits");
        }
        assert!(sizes[6] < 200_000, "{sizes:?}");
    }
    let (mut deflater, _) = pair(&Deflate::default());
    assert!(deflater.deflate(b"short").is_none());
}

#[test]
fn a_bomb_stops_at_the_limit() {
    let (mut deflater, mut inflater) = pair(&Deflate::default());
    let bomb = deflater.deflate(&vec![0; 50 << 20]).unwrap();
    assert!(bomb.len() < 1 << 20, "{}", bomb.len());
    let mut message = Vec::new();
    let error = inflater.inflate(bomb, &mut message, 1 << 20).unwrap_err();
    assert_eq!(error, Violation::MessageTooLarge { max: 1 << 20 });
    assert!(message.capacity() <= (1 << 20) + 1, "{}", message.capacity());
}

#[test]
fn what_deflate_does_not_make_is_refused() {
    let mut inflater = Inflater { takeover: true, state: None };
    let error = inflater.inflate(&[0xff; 20], &mut Vec::new(), 100).unwrap_err();
    assert_eq!(error, Violation::Deflate);
}

/// RFC 7692, section 7.2.3.4: a block that says it is the last, and one more message after it.
#[test]
fn a_last_block_is_not_the_last_message() {
    let mut inflater = Inflater { takeover: true, state: None };
    for _ in 0..2 {
        let mut message = Vec::new();
        inflater.inflate(&[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00], &mut message, 100).unwrap();
        inflater.finish(&mut message, 100).unwrap();
        assert_eq!(message, b"Hello");
    }
}

fn answer_to(offer: &str) -> Option<String> {
    agree(&Deflate::default(), [offer].into_iter()).map(|(_, answer)| answer)
}

#[test]
fn the_first_offer_that_can_be_kept_is_taken() {
    for (offered, answer) in [
        ("permessage-deflate", "permessage-deflate"),
        ("x-other, Permessage-Deflate; client_max_window_bits", "permessage-deflate"),
        ("permessage-deflate; client_max_window_bits=\"10\"", "permessage-deflate"),
        ("permessage-deflate; server_max_window_bits=10", "permessage-deflate; server_max_window_bits=10"),
        (
            "permessage-deflate; server_max_window_bits=8, permessage-deflate; server_no_context_takeover",
            "permessage-deflate; server_no_context_takeover",
        ),
        ("permessage-deflate; client_no_context_takeover", "permessage-deflate; client_no_context_takeover"),
    ] {
        assert_eq!(answer_to(offered).as_deref(), Some(answer), "{offered}");
    }
    for offered in [
        "",
        "x-webkit-deflate-frame",
        "permessage-deflate; unknown",
        "permessage-deflate; server_no_context_takeover; server_no_context_takeover",
        "permessage-deflate; server_no_context_takeover=1",
        "permessage-deflate; server_max_window_bits",
        "permessage-deflate; server_max_window_bits=8",
        "permessage-deflate; server_max_window_bits=16",
        "permessage-deflate; server_max_window_bits=+9",
        "permessage-deflate; server_max_window_bits=09",
        "permessage-deflate; client_max_window_bits=7",
    ] {
        assert_eq!(answer_to(offered), None, "{offered}");
    }
}

#[test]
fn an_answer_must_fit_the_offer() {
    let plain = Deflate::default();
    let check = |deflate: Option<&Deflate>, answer: &str| check_answer(deflate, [answer].into_iter());
    assert_eq!(check(None, ""), Ok(None));
    assert!(check(None, "permessage-deflate").is_err());
    for wrong in [
        "x-other",
        "permessage-deflate, permessage-deflate",
        "permessage-deflate; client_max_window_bits",
        "permessage-deflate; server_max_window_bits=20",
        "permessage-deflate; unknown=1",
    ] {
        assert!(check(Some(&plain), wrong).is_err(), "{wrong}");
    }
    let careful = Deflate { peer_context_takeover: false, ..Deflate::default() };
    assert!(check(Some(&careful), "permessage-deflate").is_err());
    let agreed = check(Some(&plain), "permessage-deflate; client_max_window_bits=8").unwrap().unwrap();
    assert!(Deflater::new(&agreed).deflate(&[0; 1000]).is_none(), "no such window: sent as it is");
}
