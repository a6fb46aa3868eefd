//! What a caller names when it connects, binds or sends: a host or an address, and a port.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::Network;

/// How many addresses of one [`Target`] are tried, after duplicates are removed: 32. A name with more of
/// them is cut.
pub const MAX_ADDRESSES: usize = 32;

/// A host and a port, as text (`example.org:80`, `127.0.0.1:80`, `[::1]:80`) or as addresses.
///
/// It is made by `into()` from `&str`, [`String`], [`SocketAddr`], a list of those, or a pair of a host or
/// an IP address and a port. Text is looked at when it is used, so that `connect("...")` takes it directly.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target(Form);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Form {
    Text(String),
    Host(String, u16),
    /// By far the most frequent, and the only one that costs no allocation.
    Address(SocketAddr),
    Addresses(Vec<SocketAddr>),
}

impl Target {
    /// The address, if it is one and no text nor list.
    pub(crate) fn as_address(&self) -> Option<SocketAddr> {
        match &self.0 {
            Form::Address(address) => Some(*address),
            Form::Text(_) | Form::Host(..) | Form::Addresses(_) => None,
        }
    }

    /// The addresses behind it, in the order in which they should be tried: at least 1, at most
    /// [`MAX_ADDRESSES`], each once. Only a host name asks the network.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidInput`] for text that is no host and port, [`io::ErrorKind::NotFound`] when
    /// the host has no address, otherwise what the lookup said.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    pub async fn resolve(&self, network: &dyn Network) -> io::Result<Vec<SocketAddr>> {
        let candidates = match &self.0 {
            Form::Address(address) => return Ok(vec![*address]),
            Form::Addresses(addresses) => addresses.clone(),
            Form::Host(host, port) => lookup(network, host, *port).await?,
            Form::Text(text) => match text.parse() {
                Ok(address) => vec![address],
                Err(_) => {
                    let (host, port) = host_and_port(text)?;
                    lookup(network, host, port).await?
                }
            },
        };
        let mut addresses = Vec::with_capacity(candidates.len().min(MAX_ADDRESSES));
        for address in candidates {
            if addresses.len() < MAX_ADDRESSES && !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        if addresses.is_empty() {
            return Err(io::Error::new(io::ErrorKind::NotFound, format!("no address for {self}")));
        }
        Ok(addresses)
    }
}

async fn lookup(network: &dyn Network, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    match network.lookup(host).await {
        Ok(found) => Ok(found.into_iter().map(|ip| SocketAddr::new(ip, port)).collect()),
        Err(error) => {
            Err(io::Error::new(error.kind(), format!("cannot look up {}: {error}", host.escape_debug())))
        }
    }
}

/// Takes `host:port` apart. An IPv6 address needs its brackets.
fn host_and_port(text: &str) -> io::Result<(&str, u16)> {
    let invalid = |why| {
        let text = text.escape_debug();
        io::Error::new(io::ErrorKind::InvalidInput, format!("\"{text}\" is no host:port: {why}"))
    };
    let Some((host, port)) = text.rsplit_once(':') else { return Err(invalid("the port is missing")) };
    let port = port.parse().map_err(|_| invalid("the port is no number from 0 to 65535"))?;
    let host = match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(inner) if inner.parse::<Ipv6Addr>().is_ok() => inner,
        Some(_) => return Err(invalid("no IPv6 address stands in the brackets")),
        None if host.contains(':') => return Err(invalid("an IPv6 address needs brackets: [::1]:80")),
        None => host,
    };
    if host.is_empty() {
        return Err(invalid("the host is missing"));
    }
    Ok((host, port))
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Form::Text(text) => write!(f, "{}", text.escape_debug()),
            Form::Host(host, port) if host.contains(':') => write!(f, "[{}]:{port}", host.escape_debug()),
            Form::Host(host, port) => write!(f, "{}:{port}", host.escape_debug()),
            Form::Address(address) => write!(f, "{address}"),
            Form::Addresses(addresses) => match addresses.as_slice() {
                [] => f.write_str("an empty list of addresses"),
                [only] => write!(f, "{only}"),
                [first, rest @ ..] => write!(f, "{first} and {} more", rest.len()),
            },
        }
    }
}

