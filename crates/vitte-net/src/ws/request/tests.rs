use super::*;

const GOOD: &str = "GET /chat?a=b HTTP/1.1\r\nHost: example.org:8080\r\nConnection: keep-alive, Upgrade\r\n\
                    Upgrade: WebSocket\r\nSec-WebSocket-Version: 13\r\n\
                    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

fn check(head: &str, origins: &Origins) -> Result<Agreement, Refusal> {
    let request = parse(format!("{head}\r\n").as_bytes())?;
    let protocols = ["v2".to_owned(), "v1".to_owned()];
    Terms { origins, protocols: &protocols, deflate: Some(&Deflate::default()) }.check_request(&request)
}

fn status(head: &str) -> u16 {
    check(head, &Origins::Any).map_or_else(|refusal| refusal.status(), |_| 101)
}

#[test]
fn a_good_request_gets_the_answer_of_the_rfc() {
    let offers = "Sec-WebSocket-Protocol: v1, v2\r\nSec-WebSocket-Extensions: permessage-deflate\r\n";
    let agreement = check(&format!("{GOOD}{offers}"), &Origins::Any).unwrap();
    let answer = String::from_utf8(agreement.answer()).unwrap();
    assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
    for field in [
        "sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n",
        "upgrade: websocket\r\n",
        "connection: Upgrade\r\n",
        "sec-websocket-protocol: v2\r\n",
        "sec-websocket-extensions: permessage-deflate\r\n",
    ] {
        assert!(answer.contains(field), "{field} in {answer}");
    }
    assert!(answer.ends_with("\r\n\r\n"));
    assert_eq!(agreement.protocol(), Some("v2"));
    let other = check(&format!("{GOOD}Sec-WebSocket-Protocol: V1\r\n"), &Origins::Any).unwrap();
    assert_eq!(other.protocol(), None, "names of subprotocols have a case");
    let request = parse(format!("{GOOD}\r\n").as_bytes()).unwrap();
    assert_eq!((request.path(), request.query()), ("/chat", Some("a=b")));
}

#[test]
fn what_is_wrong_has_its_status() {
    let without = |field: &str| {
        GOOD.split_inclusive("\r\n").filter(|line| !line.starts_with(field)).collect::<String>()
    };
    let with = |line: &str| format!("{GOOD}{line}\r\n");
    for (head, expected) in [
        (GOOD.to_owned(), 101),
        (GOOD.replacen("GET", "POST", 1), 405),
        (GOOD.replace("HTTP/1.1", "HTTP/1.0"), 505),
        (GOOD.replace("HTTP/1.1", "HTTP/3.7"), 400),
        (without("Upgrade"), 426),
        (without("Connection"), 426),
        (without("Host"), 400),
        (with("Host: other"), 400),
        (without("Sec-WebSocket-Version"), 426),
        (GOOD.replace(": 13", ": 8"), 426),
        (without("Sec-WebSocket-Key"), 400),
        (with("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="), 400),
        (GOOD.replace("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25jZR=="), 400),
        (GOOD.replace("dGhlIHNhbXBsZSBub25jZQ==", "c2hvcnQ="), 400),
        (with("Content-Length: 0"), 101),
        (with("Content-Length: 5"), 400),
        (with("Transfer-Encoding: chunked"), 400),
        (GOOD.replacen("\r\n", "\n", 1), 101),
        (GOOD.replacen("Host", "Ho st", 1), 400),
        (GOOD.replacen("GET /", "GET \x01/", 1), 400),
        (with("A: b\r\n".repeat(200).trim_end()), 400),
    ] {
        assert_eq!(status(&head), expected, "{head}");
    }
    let early_end = GOOD.replacen("Connection", "\nConnection", 1);
    assert_eq!(status(&early_end), 400, "an empty line without a carriage return ends no request");
    let version = check(&GOOD.replace(": 13", ": 8"), &Origins::Any).unwrap_err();
    assert!(version.answer().contains("Sec-WebSocket-Version: 13\r\n"), "{}", version.answer());
}

#[test]
fn pages_of_others_are_not_let_in() {
    let try_origin = |origins: &Origins, origin: &str| {
        check(&format!("{GOOD}Origin: {origin}\r\n"), origins).map_err(|refusal| refusal.status()).map(drop)
    };
    let same = Origins::SameHost;
    assert_eq!(try_origin(&same, "http://example.org:8080"), Ok(()));
    assert_eq!(try_origin(&same, "https://EXAMPLE.org:8080"), Ok(()));
    for other in ["http://example.org", "http://evil.org:8080", "null", "http://example.org:8080.evil.org"] {
        assert_eq!(try_origin(&same, other), Err(403), "{other}");
    }
    assert_eq!(try_origin(&same, "http://example.org:8080\r\nOrigin: http://evil.org"), Err(403));
    assert!(check(GOOD, &same).is_ok(), "no browser asks");

    let only = Origins::Only(vec!["https://app.example".to_owned(), "null".to_owned()]);
    for (origin, outcome) in [
        ("https://app.example", Ok(())),
        ("https://App.example:443", Ok(())),
        ("null", Ok(())),
        ("http://app.example", Err(403)),
        ("https://app.example:8443", Err(403)),
        ("https://app.example.evil.org", Err(403)),
        ("", Err(403)),
    ] {
        assert_eq!(try_origin(&only, origin), outcome, "{origin}");
    }
    assert!(check(GOOD, &only).is_ok());
    assert_eq!(try_origin(&Origins::Any, "https://evil.org"), Ok(()));
}
