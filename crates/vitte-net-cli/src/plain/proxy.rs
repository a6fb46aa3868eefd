//! TCP through an HTTP proxy that makes tunnels (CONNECT: RFC 9110, section 9.3.6).

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use clap::Args;
use data_encoding::BASE64;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;
use vitte_net::network::{
    BoxFuture, BoxStream, Datagrams, Network, OsNetwork, Target, TcpListen, TcpOptions, UdpOptions,
};
use vitte_net::tcp::TcpConnector;

use crate::problem::Problem;

/// Bytes of the proxy's answer, at most.
const ANSWER_MAX: usize = 16 << 10;

/// What to try when the proxy is in the way.
pub(crate) const HINT: &str =
    "what the proxy allows, and --proxy http://USER:PASSWORD@HOST:PORT if it wants to know who asks";

#[derive(Debug, Args)]
pub(crate) struct ProxyOption {
    /// Go through this HTTP proxy: http://HOST:PORT, or with USER:PASSWORD@ before the host.
    #[arg(long, value_name = "URL")]
    pub(crate) proxy: Option<Proxy>,
}

/// An HTTP proxy, with what it wants to know of its user.
#[derive(Clone)]
pub(crate) struct Proxy {
    place: String,
    credentials: Option<String>,
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxy").field("place", &self.place).finish_non_exhaustive()
    }
}

impl FromStr for Proxy {
    type Err = String;

    /// The port is 80 if there is none. The text is not repeated in errors: there may be a password in it.
    fn from_str(text: &str) -> Result<Self, String> {
        let rest = text.strip_prefix("http://").ok_or("a proxy is http://HOST:PORT")?;
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (credentials, place) = match rest.rsplit_once('@') {
            Some((credentials, place)) => (Some(decoded(credentials)?), place),
            None => (None, rest),
        };
        let wrong = |c: char| c.is_whitespace() || c.is_control() || "/?#".contains(c);
        if place.is_empty() || place.contains(wrong) {
            return Err("a proxy is http://HOST:PORT, without a path".into());
        }
        let has_port = place.rsplit_once(':').is_some_and(|(_, port)| !port.ends_with(']'));
        let place = if has_port { place.to_owned() } else { format!("{place}:80") };
        Ok(Self { place, credentials })
    }
}

/// Undoes percent-encoding.
fn decoded(text: &str) -> Result<String, String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let code = after.get(..2).and_then(|code| std::str::from_utf8(code).ok());
        let byte = code.and_then(|code| u8::from_str_radix(code, 16).ok());
        bytes.push(byte.ok_or("two hexadecimal digits follow a % in the user or the password")?);
        rest = &after[2..];
    }
    String::from_utf8(bytes).map_err(|_| "the user and the password are UTF-8".into())
}

impl Proxy {
    /// A tunnel to `to`, a host and a port; the proxy looks the host up.
    pub(crate) async fn tunnel(&self, to: &str, options: &TcpOptions) -> io::Result<BoxStream> {
        let reason = |error: io::Error| io::Error::new(error.kind(), format!("the proxy: {error}"));
        let connector = TcpConnector::new().options(options.clone());
        let stream = connector.connect(Target::from(self.place.as_str())).await.map_err(reason)?;
        self.ask(stream.into_inner(), to).await.map_err(reason)
    }

    async fn ask(&self, mut stream: BoxStream, to: &str) -> io::Result<BoxStream> {
        let mut request = format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n");
        if let Some(credentials) = &self.credentials {
            let basic = BASE64.encode(credentials.as_bytes());
            request.push_str(&format!("Proxy-Authorization: Basic {basic}\r\n"));
        }
        request.push_str("\r\n");
        stream.write_all(request.as_bytes()).await?;
        stream.flush().await?;
        let mut answer = Vec::new();
        // Byte by byte: what follows the head is for somebody else.
        while !answer.ends_with(b"\r\n\r\n") {
            if answer.len() == ANSWER_MAX {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "its answer has no end"));
            }
            answer.push(stream.read_u8().await?);
        }
        let line = String::from_utf8_lossy(&answer);
        let line = line.lines().next().unwrap_or_default();
        let status = line.strip_prefix("HTTP/1.").and_then(|rest| rest.get(2..5)?.parse::<u16>().ok());
        match status {
            Some(200..300) => Ok(stream),
            Some(_) => {
                let text = format!("it makes no tunnel to {to}: {line}");
                Err(io::Error::new(io::ErrorKind::PermissionDenied, text))
            }
            None => Err(io::Error::new(io::ErrorKind::InvalidData, "it does not speak HTTP/1.1")),
        }
    }
}

