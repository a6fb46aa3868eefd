//! One server: how it is named, and one question to it.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;

use hickory_proto::op::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::error::Failure;
use super::https;
use super::https2;
use super::message::Question;
use crate::network::{BoxStream, Datagrams, Network, TcpOptions, UdpOptions};
use crate::tls::{ClientTls, TlsStream};

/// Datagrams that do not answer the question, before the question goes by TCP, where nobody can guess.
const STRANGERS_MAX: usize = 32;
/// Tries to get a port that was drawn; then the system chooses.
const PORTS: usize = 8;
/// The least port that is drawn.
const LEAST_PORT: u16 = 1024;
/// Bytes of a datagram that is read. A longer one asks for TCP.
const DATAGRAM: usize = 4096;

/// A name server and the way to it.
///
/// As text: `192.0.2.1`, `192.0.2.1:53`, `[2001:db8::1]:53` or `udp://…` for UDP, and TCP where an answer is too
/// long; `tcp://ADDRESS[:53]`; `tls://ADDRESS[:853][#NAME]` (RFC 7858); `https://ADDRESS[:443][/PATH][#NAME]`
/// (RFC 8484), where NAME is what its certificate must be for, if not its address, and PATH is `/dns-query`
/// unless given.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NameServer {
    /// By UDP, and by TCP if the answer is too long for that.
    Udp(SocketAddr),
    /// By TCP.
    Tcp(SocketAddr),
    /// By TLS.
    Tls {
        /// Where it is.
        address: SocketAddr,
        /// What its certificate must be for.
        name: String,
    },
    /// By HTTPS: HTTP/2 where the server speaks it, HTTP/1.1 otherwise.
    Https {
        /// Where it is.
        address: SocketAddr,
        /// What its certificate must be for.
        name: String,
        /// The path of the URL.
        path: String,
    },
}

impl From<SocketAddr> for NameServer {
    fn from(address: SocketAddr) -> Self {
        Self::Udp(address)
    }
}

impl From<IpAddr> for NameServer {
    fn from(address: IpAddr) -> Self {
        Self::Udp((address, 53).into())
    }
}

impl FromStr for NameServer {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (scheme, rest) = text.split_once("://").unwrap_or(("udp", text));
        let (rest, name) = rest.split_once('#').map_or((rest, None), |(rest, name)| (rest, Some(name)));
        let (host, path) = rest.find('/').map_or((rest, None), |at| (&rest[..at], Some(&rest[at..])));
        let address = |port| {
            let bare = host
                .trim_start_matches('[')
                .trim_end_matches(']')
                .parse()
                .map(|ip: IpAddr| (ip, port).into());
            host.parse::<SocketAddr>()
                .or(bare)
                .map_err(|_| format!("\"{}\" is no IP address with or without a port", host.escape_debug()))
        };
        let named = |address: SocketAddr| match name {
            Some(name) if !name.is_empty() => name.to_owned(),
            _ => address.ip().to_string(),
        };
        let plain = name.is_none() && path.is_none();
        let visible = path.unwrap_or_default().bytes().all(|byte| byte.is_ascii_graphic());
        match scheme {
            "udp" if plain => Ok(Self::Udp(address(53)?)),
            "tcp" if plain => Ok(Self::Tcp(address(53)?)),
            "tls" if path.is_none() => {
                address(853).map(|address| Self::Tls { address, name: named(address) })
            }
            "https" if visible => {
                let path = path.unwrap_or("/dns-query").to_owned();
                address(443).map(|address| Self::Https { address, name: named(address), path })
            }
            _ => Err("a name server is ADDRESS, udp://ADDRESS, tcp://ADDRESS, tls://ADDRESS#NAME or \
                      https://ADDRESS/PATH#NAME"
                .to_owned()),
        }
    }
}

impl fmt::Display for NameServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Udp(address) => write!(f, "{address}"),
            Self::Tcp(address) => write!(f, "tcp://{address}"),
            Self::Tls { address, name } => write!(f, "tls://{address}#{name}"),
            Self::Https { address, name, path } => write!(f, "https://{address}{path}#{name}"),
        }
    }
}

