//! The plain primitives, as a program that knows of no mesh uses them; against other people's programs where
//! they are installed.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod autobahn;
mod dns;
mod dns_others;
mod jsonrpc;
mod nameserver;
mod openssl;
mod port;
mod programs;
mod stream;
mod tls;
mod ws;
mod ws_others;
