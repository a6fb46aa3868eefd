//! Parts of files, and whether a client has the file already (RFC 9110, sections 13 and 14).

use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderValue, Method, header};

/// What a file is at this moment.
#[derive(Clone, Debug)]
pub(super) struct Validators {
    /// A strong entity tag, with its quotes.
    pub(super) etag: HeaderValue,
    /// To the second, as HTTP has it.
    pub(super) modified: Option<SystemTime>,
}

/// What is to be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Whole,
    /// From the first to the last byte, both included.
    Part {
        first: u64,
        last: u64,
    },
    /// 304: the client has it.
    NotModified,
    /// 412: it is not what the client thinks.
    PreconditionFailed,
    /// 416: there is no such part.
    NoSuchPart,
}

/// Looks at the conditions of a request in the order of RFC 9110, section 13.2.2.
pub(super) fn answer(method: &Method, fields: &HeaderMap, now: &Validators, length: u64) -> Answer {
    let date = |name| {
        fields.get(name).and_then(|value| value.to_str().ok()).and_then(|v| httpdate::parse_http_date(v).ok())
    };
    if fields.contains_key(header::IF_MATCH) {
        if !names(fields, &header::IF_MATCH, &now.etag, false) {
            return Answer::PreconditionFailed;
        }
    } else if let (Some(since), Some(modified)) = (date(header::IF_UNMODIFIED_SINCE), now.modified)
        && modified > since
    {
        return Answer::PreconditionFailed;
    }
    if fields.contains_key(header::IF_NONE_MATCH) {
        if names(fields, &header::IF_NONE_MATCH, &now.etag, true) {
            return Answer::NotModified;
        }
    } else if let (Some(since), Some(modified)) = (date(header::IF_MODIFIED_SINCE), now.modified)
        && modified <= since
    {
        return Answer::NotModified;
    }
    if *method != Method::GET || !if_range(fields, now) {
        return Answer::Whole;
    }
    let mut ranges = fields.get_all(header::RANGE).iter();
    match (ranges.next(), ranges.next()) {
        (Some(range), None) => range.to_str().map_or(Answer::Whole, |range| part(range, length)),
        _ => Answer::Whole,
    }
}

/// Whether a list of entity tags names this one. The weak comparison forgives `W/`.
fn names(fields: &HeaderMap, list: &header::HeaderName, etag: &HeaderValue, weak: bool) -> bool {
    let own = etag.as_bytes();
    fields.get_all(list).iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b',')).any(|tag| {
        let tag = tag.trim_ascii();
        let tag = if weak { tag.strip_prefix(b"W/").unwrap_or(tag) } else { tag };
        tag == b"*" || tag == own
    })
}

/// Whether a part of this very file is of use to the client (RFC 9110, section 13.1.5).
fn if_range(fields: &HeaderMap, now: &Validators) -> bool {
    let Some(condition) = fields.get(header::IF_RANGE) else { return true };
    if condition.as_bytes().starts_with(b"\"") {
        return condition == now.etag;
    }
    let date = condition.to_str().ok().and_then(|text| httpdate::parse_http_date(text).ok());
    date.is_some() && date == now.modified
}

/// One range of bytes; several, or what is no range, is ignored: the whole is an answer, too.
fn part(range: &str, length: u64) -> Answer {
    let spec = range.strip_prefix("bytes=").filter(|spec| !spec.contains(','));
    let Some((first, last)) = spec.and_then(|spec| spec.split_once('-')) else { return Answer::Whole };
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        // More digits than a u64 has are beyond every file.
        digits.then(|| text.parse().unwrap_or(u64::MAX))
    };
    match (number(first), number(last)) {
        (Some(first), _) if last.is_empty() && first < length => Answer::Part { first, last: length - 1 },
        (Some(first), Some(last)) if first <= last && first < length => {
            Answer::Part { first, last: last.min(length - 1) }
        }
        (Some(first), Some(last)) if first > last => Answer::Whole,
        (Some(_), _) if last.is_empty() || number(last).is_some() => Answer::NoSuchPart,
        (None, Some(0)) if first.is_empty() => Answer::NoSuchPart,
        (None, Some(count)) if first.is_empty() => match length {
            0 => Answer::NoSuchPart,
            _ => Answer::Part { first: length - count.min(length), last: length - 1 },
        },
        _ => Answer::Whole,
    }
}

/// A time to the second.
pub(super) fn whole_second(time: SystemTime) -> SystemTime {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    SystemTime::UNIX_EPOCH + Duration::from_secs(since.as_secs())
}
