//! [`SimNetwork`]: the seam of production code, on the simulated world.

use std::fmt;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::RngCore;
use vitte_net::network::{BoxFuture, BoxStream, Datagrams, Network, TcpListen, TcpOptions, UdpOptions};

use crate::seed::generator;
use crate::world::tcp::{Acceptor, Listener, Stream};
use crate::world::udp::{Socket, UdpSocket};
use crate::world::{HostId, World};

/// The wall clock at the start of every run: 2025-01-01, in seconds since the Unix epoch.
const WALL_CLOCK_START: u64 = 1_735_689_600;

/// The network as one life of one node sees it.
///
/// Nodes have IPv4 addresses; `[::]` and `[::1]` stand for any and for the node itself. Multicast and broadcast are not simulated: sending there is `HostUnreachable`, joining a group `Unsupported`. A socket of a
/// life that has ended answers `NetworkDown` or, for streams, `ConnectionAborted`.
///
/// Of the options of sockets `backlog`, `notsent_low_water`, `from` and the receive buffer of UDP mean what they mean elsewhere. What would
/// change who hears whom is refused as `Unsupported`: sharing an address or a port, binding to an interface, IPv6 alone. The rest is ignored: there are no small
/// segments to hold back, no silence to ask into, no routers to pass, and a stream that is dropped ends as without `linger`.
pub struct SimNetwork {
    world: World,
    host: HostId,
    life: u32,
    random: Mutex<ChaCha20Rng>,
}

impl fmt::Debug for SimNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimNetwork").field("host", &self.host).field("life", &self.life).finish()
    }
}

impl SimNetwork {
    /// `user` tells apart who draws random bytes, so that no two draw the same.
    pub(crate) fn new(world: World, host: HostId, user: &str) -> Self {
        let (seed, name, life) =
            world.with(|state| (state.seed, state.hosts[host].name.clone(), state.hosts[host].life));
        let random = Mutex::new(generator(seed, &["network", user, &name, &life.to_string()]));
        Self { world, host, life, random }
    }

    fn connect(&self, to: SocketAddr, options: &TcpOptions) -> io::Result<Stream> {
        self.world.with(|state| {
            if state.hosts[self.host].life != self.life {
                return Err(ErrorKind::NetworkDown.into());
            }
            refuse(options.interface.is_some(), "interface")?;
            if let Some(from) = options.from {
                self.check_local(state.hosts[self.host].ip, self.life, from)?;
            }
            let id = state.dial(self.host, to, options.from)?;
            Stream::new(self.world.clone(), state, id, 0, options.notsent_low_water)
                .ok_or_else(|| ErrorKind::ConnectionAborted.into())
        })
    }

    fn listen(&self, at: SocketAddr, options: &TcpOptions) -> io::Result<Acceptor> {
        self.world.with(|state| {
            self.check_local(state.hosts[self.host].ip, state.hosts[self.host].life, at)?;
            refuse(options.interface.is_some(), "interface")?;
            refuse(options.reuse_port, "reuse_port")?;
            refuse(options.only_ipv6, "only_ipv6")?;
            let port = state.free_port(self.host, at.port(), |host, port| {
                host.listeners.contains_key(&port) || host.dialled.contains_key(&port)
            })?;
            let address = SocketAddr::new(at.ip(), port);
            let backlog = usize::try_from(options.backlog.max(1)).unwrap_or(usize::MAX);
            let listener = Listener { address, backlog, queue: Default::default(), wakers: Vec::new() };
            state.hosts[self.host].listeners.insert(port, listener);
            Ok(Acceptor {
                world: self.world.clone(),
                host: self.host,
                life: self.life,
                address,
                notsent_low_water: options.notsent_low_water,
            })
        })
    }

    fn bind(&self, at: SocketAddr, options: &UdpOptions) -> io::Result<UdpSocket> {
        self.world.with(|state| {
            self.check_local(state.hosts[self.host].ip, state.hosts[self.host].life, at)?;
            refuse(options.interface.is_some(), "interface")?;
            refuse(options.share_address, "share_address")?;
            refuse(options.only_ipv6, "only_ipv6")?;
            let taken = |host: &crate::world::Host, port| host.udp.contains_key(&port);
            let port = state.free_port(self.host, at.port(), taken)?;
            let address = SocketAddr::new(at.ip(), port);
            let socket = Socket::new(address, options.receive_buffer);
            state.hosts[self.host].udp.insert(port, socket);
            Ok(UdpSocket { world: self.world.clone(), host: self.host, life: self.life, address })
        })
    }

    fn check_local(&self, own: IpAddr, life: u32, at: SocketAddr) -> io::Result<()> {
        if life != self.life {
            return Err(ErrorKind::NetworkDown.into());
        }
        let ip = at.ip();
        let local = ip.is_unspecified() || ip.is_loopback() || ip == own;
        local.then_some(()).ok_or_else(|| ErrorKind::AddrNotAvailable.into())
    }
}

/// Options that would change who hears whom.
fn refuse(asked: bool, option: &str) -> io::Result<()> {
    if asked {
        return Err(io::Error::new(ErrorKind::Unsupported, format!("{option}: not simulated")));
    }
    Ok(())
}

impl Network for SimNetwork {
    fn connect_tcp<'a>(
        &'a self,
        to: SocketAddr,
        options: &'a TcpOptions,
    ) -> BoxFuture<'a, io::Result<BoxStream>> {
        Box::pin(async move {
            let stream = self.connect(to, options)?;
            stream.connected().await?;
            Ok(Box::new(stream) as BoxStream)
        })
    }

    fn listen_tcp<'a>(
        &'a self,
        at: SocketAddr,
        options: &'a TcpOptions,
    ) -> BoxFuture<'a, io::Result<Box<dyn TcpListen>>> {
        Box::pin(async move { Ok(Box::new(self.listen(at, options)?) as Box<dyn TcpListen>) })
    }

    fn bind_udp<'a>(
        &'a self,
        at: SocketAddr,
        options: &'a UdpOptions,
    ) -> BoxFuture<'a, io::Result<Arc<dyn Datagrams>>> {
        Box::pin(async move { Ok(Arc::new(self.bind(at, options)?) as Arc<dyn Datagrams>) })
    }

    fn lookup<'a>(&'a self, host: &'a str) -> BoxFuture<'a, io::Result<Vec<IpAddr>>> {
        Box::pin(async move {
            if let Ok(ip) = host.parse() {
                return Ok(vec![ip]);
            }
            if host == "localhost" {
                return Ok(vec![IpAddr::from([127, 0, 0, 1])]);
            }
            self.world.with(|state| match state.names.get(host) {
                Some(id) => Ok(vec![state.hosts[*id].ip]),
                None => Err(ErrorKind::NotFound.into()),
            })
        })
    }

    fn wall_clock(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(WALL_CLOCK_START) + self.world.now()
    }

    fn fill_random(&self, out: &mut [u8]) {
        self.random.lock().unwrap_or_else(PoisonError::into_inner).fill_bytes(out);
    }
}