impl NameServer {
    /// Asks once. The caller bounds the time.
    pub(super) async fn ask(
        &self,
        question: &Question,
        extended: bool,
        network: &dyn Network,
        tls: Option<&ClientTls>,
    ) -> Result<Message, Failure> {
        let id = random(network);
        let query = question.encode(id, extended)?;
        match self {
            Self::Udp(address) => match by_udp(*address, question, id, &query, network).await? {
                Some(message) if !message.metadata.truncation => Ok(message),
                // Another id: a stranger may have seen the first.
                _ => {
                    let id = random(network);
                    let query = question.encode(id, extended)?;
                    by_stream(connect(*address, network).await?, question, id, &query).await
                }
            },
            Self::Tcp(address) => by_stream(connect(*address, network).await?, question, id, &query).await,
            Self::Tls { address, name } => {
                let stream = secure(*address, name, &[], network, tls).await?;
                by_stream(stream.into_box(), question, id, &query).await
            }
            Self::Https { address, name, path } => {
                // The id is of no use there, and in the way of caches (RFC 8484, section 4.1).
                let query = question.encode(0, extended)?;
                let stream = secure(*address, name, &["h2", "http/1.1"], network, tls).await?;
                let answer = if stream.alpn() == Some(b"h2") {
                    https2::post(stream.into_box(), name, path, &query).await?
                } else {
                    https::post(stream.into_box(), name, path, &query).await?
                };
                question.decode(0, &answer)
            }
        }
    }
}

fn random(network: &dyn Network) -> u16 {
    let mut bytes = [0; 2];
    network.fill_random(&mut bytes);
    u16::from_be_bytes(bytes)
}

async fn connect(address: SocketAddr, network: &dyn Network) -> io::Result<BoxStream> {
    network.connect_tcp(address, &TcpOptions::default()).await
}

async fn secure(
    address: SocketAddr,
    name: &str,
    protocols: &[&str],
    network: &dyn Network,
    tls: Option<&ClientTls>,
) -> Result<TlsStream, Failure> {
    let Some(tls) = tls else { return Err(Failure::Network("no TLS client is set up".to_owned())) };
    let stream = connect(address, network).await?;
    Ok(tls.with_alpn(protocols.iter().copied()).connect(name, stream).await?)
}

/// A socket at a port that nobody can guess (RFC 5452, section 9.2).
async fn bind(network: &dyn Network, ipv4: bool) -> io::Result<Arc<dyn Datagrams>> {
    let ip = if ipv4 { IpAddr::V4(Ipv4Addr::UNSPECIFIED) } else { IpAddr::V6(Ipv6Addr::UNSPECIFIED) };
    let options = UdpOptions::default();
    for _ in 0..PORTS {
        let port = random(network);
        if port < LEAST_PORT {
            continue;
        }
        if let Ok(socket) = network.bind_udp(SocketAddr::new(ip, port), &options).await {
            return Ok(socket);
        }
    }
    network.bind_udp(SocketAddr::new(ip, 0), &options).await
}

/// Asks by UDP. None if the answer needs TCP: it is too long, or too many strangers answer. What does not
/// answer the question is dropped, and the real answer waited for.
async fn by_udp(
    address: SocketAddr,
    question: &Question,
    id: u16,
    query: &[u8],
    network: &dyn Network,
) -> Result<Option<Message>, Failure> {
    let socket = bind(network, address.is_ipv4()).await?;
    while let Err(error) = socket.try_send(query, address) {
        if error.kind() != io::ErrorKind::WouldBlock {
            return Err(error.into());
        }
        poll_fn(|cx| socket.poll_writable(cx)).await?;
    }
    let mut buffer = vec![0; DATAGRAM];
    for _ in 0..STRANGERS_MAX {
        let received = poll_fn(|cx| socket.poll_recv(cx, &mut buffer)).await?;
        if received.from != address {
            continue;
        }
        if received.truncated && buffer.first_chunk::<2>() == Some(&id.to_be_bytes()) {
            return Ok(None);
        }
        match question.decode(id, &buffer[..received.len]) {
            Ok(message) => return Ok(Some(message)),
            Err(failure) => tracing::debug!(%address, %failure, "a datagram that answers nothing"),
        }
    }
    Ok(None)
}

/// Asks by a stream, where each message comes after its length (RFC 1035, section 4.2.2).
async fn by_stream(
    mut stream: BoxStream,
    question: &Question,
    id: u16,
    query: &[u8],
) -> Result<Message, Failure> {
    let length = u16::try_from(query.len()).map_err(|_| Failure::Malformed("too long".to_owned()))?;
    // In one piece: some servers want it so.
    stream.write_all(&[&length.to_be_bytes(), query].concat()).await?;
    stream.flush().await?;
    let length = stream.read_u16().await?;
    let mut answer = Vec::new();
    // It grows with what arrives, not with what was announced.
    let read = (&mut stream).take(length.into()).read_to_end(&mut answer).await?;
    if read < length.into() {
        return Err(Failure::Network("the stream ended inside the answer".to_owned()));
    }
    question.decode(id, &answer)
}
