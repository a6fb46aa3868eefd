use super::*;
use crate::ws::Deflate;

const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const GOOD: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                    Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n";

fn check(head: &str, options: &WsOptions) -> Result<Option<String>, ConnectError> {
    let head = Bytes::from(format!("{head}\r\n"));
    check_answer(&head, KEY, &["v1".to_owned()], options).map(|(protocol, _)| protocol)
}

#[test]
fn an_answer_must_be_what_the_rfc_says() {
    let plain = WsOptions::default();
    assert_eq!(check(GOOD, &plain).unwrap(), None);
    assert_eq!(
        check(&format!("{GOOD}Sec-WebSocket-Protocol: v1\r\n"), &plain).unwrap().as_deref(),
        Some("v1")
    );
    for wrong in [
        GOOD.replace("101 Switching Protocols", "101"),
        "SSH-2.0-OpenSSH_9.2\r\n".to_owned(),
        GOOD.replace("HTTP/1.1", "HTTP/1.0"),
        GOOD.replace("Upgrade: websocket\r\n", ""),
        GOOD.replace("Upgrade: websocket", "Upgrade: h2c"),
        GOOD.replace("Connection: Upgrade\r\n", ""),
        GOOD.replace("s3pP", "S3pP"),
        format!("{GOOD}Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"),
        format!("{GOOD}Sec-WebSocket-Protocol: v2\r\n"),
        format!("{GOOD}Sec-WebSocket-Protocol: v1, v1\r\n"),
        format!("{GOOD}Sec-WebSocket-Extensions: permessage-deflate\r\n"),
        format!("{GOOD}Sec-WebSocket-Extensions: x-unknown\r\n"),
        format!("{GOOD}A: {}\r\n", "b\r\nA: ".repeat(200)),
    ] {
        let outcome = check(&wrong, &plain);
        let is_short_reason = wrong.starts_with("HTTP/1.1 101\r\n");
        assert_eq!(outcome.is_ok(), is_short_reason, "{wrong}: {outcome:?}");
    }
    let asked = WsOptions { deflate: Some(Deflate::default()), ..WsOptions::default() };
    assert!(check(&format!("{GOOD}Sec-WebSocket-Extensions: permessage-deflate\r\n"), &asked).is_ok());
    assert!(check(&format!("{GOOD}Sec-WebSocket-Extensions: permessage-deflate; x\r\n"), &asked).is_err());
}

#[test]
fn a_refusal_says_which_and_where_to() {
    let moved = "HTTP/1.1 302 Found\r\nLocation: https://elsewhere/\x1b\r\n".replace('\x1b', "");
    let error = check(&moved, &WsOptions::default()).unwrap_err();
    assert!(
        matches!(&error, ConnectError::Refused { status: 302, location: Some(to) } if to == "https://elsewhere/")
    );
    assert_eq!(error.to_string(), "the server answered 302, see https://elsewhere/");
}

#[test]
fn a_request_that_smuggles_is_not_written() {
    let options = WsOptions::default();
    let write = |path: &str, protocols: &[&str], header: (&str, &str)| {
        let protocols: Vec<String> = protocols.iter().map(|name| (*name).to_owned()).collect();
        let headers = [(header.0.to_owned(), header.1.to_owned())];
        let request = Request {
            authority: "h",
            path,
            protocols: &protocols,
            headers: &headers,
            options: &options,
            key: KEY,
        };
        request.write().map(|bytes| String::from_utf8(bytes).unwrap())
    };
    let good = write("/a", &["v1", "v2"], ("Cookie", "a=b")).unwrap();
    assert!(good.contains("Sec-WebSocket-Protocol: v1, v2\r\nCookie: a=b\r\n\r\n"), "{good}");
    assert!(write("/a b", &[], ("A", "b")).is_err());
    assert!(write("/\r\nEvil: 1", &[], ("A", "b")).is_err());
    assert!(write("a", &[], ("A", "b")).is_err());
    assert!(write("/", &["a b"], ("A", "b")).is_err());
    assert!(write("/", &["a\r\n"], ("A", "b")).is_err());
    assert!(write("/", &[], ("A\r\nB", "b")).is_err());
    assert!(write("/", &[], ("A", "b\r\nC: d")).is_err());
    for own in ["Host", "sec-websocket-KEY", "Connection", "Sec-WebSocket-Extensions", "Transfer-Encoding"] {
        assert!(write("/", &[], (own, "x")).is_err(), "{own}");
    }
}
