//! Options of sockets, as the system takes them.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use socket2::{Domain, InterfaceIndexOrAddress, Protocol, SockRef, Socket, TcpKeepalive, Type};

use crate::network::{Interface, Keepalive, TcpOptions, UdpOptions};

/// Which packets a socket sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    V4,
    V6,
    Dual,
}

impl Family {
    /// Of a socket that is to be bound to `at`; `[::]` takes both, unless it is to take IPv6 alone.
    pub(super) fn bound(at: SocketAddr, only_ipv6: bool) -> Self {
        match at {
            SocketAddr::V4(_) => Self::V4,
            SocketAddr::V6(v6) if v6.ip().is_unspecified() && !only_ipv6 => Self::Dual,
            SocketAddr::V6(_) => Self::V6,
        }
    }

    /// Of a socket that is to be connected to `to`.
    pub(super) fn connected(to: SocketAddr) -> Self {
        if to.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    /// IPv4 of a dual-stack socket has options of its own, which Linux alone lets one set.
    fn has_ipv4(self) -> bool {
        self == Self::V4 || (self == Self::Dual && cfg!(any(target_os = "android", target_os = "linux")))
    }

    fn has_ipv6(self) -> bool {
        self != Self::V4
    }
}

/// A non-blocking socket for `at`, not bound yet.
pub(super) fn new_socket(
    at: SocketAddr,
    kind: Type,
    protocol: Protocol,
    only_ipv6: bool,
) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(at), kind, Some(protocol))?;
    if at.is_ipv6() && (at.ip().is_unspecified() || only_ipv6) {
        socket.set_only_v6(only_ipv6)?;
    }
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// What connected and accepted sockets have in common.
pub(super) fn configure(socket: SockRef<'_>, options: &TcpOptions) -> io::Result<()> {
    socket.set_tcp_nodelay(options.nodelay)?;
    #[cfg(any(target_os = "android", target_os = "linux"))]
    if let Some(bytes) = options.notsent_low_water {
        // The kernel takes a signed number.
        socket.set_tcp_notsent_lowat(bytes.min(i32::MAX.unsigned_abs()))?;
    }
    if let Some(keepalive) = options.keepalive {
        keep_alive(&socket, keepalive)?;
    }
    if let Some(linger) = options.linger {
        naming("linger", socket.set_linger(Some(whole_seconds(linger))))?;
    }
    Ok(())
}

/// What must be set before a socket connects or listens; accepted sockets inherit it.
pub(super) fn before(socket: SockRef<'_>, options: &TcpOptions, family: Family) -> io::Result<()> {
    buffers(&socket, options.receive_buffer, options.send_buffer)?;
    bind_to(&socket, options.interface.as_deref())?;
    path(&socket, family, options.ttl, options.dscp)
}

/// All that a socket for datagrams may be asked for, before it is bound.
pub(super) fn datagrams(socket: SockRef<'_>, options: &UdpOptions, family: Family) -> io::Result<()> {
    if options.batches && options.dscp.is_some() {
        return wrong("dscp: not together with batches, whose datagrams say their class one by one");
    }
    buffers(&socket, options.receive_buffer, options.send_buffer)?;
    if options.broadcast {
        socket.set_broadcast(true)?;
    }
    if options.share_address {
        // On Windows SO_REUSEADDR alone means this.
        naming("share_address", socket.set_reuse_address(true))?;
        if cfg!(unix) {
            share_port(&socket)?;
        }
    }
    members_alone(&socket, family)?;
    bind_to(&socket, options.interface.as_deref())?;
    path(&socket, family, options.ttl, options.dscp)?;
    if let Some(ttl) = options.multicast_ttl {
        if family.has_ipv4() {
            naming("multicast_ttl", socket.set_multicast_ttl_v4(ttl.into()))?;
        }
        if family.has_ipv6() {
            naming("multicast_ttl", socket.set_multicast_hops_v6(ttl.into()))?;
        }
    }
    if let Some(back) = options.multicast_loop {
        if family.has_ipv4() {
            naming("multicast_loop", socket.set_multicast_loop_v4(back))?;
        }
        if family.has_ipv6() {
            naming("multicast_loop", socket.set_multicast_loop_v6(back))?;
        }
    }
    match options.multicast_interface {
        Interface::Any => Ok(()),
        Interface::Address(address) if family.has_ipv4() => {
            naming("multicast_interface", socket.set_multicast_if_v4(&address))
        }
        Interface::Index(index) if family.has_ipv6() => {
            naming("multicast_interface", socket.set_multicast_if_v6(index))
        }
        Interface::Address(_) => wrong("multicast_interface: IPv6 goes out by an interface's number"),
        Interface::Index(_) => wrong("multicast_interface: IPv4 goes out by an interface's address"),
    }
}

/// Without this Linux gives a socket at `0.0.0.0` the datagrams of every group that anybody on the machine is in.
fn members_alone(socket: &Socket, family: Family) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    {
        if family.has_ipv4() {
            socket.set_multicast_all_v4(false)?;
        }
        // Linux before 4.20 has no such option for IPv6.
        if family.has_ipv6() {
            let _ = socket.set_multicast_all_v6(false);
        }
    }
    let _ = (socket, family);
    Ok(())
}

