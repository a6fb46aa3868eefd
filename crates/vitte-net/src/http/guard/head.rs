//! Heads of HTTP/1 messages, byte by byte: what has one meaning for everybody is let through, the rest has a
//! name and a status.

use http::{HeaderMap, header};

use super::{Fault, Framing};

/// Bytes of a request target, at most: 8 KiB. Longer ones are answered 414.
const TARGET_MAX: usize = 8 * 1024;
/// Digits of a `Content-Length`, at most: 18, which fit into 63 bits.
const LENGTH_DIGITS_MAX: usize = 18;

const LF_ALONE: Fault = bad("a line that ends in LF without CR");

const fn bad(what: &'static str) -> Fault {
    Fault { status: 400, what }
}

/// How far the search for the end of a head has come.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::http) struct Scan {
    /// Where the line that is being read begins.
    line: usize,
    /// Bytes that were looked at.
    seen: usize,
}

impl Scan {
    pub(in crate::http) fn is_fresh(&self) -> bool {
        self.seen == 0
    }

    /// The length of the section (a head or trailers) at the front of `bytes`, its empty line included, once
    /// it is all there.
    ///
    /// # Errors
    /// A line ends in a way that has two meanings, as soon as that is seen: nobody waits for the rest.
    pub(in crate::http) fn end(&mut self, bytes: &[u8]) -> Result<Option<usize>, Fault> {
        while let Some(at) = memchr::memchr(b'\n', &bytes[self.seen..]).map(|found| self.seen + found) {
            if at == self.line || bytes[at - 1] != b'\r' {
                return Err(LF_ALONE);
            }
            let empty = at == self.line + 1;
            self.line = at + 1;
            self.seen = self.line;
            if empty {
                return Ok(Some(self.line));
            }
        }
        self.seen = bytes.len();
        // A CR alone may still get its LF; one with something else behind it never will.
        let rest = &bytes[self.line..];
        if memchr::memchr(b'\r', rest).is_some_and(|at| at + 1 < rest.len()) {
            return Err(bad("a CR without LF"));
        }
        if memchr::memchr(0, rest).is_some() {
            return Err(bad("a NUL byte"));
        }
        Ok(None)
    }
}

/// What a request's head says about the bytes behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::http) struct RequestHead {
    pub(in crate::http) framing: Framing,
    /// The client asks for another protocol on this connection.
    pub(in crate::http) upgrade: bool,
}

/// What a response's head says about the bytes behind it, whatever the request was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::http) struct ResponseHead {
    pub(in crate::http) status: u16,
    /// None: until the connection ends.
    pub(in crate::http) framing: Option<Framing>,
}

/// The fields that decide where a message ends, and for whom it is.
#[derive(Debug, Default)]
struct Fields<'a> {
    count: usize,
    length: Option<&'a [u8]>,
    coding: Option<&'a [u8]>,
    host: Option<&'a [u8]>,
    expect: Option<&'a [u8]>,
    upgrade: bool,
    connection_upgrade: bool,
}

/// Why a head was not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::http) enum Unread {
    /// Its end is not there.
    Short,
    Fault(Fault),
}

impl From<Fault> for Unread {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl From<Unread> for Fault {
    fn from(unread: Unread) -> Self {
        match unread {
            Unread::Short => bad("a head without an end"),
            Unread::Fault(fault) => fault,
        }
    }
}

/// The last host that was found to be one: a client names the same again and again.
#[derive(Debug, Default)]
pub(in crate::http) struct Known(Vec<u8>);

impl Known {
    /// Bytes of a host that are kept, at most: more than a name and a port have.
    const MAX: usize = 300;