impl From<&str> for Target {
    fn from(text: &str) -> Self {
        Self(Form::Text(text.to_owned()))
    }
}

impl From<String> for Target {
    fn from(text: String) -> Self {
        Self(Form::Text(text))
    }
}

impl From<&String> for Target {
    fn from(text: &String) -> Self {
        Self(Form::Text(text.clone()))
    }
}

impl From<&Target> for Target {
    fn from(target: &Target) -> Self {
        target.clone()
    }
}

impl From<SocketAddr> for Target {
    fn from(address: SocketAddr) -> Self {
        Self(Form::Address(address))
    }
}

impl From<Vec<SocketAddr>> for Target {
    fn from(addresses: Vec<SocketAddr>) -> Self {
        Self(Form::Addresses(addresses))
    }
}

impl From<&[SocketAddr]> for Target {
    fn from(addresses: &[SocketAddr]) -> Self {
        Self(Form::Addresses(addresses.to_vec()))
    }
}

impl From<(&str, u16)> for Target {
    fn from((host, port): (&str, u16)) -> Self {
        Self(Form::Host(host.to_owned(), port))
    }
}

impl From<(String, u16)> for Target {
    fn from((host, port): (String, u16)) -> Self {
        Self(Form::Host(host, port))
    }
}

impl From<(IpAddr, u16)> for Target {
    fn from(address: (IpAddr, u16)) -> Self {
        SocketAddr::from(address).into()
    }
}

impl From<(Ipv4Addr, u16)> for Target {
    fn from(address: (Ipv4Addr, u16)) -> Self {
        SocketAddr::from(address).into()
    }
}

impl From<(Ipv6Addr, u16)> for Target {
    fn from(address: (Ipv6Addr, u16)) -> Self {
        SocketAddr::from(address).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::OsNetwork;

    async fn resolve(target: impl Into<Target>) -> Result<Vec<SocketAddr>, String> {
        target.into().resolve(&OsNetwork).await.map_err(|error| error.to_string())
    }

    fn addresses(list: &[&str]) -> Result<Vec<SocketAddr>, String> {
        Ok(list.iter().map(|text| text.parse().unwrap()).collect())
    }

    #[tokio::test]
    async fn addresses_in_text_are_their_own_answer() {
        assert_eq!(resolve("127.0.0.1:80").await, addresses(&["127.0.0.1:80"]));
        assert_eq!(resolve(String::from("[::1]:80")).await, addresses(&["[::1]:80"]));
        assert_eq!(resolve(("::1", 80)).await, addresses(&["[::1]:80"]));
        assert_eq!(resolve((Ipv4Addr::LOCALHOST, 1)).await, addresses(&["127.0.0.1:1"]));
    }

    #[tokio::test]
    async fn a_list_is_freed_of_duplicates_and_cut() {
        let one: SocketAddr = "127.0.0.1:80".parse().unwrap();
        assert_eq!(resolve(vec![one, one]).await, Ok(vec![one]));
        let many: Vec<SocketAddr> = (1..=100).map(|port| (Ipv4Addr::LOCALHOST, port).into()).collect();
        assert_eq!(resolve(many.as_slice()).await, Ok(many[..MAX_ADDRESSES].to_vec()));
    }

    #[tokio::test]
    async fn wrong_text_says_what_is_wrong() {
        for (text, why) in [
            ("example.org", "the port is missing"),
            ("example.org:http", "the port is no number"),
            ("example.org:65536", "the port is no number"),
            (":80", "the host is missing"),
            ("::1:80", "needs brackets"),
            ("[example.org]:80", "no IPv6 address stands in the brackets"),
        ] {
            let error = resolve(text).await.unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
        assert!(resolve("evil\x1b[2J").await.unwrap_err().contains("evil\\u{1b}[2J"));
        assert!(resolve(Vec::new()).await.unwrap_err().contains("no address for an empty list"));
    }
}
