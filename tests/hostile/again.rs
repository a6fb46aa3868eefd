//! A peer that is cut, and comes again at once.

use std::time::Duration;

use tokio::time::Instant;
use vitte_net::{CloseCode, Config};

use crate::peer::{HONEST, HOSTILE, Raw, VICTIM, echo, mesh, transports};

/// Links that are cut one after another.
const LIVES: u8 = 8;
/// What a peer gets in a row, and each second.
const GETS: (u32, u32) = (4, 10);

#[tokio::test]
async fn a_peer_that_is_cut_again_and_again_waits_at_the_door() {
    for scheme in ["quic", "tls", "ws", "wss"] {
        let config = Config::wan().readmit_burst(GETS.0).readmit_per_second(GETS.1);
        let victim = mesh(VICTIM, &[scheme], config).await;
        let address = victim.addresses().remove(0);
        let honest = mesh(HONEST, &[], Config::wan()).await;
        let honest = honest.connect(&address).await.expect("an honest peer");
        let dialler = transports(HOSTILE);
        let begun = Instant::now();
        for life in 1..=LIVES {
            let mut raw = Raw::greeted(&dialler, &address, life).await;
            // No frame has such a length.
            let _ = raw.say_bytes(&[0xff; 64]).await;
            if let Some((code, _)) = raw.last_word().await {
                assert_ne!(code, CloseCode::TOO_MANY, "{scheme}: it is cut for what it said");
            }
            echo(&honest).await;
        }
        // Every link but the first takes a place, and the first cut does.
        let least = Duration::from_secs(1) * (u32::from(LIVES) - GETS.0) / GETS.1;
        assert!(begun.elapsed() >= least, "{scheme}: {:?} for {LIVES} links", begun.elapsed());
    }
}
