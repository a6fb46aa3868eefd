//! Ports for programs that cannot be asked which one they got.

use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::process;
use std::sync::atomic::{AtomicU16, Ordering};

/// The ports below those that systems hand out for port 0 (from 32,768 on Linux, from 49,152 elsewhere): no test that
/// runs beside this one is given such a port, nor does a connection that has ended leave one in TIME-WAIT.
const RANGE: std::ops::Range<u16> = 10_000..32_000;

/// A port of the loopback address that nobody has, neither for TCP nor for UDP; the next call gives another one.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let width = RANGE.end - RANGE.start;
    for _ in 0..width {
        // Test programs that run at the same time begin at different places.
        let step = u32::from(NEXT.fetch_add(1, Ordering::Relaxed));
        let offset = process::id().wrapping_mul(101).wrapping_add(step) % u32::from(width);
        let port = RANGE.start + u16::try_from(offset).expect("less than the width");
        let at = (Ipv4Addr::LOCALHOST, port);
        if TcpListener::bind(at).is_ok() && UdpSocket::bind(at).is_ok() {
            return port;
        }
    }
    panic!("no port of {RANGE:?} is free")
}
