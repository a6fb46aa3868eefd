//! quinn with one bidirectional stream, and the settings of `transport/quic/config.rs` in the library: the
//! same windows, packet sizes and kernel buffers.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context as _;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{
    ClientConfig, Endpoint, EndpointConfig, ServerConfig, TokioRuntime, TransportConfig, VarInt,
    default_runtime,
};
use socket2::{Domain, Protocol, Socket, Type};
use vitte_net::tls::MeshTls;

use super::{LOOPBACK, Pipe};

/// Bytes of each of the kernel's buffers.
const KERNEL_BUFFER: usize = 4 << 20;
/// Bytes that are kept until the peer acknowledges them.
const SEND_WINDOW: u64 = 1 << 20;
/// Bytes that may arrive on the stream before they are read.
const STREAM_WINDOW: u32 = 2 << 20;
/// The same for the connection.
const CONNECTION_WINDOW: u32 = 4 << 20;

fn transport() -> Arc<TransportConfig> {
    let mut config = TransportConfig::default();
    config
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .max_concurrent_bidi_streams(VarInt::from_u32(1))
        .datagram_receive_buffer_size(None)
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW))
        .receive_window(VarInt::from_u32(CONNECTION_WINDOW))
        .send_window(SEND_WINDOW)
        .keep_alive_interval(None);
    Arc::new(config)
}

fn endpoint(server: Option<ServerConfig>) -> anyhow::Result<Endpoint> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_recv_buffer_size(KERNEL_BUFFER)?;
    socket.set_send_buffer_size(KERNEL_BUFFER)?;
    socket.bind(&LOOPBACK.into())?;
    let runtime = default_runtime().unwrap_or_else(|| Arc::new(TokioRuntime));
    Ok(Endpoint::new(EndpointConfig::default(), server, socket.into(), runtime)?)
}

pub(super) async fn accept(
    tls: &MeshTls,
    ready: impl FnOnce(String) -> anyhow::Result<()>,
) -> anyhow::Result<Pipe> {
    let mut config = ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls.server_config())?));
    config.transport_config(transport());
    let endpoint = endpoint(Some(config))?;
    ready(endpoint.local_addr()?.to_string())?;
    let connection = endpoint.accept().await.context("the endpoint was closed")?.await?;
    let (send, recv) = connection.accept_bi().await?;
    Ok(Pipe::Quic { send, recv, _alive: Box::new((endpoint, connection)) })
}

pub(super) async fn connect(tls: &MeshTls, address: SocketAddr) -> anyhow::Result<Pipe> {
    let mut config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls.client_config(None))?));
    config.transport_config(transport());
    let endpoint = endpoint(None)?;
    let connection = endpoint.connect_with(config, address, "vitte")?.await?;
    let (send, recv) = connection.open_bi().await?;
    Ok(Pipe::Quic { send, recv, _alive: Box::new((endpoint, connection)) })
}
