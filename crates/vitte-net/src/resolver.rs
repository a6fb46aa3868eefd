//! Names: a resolver over the seam, so that it simulates. No other file names `hickory-proto`, which reads and
//! writes the messages; servers, order, retries and cache are ours, on tokio's time.
//!
//! ```no_run
//! use vitte_net::resolver::{RecordType, Resolver};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let resolver = Resolver::builder().server("192.0.2.53".parse()?).build();
//! for record in resolver.lookup("example.org", RecordType::Mx).await? {
//!     println!("{} {}", record.name, record.data);
//! }
//! let addresses = resolver.lookup_ip("example.org").await?;
//! # Ok(())
//! # }
//! ```
//!
//! # What is believed
//! An answer counts if it comes from the server that was asked, to the port and with the id that were drawn for
//! the question, and repeats the question (RFC 5452, section 9.1). Of its records those count that belong to the
//! name that was asked for or to what that is an alias of; all others are dropped, whatever section they stand
//! in. Aliases end after 16 steps. Whether the server tells the truth nobody can know without DNSSEC, which is
//! not looked at: over [`NameServer::Tls`] and [`NameServer::Https`] nobody but the server can lie.

mod ask;
mod cache;
mod error;
mod https;
mod https2;
mod message;
mod private;
mod record;
mod server;
mod system;

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use crate::network::{
    BoxFuture, BoxStream, Datagrams, Network, OsNetwork, TcpListen, TcpOptions, UdpOptions,
};
use crate::tls::ClientTls;

use ask::{Flight, Penalty};
use cache::{Cache, Key};
use private::is_private;

pub use error::{Failure, ResolveError};
pub use record::{Data, Record, RecordType};
pub use server::NameServer;

/// How long the second family of addresses is waited for once the first is there (RFC 8305, section 3).
const RESOLUTION_DELAY: Duration = Duration::from_millis(50);

/// Looks names up. Cheap to clone; clones share cache and servers.
#[derive(Clone, Debug)]
pub struct Resolver {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    options: ResolverBuilder,
    cache: Mutex<Cache>,
    flights: Mutex<BTreeMap<Key, Flight>>,
    /// Until when each server comes last, because it was silent.
    penalties: Mutex<Vec<Penalty>>,
}

/// How a [`Resolver`] is set up.
#[derive(Clone, Debug)]
#[must_use]
pub struct ResolverBuilder {
    network: Arc<dyn Network>,
    servers: Vec<NameServer>,
    tls: Option<ClientTls>,
    search: Vec<String>,
    dots: usize,
    hosts: Vec<(String, IpAddr)>,
    timeout: Duration,
    attempt_timeout: Duration,
    rounds: usize,
    cache_entries: usize,
    ttl: (Duration, Duration),
    negative_ttl_max: Duration,
    refuse_private: bool,
}

impl Default for ResolverBuilder {
    fn default() -> Self {
        Self {
            network: Arc::new(OsNetwork),
            servers: Vec::new(),
            tls: None,
            search: Vec::new(),
            dots: 1,
            hosts: Vec::new(),
            timeout: Duration::from_secs(10),
            attempt_timeout: Duration::from_secs(2),
            rounds: 2,
            cache_entries: 1024,
            ttl: (Duration::from_secs(1), Duration::from_secs(86_400)),
            negative_ttl_max: Duration::from_secs(300),
            refuse_private: false,
        }
    }
}

impl ResolverBuilder {
    /// The network to ask through. Default: [`OsNetwork`].
    pub fn network(mut self, network: Arc<dyn Network>) -> Self {
        self.network = network;
        self
    }

    /// A server to ask, after those that were named before. Default: none.
    pub fn server(mut self, server: NameServer) -> Self {
        self.servers.push(server);
        self
    }

