//! UTF-8 that comes in pieces (RFC 6455, section 8.1).

use super::Violation;

/// The longest character has four bytes, so at most three wait for more.
const LONGEST: usize = 4;

/// Remembers the character that a piece ends in.
#[derive(Debug, Default)]
pub(super) struct Utf8 {
    begun: [u8; LONGEST],
    len: usize,
}

impl Utf8 {
    /// Checks the next piece. The first byte that cannot belong to a text is found, also in a character whose
    /// end has not come.
    pub(super) fn check(&mut self, mut piece: &[u8]) -> Result<(), Violation> {
        while self.len > 0 {
            let Some((first, rest)) = piece.split_first() else { return Ok(()) };
            self.begun[self.len] = *first;
            self.len += 1;
            piece = rest;
            match std::str::from_utf8(&self.begun[..self.len]) {
                Ok(_) => self.len = 0,
                Err(error) if error.error_len().is_none() && self.len < LONGEST => {}
                Err(_) => return Err(Violation::NotUtf8),
            }
        }
        match std::str::from_utf8(piece) {
            Ok(_) => Ok(()),
            Err(error) if error.error_len().is_none() => {
                let begun = &piece[error.valid_up_to()..];
                self.len = begun.len();
                self.begun[..self.len].copy_from_slice(begun);
                Ok(())
            }
            Err(_) => Err(Violation::NotUtf8),
        }
    }

    /// The text ends here: no character may be without its end.
    pub(super) fn finish(&self) -> Result<(), Violation> {
        if self.len == 0 { Ok(()) } else { Err(Violation::NotUtf8) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(pieces: &[&[u8]]) -> bool {
        let mut utf8 = Utf8::default();
        pieces.iter().all(|piece| utf8.check(piece).is_ok()) && utf8.finish().is_ok()
    }

    #[test]
    fn every_cut_of_good_text_is_good() {
        let text = "a\u{e9}\u{20ac}\u{10ffff}κόσμε\u{0}z".as_bytes();
        for first in 0..=text.len() {
            for second in first..=text.len() {
                assert!(check(&[&text[..first], &text[first..second], &text[second..]]));
            }
        }
        let bytes: Vec<&[u8]> = text.chunks(1).collect();
        assert!(check(&bytes));
        assert!(!check(&[&text[..2]]), "a character without its end");
    }

    #[test]
    fn the_first_wrong_byte_is_found_at_once() {
        for (good, wrong) in [
            (&[][..], 0x80),
            (&[], 0xc0),
            (&[], 0xc1),
            (&[], 0xf5),
            (&[0xe0], 0x9f),
            (&[0xed], 0xa0),
            (&[0xf0], 0x8f),
            (&[0xf4], 0x90),
            (&[0xce], 0x41),
            (&[0xe2, 0x82], 0xff),
        ] {
            let mut utf8 = Utf8::default();
            for byte in good {
                assert!(utf8.check(&[*byte]).is_ok(), "{good:x?}");
            }
            assert!(utf8.check(&[wrong]).is_err(), "{good:x?} {wrong:x}");
            let mut whole = good.to_vec();
            whole.push(wrong);
            assert!(Utf8::default().check(&whole).is_err(), "{whole:x?}");
        }
    }
}
