//! The vectors of `docs/vectors/`, which other implementations read too.

use std::time::Duration;

use serde_json::{Map, Value, json};
use vitte_net_proto::codec::{put_varint, read_varint};
use vitte_net_proto::frame::{Decoded, Deframer, Frame, Offsets, read_frame};
use vitte_net_proto::{
    CloseCode, Config, Counters, DeliveryClass, Handshake, Hello, Incarnation, Lane, Limits, LinkId,
    LinkKind, Moment, OpenInfo, PeerId, Priority, Proof, Session, Step, StreamCode, StreamId, StreamKind,
    Taken, Violation,
};

fn read(text: &str) -> Vec<Map<String, Value>> {
    serde_json::from_str(text).expect("the vectors are an array of objects")
}

/// Runs `check` on each vector; its name is shown with a failure.
fn each(text: &str, check: impl Fn(&Map<String, Value>)) {
    let vectors = read(text);
    assert!(!vectors.is_empty());
    for vector in &vectors {
        println!("{}", text_of(vector, "name"));
        check(vector);
    }
}

fn text_of<'v>(vector: &'v Map<String, Value>, key: &str) -> &'v str {
    vector[key].as_str().unwrap_or_else(|| panic!("{key} is a text in {vector:?}"))
}

/// Numbers above 2^53, which JSON does not carry everywhere, stand as texts.
fn number(value: &Value) -> u64 {
    let parsed = value.as_u64().or_else(|| value.as_str()?.parse().ok());
    parsed.unwrap_or_else(|| panic!("{value} is no number"))
}

fn stated(number: u64) -> Value {
    if number < 1 << 53 { json!(number) } else { json!(number.to_string()) }
}

fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text
        .chars()
        .map(|c| c.to_digit(16).and_then(|d| u8::try_from(d).ok()).unwrap_or_else(|| panic!("{text}")))
        .collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn array<const N: usize>(value: &Value) -> [u8; N] {
    unhex(value.as_str().unwrap_or_default()).try_into().unwrap_or_else(|_| panic!("{value}"))
}

fn with_offsets(mut fields: Value, offsets: &Offsets) -> Value {
    for (key, value) in [("taken", offsets.taken), ("received", offsets.received), ("limit", offsets.limit)] {
        fields[key] = stated(value);
    }
    fields
}

/// A frame as the vectors have it: names and values of the tables in `docs/WIRE.md`.
fn described(frame: &Frame<'_>) -> Value {
    match frame {
        Frame::Hello(hello) => json!({
            "type": "HELLO",
            "version_min": stated(hello.version_min),
            "version_max": stated(hello.version_max),
            "features": stated(hello.features),
            "incarnation": hex(&hello.incarnation.0),
            "generation": stated(hello.generation),
            "nonce": hex(&hello.nonce),
            "proof": u8::from(hello.proof == Proof::Secret),
            "max_message": stated(hello.limits.max_message),
            "stream_window": stated(hello.limits.stream_window),
            "max_streams": stated(hello.limits.max_streams),
        }),
        Frame::Welcome { proof } => json!({ "type": "WELCOME", "proof": hex(proof) }),
        Frame::Open { stream, open } => json!({
            "type": "OPEN",
            "stream": stated(stream.0),
            "kind": match open.kind {
                StreamKind::Channel => 0,
                StreamKind::Call => 1,
                StreamKind::Bytes => 2,
            },
            "priority": open.priority as u8,
            "class": open.class as u8,
            "deadline": stated(open.deadline_micros.map_or(0, |micros| micros + 1)),
            "schema_out": format!("{:016x}", open.schema_out),
            "schema_in": format!("{:016x}", open.schema_in),
            "name": open.name,
        }),
        Frame::Data { stream, offset, push, payload } => json!({
            "type": "DATA",
            "stream": stated(stream.0),
            "offset": stated(*offset),
            "push": push,
            "payload": hex(payload),
        }),
        Frame::Fin { stream, end } => {
            json!({ "type": "FIN", "stream": stated(stream.0), "end": stated(*end) })
        }
        Frame::Stop { stream, code, taken, reason } => json!({
            "type": "STOP",
            "stream": stated(stream.0),
            "code": stated(code.0),
            "taken": stated(*taken),
            "reason": reason,
        }),
        Frame::Reset { stream, code, reason } => {
            json!({ "type": "RESET", "stream": stated(stream.0), "code": stated(code.0), "reason": reason })
        }
        Frame::Retire { stream } => json!({ "type": "RETIRE", "stream": stated(stream.0) }),
        Frame::Offsets { stream, offsets } => {
            with_offsets(json!({ "type": "OFFSETS", "stream": stated(stream.0) }), offsets)
        }
        Frame::Latest { stream, count, delivered } => json!({
            "type": "LATEST",
            "stream": stated(stream.0),
            "count": stated(*count),
            "delivered": format!("{delivered:016x}"),
        }),
        Frame::Datagram { stream, number, payload } => json!({
            "type": "DATAGRAM",
            "stream": stated(stream.0),
            "number": stated(*number),
            "payload": hex(payload),
        }),
        Frame::MaxStreams { count } => json!({ "type": "MAX_STREAMS", "count": stated(*count) }),
        Frame::Ping { token } => json!({ "type": "PING", "token": stated(*token) }),
        Frame::Pong { token } => json!({ "type": "PONG", "token": stated(*token) }),
        Frame::Resume(resume) => {
            let entry = |(stream, offsets): (StreamId, Offsets)| {
                with_offsets(json!({ "stream": stated(stream.0) }), &offsets)
            };
            let entries: Vec<Value> = resume.entries().map(entry).collect();
            json!({ "type": "RESUME", "last": resume.last, "reply": resume.reply, "entries": entries })
        }
        Frame::Drain => json!({ "type": "DRAIN" }),
        Frame::Close { code, session, reason } => {
            json!({ "type": "CLOSE", "code": stated(code.0), "session": session, "reason": reason })
        }
    }
}

