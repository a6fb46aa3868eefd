//! A network address translator forgets a QUIC link and gives it another address: QUIC's own migration carries
//! it over (RFC 9000, section 9), and the session does not notice.
#![expect(clippy::disallowed_methods, reason = "the translator stands outside of the network that is tested")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::time::timeout;
use vitte_net::{Address, Identity, Mesh, MeshEvent, Secret, Transport, Trust};

#[tokio::test]
async fn a_rebinding_on_the_way_is_not_noticed() {
    let secret = Secret::generate();
    let server = Mesh::builder()
        .identity(Identity::generate())
        .trust(Trust::secret(secret.clone()))
        .listen("quic://127.0.0.1:0")
        .start()
        .await
        .expect("the server starts");
    let mut incoming = server.accept_raw("echo").expect("the name is free");
    tokio::spawn(async move {
        let (_, mut channel) = incoming.next().await.expect("a channel comes");
        while let Ok(Some(message)) = channel.recv().await {
            let _receipt = channel.send(message).await;
        }
    });
    let rebind = Arc::new(AtomicBool::new(false));
    let at = SocketAddr::new([127, 0, 0, 1].into(), server.addresses()[0].port());
    let inside = UdpSocket::bind("127.0.0.1:0").await.expect("a port is free");
    let port = inside.local_addr().expect("it is bound").port();
    let translator = tokio::spawn(translate(inside, at, rebind.clone()));
    let client = Mesh::builder()
        .identity(Identity::generate())
        .trust(Trust::secret(secret))
        .start()
        .await
        .expect("the client starts");
    let mut events = client.events();
    let all = async {
        let peer =
            client.connect(&Address::new(Transport::Quic, "127.0.0.1", port)).await.expect("it is there");
        let mut channel = peer.raw_channel("echo").open().await.expect("accepted");
        for number in 0..300_u32 {
            if number % 100 == 50 {
                rebind.store(true, Ordering::SeqCst);
            }
            let message = number.to_le_bytes().to_vec();
            let receipt = channel.send(message.clone()).await.expect("the channel is open");
            assert_eq!(channel.recv().await.expect("it lives").as_deref(), Some(&message[..]));
            assert_eq!(receipt.await, Ok(()));
        }
        assert!(!rebind.load(Ordering::SeqCst), "the translator never rebound");
    };
    timeout(Duration::from_secs(30), all).await.expect("it goes on");
    assert!(matches!(events.next().await, Some(MeshEvent::Up { transport: Transport::Quic, .. })));
    let news = timeout(Duration::from_millis(1), events.next()).await;
    assert!(news.is_err(), "{news:?}");
    translator.abort();
}

/// Carries datagrams between one client and the server, from a fresh address whenever it is told to.
async fn translate(inside: UdpSocket, server: SocketAddr, rebind: Arc<AtomicBool>) {
    let mut outside = UdpSocket::bind("127.0.0.1:0").await.expect("a port is free");
    let mut client = None;
    let (mut out, mut back) = (vec![0; 65_536], vec![0; 65_536]);
    loop {
        tokio::select! {
            biased;
            Ok((len, from)) = inside.recv_from(&mut out) => {
                client = Some(from);
                if rebind.swap(false, Ordering::SeqCst) {
                    outside = UdpSocket::bind("127.0.0.1:0").await.expect("a port is free");
                }
                let _ = outside.send_to(&out[..len], server).await;
            }
            Ok((len, _)) = outside.recv_from(&mut back) => {
                if let Some(client) = client {
                    let _ = inside.send_to(&back[..len], client).await;
                }
            }
        }
    }
}