/// Checks that it is a host and a port before it becomes a part of a request.
pub(crate) fn host_and_port(target: &str) -> Result<&str, Problem> {
    let (host, port) = target.rsplit_once(':').unwrap_or((target, ""));
    let wrong = |c: char| c.is_whitespace() || c.is_control();
    if host.is_empty() || host.contains(wrong) || port.parse::<u16>().is_err() {
        let what = format!("\"{}\" is no host:port", target.escape_debug());
        return Err(Problem::mistake(what, "HOST:PORT, such as example.org:80 or [::1]:80"));
    }
    Ok(target)
}

/// Connects to a host and a port, through the proxy if there is one, all of it in this time.
pub(crate) async fn connect(
    proxy: Option<&Proxy>,
    target: &str,
    within: Duration,
) -> Result<BoxStream, Problem> {
    let Some(proxy) = proxy else {
        let connected = TcpConnector::new().timeout(within).connect(Target::from(target)).await;
        return match connected {
            Ok(stream) => Ok(stream.into_inner()),
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                Err(Problem::mistake(error.to_string(), "HOST:PORT, such as example.org:80 or [::1]:80"))
            }
            Err(error) => Err(Problem::failed(
                error.to_string(),
                "see that something listens there; --timeout SECS waits longer",
            )),
        };
    };
    let to = host_and_port(target)?;
    let failed =
        |why: String| Problem::failed(format!("cannot connect to {to} through the proxy: {why}"), HINT);
    match timeout(within, proxy.tunnel(to, &TcpOptions::default())).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => Err(failed(error.to_string())),
        Err(_) => Err(failed(format!("no tunnel within {within:?}"))),
    }
}

/// The operating system's network, but connections go through a proxy, and nothing else goes.
#[derive(Debug)]
pub(crate) struct Proxied(pub(crate) Proxy);

impl Network for Proxied {
    fn connect_tcp<'a>(
        &'a self,
        to: SocketAddr,
        options: &'a TcpOptions,
    ) -> BoxFuture<'a, io::Result<BoxStream>> {
        Box::pin(async move { self.0.tunnel(&to.to_string(), options).await })
    }

    fn listen_tcp<'a>(
        &'a self,
        _: SocketAddr,
        _: &'a TcpOptions,
    ) -> BoxFuture<'a, io::Result<Box<dyn TcpListen>>> {
        Box::pin(async { Err(io::Error::new(io::ErrorKind::Unsupported, "nobody listens through a proxy")) })
    }

    fn bind_udp<'a>(
        &'a self,
        _: SocketAddr,
        _: &'a UdpOptions,
    ) -> BoxFuture<'a, io::Result<Arc<dyn Datagrams>>> {
        Box::pin(async { Err(io::Error::new(io::ErrorKind::Unsupported, "a proxy carries no datagrams")) })
    }

    fn lookup<'a>(&'a self, host: &'a str) -> BoxFuture<'a, io::Result<Vec<IpAddr>>> {
        Box::pin(async move { OsNetwork::new().lookup(host).await })
    }

    fn wall_clock(&self) -> SystemTime {
        OsNetwork::new().wall_clock()
    }

    fn fill_random(&self, out: &mut [u8]) {
        OsNetwork::new().fill_random(out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_is_a_place_with_or_without_a_user() {
        let proxy: Proxy = "http://me:p%40ss%3A@[::1]:3128/".parse().expect("a proxy");
        assert_eq!((proxy.place.as_str(), proxy.credentials.as_deref()), ("[::1]:3128", Some("me:p@ss:")));
        let place = |text: &str| text.parse::<Proxy>().map(|proxy| proxy.place);
        assert_eq!(place("http://proxy.example"), Ok("proxy.example:80".into()));
        assert_eq!(place("http://[::1]"), Ok("[::1]:80".into()));
        for wrong in ["https://proxy", "proxy:3128", "http://", "http://p/path", "http://u:secret%x@p:1"] {
            let error = place(wrong).expect_err(wrong);
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
