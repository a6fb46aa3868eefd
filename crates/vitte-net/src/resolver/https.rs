//! One POST over HTTP/1.1, as DNS over HTTPS needs it (RFC 8484). The room `http` stands above this one.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::error::Failure;
use crate::network::BoxStream;

/// Bytes of a head, and of a whole response: a message has 65,535 at most.
pub(super) const HEAD: usize = 8 * 1024;
const RESPONSE: u64 = 128 * 1024;

/// Posts a question and returns the body of the answer. The connection is for this one.
pub(super) async fn post(
    mut stream: BoxStream,
    host: &str,
    path: &str,
    query: &[u8],
) -> Result<Vec<u8>, Failure> {
    let host = authority(host);
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nAccept: application/dns-message\r\n\
         Content-Type: application/dns-message\r\nContent-Length: {}\r\n\r\n",
        query.len()
    );
    stream.write_all(&[head.as_bytes(), query].concat()).await?;
    stream.flush().await?;
    let mut response = Vec::new();
    let mut limited = (&mut stream).take(RESPONSE);
    loop {
        let read = limited.read_buf(&mut response).await;
        if let Some(body) = body(&response)? {
            return Ok(body);
        }
        if read? == 0 {
            return Err(wrong("it ended too early, or is too long"));
        }
    }
}

/// The host as a URL has it: an IPv6 address stands in brackets.
pub(super) fn authority(host: &str) -> String {
    if host.contains(':') { format!("[{host}]") } else { host.to_owned() }
}

/// Whether a `Content-Type` is that of a DNS message, with parameters or without.
pub(super) fn is_message(kind: &str) -> bool {
    kind.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/dns-message"))
}

pub(super) fn wrong(why: &str) -> Failure {
    Failure::Malformed(format!("the HTTP response: {why}"))
}

/// The body of a response that is complete. Its length must be stated: the end of the stream alone would not
/// tell a whole answer from a part of one.
fn body(response: &[u8]) -> Result<Option<Vec<u8>>, Failure> {
    let Some(end) = response.windows(4).take(HEAD).position(|end| end == b"\r\n\r\n") else {
        return if response.len() < HEAD { Ok(None) } else { Err(wrong("its head is too long")) };
    };
    let head = std::str::from_utf8(&response[..end]).map_err(|_| wrong("its head is no text"))?;
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.strip_prefix("HTTP/1.")).and_then(|line| line.get(2..5));
    if status != Some("200") {
        return Err(Failure::Refused(format!("HTTP status {}", status.unwrap_or("unknown"))));
    }
    let (mut length, mut chunked, mut message) = (None, false, false);
    for line in lines {
        let (name, value) = line.split_once(':').ok_or_else(|| wrong("a line of its head has no colon"))?;
        let value = value.trim();
        if name.eq_ignore_ascii_case("content-length") {
            let number = value.parse::<u16>().map_err(|_| wrong("its length is no number, or too large"))?;
            if length.replace(usize::from(number)).is_some() {
                return Err(wrong("it has two lengths"));
            }
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            chunked = value.eq_ignore_ascii_case("chunked");
            if !chunked {
                return Err(wrong("an encoding that nobody asked for"));
            }
        } else if name.eq_ignore_ascii_case("content-type") {
            message = is_message(value);
        }
    }
    if !message {
        return Err(wrong("it is no DNS message"));
    }
    let rest = &response[end + 4..];
    match (length, chunked) {
        (Some(length), false) => Ok(rest.get(..length).map(<[u8]>::to_vec)),
        (None, true) => dechunk(rest),
        _ => Err(wrong("its length is not stated, or twice")),
    }
}

/// Puts chunks together (RFC 9112, section 7.1); none while the last is not there.
fn dechunk(mut rest: &[u8]) -> Result<Option<Vec<u8>>, Failure> {
    let mut body = Vec::new();
    loop {
        let Some(end) = rest.windows(2).position(|end| end == b"\r\n") else { return Ok(None) };
        let line = std::str::from_utf8(&rest[..end]).map_err(|_| wrong("a chunk without a length"))?;
        let size = line.split(';').next().unwrap_or_default().trim();
        let size = usize::from_str_radix(size, 16).ok().filter(|size| *size <= usize::from(u16::MAX));
        let Some(size) = size else { return Err(wrong("a chunk without a length, or too long")) };
        rest = &rest[end + 2..];
        if size == 0 {
            return Ok(Some(body));
        }
        let Some(chunk) = rest.get(..size) else { return Ok(None) };
        let Some(after) = rest.get(size..size + 2) else { return Ok(None) };
        if after != b"\r\n" {
            return Err(wrong("a chunk that does not end"));
        }
        body.extend_from_slice(chunk);
        rest = &rest[size + 2..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::{Network, OsNetwork, TcpOptions};

    /// What becomes of a server's answer, which stays and says nothing more.
    async fn answered(answer: Vec<u8>) -> Result<Vec<u8>, Failure> {
        let options = TcpOptions::default();
        let listener = OsNetwork.listen_tcp("127.0.0.1:0".parse().unwrap(), &options).await.unwrap();
        let at = listener.local_addr().unwrap();
        let (asking, accepted) = tokio::join!(OsNetwork.connect_tcp(at, &options), listener.accept());
        let (mut server, _) = accepted.unwrap();
        let serving = async {
            // Who has heard enough hangs up.
            let _ = server.write_all(&answer).await;
            let _ = server.read_to_end(&mut Vec::new()).await;
        };
        tokio::join!(post(asking.unwrap(), "localhost", "/dns-query", b"question"), serving).0
    }

    #[tokio::test]
    async fn an_answer_by_https_has_its_bounds() {
        let kind = "Content-Type: application/dns-message\r\n";
        let head = |more: &str| format!("HTTP/1.1 200 OK\r\n{kind}{more}\r\n");
        let fill = |len| "a".repeat(len);
        let good = head("Content-Length: 3\r\n") + "abc";
        assert_eq!(answered(good.into_bytes()).await.unwrap(), b"abc");
        let chunks = "ffff\r\n".to_owned() + &fill(0xffff) + "\r\n";
        for (what, answer) in [
            ("a head", format!("HTTP/1.1 200 OK\r\nX: {}", fill(1 << 20))),
            ("a length", head("Content-Length: 65536\r\n")),
            ("a chunk", head("Transfer-Encoding: chunked\r\n") + "10000\r\n"),
            ("chunks", head("Transfer-Encoding: chunked\r\n") + &chunks.repeat(20)),
        ] {
            let answer =
                tokio::time::timeout(std::time::Duration::from_secs(20), answered(answer.into_bytes()));
            let error = answer.await.expect(what).expect_err(what);
            assert!(matches!(error, Failure::Malformed(_)), "{what}: {error:?}");
        }
    }
}
