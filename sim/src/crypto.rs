//! Cryptography whose randomness replays.
//!
//! [`seeded_provider()`] is ring's provider (cipher suites, signature verification, key loading) with two
//! parts replaced: `secure_random` is ChaCha20 from a seed, and the only key exchange is X25519 (RFC 7748)
//! with secrets from the same kind of generator. Ed25519 signatures are deterministic by themselves
//! (RFC 8032). A TLS or QUIC handshake made with it gives the same bytes in every run.
//!
//! **Never use it outside a simulation**: whoever knows the seed reads everything.

use std::fmt;
use std::sync::{Mutex, PoisonError};

use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use rustls::crypto::{
    ActiveKeyExchange, CryptoProvider, GetRandomFailed, SecureRandom, SharedSecret, SupportedKxGroup,
};
use rustls::{Error, NamedGroup, PeerMisbehaved};
use x25519_dalek::{PublicKey, StaticSecret};

/// A provider whose every random byte follows from `seed`.
///
/// rustls wants these parts `'static`, so each call leaks two small objects (under 1 KiB together) for the
/// rest of the process. A [`Node`](crate::Node) calls this at most once a life; 10,000 lives leak under 10 MB.
pub fn seeded_provider(seed: [u8; 32]) -> CryptoProvider {
    let mut root = ChaCha20Rng::from_seed(seed);
    let random: &'static Seeded = Box::leak(Box::new(Seeded::fork(&mut root)));
    let exchange: &'static SeededX25519 = Box::leak(Box::new(SeededX25519(Seeded::fork(&mut root))));
    CryptoProvider {
        kx_groups: vec![exchange],
        secure_random: random,
        ..rustls::crypto::ring::default_provider()
    }
}

/// A generator behind a lock.
struct Seeded(Mutex<ChaCha20Rng>);

impl Seeded {
    fn fork(root: &mut ChaCha20Rng) -> Self {
        Self(Mutex::new(ChaCha20Rng::from_rng(root)))
    }

    fn fill_bytes(&self, out: &mut [u8]) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).fill_bytes(out);
    }
}

impl fmt::Debug for Seeded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seeded")
    }
}

impl SecureRandom for Seeded {
    fn fill(&self, buf: &mut [u8]) -> Result<(), GetRandomFailed> {
        self.fill_bytes(buf);
        Ok(())
    }
}

/// X25519 with seeded secrets.
#[derive(Debug)]
struct SeededX25519(Seeded);

impl SupportedKxGroup for SeededX25519 {
    fn start(&self) -> Result<Box<dyn ActiveKeyExchange>, Error> {
        let mut secret = [0_u8; 32];
        self.0.fill_bytes(&mut secret);
        let secret = StaticSecret::from(secret);
        let public = PublicKey::from(&secret);
        Ok(Box::new(Exchange { secret, public }))
    }

    fn name(&self) -> NamedGroup {
        NamedGroup::X25519
    }
}

struct Exchange {
    secret: StaticSecret,
    public: PublicKey,
}

impl ActiveKeyExchange for Exchange {
    fn complete(self: Box<Self>, peer: &[u8]) -> Result<SharedSecret, Error> {
        let peer: [u8; 32] = peer.try_into().map_err(|_| PeerMisbehaved::InvalidKeyShare)?;
        let shared = self.secret.diffie_hellman(&PublicKey::from(peer));
        // RFC 8446, 7.4.2: the all-zero value means that the peer chose a point of small order.
        if !shared.was_contributory() {
            return Err(PeerMisbehaved::InvalidKeyShare.into());
        }
        Ok(SharedSecret::from(&shared.as_bytes()[..]))
    }

    fn pub_key(&self) -> &[u8] {
        self.public.as_bytes()
    }

    fn group(&self) -> NamedGroup {
        NamedGroup::X25519
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(seed: u8) -> (Vec<u8>, [u8; 16]) {
        let provider = seeded_provider([seed; 32]);
        let mut random = [0; 16];
        provider.secure_random.fill(&mut random).unwrap();
        (provider.kx_groups[0].start().unwrap().pub_key().to_vec(), random)
    }

    #[test]
    fn a_seed_fixes_keys_and_randoms() {
        assert_eq!(sample(1), sample(1));
        assert_ne!(sample(1), sample(2));
    }

    #[test]
    fn agrees_with_rings_x25519() {
        let seeded = seeded_provider([7; 32]).kx_groups[0].start().unwrap();
        let ring = rustls::crypto::ring::kx_group::X25519.start().unwrap();
        let (ours, theirs) = (seeded.pub_key().to_vec(), ring.pub_key().to_vec());
        let a = seeded.complete(&theirs).unwrap();
        let b = ring.complete(&ours).unwrap();
        assert_eq!(a.secret_bytes(), b.secret_bytes());
    }

    #[test]
    fn a_point_of_small_order_is_refused() {
        for share in [vec![0; 32], vec![9; 31]] {
            let seeded = seeded_provider([7; 32]).kx_groups[0].start().unwrap();
            assert!(seeded.complete(&share).is_err());
        }
    }
}
