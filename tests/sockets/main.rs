//! One suite for sockets, mounted on the operating system and on the simulation.
//!
//! What holds on one must hold on the other: production code is tested on simulated sockets, so these have
//! to behave as the real ones do. A case gets two networks, one for each end.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod datagrams;
mod streams;
mod system;

use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use vitte_net::network::{BoxStream, Network, OsNetwork, TcpListen, TcpOptions};
use vitte_net_sim::Cluster;

/// A case that takes longer hangs. (Real time on real sockets, virtual time on simulated ones.)
const PATIENCE: Duration = Duration::from_secs(30);

/// Two ends of a network.
#[derive(Clone)]
struct Ends {
    server: Arc<dyn Network>,
    server_ip: IpAddr,
    client: Arc<dyn Network>,
    client_ip: IpAddr,
    /// A name that leads to the server.
    server_name: &'static str,
}

impl Ends {
    /// Listens on a port that the system chooses.
    async fn listen(&self) -> (Box<dyn TcpListen>, SocketAddr) {
        let at = SocketAddr::new(self.server_ip, 0);
        let listener = self.server.listen_tcp(at, &TcpOptions::default()).await.unwrap();
        let address = listener.local_addr().unwrap();
        (listener, address)
    }

    async fn connect(&self, to: SocketAddr) -> BoxStream {
        self.client.connect_tcp(to, &TcpOptions::default()).await.unwrap()
    }

    /// A connection: the client's end, the server's end.
    async fn pair(&self) -> (BoxStream, BoxStream) {
        let (listener, address) = self.listen().await;
        let client = self.connect(address).await;
        let (server, _) = listener.accept().await.unwrap();
        (client, server)
    }
}

fn on_the_system<Fut: Future<Output = ()>>(case: impl FnOnce(Ends) -> Fut) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let ip = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let network: Arc<dyn Network> = Arc::new(OsNetwork::new());
    let ends = Ends {
        server: Arc::clone(&network),
        server_ip: ip,
        client: network,
        client_ip: ip,
        server_name: "localhost",
    };
    runtime.block_on(async { tokio::time::timeout(PATIENCE, case(ends)).await.expect("the case hangs") });
}

fn in_simulation<Fut: Future<Output = ()> + 'static>(case: impl Fn(Ends) -> Fut + Copy + 'static) {
    let cluster = Cluster::new(1).limit(PATIENCE).node("server", |_| std::future::pending());
    let server = cluster.network("server").unwrap();
    let mut cluster = cluster.client("client", move |node| {
        let server = Arc::clone(&server);
        async move {
            let server_ip = node.network().lookup("server").await?[0];
            let (client, client_ip) = (node.network(), node.ip());
            case(Ends { server, server_ip, client, client_ip, server_name: "server" }).await;
            Ok(())
        }
    });
    cluster.run().unwrap();
}

/// Makes two tests of each case.
macro_rules! mount {
    ($($module:ident: $($case:ident)+;)+) => {
        mod os {
            $($(
                #[test]
                fn $case() {
                    super::on_the_system(super::$module::$case);
                }
            )+)+
        }
        mod sim {
            $($(
                #[test]
                fn $case() {
                    super::in_simulation(super::$module::$case);
                }
            )+)+
        }
    };
}

mount! {
    streams:
        echo
        a_large_transfer_arrives_whole
        a_writer_waits_for_its_reader
        a_half_closed_stream_still_answers
        a_dropped_stream_ends_after_its_bytes
        unread_bytes_make_a_reset
        writing_to_a_closed_peer_fails
        writing_after_a_shutdown_fails
        nobody_listens_is_refused
        port_zero_gives_a_port
        a_port_is_taken_once
        connections_are_accepted_in_order
        a_cancelled_accept_loses_nothing
        both_ends_agree_on_addresses
        vectored_writes_keep_their_order
        a_writing_half_that_is_dropped_says_nothing
        a_connection_comes_from_where_it_was_told;
    datagrams:
        datagrams_come_back
        datagrams_keep_their_boundaries
        a_short_buffer_truncates
        an_empty_datagram_arrives
        a_datagram_can_be_too_long
        an_unspecified_socket_has_a_source
        a_udp_port_is_taken_once
        a_receiver_is_woken
        batches_keep_order_and_boundaries;
    system:
        names_and_addresses_are_looked_up
        random_bytes_differ
        the_wall_clock_is_of_this_age;
}
