//! One seed for everything: every other seed is derived from it under a label.

use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng;

/// The domain of the derivation; a new version changes every derived seed.
const CONTEXT: &str = "vitte-net-sim 2025 seed derivation v1";

/// 32 bytes that depend on `seed` and on every label, in their order.
pub(crate) fn derive(seed: u64, labels: &[&str]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key(CONTEXT);
    hasher.update(&seed.to_le_bytes());
    for label in labels {
        hasher.update(&(label.len() as u64).to_le_bytes());
        hasher.update(label.as_bytes());
    }
    *hasher.finalize().as_bytes()
}

/// A generator seeded with [`derive()`].
pub(crate) fn generator(seed: u64, labels: &[&str]) -> ChaCha20Rng {
    ChaCha20Rng::from_seed(derive(seed, labels))
}

/// The seeds a test runs with: `defaults`, or only the one that `VITTE_SIM_SEED` names.
///
/// Failures print the line that sets the variable, so that a test that takes its seeds from here is
/// replayed without being edited. A variable that is no number is ignored.
pub fn seeds(defaults: impl IntoIterator<Item = u64>) -> Vec<u64> {
    match std::env::var("VITTE_SIM_SEED").ok().and_then(|text| text.trim().parse().ok()) {
        Some(seed) => vec![seed],
        None => defaults.into_iter().collect(),
    }
}

/// A uniform number in `0.0..1.0`, from the upper 53 bits.
pub(crate) fn unit(bits: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "53 bits fit a double exactly")]
    let value = (bits >> 11) as f64;
    value / 9_007_199_254_740_992.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_do_not_run_together() {
        assert_ne!(derive(1, &["ab", "c"]), derive(1, &["a", "bc"]));
        assert_ne!(derive(1, &["a"]), derive(2, &["a"]));
        assert_eq!(derive(1, &["a"]), derive(1, &["a"]));
    }

    #[test]
    fn unit_stays_below_one() {
        assert_eq!(unit(0), 0.0);
        assert!(unit(u64::MAX) < 1.0);
    }
}
