//! How quinn is set up: limits with their numbers, and every seed from [`Network::fill_random`].

use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{
    ClientConfig, ConnectionId, ConnectionIdGenerator, EndpointConfig, NoneTokenLog, NoneTokenStore,
    ServerConfig, TimeSource, TransportConfig, ValidationTokenConfig, VarInt,
};
use ring::{hkdf, hmac};
use vitte_net_proto::Lane;

use crate::network::{Network, UdpOptions};
use crate::tls::MeshTls;
use crate::transport::LinkError;

/// Bytes that quinn keeps of one link until the peer acknowledges them. More is slower: measured on
/// loopback, 32 MiB lost a third of the throughput against 1 MiB.
pub(super) const SEND_WINDOW: u64 = 1 << 20;
/// What the control and the urgent lane may take above [`SEND_WINDOW`] when bulk has filled it.
pub(super) const URGENT_RESERVE: u64 = 128 << 10;
/// Bytes that may arrive on one lane and wait to be read.
const LANE_WINDOW: u32 = 2 << 20;
/// Bytes that may arrive on all lanes of a link and wait to be read.
const LINK_WINDOW: u32 = 4 << 20;
/// After this silence the state of a dead link is freed. The session notices long before.
const IDLE: Duration = Duration::from_secs(60);
/// Connection attempts that may wait for [`accept`](super::Listener::accept); more are refused.
const INCOMING_MAX: usize = 256;
/// Bytes that one such attempt may keep, beyond its first datagram.
const INCOMING_BYTES: u64 = 16 << 10;
/// Bytes that all such attempts may keep.
const INCOMING_BYTES_TOTAL: u64 = 1 << 20;
/// Bytes of the kernel's buffers, for bursts of many links on one socket.
const KERNEL_BUFFER: usize = 4 << 20;
/// Bytes of our connection ids: the default of quinn.
const CONNECTION_ID: usize = 8;
/// Bytes of the id that a client makes up for the server's first answer: the longest there is.
const FIRST_DESTINATION_ID: usize = 20;

pub(super) fn socket() -> UdpOptions {
    UdpOptions {
        receive_buffer: Some(KERNEL_BUFFER),
        send_buffer: Some(KERNEL_BUFFER),
        ..UdpOptions::default()
    }
}

pub(super) fn endpoint(network: &Arc<dyn Network>) -> EndpointConfig {
    let mut config =
        EndpointConfig::new(Arc::new(hmac::Key::new(hmac::HMAC_SHA256, &random::<64>(&**network))));
    config.rng_seed(Some(random(&**network)));
    let network = Arc::clone(network);
    config.cid_generator(move || Box::new(ConnectionIds(Arc::clone(&network))));
    config
}

pub(super) fn client(network: &Arc<dyn Network>, tls: &MeshTls) -> Result<ClientConfig, LinkError> {
    let tls = QuicClientConfig::try_from(tls.client_config(None)).map_err(no_suite)?;
    let mut config = ClientConfig::new(Arc::new(tls));
    let network = Arc::clone(network);
    config
        .transport_config(Arc::new(transport()))
        .token_store(Arc::new(NoneTokenStore))
        .initial_dst_cid_provider(Arc::new(move || {
            ConnectionId::new(&random::<FIRST_DESTINATION_ID>(&*network))
        }));
    Ok(config)
}

pub(super) fn server(network: &Arc<dyn Network>, tls: &MeshTls) -> Result<ServerConfig, LinkError> {
    let tls = QuicServerConfig::try_from(tls.server_config()).map_err(no_suite)?;
    let token_key = hkdf::Salt::new(hkdf::HKDF_SHA256, &[]).extract(&random::<64>(&**network));
    let mut tokens = ValidationTokenConfig::default();
    tokens.sent(0).log(Arc::new(NoneTokenLog));
    let mut config = ServerConfig::new(Arc::new(tls), Arc::new(token_key));
    config
        .transport_config(Arc::new(transport()))
        .validation_token_config(tokens)
        .max_incoming(INCOMING_MAX)
        .incoming_buffer_size(INCOMING_BYTES)
        .incoming_buffer_size_total(INCOMING_BYTES_TOTAL)
        .time_source(Arc::new(WallClock(Arc::clone(network))));
    Ok(config)
}

fn transport() -> TransportConfig {
    let mut config = TransportConfig::default();
    config
        .max_concurrent_uni_streams(VarInt::from_u32(Lane::COUNT.into()))
        .max_concurrent_bidi_streams(VarInt::from_u32(0))
        .datagram_receive_buffer_size(None)
        .stream_receive_window(VarInt::from_u32(LANE_WINDOW))
        .receive_window(VarInt::from_u32(LINK_WINDOW))
        .send_window(SEND_WINDOW)
        // The session keeps alive and decides on death: its own pings keep this one from running out.
        .keep_alive_interval(None)
        .max_idle_timeout(IDLE.try_into().ok());
    config
}

fn no_suite(error: impl std::error::Error + Send + Sync + 'static) -> LinkError {
    LinkError::Io(io::Error::new(io::ErrorKind::Unsupported, error))
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