    fn is_authority(&mut self, text: &[u8]) -> bool {
        if self.0 == text && !text.is_empty() {
            return true;
        }
        let is = is_authority(text);
        if is && text.len() <= Self::MAX {
            self.0.clear();
            self.0.extend_from_slice(text);
        }
        is
    }
}

/// Reads the head of a request at the front of `bytes` (RFC 9112, section 3), and says how long it is.
///
/// # Errors
/// It has no or more than one meaning, is more than we take, or its end is missing.
pub(in crate::http) fn request(
    bytes: &[u8],
    fields_max: usize,
    known: &mut Known,
) -> Result<(usize, RequestHead), Unread> {
    let RequestLine { method, target, minor, end: begin } = request_line(bytes)?;
    let mut fields = Fields::default();
    let end = fields.read(bytes, begin, fields_max)?;
    let authority = authority_of(method, target)?;
    check_host(fields.host, authority, minor, known)?;
    if fields.expect.is_some_and(|expect| !expect.eq_ignore_ascii_case(b"100-continue")) {
        return Err(Fault { status: 417, what: "an expectation that nobody knows" }.into());
    }
    let framing = match (fields.coding, fields.length) {
        (Some(_), Some(_)) => return Err(bad("both Transfer-Encoding and Content-Length").into()),
        (Some(_), None) if minor == 0 => return Err(bad("Transfer-Encoding in HTTP/1.0").into()),
        (Some(coding), None) => chunked_alone(coding, 501)?,
        (None, Some(length)) => Framing::Length(content_length(length)?),
        (None, None) => Framing::Length(0),
    };
    Ok((end, RequestHead { framing, upgrade: minor == 1 && fields.upgrade && fields.connection_upgrade }))
}

struct RequestLine<'a> {
    /// A token.
    method: &'a [u8],
    /// Neither empty nor too long, and made of what a URL is made of.
    target: &'a [u8],
    minor: u8,
    /// Where the next line begins.
    end: usize,
}

fn request_line(bytes: &[u8]) -> Result<RequestLine<'_>, Unread> {
    // The most frequent form needs no search for the line's end.
    let method = &bytes[..run(bytes, TOKEN)];
    if let Some(behind) = bytes[method.len()..].strip_prefix(b" ")
        && let target = &behind[..run(behind, TARGET)]
        && behind[target.len()..].starts_with(b" HTTP/1.1\r\n")
        && !method.is_empty()
        && (1..=TARGET_MAX).contains(&target.len())
    {
        return Ok(RequestLine { method, target, minor: 1, end: method.len() + target.len() + 12 });
    }
    let (line, end) = first_line(bytes)?;
    let mut parts = line.split(|byte| *byte == b' ');
    let (Some(method), Some(target), Some(version), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(bad("a request line that is not a method, a target and a version").into());
    };
    let minor = minor_version(version)?;
    if method.is_empty() || run(method, TOKEN) < method.len() {
        return Err(bad("a method that is no token").into());
    }
    if target.len() > TARGET_MAX {
        return Err(Fault { status: 414, what: "a target of more than 8 KiB" }.into());
    }
    if target.is_empty() || run(target, TARGET) < target.len() {
        return Err(bad("a target that is no part of a URL").into());
    }
    Ok(RequestLine { method, target, minor, end })
}

/// Reads the head of a response (RFC 9112, section 4): `head` ends with its empty line.
///
/// # Errors
/// It has no or more than one meaning, or is more than we take.
pub(in crate::http) fn response(head: &[u8], fields_max: usize) -> Result<ResponseHead, Fault> {
    let (line, begin) = first_line(head)?;
    let (version, line) = line.split_at_checked(8).ok_or(bad("no status line"))?;
    let minor = minor_version(version)?;
    let (status, reason) = match line {
        [b' ', a @ b'1'..=b'5', b @ b'0'..=b'9', c @ b'0'..=b'9', reason @ ..] => {
            let digits = [*a, *b, *c].map(|digit| u16::from(digit - b'0'));
            (digits[0] * 100 + digits[1] * 10 + digits[2], reason)
        }
        _ => return Err(bad("a status that is not three digits from 100 to 599")),
    };
    match reason {
        [] => {}
        [b' ', reason @ ..] if is_text(reason) => {}
        _ => return Err(bad("a reason that is no text")),
    }
    let mut fields = Fields::default();
    fields.read(head, begin, fields_max)?;
    let framing = match (fields.coding, fields.length) {
        (Some(_), Some(_)) => return Err(bad("both Transfer-Encoding and Content-Length")),
        (Some(_), None) if minor == 0 => return Err(bad("Transfer-Encoding in HTTP/1.0")),
        (Some(coding), None) => Some(chunked_alone(coding, 400)?),
        (None, Some(length)) => Some(Framing::Length(content_length(length)?)),
        (None, None) => None,
    };
    if status < 200 && framing.is_some() {
        return Err(bad("an interim response that announces a body"));
    }
    Ok(ResponseHead { status, framing })
}

