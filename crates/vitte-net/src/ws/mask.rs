//! Masking (RFC 6455, section 5.3).

use std::fmt;
use std::sync::Arc;

use crate::network::Network;

/// Masking keys drawn at a time: 64 of 4 bytes each.
const DRAWN: usize = 64;

/// The masking keys of a client: random ones, as the network gives them, so that a run replays.
pub(super) struct Masks {
    network: Arc<dyn Network>,
    drawn: [[u8; 4]; DRAWN],
    left: usize,
}

impl Masks {
    pub(super) fn new(network: Arc<dyn Network>) -> Self {
        Self { network, drawn: [[0; 4]; DRAWN], left: 0 }
    }

    pub(super) fn next(&mut self) -> [u8; 4] {
        if self.left == 0 {
            self.network.fill_random(self.drawn.as_flattened_mut());
            self.left = DRAWN;
        }
        self.left -= 1;
        self.drawn[self.left]
    }
}

impl fmt::Debug for Masks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Masks").field("left", &self.left).finish_non_exhaustive()
    }
}

/// Masks or unmasks `bytes`, whose first is number `offset` of its frame.
pub(super) fn apply(bytes: &mut [u8], mut mask: [u8; 4], offset: usize) {
    mask.rotate_left(offset % 4);
    let [a, b, c, d] = mask;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (blocks, rest) = bytes.as_chunks_mut::<8>();
    for block in blocks {
        *block = (u64::from_ne_bytes(*block) ^ wide).to_ne_bytes();
    }
    for (byte, key) in rest.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= key;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn in_pieces_it_is_the_same_as_at_once() {
        let mask = [1, 2, 4, 128];
        let plain: Vec<u8> = (0..100).collect();
        let masked: Vec<u8> = plain.iter().enumerate().map(|(at, byte)| byte ^ mask[at % 4]).collect();
        for cut in 0..=plain.len() {
            let mut bytes = plain.clone();
            let (first, second) = bytes.split_at_mut(cut);
            apply(first, mask, 0);
            apply(second, mask, cut);
            assert_eq!(bytes, masked, "cut at {cut}");
        }
    }
}
