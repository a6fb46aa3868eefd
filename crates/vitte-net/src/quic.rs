//! quinn over our sockets, for everybody who speaks QUIC: `quic://` links and HTTP/3. Every seed and every
//! connection id is from [`Network::fill_random`], so that a simulated run replays.

mod seat;
mod socket;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use quinn::{
    ClientConfig, ConnectionId, ConnectionIdGenerator, EndpointConfig, NoneTokenLog, NoneTokenStore,
    ServerConfig, TimeSource, ValidationTokenConfig,
};
use ring::{hkdf, hmac};

use crate::network::{Network, UdpOptions};

#[cfg(all(test, feature = "quic"))]
pub(crate) use self::seat::LINGER;
#[cfg(feature = "quic")]
pub(crate) use self::seat::Seat;
pub(crate) use self::seat::{Seats, Use};
pub(crate) use self::socket::for_quinn;

/// Bytes of the kernel's buffers, for bursts of many connections on one socket.
const KERNEL_BUFFER: usize = 4 << 20;
/// Connection attempts that may wait to be accepted; more are refused.
const INCOMING_MAX: usize = 1024;
/// Bytes that one such attempt may keep, beyond its first datagram.
const INCOMING_BYTES: u64 = 16 << 10;
/// Bytes that all such attempts may keep.
const INCOMING_BYTES_TOTAL: u64 = 1 << 20;
/// Bytes of our connection ids: the default of quinn.
const CONNECTION_ID: usize = 8;
/// Bytes of the id that a client makes up for the server's first answer: the longest there is.
const FIRST_DESTINATION_ID: usize = 20;

pub(crate) fn socket_options() -> UdpOptions {
    UdpOptions {
        receive_buffer: Some(KERNEL_BUFFER),
        send_buffer: Some(KERNEL_BUFFER),
        ..UdpOptions::default()
    }
}

pub(crate) fn endpoint(network: &Arc<dyn Network>) -> EndpointConfig {
    let mut config =
        EndpointConfig::new(Arc::new(hmac::Key::new(hmac::HMAC_SHA256, &random::<64>(&**network))));
    config.rng_seed(Some(random(&**network)));
    let network = Arc::clone(network);
    config.cid_generator(move || Box::new(ConnectionIds(Arc::clone(&network))));
    config
}

/// A client without a transport configuration yet.
pub(crate) fn client(network: &Arc<dyn Network>, tls: Arc<dyn quinn::crypto::ClientConfig>) -> ClientConfig {
    let mut config = ClientConfig::new(tls);
    let network = Arc::clone(network);
    config.token_store(Arc::new(NoneTokenStore)).initial_dst_cid_provider(Arc::new(move || {
        ConnectionId::new(&random::<FIRST_DESTINATION_ID>(&*network))
    }));
    config
}

/// A server without a transport configuration yet.
pub(crate) fn server(network: &Arc<dyn Network>, tls: Arc<dyn quinn::crypto::ServerConfig>) -> ServerConfig {
    let token_key = hkdf::Salt::new(hkdf::HKDF_SHA256, &[]).extract(&random::<64>(&**network));
    let mut tokens = ValidationTokenConfig::default();
    tokens.sent(0).log(Arc::new(NoneTokenLog));
    let mut config = ServerConfig::new(tls, Arc::new(token_key));
    config
        .validation_token_config(tokens)
        .max_incoming(INCOMING_MAX)
        .incoming_buffer_size(INCOMING_BYTES)
        .incoming_buffer_size_total(INCOMING_BYTES_TOTAL)
        .time_source(Arc::new(WallClock(Arc::clone(network))));
    config
}

fn random<const N: usize>(network: &dyn Network) -> [u8; N] {
    let mut bytes = [0; N];
    network.fill_random(&mut bytes);
    bytes
}

/// quinn's own generators draw from the operating system, which would not replay.
#[derive(Debug)]
struct ConnectionIds(Arc<dyn Network>);

impl ConnectionIdGenerator for ConnectionIds {
    fn generate_cid(&mut self) -> ConnectionId {
        ConnectionId::new(&random::<CONNECTION_ID>(&*self.0))
    }

    fn cid_len(&self) -> usize {
        CONNECTION_ID
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

#[derive(Debug)]
struct WallClock(Arc<dyn Network>);

impl TimeSource for WallClock {
    fn now(&self) -> SystemTime {
        self.0.wall_clock()
    }
}