/// Reads trailers (RFC 9112, section 7.1.2): `section` ends with its empty line.
///
/// # Errors
/// A line is no field, or a field has no place in trailers (RFC 9110, section 6.5.1).
pub(in crate::http) fn trailers(section: &[u8], fields_max: usize) -> Result<(), Fault> {
    let mut fields = Fields::default();
    fields.read(section, 0, fields_max)?;
    if fields.length.is_some() || fields.coding.is_some() || fields.host.is_some() {
        return Err(bad("a trailer that would change the message"));
    }
    Ok(())
}

/// The length that the head of a message of HTTP/2 or HTTP/3 states.
///
/// # Errors
/// It states more than one, or has a field that belongs to one connection of HTTP/1.1 (RFC 9113, section 8.2.2;
/// RFC 9114, section 4.2).
pub(in crate::http) fn length(fields: &HeaderMap) -> Result<Option<u64>, Fault> {
    const OF_HTTP1: [&str; 5] =
        ["connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"];
    if OF_HTTP1.iter().any(|name| fields.contains_key(*name)) {
        return Err(bad("a field of HTTP/1.1 alone"));
    }
    if fields.get_all(header::TE).iter().any(|te| !te.as_bytes().eq_ignore_ascii_case(b"trailers")) {
        return Err(bad("a TE other than trailers"));
    }
    let mut lengths = fields.get_all(header::CONTENT_LENGTH).iter();
    match (lengths.next(), lengths.next()) {
        (Some(length), None) => content_length(length.as_bytes()).map(Some),
        (Some(_), Some(_)) => Err(bad("more than one Content-Length")),
        (None, _) => Ok(None),
    }
}

/// The line without its CR LF, and where the next one begins.
fn first_line(bytes: &[u8]) -> Result<(&[u8], usize), Unread> {
    let end = memchr::memchr(b'\n', bytes).ok_or(Unread::Short)?;
    let line = bytes[..end].strip_suffix(b"\r").ok_or(LF_ALONE)?;
    Ok((line, end + 1))
}

fn minor_version(version: &[u8]) -> Result<u8, Fault> {
    match version {
        b"HTTP/1.1" => Ok(1),
        b"HTTP/1.0" => Ok(0),
        [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
            if major.is_ascii_digit() && minor.is_ascii_digit() =>
        {
            Err(Fault { status: 505, what: "a version that is neither HTTP/1.1 nor HTTP/1.0" })
        }
        _ => Err(bad("no version of HTTP")),
    }
}

/// What is wrong with a line that does not begin with the name of a field and a colon.
#[cold]
fn no_name(bytes: &[u8]) -> Unread {
    match first_line(bytes) {
        Err(unread) => unread,
        Ok((line, _)) if memchr::memchr(b':', line).is_none() => bad("a field without a colon").into(),
        Ok(([b' ' | b'\t', ..], _)) => bad("a folded line").into(),
        Ok(_) => bad("a field name that is no token").into(),
    }
}

impl<'a> Fields<'a> {
    /// Reads all field lines up to the empty line (RFC 9112, section 5): where that ends.
    fn read(&mut self, bytes: &'a [u8], begin: usize, fields_max: usize) -> Result<usize, Unread> {
        let mut at = begin;
        loop {
            let line = &bytes[at..];
            let name = &line[..run(line, TOKEN)];
            match line[name.len()..] {
                [b':', ..] if !name.is_empty() => {}
                [b'\r', b'\n', ..] if name.is_empty() => return Ok(at + 2),
                [] => return Err(Unread::Short),
                [..] => return Err(no_name(line)),
            }
            self.count += 1;
            if self.count > fields_max {
                return Err(Fault { status: 431, what: "too many fields" }.into());
            }
            let begin = name.len() + 1;
            let end = text_end(line, begin);
            match line[end..] {
                [b'\r', b'\n', ..] => at += end + 2,
                [] | [b'\r'] => return Err(Unread::Short),
                [b'\n', ..] => return Err(LF_ALONE.into()),
                [..] => return Err(bad("a control character in a field").into()),
            }
            self.add(name, &line[begin..end])?;
        }
    }

    fn add(&mut self, name: &[u8], value: &'a [u8]) -> Result<(), Fault> {
        let is = |other: &[u8]| name.eq_ignore_ascii_case(other);
        let once = |slot: &mut Option<&'a [u8]>, what| match slot.replace(trim(value)) {
            None => Ok(()),
            Some(_) => Err(bad(what)),
        };
        match name.len() {
            4 if is(b"host") => once(&mut self.host, "more than one Host"),
            6 if is(b"expect") => once(&mut self.expect, "more than one Expect"),
            7 if is(b"upgrade") => {
                self.upgrade = true;
                Ok(())
            }
            10 if is(b"connection") => {
                let upgrade = |option: &[u8]| trim(option).eq_ignore_ascii_case(b"upgrade");
                self.connection_upgrade |= value.split(|byte| *byte == b',').any(upgrade);
                Ok(())
            }
            14 if is(b"content-length") => once(&mut self.length, "more than one Content-Length"),
            17 if is(b"transfer-encoding") => once(&mut self.coding, "more than one Transfer-Encoding"),
            _ => Ok(()),
        }
    }
}

