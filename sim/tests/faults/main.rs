//! What faults do to sockets, in virtual time.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod datagrams;
mod machines;
mod streams;

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use vitte_net::network::{BoxStream, Datagrams, TcpListen, TcpOptions, UdpOptions};
use vitte_net_sim::{Cluster, Node, NodeResult};

const PORT: u16 = 7;

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn any() -> SocketAddr {
    SocketAddr::from(([0, 0, 0, 0], PORT))
}

async fn listen(node: &Node) -> io::Result<Box<dyn TcpListen>> {
    node.network().listen_tcp(any(), &TcpOptions::default()).await
}

async fn connect(node: &Node, to: &str) -> io::Result<BoxStream> {
    let ip = node.network().lookup(to).await?[0];
    node.network().connect_tcp((ip, PORT).into(), &TcpOptions::default()).await
}

async fn bind(node: &Node) -> io::Result<Arc<dyn Datagrams>> {
    node.network().bind_udp(any(), &UdpOptions::default()).await
}

async fn address(node: &Node, of: &str) -> io::Result<SocketAddr> {
    Ok((node.network().lookup(of).await?[0], PORT).into())
}

async fn receive(socket: &Arc<dyn Datagrams>, buf: &mut [u8]) -> io::Result<usize> {
    poll_fn(|cx| socket.poll_recv(cx, buf)).await.map(|got| got.len)
}

/// Sends back what comes, on TCP and UDP.
async fn echo(node: Node) -> NodeResult {
    let listener = listen(&node).await?;
    let socket = bind(&node).await?;
    tokio::spawn(async move {
        let mut buf = [0; 2048];
        loop {
            let got = poll_fn(|cx| socket.poll_recv(cx, &mut buf)).await.unwrap();
            socket.try_send(&buf[..got.len], got.from).unwrap();
        }
    });
    loop {
        let (mut stream, _) = listener.accept().await?;
        tokio::spawn(async move {
            let mut buf = vec![0; 64 << 10];
            while let Ok(count @ 1..) = stream.read(&mut buf).await {
                if stream.write_all(&buf[..count]).await.is_err() {
                    break;
                }
            }
        });
    }
}

/// One byte there and back.
async fn ping(stream: &mut BoxStream) -> io::Result<()> {
    stream.write_all(&[1]).await?;
    stream.read_exact(&mut [0]).await?;
    Ok(())
}

/// A cluster with an echo server.
fn with_echo(seed: u64) -> Cluster {
    Cluster::new(seed).node("server", echo)
}