    /// The servers, search domains and own names of the system, as `/etc/resolv.conf` and `/etc/hosts` give
    /// them, added to what was named before. The files are read now.
    ///
    /// # Errors
    /// There is no such configuration here (only Unix has it), or it cannot be read.
    pub fn system(mut self) -> io::Result<Self> {
        let conf = system::resolv_conf(&std::fs::read_to_string("/etc/resolv.conf")?);
        self.servers.extend(conf.servers);
        self.search.extend(conf.search);
        self.dots = conf.dots.unwrap_or(self.dots);
        match std::fs::read_to_string("/etc/hosts") {
            Ok(text) => self.hosts.extend(system::hosts(&text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        Ok(self)
    }

    /// The client for [`NameServer::Tls`] and [`NameServer::Https`]. Default: none, and these servers fail.
    pub fn tls(mut self, tls: ClientTls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// A domain in which names are looked for that do not end with a dot, after those that were named before.
    /// Default: none.
    pub fn search(mut self, domain: impl Into<String>) -> Self {
        self.search.push(domain.into());
        self
    }

    /// Names with at least so many dots are tried as they are before they are looked for in the search domains.
    /// Default: 1.
    pub fn dots(mut self, dots: usize) -> Self {
        self.dots = dots;
        self
    }

    /// An address of a name, which no server is asked about then. Default: none.
    pub fn host(mut self, name: impl AsRef<str>, address: IpAddr) -> Self {
        self.hosts.push((name.as_ref().trim_end_matches('.').to_ascii_lowercase(), address));
        self
    }

    /// How long one lookup may take, with all servers, retries and aliases. Default: 10 seconds.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// How long one server may take before the next is asked. Default: 2 seconds.
    pub fn attempt_timeout(mut self, timeout: Duration) -> Self {
        self.attempt_timeout = timeout;
        self
    }

    /// How often each server is asked at most; at least 1. Default: 2.
    pub fn rounds(mut self, rounds: usize) -> Self {
        self.rounds = rounds.max(1);
        self
    }

    /// How many answers are remembered. Default: 1024. None: 0.
    pub fn cache_entries(mut self, entries: usize) -> Self {
        self.cache_entries = entries;
        self
    }

    /// The least and the most that an answer is remembered, whatever it says. Default: 1 second to 1 day.
    pub fn cache_ttl(mut self, least: Duration, most: Duration) -> Self {
        self.ttl = (least.min(most), most);
        self
    }

    /// The most that is remembered that there is nothing. Default: 5 minutes.
    pub fn negative_ttl_max(mut self, most: Duration) -> Self {
        self.negative_ttl_max = most;
        self
    }

    /// Drops addresses that servers give and that are not public: of one's own machine, of private networks, and
    /// the like. It keeps a stranger's name from leading to a service inside ("DNS rebinding"). Names of
    /// [`host`](Self::host), of the system's own and `localhost` are not touched. Default: no.
    pub fn refuse_private_addresses(mut self) -> Self {
        self.refuse_private = true;
        self
    }

    /// The resolver. Nothing is asked yet.
    #[must_use]
    pub fn build(self) -> Resolver {
        let cache = Mutex::new(Cache::new(self.cache_entries));
        let penalties = Mutex::new(vec![None; self.servers.len()]);
        Resolver { inner: Arc::new(Inner { options: self, cache, flights: Mutex::default(), penalties }) }
    }
}

/// Where a service is (RFC 2782).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Service {
    /// The host.
    pub target: String,
    /// The port.
    pub port: u16,
    /// The lowest goes first.
    pub priority: u16,
    /// Its share among those of the same priority.
    pub weight: u16,
    /// For how long it may be remembered.
    pub ttl: Duration,
}

impl Resolver {
    /// A resolver whose servers and limits can be chosen. It needs at least one server.
    pub fn builder() -> ResolverBuilder {
        ResolverBuilder::default()
    }

    /// Records of a name, at least one. A name that ends with a dot is taken as it is, another is also looked for
    /// in the search domains. Names of the system, `localhost` and names below `invalid` and `onion` are not
    /// asked for (RFC 6761, RFC 7686).
    ///
    /// # Errors
    /// See [`ResolveError`].
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped; another caller who waits for the same answer asks again.
    pub async fn lookup(&self, name: &str, kind: RecordType) -> Result<Vec<Record>, ResolveError> {
        let options = &self.inner.options;
        match tokio::time::timeout(options.timeout, self.find(name, kind)).await {
            Ok(found) => found,
            Err(_) => {
                let name = name.escape_debug().to_string();
                Err(ResolveError::TimedOut { name, timeout: options.timeout })
            }
        }
    }

    /// The addresses of a host, IPv6 first, at least one. Both families are asked for at once; when one is there
    /// the other has 50 ms more (RFC 8305, section 3). An address in text is its own answer.
    ///
    /// # Errors
    /// See [`ResolveError`].
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    pub async fn lookup_ip(&self, host: &str) -> Result<Vec<IpAddr>, ResolveError> {
        if let Ok(address) = host.parse() {
            return Ok(vec![address]);
        }
        let (mut six, mut four) =
            (pin!(self.lookup(host, RecordType::Aaaa)), pin!(self.lookup(host, RecordType::A)));
        let (six, four) = tokio::select! {
            biased;
            found = &mut six => match found {
                Ok(found) => (Some(Ok(found)), tokio::time::timeout(RESOLUTION_DELAY, four).await.ok()),
                nothing => (Some(nothing), Some(four.await)),
            },
            found = &mut four => match found {
                Ok(found) => (tokio::time::timeout(RESOLUTION_DELAY, six).await.ok(), Some(Ok(found))),
                nothing => (Some(six.await), Some(nothing)),
            },
        };
        let mut addresses = Vec::new();
        let mut failure = None;
        for found in [six, four].into_iter().flatten() {
            match found {
                Ok(records) => addresses.extend(records.iter().filter_map(|record| record.data.address())),
                // That a host has no IPv6 explains less than what else went wrong.
                Err(error) if failure.is_none() || !matches!(error, ResolveError::NoRecord { .. }) => {
                    failure = Some(error);
                }
                Err(_) => {}
            }
        }
        match failure {
            Some(failure) if addresses.is_empty() => Err(failure),
            _ => Ok(addresses),
        }
    }

    /// Where a service is, such as `_xmpp-client._tcp.example.org`, in the order in which to try: by priority, and
    /// by chance according to the weights within one (RFC 2782).
    ///
    /// # Errors
    /// See [`ResolveError`]; a service that is expressly not offered is [`ResolveError::NoRecord`].
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    pub async fn lookup_srv(&self, name: &str) -> Result<Vec<Service>, ResolveError> {
        let mut services = Vec::new();
        for record in self.lookup(name, RecordType::Srv).await? {
            if let Data::Srv { priority, weight, port, target } = record.data {
                services.push(Service { target, port, priority, weight, ttl: record.ttl });
            }
        }
        services.retain(|service| service.target != ".");
        if services.is_empty() {
            return Err(ResolveError::NoRecord {
                name: name.escape_debug().to_string(),
                kind: RecordType::Srv,
            });
        }
        Ok(self.by_chance(services))
    }

    /// The names of an address.
    ///
    /// # Errors
    /// See [`ResolveError`].
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    pub async fn reverse(&self, address: IpAddr) -> Result<Vec<String>, ResolveError> {
        let name = match address {
            IpAddr::V4(v4) => {
                let [a, b, c, d] = v4.octets();
                format!("{d}.{c}.{b}.{a}.in-addr.arpa.")
            }
            IpAddr::V6(v6) => {
                let nibbles = v6.octets().into_iter().rev().flat_map(|byte| [byte & 15, byte >> 4]);
                let labels: Vec<String> = nibbles.map(|nibble| format!("{nibble:x}")).collect();
                format!("{}.ip6.arpa.", labels.join("."))
            }
        };
        let records = self.lookup(&name, RecordType::Ptr).await?;
        let name = |record: Record| match record.data {
            Data::Ptr(name) => Some(name),
            _ => None,
        };
        Ok(records.into_iter().filter_map(name).collect())
    }

    /// Forgets what was remembered.
    pub fn clear_cache(&self) {
        ask::lock(&self.inner.cache).clear();
    }

    /// `network` with its names looked up here: for a connector of TCP, or anything else that takes a network.
    #[must_use]
    pub fn over(&self, network: Arc<dyn Network>) -> Arc<dyn Network> {
        Arc::new(Resolving { network, resolver: self.clone() })
    }

    /// RFC 2782, "Usage rules": of one priority, each in turn with a chance of its weight.
    fn by_chance(&self, mut services: Vec<Service>) -> Vec<Service> {
        services.sort_by_key(|service| (service.priority, service.weight));
        let mut ordered = Vec::with_capacity(services.len());
        while let Some(first) = services.first() {
            let priority = first.priority;
            let group = services.iter().take_while(|service| service.priority == priority).count();
            let sum: u64 = services[..group].iter().map(|service| u64::from(service.weight)).sum();
            let mut bytes = [0; 8];
            self.inner.options.network.fill_random(&mut bytes);
            let drawn = u64::from_be_bytes(bytes) % (sum + 1);
            let mut running = 0;
            let at = services[..group].iter().position(|service| {
                running += u64::from(service.weight);
                running >= drawn
            });
            ordered.push(services.remove(at.unwrap_or(0)));
        }
        ordered
    }

    async fn find(&self, name: &str, kind: RecordType) -> Result<Vec<Record>, ResolveError> {
        let options = &self.inner.options;
        let parsed = message::parse_name(name)?;
        let plain = message::text_of(&parsed).to_ascii_lowercase();
        if let Some(own) = self.own(&plain, kind) {
            return own;
        }
        if options.servers.is_empty() {
            return Err(ResolveError::NoServer);
        }
        let mut candidates = Vec::new();
        if !name.ends_with('.') {
            for domain in &options.search {
                // What becomes too long by a domain is not in it.
                candidates.extend(message::parse_name(&format!("{plain}.{domain}")).ok());
            }
        }
        let as_it_is = if plain.matches('.').count() >= options.dots { 0 } else { candidates.len() };
        candidates.insert(as_it_is, parsed);
        let mut nothing = None;
        for candidate in candidates {
            match self.resolve(candidate, kind).await {
                Ok(records) => return self.public(&plain, records),
                Err(error @ (ResolveError::NotFound(_) | ResolveError::NoRecord { .. })) => {
                    // That a name is there, but not this record of it, says more.
                    if nothing.is_none() || matches!(error, ResolveError::NoRecord { .. }) {
                        nothing = Some(error);
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Err(nothing.unwrap_or(ResolveError::NotFound(plain)))
    }

    /// What no server is asked about.
    fn own(&self, name: &str, kind: RecordType) -> Option<Result<Vec<Record>, ResolveError>> {
        let loopback = || [IpAddr::from([127, 0, 0, 1]), IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1])];
        let mut addresses: Vec<IpAddr> = match name.parse() {
            Ok(address) => vec![address],
            Err(_) => {
                let hosts = self.inner.options.hosts.iter().filter(|(own, _)| own == name);
                hosts.map(|(_, address)| *address).collect()
            }
        };
        let top = name.rsplit('.').next().unwrap_or_default();
        if addresses.is_empty() {
            match top {
                "localhost" => addresses.extend(loopback()),
                "invalid" | "onion" => return Some(Err(ResolveError::NotFound(name.to_owned()))),
                _ => return None,
            }
        }
        let data = addresses.into_iter().filter_map(|address| match (address, kind) {
            (IpAddr::V4(v4), RecordType::A) => Some(Data::A(v4)),
            (IpAddr::V6(v6), RecordType::Aaaa) => Some(Data::Aaaa(v6)),
            _ => None,
        });
        let record = |data| Record { name: name.to_owned(), ttl: Duration::ZERO, data };
        let records: Vec<_> = data.map(record).collect();
        // Of the system's own names servers may know more than addresses.
        match (records.is_empty(), kind) {
            (false, _) => Some(Ok(records)),
            (true, RecordType::A | RecordType::Aaaa) => {
                Some(Err(ResolveError::NoRecord { name: name.to_owned(), kind }))
            }
            (true, _) => None,
        }
    }

    fn public(&self, name: &str, mut records: Vec<Record>) -> Result<Vec<Record>, ResolveError> {
        if self.inner.options.refuse_private {
            records.retain(|record| !record.data.address().is_some_and(is_private));
            if records.is_empty() {
                return Err(ResolveError::Private(name.to_owned()));
            }
        }
        Ok(records)
    }
}

/// A network whose names a resolver looks up.
#[derive(Debug)]
struct Resolving {
    network: Arc<dyn Network>,
    resolver: Resolver,
}

impl Network for Resolving {
    fn connect_tcp<'a>(
        &'a self,
        to: SocketAddr,
        options: &'a TcpOptions,
    ) -> BoxFuture<'a, io::Result<BoxStream>> {
        self.network.connect_tcp(to, options)
    }

    fn listen_tcp<'a>(
        &'a self,
        at: SocketAddr,
        options: &'a TcpOptions,
    ) -> BoxFuture<'a, io::Result<Box<dyn TcpListen>>> {
        self.network.listen_tcp(at, options)
    }

    fn bind_udp<'a>(
        &'a self,
        at: SocketAddr,
        options: &'a UdpOptions,
    ) -> BoxFuture<'a, io::Result<Arc<dyn Datagrams>>> {
        self.network.bind_udp(at, options)
    }

    fn lookup<'a>(&'a self, host: &'a str) -> BoxFuture<'a, io::Result<Vec<IpAddr>>> {
        Box::pin(async move { Ok(self.resolver.lookup_ip(host).await?) })
    }

    fn wall_clock(&self) -> SystemTime {
        self.network.wall_clock()
    }

    fn fill_random(&self, out: &mut [u8]) {
        self.network.fill_random(out);
    }
}
