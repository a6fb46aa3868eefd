//! The bytes of an input, read as choices. What runs out of bytes ends the run.

use vitte_net_proto::frame::Offsets;

pub(super) struct Input<'a>(pub(super) &'a [u8]);

impl<'a> Input<'a> {
    pub(super) fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    pub(super) fn below(&mut self, count: usize) -> Option<usize> {
        self.byte().map(|byte| usize::from(byte) % count)
    }

    pub(super) fn flag(&mut self) -> Option<bool> {
        self.byte().map(|byte| byte % 2 == 1)
    }

    pub(super) fn of<T: Copy>(&mut self, choices: &[T]) -> Option<T> {
        self.below(choices.len()).map(|index| choices[index])
    }

    pub(super) fn bytes(&mut self, len: usize) -> &'a [u8] {
        let (head, tail) = self.0.split_at(len.min(self.0.len()));
        self.0 = tail;
        head
    }

    /// Mostly small, sometimes anything.
    pub(super) fn number(&mut self) -> Option<u64> {
        Some(match self.byte()? {
            small @ 0..=191 => u64::from(small % 64),
            192..=247 => self.bytes(2).iter().fold(0, |number, byte| number << 8 | u64::from(*byte)),
            _ => self.bytes(8).iter().fold(0, |number, byte| number << 8 | u64::from(*byte)),
        })
    }

    pub(super) fn offsets(&mut self) -> Option<Offsets> {
        let taken = self.number()?;
        let received = taken.saturating_add(self.number()?);
        Some(Offsets { taken, received, limit: received.saturating_add(self.number()?) })
    }
}
