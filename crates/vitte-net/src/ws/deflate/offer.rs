//! Offers of an extension and their answer (RFC 6455, section 9.1; RFC 7692, sections 5 and 7.1).

use super::{Agreed, Deflate, MAX_WINDOW, NO_WINDOW};

const NAME: &str = "permessage-deflate";
/// Offers of one request that are looked at, and parameters of one offer: 16. The rest is no offer.
const MOST: usize = 16;

/// One extension with its parameters.
#[derive(Debug, Default, PartialEq, Eq)]
struct Parameters {
    server_no_takeover: bool,
    client_no_takeover: bool,
    server_window: Option<u8>,
    /// `Some(None)`: named without a value.
    client_window: Option<Option<u8>>,
}

/// What a client asks for.
pub(in crate::ws) fn offer(deflate: &Deflate) -> String {
    let mut offer = format!("{NAME}; client_max_window_bits");
    if deflate.window_bits < MAX_WINDOW {
        offer.push_str(&format!("={}", window(deflate)));
    }
    if !deflate.context_takeover {
        offer.push_str("; client_no_context_takeover");
    }
    if !deflate.peer_context_takeover {
        offer.push_str("; server_no_context_takeover");
    }
    offer
}

/// What a server agrees to, of the offers in the values of `Sec-WebSocket-Extensions`: the first that it can
/// keep, with its answer.
pub(in crate::ws) fn agree<'a>(
    deflate: &Deflate,
    offers: impl Iterator<Item = &'a str>,
) -> Option<(Agreed, String)> {
    let offers = offers.flat_map(|value| split(value, ',')).take(MOST);
    let asked = offers.filter_map(|offer| parse(offer).filter(fits_a_server)).next()?;
    let mut answer = NAME.to_owned();
    let takeover = deflate.context_takeover && !asked.server_no_takeover;
    if !takeover {
        answer.push_str("; server_no_context_takeover");
    }
    let peer_takeover = deflate.peer_context_takeover && !asked.client_no_takeover;
    if !peer_takeover {
        answer.push_str("; client_no_context_takeover");
    }
    let window_bits = window(deflate).min(asked.server_window.unwrap_or(MAX_WINDOW));
    if asked.server_window.is_some() {
        answer.push_str(&format!("; server_max_window_bits={window_bits}"));
    }
    let Deflate { level, least, .. } = *deflate;
    Some((Agreed { level, least, takeover, window_bits, peer_takeover }, answer))
}

/// What a client has, by the server's answer to [`offer`]. An answer that does not fit it is an error, also
/// one that names an extension nobody offered.
pub(in crate::ws) fn check_answer<'a>(
    deflate: Option<&Deflate>,
    answer: impl Iterator<Item = &'a str>,
) -> Result<Option<Agreed>, &'static str> {
    let mut named = answer.flat_map(|value| split(value, ','));
    let Some(first) = named.next() else { return Ok(None) };
    let Some(deflate) = deflate else { return Err("an extension that nobody asked for") };
    if named.next().is_some() {
        return Err("more extensions than were asked for");
    }
    let told = parse(first).ok_or("an extension that was not asked for in this way")?;
    if !deflate.peer_context_takeover && !told.server_no_takeover {
        return Err("the server keeps its context, which it was asked not to");
    }
    let window_bits = match told.client_window {
        Some(None) => return Err("a window without its size"),
        Some(Some(bits)) => bits.min(window(deflate)),
        None => window(deflate),
    };
    Ok(Some(Agreed {
        level: deflate.level,
        least: deflate.least,
        takeover: deflate.context_takeover && !told.client_no_takeover,
        window_bits,
        peer_takeover: !told.server_no_takeover,
    }))
}

fn window(deflate: &Deflate) -> u8 {
    deflate.window_bits.clamp(NO_WINDOW + 1, MAX_WINDOW)
}

/// A window of 8 bits is what zlib cannot make; a client that insists goes without.
fn fits_a_server(asked: &Parameters) -> bool {
    asked.server_window != Some(NO_WINDOW)
}

/// Reads one offer. None if it is another extension, or has a parameter that is unknown, wrong or there twice
/// (RFC 7692, section 7).
fn parse(offer: &str) -> Option<Parameters> {
    let mut parts = split(offer, ';');
    if !parts.next()?.eq_ignore_ascii_case(NAME) {
        return None;
    }
    let mut found = Parameters::default();
    for (count, part) in parts.enumerate() {
        if count == MOST {
            return None;
        }
        let (name, value) = match part.split_once('=') {
            Some((name, value)) => (name.trim(), Some(unquoted(value.trim()))),
            None => (part, None),
        };
        match (name.to_ascii_lowercase().as_str(), value) {
            ("server_no_context_takeover", None) if !found.server_no_takeover => {
                found.server_no_takeover = true;
            }
            ("client_no_context_takeover", None) if !found.client_no_takeover => {
                found.client_no_takeover = true;
            }
            ("server_max_window_bits", Some(value)) if found.server_window.is_none() => {
                found.server_window = Some(bits(value)?);
            }
            ("client_max_window_bits", value) if found.client_window.is_none() => {
                found.client_window = Some(value.map(|value| bits(value).ok_or(())).transpose().ok()?);
            }
            _ => return None,
        }
    }
    Some(found)
}

/// From 8 to 15, with no zero before it (RFC 7692, section 7.1.2.1).
fn bits(value: &str) -> Option<u8> {
    let bits = value.parse().ok()?;
    let plain = value.bytes().all(|byte| byte.is_ascii_digit()) && !value.starts_with('0');
    (plain && (NO_WINDOW..=MAX_WINDOW).contains(&bits)).then_some(bits)
}

fn unquoted(value: &str) -> &str {
    value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(value)
}

/// The parts of a list, without white space around them; empty ones are none. A quoted separator is of no
/// use in what is known here, so it separates as well, and leaves parts that nobody knows.
fn split(list: &str, by: char) -> impl Iterator<Item = &str> {
    list.split(by).map(|part| part.trim_matches([' ', '\t'])).filter(|part| !part.is_empty())
}
