//! What a preprocessed source may not hold: a compiler still obeys assembler directives and pragmas in it, and
//! a worker reads no file for anybody.

use memchr::memmem;

/// Texts that make a compiler or an assembler read another file. Adjacent string literals and escapes can hide
/// them from this look, so it is a help against accidents; what a hostile client reaches is bounded by the
/// rights of the worker's account.
const READS_FILES: &[&str] = &[".incbin", ".include", "pch_preprocess", "GCC dependency"];

/// Whether a worker compiles `source`.
///
/// # Errors
///
/// Why not, in words for a person.
pub(crate) fn check(source: &[u8]) -> Result<(), String> {
    match READS_FILES.iter().find(|text| memmem::find(source, text.as_bytes()).is_some()) {
        Some(text) => Err(format!("{text} reads a file")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_reads_files_is_refused() {
        for text in [
            "asm(\".incbin \\\"/etc/passwd\\\"\");",
            "asm(\".include \\\"/etc/passwd\\\"\");",
            "#pragma GCC pch_preprocess \"x.gch\"",
            "#pragma GCC dependency \"/etc/passwd\"",
        ] {
            assert!(check(text.as_bytes()).is_err(), "{text:?}");
        }
    }

    #[test]
    fn ordinary_text_is_not() {
        assert_eq!(check(b"# 1 \"include/x.h\" 1 3\nconst char *s = \"#include <x>\";"), Ok(()));
    }
}