fn code_named(name: &str) -> CloseCode {
    match name {
        "MALFORMED" => CloseCode::MALFORMED,
        "FRAME_TOO_LARGE" => CloseCode::FRAME_TOO_LARGE,
        "UNKNOWN_FRAME" => CloseCode::UNKNOWN_FRAME,
        "VERSION" => CloseCode::VERSION,
        "NOT_TRUSTED" => CloseCode::NOT_TRUSTED,
        "FLOW_CONTROL" => CloseCode::FLOW_CONTROL,
        "STREAM_LIMIT" => CloseCode::STREAM_LIMIT,
        "WRONG_STATE" => CloseCode::WRONG_STATE,
        other => panic!("no code is named {other}"),
    }
}

fn expect_violation(violation: &Violation, vector: &Map<String, Value>) {
    let said = (violation.code, violation.reason);
    assert_eq!(said, (code_named(text_of(vector, "code")), text_of(vector, "reason")));
}

#[test]
fn varints() {
    each(include_str!("../../../docs/vectors/varints.json"), |vector| {
        let (bytes, value) = (unhex(text_of(vector, "bytes")), number(&vector["value"]));
        assert_eq!(read_varint(&bytes), Some((value, bytes.len())));
        let mut shortest = Vec::new();
        put_varint(&mut shortest, value);
        assert!(shortest == bytes || shortest.len() < bytes.len());
    });
}

#[test]
fn frames() {
    each(include_str!("../../../docs/vectors/frames.json"), |vector| {
        let bytes = unhex(text_of(vector, "bytes"));
        let Ok(Decoded::Frame(frame, len)) = read_frame(&bytes) else { panic!("no frame") };
        assert_eq!((len, described(&frame)), (bytes.len(), vector["frame"].clone()));
        let mut written = Vec::new();
        frame.put(&mut written);
        if vector.get("as_written_by_us") == Some(&Value::Bool(false)) {
            assert_ne!(written, bytes);
        } else {
            assert_eq!(hex(&written), hex(&bytes));
        }
        for end in 0..bytes.len() {
            assert!(
                matches!(read_frame(&bytes[..end]), Ok(Decoded::Incomplete(need)) if need <= bytes.len())
            );
        }
    });
}

#[test]
fn frames_to_skip() {
    each(include_str!("../../../docs/vectors/skipped.json"), |vector| {
        let bytes = unhex(text_of(vector, "bytes"));
        assert_eq!(read_frame(&bytes), Ok(Decoded::Skip(bytes.len())));
    });
}

