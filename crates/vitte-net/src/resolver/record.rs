//! What a name has.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;
use std::time::Duration;

/// The kinds of records that can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum RecordType {
    /// IPv4 addresses (RFC 1035).
    A,
    /// IPv6 addresses (RFC 3596).
    Aaaa,
    /// The name that this one is an alias of.
    Cname,
    /// Where mail for the name goes.
    Mx,
    /// The name of an address.
    Ptr,
    /// Where a service is (RFC 2782).
    Srv,
    /// Text.
    Txt,
}

impl RecordType {
    /// As zone files write it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::A => "A",
            Self::Aaaa => "AAAA",
            Self::Cname => "CNAME",
            Self::Mx => "MX",
            Self::Ptr => "PTR",
            Self::Srv => "SRV",
            Self::Txt => "TXT",
        }
    }
}

impl fmt::Display for RecordType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for RecordType {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let all = [Self::A, Self::Aaaa, Self::Cname, Self::Mx, Self::Ptr, Self::Srv, Self::Txt];
        all.into_iter()
            .find(|kind| kind.as_str().eq_ignore_ascii_case(text))
            .ok_or_else(|| "one of A, AAAA, CNAME, MX, PTR, SRV, TXT".to_owned())
    }
}

/// A record.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Record {
    /// Whose it is: the name that was asked for, or what that is an alias of.
    pub name: String,
    /// For how long it may be remembered.
    pub ttl: Duration,
    /// What it says.
    pub data: Data,
}

/// What a record says. Names come without the last dot; strange bytes in them are escaped as `\ddd`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Data {
    /// An IPv4 address.
    A(Ipv4Addr),
    /// An IPv6 address.
    Aaaa(Ipv6Addr),
    /// The name that this one is an alias of.
    Cname(String),
    /// Where mail for the name goes.
    Mx {
        /// The lowest goes first.
        preference: u16,
        /// The host that takes it.
        exchange: String,
    },
    /// The name of an address.
    Ptr(String),
    /// Where a service is.
    Srv {
        /// The lowest goes first.
        priority: u16,
        /// Its share among those of the same priority.
        weight: u16,
        /// The port.
        port: u16,
        /// The host; `.` where the service is not offered.
        target: String,
    },
    /// Pieces of text, of at most 255 bytes each, which need not be UTF-8.
    Txt(Vec<Vec<u8>>),
}

impl Data {
    /// The address, if it is one.
    #[must_use]
    pub fn address(&self) -> Option<IpAddr> {
        match self {
            Self::A(address) => Some((*address).into()),
            Self::Aaaa(address) => Some((*address).into()),
            Self::Cname(_) | Self::Mx { .. } | Self::Ptr(_) | Self::Srv { .. } | Self::Txt(_) => None,
        }
    }

    /// Which kind it is.
    #[must_use]
    pub fn record_type(&self) -> RecordType {
        match self {
            Self::A(_) => RecordType::A,
            Self::Aaaa(_) => RecordType::Aaaa,
            Self::Cname(_) => RecordType::Cname,
            Self::Mx { .. } => RecordType::Mx,
            Self::Ptr(_) => RecordType::Ptr,
            Self::Srv { .. } => RecordType::Srv,
            Self::Txt(_) => RecordType::Txt,
        }
    }
}

/// As zone files write it.
impl fmt::Display for Data {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::A(address) => write!(f, "{address}"),
            Self::Aaaa(address) => write!(f, "{address}"),
            Self::Cname(name) | Self::Ptr(name) => f.write_str(name),
            Self::Mx { preference, exchange } => write!(f, "{preference} {exchange}"),
            Self::Srv { priority, weight, port, target } => write!(f, "{priority} {weight} {port} {target}"),
            Self::Txt(parts) => {
                for (i, part) in parts.iter().enumerate() {
                    let space = if i == 0 { "" } else { " " };
                    write!(f, "{space}\"{}\"", part.escape_ascii())?;
                }
                Ok(())
            }
        }
    }
}
