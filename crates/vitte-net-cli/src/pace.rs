//! Spans of time on the command line.

use std::time::Duration;

/// Reads `200ms`, `1.5s`, `2m`, or a plain number of seconds, up to an hour.
pub(crate) fn parse(text: &str) -> Result<Duration, String> {
    let (number, unit) = text.split_at(text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len()));
    let scale = match unit {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" => 60.0,
        _ => return Err(String::from("a time is a number with ms, s or m: 200ms")),
    };
    let number: f64 = number.parse().map_err(|_| String::from("a time begins with a number: 200ms"))?;
    let seconds = number * scale;
    if (0.0..=3600.0).contains(&seconds) {
        Ok(Duration::from_secs_f64(seconds))
    } else {
        Err(String::from("a time is at most an hour, and not negative"))
    }
}

/// Like [`parse`], from 10 ms on: a wait that ends before it began is a mistake.
pub(crate) fn parse_timeout(text: &str) -> Result<Duration, String> {
    let span = parse(text)?;
    if span >= Duration::from_millis(10) { Ok(span) } else { Err(String::from("it is at least 10ms")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_with_and_without_a_unit() {
        for (text, millis) in [("200ms", 200), ("1.5s", 1500), ("2m", 120_000), ("1", 1000), ("0", 0)] {
            assert_eq!(parse(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "ms", "1h", "-1", "2e9", "nan", "inf", "61m"] {
            assert!(parse(text).is_err(), "{text}");
        }
        assert!(parse_timeout("9ms").is_err());
    }
}