#[test]
fn frames_to_refuse() {
    each(include_str!("../../../docs/vectors/refused.json"), |vector| {
        let bytes = unhex(text_of(vector, "bytes"));
        expect_violation(&read_frame(&bytes).expect_err("it is refused"), vector);
        let mut deframer = Deframer::default();
        let torn = bytes.chunks(1).try_for_each(|byte| deframer.push(byte, &mut |_| Ok(true)).map(|_| ()));
        expect_violation(&torn.expect_err("it is refused however it comes"), vector);
    });
}

fn hello(fields: &Value) -> Hello {
    Hello {
        version_min: number(&fields["version_min"]),
        version_max: number(&fields["version_max"]),
        features: number(&fields["features"]),
        incarnation: Incarnation(array(&fields["incarnation"])),
        generation: number(&fields["generation"]),
        nonce: array(&fields["nonce"]),
        proof: if fields["proof"] == 1 { Proof::Secret } else { Proof::Keys },
        limits: Limits {
            max_message: number(&fields["max_message"]),
            stream_window: number(&fields["stream_window"]),
            max_streams: number(&fields["max_streams"]),
        },
    }
}

fn steps(vector: &Map<String, Value>) -> impl Iterator<Item = &Map<String, Value>> {
    vector["steps"].as_array().expect("steps").iter().map(|step| step.as_object().expect("a step"))
}

#[test]
fn handshakes() {
    each(include_str!("../../../docs/vectors/handshakes.json"), |vector| {
        let mut handshake = None;
        for step in steps(vector) {
            let mut out = Vec::new();
            if let Some(run) = step.get("hears") {
                let handshake: &mut Handshake = handshake.as_mut().expect("the first step says HELLO");
                hear_greeting(handshake, &unhex(run.as_str().unwrap_or_default()), step);
            } else if let Some(proof) = step.get("welcome") {
                let handshake: &mut Handshake = handshake.as_mut().expect("the first step says HELLO");
                handshake.welcome(array(proof), &mut out);
            } else {
                handshake = Some(Handshake::new(&hello(&step["hello"]), &mut out));
            }
            assert_eq!(hex(&out), step.get("says").and_then(Value::as_str).unwrap_or_default());
        }
    });
}

fn hear_greeting(handshake: &mut Handshake, run: &[u8], step: &Map<String, Value>) {
    match (handshake.handle(run), text_of(step, "step")) {
        (Ok(Step::NeedBytes), "more") => {}
        (Ok(Step::Hello(heard)), "hello") => assert_eq!(heard, hello(&step["hello"])),
        (Ok(Step::Welcome { proof, rest }), "welcome") => {
            assert_eq!(
                (hex(&proof), hex(&rest).as_str()),
                (text_of(step, "proof").to_owned(), text_of(step, "rest"))
            );
        }
        (Ok(Step::Refused { code, reason }), "refused") => {
            assert_eq!((code, reason.as_str()), (code_named(text_of(step, "code")), text_of(step, "reason")));
        }
        (Err(violation), "violation") => expect_violation(&violation, step),
        (other, expected) => panic!("{other:?} is not {expected}"),
    }
}

/// A session under a transcript: its own streams are odd, its limits those of the HELLO in the vectors.
struct Played {
    session: Session,
    now: Moment,
    link: LinkId,
    tokens: u64,
}

impl Played {
    fn new() -> Self {
        let config = Config::default();
        let limits = Session::limits(&config);
        let session = Session::new(config, PeerId([2; 32]), PeerId([1; 32]), limits, Moment::ZERO);
        let mut played = Self { session, now: Moment::ZERO, link: LinkId(0), tokens: 0 };
        played.next_link();
        played
    }

    fn next_link(&mut self) {
        self.session.link_down(self.link, self.now);
        self.link = LinkId(self.link.0 + 1);
        let attached = self.session.attach(self.link, LinkKind { lanes: false, preference: 0 }, self.now);
        assert_eq!(attached, Ok(()));
    }

    /// What is said now, and what when no more company is waited for.
    fn says(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        for wait in [Duration::ZERO, Duration::from_millis(5)] {
            self.now = self.now + wait;
            self.session.handle_timeout(self.now);
            while self.session.poll_transmit(self.link, &mut |_| 16_384, &mut out, self.now).is_some() {}
        }
        without_pings(&out)
    }