/// The only transfer coding with one meaning for everybody.
fn chunked_alone(coding: &[u8], unknown: u16) -> Result<Framing, Fault> {
    if coding.eq_ignore_ascii_case(b"chunked") {
        return Ok(Framing::Chunked);
    }
    let chunked = |coding: &&[u8]| trim(coding).eq_ignore_ascii_case(b"chunked");
    let mut codings = coding.split(|byte| *byte == b',');
    let last = codings.next_back();
    if last.as_ref().is_some_and(chunked) && !codings.any(|coding| chunked(&coding)) {
        return Err(Fault { status: unknown, what: "a transfer coding other than chunked" });
    }
    Err(bad("a Transfer-Encoding that is not chunked"))
}

fn content_length(text: &[u8]) -> Result<u64, Fault> {
    if text.is_empty() || text.len() > LENGTH_DIGITS_MAX || !text.iter().all(u8::is_ascii_digit) {
        return Err(bad("a Content-Length that is no number"));
    }
    Ok(text.iter().fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0')))
}

/// The authority in a request target, where its form has one (RFC 9112, section 3.2).
fn authority_of<'a>(method: &[u8], target: &'a [u8]) -> Result<Option<&'a [u8]>, Fault> {
    if method == b"CONNECT" {
        return Err(Fault { status: 405, what: "CONNECT, but this is no proxy" });
    }
    if target[0] == b'/' {
        return Ok(None);
    }
    if target == b"*" {
        return if method == b"OPTIONS" { Ok(None) } else { Err(bad("a target of * without OPTIONS")) };
    }
    let start = if starts_with(target, b"http://") {
        7
    } else if starts_with(target, b"https://") {
        8
    } else {
        return Err(bad("a target that is neither a path nor a URL of http"));
    };
    let rest = &target[start..];
    let end = rest.iter().position(|byte| matches!(byte, b'/' | b'?')).unwrap_or(rest.len());
    Ok(Some(&rest[..end]))
}

/// Exactly one valid Host in HTTP/1.1, at most one in HTTP/1.0, and the same as in the target (RFC 9112,
/// section 3.2).
fn check_host(
    host: Option<&[u8]>,
    authority: Option<&[u8]>,
    minor: u8,
    known: &mut Known,
) -> Result<(), Fault> {
    if host.is_none() && minor == 1 {
        return Err(bad("no Host"));
    }
    for text in [host, authority].into_iter().flatten() {
        if !known.is_authority(text) {
            return Err(bad("a Host that is no host"));
        }
    }
    match (host, authority) {
        (Some(host), Some(authority)) if !host.eq_ignore_ascii_case(authority) => {
            Err(bad("a Host that is not the one of the target"))
        }
        _ => Ok(()),
    }
}

/// A host and perhaps a port (RFC 3986, sections 3.2.2 and 3.2.3): not empty, no user, and none of the characters
/// that the grammar allows and no name has.
pub(in crate::http) fn is_authority(text: &[u8]) -> bool {
    let port = match text {
        [b'[', rest @ ..] => {
            let Some(end) = memchr::memchr(b']', rest) else { return false };
            let address = std::str::from_utf8(&rest[..end]).unwrap_or_default();
            if address.parse::<std::net::Ipv6Addr>().is_err() {
                return false;
            }
            &rest[end + 1..]
        }
        _ => {
            let len = run(text, HOST);
            if len == 0 {
                return false;
            }
            &text[len..]
        }
    };
    match port {
        [] => true,
        [b':', digits @ ..] => {
            digits.len() <= 5
                && digits.iter().all(u8::is_ascii_digit)
                && digits.iter().fold(0, |sum, digit| sum * 10 + u32::from(digit - b'0')) <= 65_535
        }
        _ => false,
    }
}

