//! What became of messages, for those who ask.

use std::task::Waker;

use vitte_net_proto::Outcome;

#[derive(Debug)]
pub(super) enum Receipt {
    Free,
    Pending(Option<Waker>),
    Dropped,
    Done(Outcome),
}

/// Outcomes that somebody may ask for: one slot for each message under way, used again and again.
#[derive(Debug, Default)]
pub(super) struct Receipts {
    slots: Vec<(u32, Receipt)>,
    free: Vec<u32>,
}

impl Receipts {
    pub(super) fn add(&mut self) -> u64 {
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push((0, Receipt::Free));
            u32::try_from(self.slots.len() - 1).unwrap_or(u32::MAX)
        });
        let slot = &mut self.slots[index as usize];
        slot.0 = slot.0.wrapping_add(1);
        slot.1 = Receipt::Pending(None);
        u64::from(slot.0) << 32 | (u64::from(index) + 1)
    }

    pub(super) fn slot(&mut self, token: u64) -> Option<(u32, &mut Receipt)> {
        let index = u32::try_from((token & 0xffff_ffff).checked_sub(1)?).ok()?;
        let slot = self.slots.get_mut(index as usize)?;
        (u64::from(slot.0) == token >> 32).then_some((index, &mut slot.1))
    }

    pub(super) fn settle(&mut self, token: u64, outcome: Outcome, wakes: &mut Vec<Waker>) {
        let Some((index, slot)) = self.slot(token) else { return };
        match std::mem::replace(slot, Receipt::Done(outcome)) {
            Receipt::Pending(waker) => wakes.extend(waker),
            Receipt::Dropped | Receipt::Free => {
                *slot = Receipt::Free;
                self.free.push(index);
            }
            Receipt::Done(_) => {}
        }
    }

    pub(super) fn drop_receipt(&mut self, token: u64) {
        let Some((index, slot)) = self.slot(token) else { return };
        match slot {
            Receipt::Pending(_) => *slot = Receipt::Dropped,
            Receipt::Done(_) => {
                *slot = Receipt::Free;
                self.free.push(index);
            }
            Receipt::Dropped | Receipt::Free => {}
        }
    }
}