    fn step(&mut self, step: &Map<String, Value>) {
        if let Some(run) = step.get("hears") {
            let bytes = unhex(run.as_str().unwrap_or_default());
            assert_eq!(frames_in(&bytes), step["frames"]);
            match self.session.handle_bytes(self.link, Lane::CONTROL, &bytes, self.now) {
                Ok(()) => assert!(!step.contains_key("code"), "it is refused"),
                Err(violation) => expect_violation(&violation, step),
            }
        } else if let Some(expected) = step.get("says") {
            let said = self.says();
            assert_eq!(frames_in(&said), step["frames"]);
            let expected: String =
                expected.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
            assert_eq!(hex(&said), expected);
        } else if let Some(expected) = step.get("counts") {
            let count = |name: &str| expected.get(name).map_or(0, number);
            let expected = Counters {
                offered: count("offered"),
                delivered: count("delivered"),
                refused: count("refused"),
                superseded: count("superseded"),
                unknown: count("unknown"),
                in_flight: count("in_flight"),
                ..Counters::default()
            };
            assert_eq!(self.session.counters(), expected);
        } else if let Some(count) = step.get("streams") {
            assert_eq!(self.session.stream_count() as u64, number(count));
        } else {
            self.act(text_of(step, "does"), step);
        }
        while self.session.poll_event().is_some() {}
    }

    fn act(&mut self, what: &str, step: &Map<String, Value>) {
        let stream =
            step.get("stream").filter(|stream| !stream.is_null()).map(|stream| StreamId(number(stream)));
        let payload = || step["payload"].as_str().map(unhex);
        match (what, stream) {
            ("link", None) => self.next_link(),
            ("open", expected) => {
                let info = OpenInfo {
                    kind: if step["kind"] == 1 { StreamKind::Call } else { StreamKind::Channel },
                    priority: Priority::Normal,
                    class: match step.get("class").map_or(0, number) {
                        0 => DeliveryClass::Reliable,
                        1 => DeliveryClass::Latest,
                        2 => DeliveryClass::Datagram,
                        other => panic!("no class has the number {other}"),
                    },
                    deadline: None,
                    schema_out: 1,
                    schema_in: 2,
                    name: text_of(step, "name").to_owned(),
                };
                assert_eq!(self.session.open(info).ok(), expected);
            }
            ("accept", Some(stream)) => self.session.accept(stream, self.now),
            ("refuse", Some(stream)) => {
                let code = StreamCode(number(&step["code"]));
                self.session.refuse(stream, code, text_of(step, "reason"), self.now);
            }
            ("send", Some(stream)) => {
                self.tokens += 1;
                let payload = payload().expect("something to send").into();
                assert_eq!(self.session.send(stream, payload, self.tokens, None, false), Ok(()));
            }
            ("take", Some(stream)) => {
                let expected = payload().map_or(Taken::End, |payload| Taken::Payload(payload.into()));
                assert_eq!(self.session.take(stream, usize::MAX, self.now), expected);
            }
            ("finish", Some(stream)) => self.session.finish(stream),
            ("release", Some(stream)) => self.session.release(stream, self.now),
            other => panic!("nobody does {other:?}"),
        }
    }
}

/// A PING may go at any time, and does when a link is new: the transcripts have none.
fn without_pings(mut bytes: &[u8]) -> Vec<u8> {
    let mut others = Vec::new();
    while let Ok(Decoded::Frame(frame, len)) = read_frame(bytes) {
        if !matches!(frame, Frame::Ping { .. }) {
            others.extend_from_slice(&bytes[..len]);
        }
        bytes = &bytes[len..];
    }
    others
}

fn frames_in(mut bytes: &[u8]) -> Value {
    let mut frames = Vec::new();
    while let Ok(Decoded::Frame(frame, len)) = read_frame(bytes) {
        frames.push(described(&frame));
        bytes = &bytes[len..];
    }
    assert!(bytes.is_empty());
    Value::Array(frames)
}

#[test]
fn sessions() {
    each(include_str!("../../../docs/vectors/sessions.json"), |vector| {
        let mut played = Played::new();
        steps(vector).for_each(|step| played.step(step));
    });
}