/// Joins or leaves a group.
pub(super) fn group(socket: SockRef<'_>, group: IpAddr, interface: Interface, join: bool) -> io::Result<()> {
    if !group.is_multicast() {
        return wrong(format!("{group} is no group of multicast"));
    }
    match (group, interface) {
        (IpAddr::V4(group), interface) => {
            let interface = match interface {
                Interface::Any => InterfaceIndexOrAddress::Address(Ipv4Addr::UNSPECIFIED),
                Interface::Address(address) => InterfaceIndexOrAddress::Address(address),
                Interface::Index(index) => InterfaceIndexOrAddress::Index(index),
            };
            if join {
                socket.join_multicast_v4_n(&group, &interface)
            } else {
                socket.leave_multicast_v4_n(&group, &interface)
            }
        }
        (IpAddr::V6(group), Interface::Any | Interface::Index(_)) => {
            let index = if let Interface::Index(index) = interface { index } else { 0 };
            if join {
                socket.join_multicast_v6(&group, index)
            } else {
                socket.leave_multicast_v6(&group, index)
            }
        }
        (IpAddr::V6(_), Interface::Address(_)) => {
            wrong("an interface is named by its number for an IPv6 group")
        }
    }
}

/// Lets several sockets share a port.
#[cfg_attr(not(unix), allow(unused_variables, reason = "only Unix has it"))]
pub(super) fn share_port(socket: &Socket) -> io::Result<()> {
    #[cfg(all(unix, not(any(target_os = "solaris", target_os = "illumos", target_os = "cygwin"))))]
    return naming("reuse_port", socket.set_reuse_port(true));
    #[cfg(not(all(unix, not(any(target_os = "solaris", target_os = "illumos", target_os = "cygwin")))))]
    unsupported("this system has no SO_REUSEPORT")
}

fn keep_alive(socket: &Socket, keepalive: Keepalive) -> io::Result<()> {
    if keepalive.idle.is_zero() || keepalive.interval.is_zero() || keepalive.probes == 0 {
        return wrong("the times and the number of probes of keepalive are at least 1");
    }
    let times = TcpKeepalive::new()
        .with_time(whole_seconds(keepalive.idle))
        .with_interval(whole_seconds(keepalive.interval));
    #[cfg(unix)]
    let times = times.with_retries(keepalive.probes);
    naming("keepalive", socket.set_tcp_keepalive(&times))
}

/// Up to whole seconds, which is what systems count in: half a second must not become none.
fn whole_seconds(time: Duration) -> Duration {
    Duration::from_secs(time.as_secs().saturating_add(u64::from(time.subsec_nanos() > 0)))
}

fn buffers(socket: &Socket, receive: Option<usize>, send: Option<usize>) -> io::Result<()> {
    if let Some(bytes) = receive {
        naming("receive_buffer", socket.set_recv_buffer_size(bytes))?;
    }
    if let Some(bytes) = send {
        naming("send_buffer", socket.set_send_buffer_size(bytes))?;
    }
    Ok(())
}

fn bind_to(socket: &Socket, interface: Option<&str>) -> io::Result<()> {
    let Some(interface) = interface else { return Ok(()) };
    #[cfg(any(target_os = "android", target_os = "linux"))]
    return naming(&format!("interface {interface}"), socket.bind_device(Some(interface.as_bytes())));
    #[cfg(not(any(target_os = "android", target_os = "linux")))]
    {
        let _ = (socket, interface);
        unsupported("this system binds no socket to an interface's name")
    }
}

fn path(socket: &Socket, family: Family, ttl: Option<u8>, dscp: Option<u8>) -> io::Result<()> {
    if ttl == Some(0) {
        return wrong("ttl: 1 to 255");
    }
    if let Some(ttl) = ttl {
        if family.has_ipv4() {
            naming("ttl", socket.set_ttl_v4(ttl.into()))?;
        }
        if family.has_ipv6() {
            naming("ttl", socket.set_unicast_hops_v6(ttl.into()))?;
        }
    }
    let Some(dscp) = dscp else { return Ok(()) };
    if dscp > 63 {
        return wrong("dscp: 0 to 63");
    }
    // It stands above the two bits of congestion notification (RFC 3168).
    let class = u32::from(dscp) << 2;
    #[cfg(unix)]
    {
        if family.has_ipv4() {
            naming("dscp", socket.set_tos_v4(class))?;
        }
        if family.has_ipv6() {
            naming("dscp", socket.set_tclass_v6(class))?;
        }
        Ok(())
    }
    #[cfg(not(unix))]
    {
        let _ = class;
        unsupported("this system lets nobody choose the class of traffic")
    }
}

/// The system's answer to one option, with the name of that option.
fn naming(option: &str, answer: io::Result<()>) -> io::Result<()> {
    answer.map_err(|error| io::Error::new(error.kind(), format!("{option}: {error}")))
}

fn wrong(text: impl Into<String>) -> io::Result<()> {
    Err(io::Error::new(io::ErrorKind::InvalidInput, text.into()))
}

#[cfg_attr(any(target_os = "android", target_os = "linux"), allow(dead_code, reason = "Linux has all of it"))]
fn unsupported(text: &str) -> io::Result<()> {
    Err(io::Error::new(io::ErrorKind::Unsupported, text))
}
