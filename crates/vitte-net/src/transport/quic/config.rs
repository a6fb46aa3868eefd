//! How quinn is set up for links: limits with their numbers. What all QUIC has in common is in [`crate::quic`].

use std::io;
use std::sync::Arc;
use std::time::Duration;

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{ClientConfig, ServerConfig, TransportConfig, VarInt};
use vitte_net_proto::Lane;

use crate::network::Network;
use crate::quic;
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
/// Bytes of datagrams that have arrived and wait to be read; then quinn drops the oldest.
const DATAGRAMS_IN: usize = 64 << 10;
/// Bytes of datagrams that quinn holds before they are transmitted. They go before everything else: so few may
/// stand before an urgent frame.
const DATAGRAMS_OUT: usize = 8 << 10;
/// After this silence the state of a dead link is freed. The session notices long before.
const IDLE: Duration = Duration::from_secs(60);
/// The round trip that is assumed before there is a measurement. A first packet that is lost, in a flood for example, is
/// sent again after three of them; the default of 333 ms leaves three tries in five seconds, this five.
const INITIAL_ROUND_TRIP: Duration = Duration::from_millis(100);

pub(super) fn client(network: &Arc<dyn Network>, tls: &MeshTls) -> Result<ClientConfig, LinkError> {
    let tls = QuicClientConfig::try_from(tls.client_config(None)).map_err(no_suite)?;
    let mut config = quic::client(network, Arc::new(tls));
    config.transport_config(Arc::new(transport()));
    Ok(config)
}

pub(super) fn server(network: &Arc<dyn Network>, tls: &MeshTls) -> Result<ServerConfig, LinkError> {
    let tls = QuicServerConfig::try_from(tls.server_config()).map_err(no_suite)?;
    let mut config = quic::server(network, Arc::new(tls));
    config.transport_config(Arc::new(transport()));
    Ok(config)
}

fn transport() -> TransportConfig {
    let mut config = TransportConfig::default();
    config
        .initial_rtt(INITIAL_ROUND_TRIP)
        .max_concurrent_uni_streams(VarInt::from_u32(Lane::COUNT.into()))
        .max_concurrent_bidi_streams(VarInt::from_u32(0))
        .datagram_receive_buffer_size(Some(DATAGRAMS_IN))
        .datagram_send_buffer_size(DATAGRAMS_OUT)
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
