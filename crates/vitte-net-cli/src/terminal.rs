//! The only way to stdout and stderr. All text is escaped here, whoever it is from, so that no call can
//! forget it.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};
use std::sync::{Mutex, PoisonError};

use serde::Serialize;

/// Results, for people or for programs.
#[derive(Debug)]
pub(crate) struct Output {
    json: bool,
    shown: Mutex<Shown>,
}

impl Output {
    pub(crate) fn new(json: bool) -> Self {
        Self { json, shown: Mutex::default() }
    }

    /// Results are for programs.
    pub(crate) fn is_json(&self) -> bool {
        self.json
    }

    /// Writes bytes from elsewhere to stdout as they are; on a terminal, escaped, so that they only show.
    pub(crate) fn bytes(&self, bytes: &[u8]) -> io::Result<()> {
        let mut stdout = io::stdout().lock();
        if stdout.is_terminal() {
            let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
            stdout.write_all(shown.next(bytes).as_bytes())?;
        } else {
            stdout.write_all(bytes)?;
        }
        stdout.flush()
    }

    /// Writes a result to stdout: `lines` for people, `record` as one line of JSON for programs.
    pub(crate) fn tell(&self, lines: &[String], record: &impl Serialize) -> io::Result<()> {
        let mut text = String::new();
        if self.json {
            text.push_str(&escape_json(&serde_json::to_string(record)?));
            text.push('\n');
        } else {
            for line in lines {
                text.push_str(&escape(line));
                text.push('\n');
            }
        }
        let mut stdout = io::stdout().lock();
        stdout.write_all(text.as_bytes())?;
        stdout.flush()
    }
}

impl Drop for Output {
    /// Shows what never became whole. If that fails there is nobody left to tell.
    fn drop(&mut self) {
        let shown = self.shown.get_mut().unwrap_or_else(PoisonError::into_inner);
        let rest = escape(&String::from_utf8_lossy(&shown.rest));
        let _ = io::stdout().write_all(rest.as_bytes());
    }
}

/// Bytes from elsewhere as a terminal may have them, piece by piece. Ends of lines stay such, and so do tabs.
#[derive(Debug, Default)]
struct Shown {
    /// The begin of a character or of the end of a line, at most three bytes.
    rest: Vec<u8>,
}

impl Shown {
    fn next(&mut self, bytes: &[u8]) -> String {
        let mut all = std::mem::take(&mut self.rest);
        all.extend_from_slice(bytes);
        self.rest = all.split_off(all.len() - unfinished(&all));
        let lines = String::from_utf8_lossy(&all).replace("\r\n", "\n");
        let mut shown = String::with_capacity(lines.len());
        for c in lines.chars() {
            let harmless = matches!(c, '\n' | '\t') || !is_active(c);
            if harmless { shown.push(c) } else { shown.extend(c.escape_unicode()) }
        }
        shown
    }
}

/// How many bytes at the end may mean something else with those that follow.
fn unfinished(bytes: &[u8]) -> usize {
    if bytes.ends_with(b"\r") {
        return 1;
    }
    let tail = &bytes[bytes.len().saturating_sub(4)..];
    let last = tail.utf8_chunks().last().map_or(&b""[..], |chunk| chunk.invalid());
    let begun = std::str::from_utf8(last).is_err_and(|error| error.error_len().is_none());
    if begun { last.len() } else { 0 }
}

/// Writes a line to stderr. If that fails there is nobody left to tell.
pub(crate) fn complain(line: &str) {
    let _ = writeln!(io::stderr(), "{}", escape(line));
}

/// Whether somebody looks at stderr, to whom a moving line says something.
pub(crate) fn shows_progress() -> bool {
    io::stderr().is_terminal()
}

/// Writes a line over the last one on stderr, or clears it.
pub(crate) fn progress(line: &str) {
    let _ = write!(io::stderr(), "\r\x1b[K{}", escape(line));
}

/// Characters that do something to a terminal, or to the order in which it shows others: the control
/// characters of ASCII and of Latin 1, line and paragraph separators, and the marks of direction.
fn is_active(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// The text with `\u{1b}` in place of what is active.
pub(crate) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if is_active(c) { escaped.extend(c.escape_unicode()) } else { escaped.push(c) }
    }
    escaped
}

/// JSON with `\u001b` in place of what is active. In JSON without white space such characters stand inside
/// strings alone, and there the escape means the same.
fn escape_json(json: &str) -> String {
    let mut escaped = String::with_capacity(json.len());
    for c in json.chars() {
        if !is_active(c) {
            escaped.push(c);
            continue;
        }
        for unit in c.encode_utf16(&mut [0; 2]) {
            // Writing to a string does not fail.
            let _ = write!(escaped, "\\u{unit:04x}");
        }
    }
    escaped
}

/// A writer that escapes everything but line feeds.
#[derive(Debug)]
pub(crate) struct Escaping<W>(pub(crate) W);

impl<W: Write> Write for Escaping<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(bytes);
        let lines: Vec<String> = text.split('\n').map(escape).collect();
        self.0.write_all(lines.join("\n").as_bytes())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Clears the screen, sets the title, C1's CSI, reversed text, and a line of its own.
    const HOSTILE: &str = "a\u{1b}[2J\u{1b}]0;owned\u{7}\u{9b}31m\u{202e}b\nvnet: fine\r\u{7f}é";

    #[test]
    fn what_a_peer_says_cannot_command_a_terminal() {
        let escaped = escape(HOSTILE);
        assert!(!escaped.chars().any(is_active), "{escaped}");
        assert_eq!(escaped, r"a\u{1b}[2J\u{1b}]0;owned\u{7}\u{9b}31m\u{202e}b\u{a}vnet: fine\u{d}\u{7f}é");
    }

    #[test]
    fn it_does_not_matter_how_bytes_come() {
        let bytes = b"a\tb\r\n\xe4\xbd\xa0\xe5\xa5\xbd\x9b\xf0\x9f\r\xe2\x80\xaec\x1b";
        let whole = Shown::default().next(bytes);
        assert_eq!(whole, "a\tb\n\u{4f60}\u{597d}\u{fffd}\u{fffd}\\u{d}\\u{202e}c\\u{1b}");
        for at in 0..=bytes.len() {
            for then in at..=bytes.len() {
                let mut shown = Shown::default();
                let pieces = [&bytes[..at], &bytes[at..then], &bytes[then..]].map(|piece| shown.next(piece));
                assert_eq!(pieces.concat(), whole, "cut at {at} and {then}");
                assert!(shown.rest.is_empty());
            }
        }
        let mut shown = Shown::default();
        assert_eq!((shown.next(b"x\xf0\x9f\x98"), shown.rest.len()), ("x".to_owned(), 3));
    }

    #[test]
    fn json_is_escaped_and_means_the_same() {
        let json = serde_json::to_string(&[HOSTILE]).expect("a string can be written");
        let escaped = escape_json(&json);
        assert!(!escaped.chars().any(is_active), "{escaped}");
        let back: Vec<String> = serde_json::from_str(&escaped).expect("it is JSON still");
        assert_eq!(back, [HOSTILE]);
    }

    #[test]
    fn logs_keep_their_lines_and_nothing_else() {
        let mut log = Vec::new();
        Escaping(&mut log).write_all(b"WARN \x1b[2J\xff\nnext\n").expect("a vector takes all");
        assert_eq!(String::from_utf8_lossy(&log), "WARN \\u{1b}[2J\u{fffd}\nnext\n");
    }
}
