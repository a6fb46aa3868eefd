//! Peers that break rules: one that authenticates properly and then speaks frames of its own, and strangers that never
//! come so far. Each is cut with the code and the reason that docs/WIRE.md says, as both sides see it, and an
//! honest peer of the same node does not notice.

mod again;
mod below;
mod frames;
#[allow(dead_code, reason = "shared with tests/bounds: each uses a part")]
mod peer;
mod strangers;

/// Mounts each case once for each transport.
#[macro_export]
macro_rules! on_every_transport {
    ($($case:ident),+ $(,)?) => {
        $(mod $case {
            #[test]
            fn quic() {
                super::run("quic", super::cases::$case);
            }
            #[test]
            fn tls() {
                super::run("tls", super::cases::$case);
            }
            #[test]
            fn ws() {
                super::run("ws", super::cases::$case);
            }
            #[test]
            fn wss() {
                super::run("wss", super::cases::$case);
            }
        })+
    };
}
