//! HTTP/3 (RFC 9114) by h3 over quinn.

mod client;
mod server;
mod stream;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{ClientConfig, ServerConfig, TransportConfig, VarInt};

use super::error::{HttpError, HttpErrorKind, Stage};
use crate::network::Network;
use crate::tls::{ClientTls, ServerTls};

pub(super) use self::client::{Endpoints, Sender};
pub(super) use self::server::Listening;

/// Bytes on their way on one stream, and on one connection: 1 MiB and 4 MiB.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;
/// Bytes that one connection keeps until the peer acknowledges them: 4 MiB.
const SEND_WINDOW: u64 = 4 << 20;
/// Streams that the peer may open beside requests: control and two of QPACK, and some to grow (RFC 9114,
/// section 6.2).
const SIDE_STREAMS: u32 = 16;
/// Requests at one time on one connection, at most.
const STREAMS_MAX: u32 = 128;
/// A silent connection is asked for a sign of life after so long, while it is used.
const PING_AFTER: Duration = Duration::from_secs(10);
/// A connection is given up after so long without one.
const SILENCE: Duration = Duration::from_secs(30);

fn transport(requests: u32, ping: bool) -> Arc<TransportConfig> {
    let mut config = TransportConfig::default();
    config
        .max_concurrent_bidi_streams(VarInt::from_u32(requests))
        .max_concurrent_uni_streams(VarInt::from_u32(SIDE_STREAMS))
        .datagram_receive_buffer_size(None)
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW))
        .receive_window(VarInt::from_u32(CONNECTION_WINDOW))
        .send_window(SEND_WINDOW)
        .keep_alive_interval(ping.then_some(PING_AFTER))
        .max_idle_timeout(SILENCE.try_into().ok());
    Arc::new(config)
}

fn client_config(network: &Arc<dyn Network>, tls: &ClientTls) -> Result<ClientConfig, HttpError> {
    let tls = QuicClientConfig::try_from(tls.with_alpn(["h3"]).rustls_config());
    let tls = tls.map_err(|error| HttpError::new(Stage::Tls, HttpErrorKind::Unusable(error.to_string())))?;
    let mut config = crate::quic::client(network, Arc::new(tls));
    config.transport_config(transport(0, true));
    Ok(config)
}

fn server_config(network: &Arc<dyn Network>, tls: &ServerTls) -> io::Result<ServerConfig> {
    let tls = QuicServerConfig::try_from(tls.with_alpn(["h3"]).rustls_config());
    let tls = tls.map_err(|error| io::Error::new(io::ErrorKind::Unsupported, error))?;
    let mut config = crate::quic::server(network, Arc::new(tls));
    config.transport_config(transport(STREAMS_MAX, false));
    Ok(config)
}
