//! Byte streams: bytes without boundaries, in order, each once.

use super::{Ledger, pattern};

/// Bytes that name the flow at the head of its stream.
const NAME: usize = 8;

/// What a byte stream carried.
#[derive(Debug)]
pub(super) struct Run {
    label: String,
    to: String,
    written: u64,
    pub(super) read: u64,
    /// The writer was told that all was read.
    finished: bool,
    /// The reader came to a clean end.
    ended: bool,
    /// The writer gave up in the middle of a write.
    withdrawn: bool,
}

impl Run {
    pub(super) fn at_the_end(&self) -> Option<String> {
        let Self { label, written, read, finished, ended, withdrawn, .. } = self;
        if *finished && read != written {
            return Some(format!(
                "{label}: its writer was told that all was read, but {read} of {written} bytes were"
            ));
        }
        (*ended && read != written && !withdrawn)
            .then(|| format!("{label}: it ended in order after {read} of {written} bytes"))
    }
}

impl Ledger {
    /// Opens a page for one direction of a byte stream that leads to the node `to`.
    #[must_use]
    pub fn bytes(&self, label: impl Into<String>, to: impl Into<String>) -> ByteFlow {
        let mut book = self.book();
        let id = book.number();
        let (label, to) = (label.into(), to.into());
        let (written, read, finished, ended, withdrawn) = (0, 0, false, false, false);
        book.streams.insert(id, Run { label, to, written, read, finished, ended, withdrawn });
        ByteFlow { ledger: self.clone(), id, at: 0 }
    }

    /// The reader's side of a byte stream that the node `at` accepted.
    #[must_use]
    pub fn reader(&self, at: impl Into<String>) -> ByteReader {
        ByteReader { ledger: self.clone(), at: at.into(), head: Vec::new(), id: None, read: 0 }
    }
}

/// The writer's side of a byte stream.
#[derive(Debug)]
pub struct ByteFlow {
    ledger: Ledger,
    id: u64,
    at: u64,
}

impl ByteFlow {
    /// The next `len` bytes to write, in front of them eight bytes that name the stream if they are the first. Call
    /// [`wrote`](Self::wrote) with what the stream took of them.
    #[must_use]
    pub fn next(&self, len: usize) -> Vec<u8> {
        let name = self.id.to_le_bytes();
        let head = usize::try_from(self.at).ok().and_then(|at| name.get(at..)).unwrap_or_default();
        let start = self.at + head.len() as u64;
        head.iter().copied().chain((start..start + len as u64).map(|at| pattern(self.id, at))).collect()
    }

    /// The stream may have taken so many bytes more: call it before the write, since a write that is cancelled
    /// may have gone out.
    pub fn wrote(&mut self, count: usize) {
        self.at += count as u64;
        if let Some(run) = self.ledger.book().streams.get_mut(&self.id) {
            run.written = self.at;
        }
    }

    /// The writer gave up in the middle of a write: what the stream took is flushed, and may be less than was noted.
    pub fn withdraw(&self) {
        if let Some(run) = self.ledger.book().streams.get_mut(&self.id) {
            run.withdrawn = true;
        }
    }

    /// The writer was told that the reader has read everything.
    pub fn finished(&self) {
        if let Some(run) = self.ledger.book().streams.get_mut(&self.id) {
            run.finished = true;
        }
    }
}

/// The reader's side of a byte stream.
#[derive(Debug)]
pub struct ByteReader {
    ledger: Ledger,
    at: String,
    head: Vec<u8>,
    id: Option<u64>,
    read: u64,
}

impl ByteReader {
    /// These bytes were read.
    pub fn saw(&mut self, mut bytes: &[u8]) {
        let missing = (NAME - self.head.len()).min(bytes.len());
        self.head.extend_from_slice(&bytes[..missing]);
        bytes = &bytes[missing..];
        let mut book = self.ledger.book();
        if let (None, Ok(name)) = (self.id, <[u8; NAME]>::try_from(self.head.as_slice())) {
            let id = u64::from_le_bytes(name);
            match book.streams.get(&id) {
                None => return book.accuse(format!("{} reads a byte stream that nobody wrote", self.at)),
                Some(run) if run.to != self.at => {
                    let violation =
                        format!("{}: it is for {} and was read by {}", run.label, run.to, self.at);
                    book.accuse(violation);
                }
                Some(_) => {}
            }
            self.id = Some(id);
        }
        let start = self.read + missing as u64;
        self.read = start + bytes.len() as u64;
        let Some(id) = self.id else { return };
        let Some(run) = book.streams.get_mut(&id) else { return };
        run.read = run.read.max(self.read);
        let (label, written) = (run.label.clone(), run.written);
        if self.read > written {
            book.accuse(format!("{label}: {} bytes were read and {written} written", self.read));
        }
        if let Some((at, _)) = (start..).zip(bytes).find(|(at, byte)| **byte != pattern(id, *at)) {
            book.accuse(format!("{label}: byte {at} was changed, is missing or came twice"));
        }
    }

    /// The stream came to its end in order.
    pub fn ended(&self) {
        let Some(id) = self.id else { return };
        if let Some(run) = self.ledger.book().streams.get_mut(&id) {
            run.ended = true;
        }
    }
}
