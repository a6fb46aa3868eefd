// Sends back every datagram: `udp_echo [ADDRESS]`, by default `127.0.0.1:7007`. Try it with
// `printf hello | nc -u -w1 127.0.0.1 7007`.

use vitte_net::udp::UdpSocket;

/// Longer datagrams are not echoed, because half a datagram would be a lie.
const LONGEST: usize = 1500;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let at = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:7007".into());
    let socket = UdpSocket::bind(at).await?;
    println!("listening at {}", socket.local_addr()?);

    let mut buf = [0; LONGEST];
    loop {
        let received = socket.recv_from(&mut buf).await?;
        if received.truncated {
            println!("{}: more than {LONGEST} bytes, not echoed", received.from);
            continue;
        }
        println!("{}: {} bytes", received.from, received.len);
        // One that cannot be answered is no reason to stop serving the others.
        if let Err(error) = socket.send_to(&buf[..received.len], received.from).await {
            println!("{}: {error}", received.from);
        }
    }
}