fn starts_with(text: &[u8], prefix: &[u8]) -> bool {
    text.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
}

fn trim(mut text: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = text {
        text = rest;
    }
    text
}

/// A reason phrase or a field value: text, blanks and bytes above ASCII (RFC 9110, section 5.5).
fn is_text(value: &[u8]) -> bool {
    text_end(value, 0) == value.len()
}

/// Where text that begins at `at` ends: at a control character, or with the bytes. Eight bytes are looked at in one
/// step.
fn text_end(bytes: &[u8], mut at: usize) -> usize {
    const fn each(byte: u8) -> u64 {
        u64::from_ne_bytes([byte; 8])
    }
    /// The top bit of each byte that is less than `than`, which is at most 128. What is above the lowest one found
    /// may be wrong.
    const fn less(word: u64, than: u8) -> u64 {
        word.wrapping_sub(each(than)) & !word & each(0x80)
    }
    loop {
        while let Some(eight) = bytes.get(at..).and_then(<[u8]>::first_chunk::<8>) {
            let word = u64::from_le_bytes(*eight);
            let found = less(word, b' ') | less(word ^ each(0x7f), 1);
            at += found.trailing_zeros() as usize / 8;
            if found != 0 {
                break;
            }
        }
        while bytes.get(at).is_some_and(|byte| *byte >= b' ' && *byte != 0x7f) {
            at += 1;
        }
        if bytes.get(at) != Some(&b'\t') {
            return at;
        }
        at += 1;
    }
}

/// A character of a token (RFC 9110, section 5.6.2).
const TOKEN: u8 = 1;
/// A character of a name of a host.
const HOST: u8 = 2;
/// A character of a request target: of a URL without a fragment.
const TARGET: u8 = 4;

/// What a byte is.
const KINDS: [u8; 256] = {
    let mut kinds = [0; 256];
    let mut byte = 0;
    while byte < 128u8 {
        let both = byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~');
        let token =
            matches!(byte, b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'^' | b'`' | b'|');
        if both {
            kinds[byte as usize] |= TOKEN | HOST;
        }
        if token {
            kinds[byte as usize] |= TOKEN;
        }
        if byte > b' ' && byte < 0x7f && byte != b'#' {
            kinds[byte as usize] |= TARGET;
        }
        byte += 1;
    }
    kinds
};

/// How many bytes from the first on are of this kind.
fn run(bytes: &[u8], kind: u8) -> usize {
    bytes.iter().position(|byte| KINDS[usize::from(*byte)] & kind == 0).unwrap_or(bytes.len())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn text_ends_at_its_first_control_character(
            bytes in prop::collection::vec(prop_oneof![8 => 0x20..=0xffu8, 1 => 0..=0xffu8], 0..64),
            at in 0..8usize,
        ) {
            let control = |byte: &u8| (*byte < 0x20 && *byte != b'\t') || *byte == 0x7f;
            let begin = at.min(bytes.len());
            let end = bytes[begin..].iter().position(control).map_or(bytes.len(), |len| begin + len);
            prop_assert_eq!(text_end(&bytes, begin), end);
        }

        #[test]
        fn a_host_is_judged_the_same_whatever_came_before(hosts in prop::collection::vec("[ab:/0-9]{0,4}", 1..20)) {
            let mut known = Known::default();
            for host in hosts {
                prop_assert_eq!(known.is_authority(host.as_bytes()), is_authority(host.as_bytes()), "{}", host);
            }
        }

        #[test]
        fn a_head_is_the_same_whatever_follows(value in "[ -~\t]{0,40}", behind in prop::collection::vec(0..=0xffu8, 0..20)) {
            let head = format!("GET / HTTP/1.1\r\nHost: a\r\nX-Text:{value}\r\nContent-Length: 7\r\n\r\n").into_bytes();
            let mut known = Known::default();
            let whole = (head.len(), RequestHead { framing: Framing::Length(7), upgrade: false });
            for len in 0..head.len() {
                prop_assert_eq!(request(&head[..len], 3, &mut known), Err(Unread::Short));
            }
            prop_assert_eq!(request(&[head, behind].concat(), 3, &mut known), Ok(whole));
        }
    }
}
