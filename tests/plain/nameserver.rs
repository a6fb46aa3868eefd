//! A name server in virtual time that says what it likes.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use std::future::poll_fn;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use vitte_net::network::{Datagrams, Network, TcpOptions, UdpOptions};
use vitte_net::resolver::{Resolver, ResolverBuilder};
use vitte_net_sim::{Cluster, Node};

pub(crate) const A: u16 = 1;
pub(crate) const CNAME: u16 = 5;
pub(crate) const SOA: u16 = 6;
pub(crate) const PTR: u16 = 12;
pub(crate) const MX: u16 = 15;
pub(crate) const TXT: u16 = 16;
pub(crate) const AAAA: u16 = 28;
pub(crate) const SRV: u16 = 33;

/// What was asked.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    pub(crate) tcp: bool,
    pub(crate) id: u16,
    pub(crate) name: String,
    pub(crate) kind: u16,
    pub(crate) extended: bool,
    /// The question as it came.
    pub(crate) question: Vec<u8>,
    /// How many were asked before.
    pub(crate) number: usize,
    pub(crate) port: u16,
}

/// What is answered: datagrams, or bytes of a stream with their lengths put before them.
#[derive(Clone, Debug)]
pub(crate) enum Say {
    Answer(Vec<u8>),
    /// From another port than the one that was asked.
    Elsewhere(Vec<u8>),
    /// Bytes of a stream as they are.
    Raw(Vec<u8>),
    Wait(Duration),
}

pub(crate) fn name(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for label in text.split('.').filter(|label| !label.is_empty()) {
        bytes.push(u8::try_from(label.len()).unwrap());
        bytes.extend(label.as_bytes());
    }
    bytes.push(0);
    bytes
}

pub(crate) fn record(owner: &str, kind: u16, ttl: u32, data: &[u8]) -> Vec<u8> {
    let length = u16::try_from(data.len()).unwrap().to_be_bytes();
    [name(owner).as_slice(), &kind.to_be_bytes(), &[0, 1], &ttl.to_be_bytes(), &length, data].concat()
}

pub(crate) fn a(owner: &str, ip: [u8; 4]) -> Vec<u8> {
    record(owner, A, 60, &ip)
}

pub(crate) fn alias(owner: &str, target: &str) -> Vec<u8> {
    record(owner, CNAME, 30, &name(target))
}

pub(crate) fn soa(zone: &str, minimum: u32) -> Vec<u8> {
    let data = [name("ns"), name("admin"), [0; 16].to_vec(), minimum.to_be_bytes().to_vec()].concat();
    record(zone, SOA, 3600, &data)
}

impl Ask {
    pub(crate) fn reply(&self, flags: u16, answers: &[Vec<u8>], authorities: &[Vec<u8>]) -> Vec<u8> {
        let count = |list: &[Vec<u8>]| u16::try_from(list.len()).unwrap().to_be_bytes();
        [
            &self.id.to_be_bytes()[..],
            &flags.to_be_bytes(),
            &[0, 1],
            &count(answers),
            &count(authorities),
            &[0, 0],
            &self.question,
            &answers.concat(),
            &authorities.concat(),
        ]
        .concat()
    }

    pub(crate) fn answer(&self, answers: &[Vec<u8>]) -> Vec<Say> {
        vec![Say::Answer(self.reply(0x8180, answers, &[]))]
    }

    pub(crate) fn is(&self, name: &str, kind: u16) -> bool {
        self.name == name && self.kind == kind
    }
}

pub(crate) fn parse(query: &[u8], tcp: bool, number: usize, port: u16) -> Ask {
    let (mut at, mut labels) = (12, Vec::new());
    while query[at] > 0 {
        let len = usize::from(query[at]);
        labels.push(String::from_utf8_lossy(&query[at + 1..at + 1 + len]).to_ascii_lowercase());
        at += 1 + len;
    }
    Ask {
        tcp,
        id: u16::from_be_bytes([query[0], query[1]]),
        name: labels.join("."),
        kind: u16::from_be_bytes([query[at + 1], query[at + 2]]),
        extended: query[11] == 1,
        question: query[12..at + 5].to_vec(),
        number,
        port,
    }
}

type Script = Arc<dyn Fn(&Ask) -> Vec<Say> + Send + Sync>;

async fn say(socket: &dyn Datagrams, other: &dyn Datagrams, said: Vec<Say>, to: SocketAddr) {
    for one in said {
        match one {
            Say::Answer(bytes) | Say::Raw(bytes) => socket.try_send(&bytes, to).unwrap(),
            Say::Elsewhere(bytes) => other.try_send(&bytes, to).unwrap(),
            Say::Wait(time) => tokio::time::sleep(time).await,
        }
    }
}

/// A name server at port 53, by UDP and TCP.
async fn serve(node: Node, script: Script) -> Result<(), Box<dyn std::error::Error>> {
    let (network, count) = (node.network(), Arc::new(Mutex::new(0)));
    let next = move || {
        let mut count = count.lock().unwrap();
        *count += 1;
        *count - 1
    };
    let at = |port| SocketAddr::new(node.ip(), port);
    let socket = network.bind_udp(at(53), &UdpOptions::default()).await?;
    let other = network.bind_udp(at(5353), &UdpOptions::default()).await?;
    let listener = network.listen_tcp(at(53), &TcpOptions::default()).await?;
    let (tcp_script, tcp_next) = (script.clone(), next.clone());
    tokio::spawn(async move {
        while let Ok((mut stream, from)) = listener.accept().await {
            let (script, number) = (tcp_script.clone(), tcp_next());
            tokio::spawn(async move {
                let Ok(len) = stream.read_u16().await else { return };
                let mut query = vec![0; len.into()];
                stream.read_exact(&mut query).await.unwrap();
                for one in script(&parse(&query, true, number, from.port())) {
                    let bytes = match one {
                        Say::Answer(bytes) => {
                            [&u16::try_from(bytes.len()).unwrap().to_be_bytes()[..], &bytes].concat()
                        }
                        Say::Raw(bytes) | Say::Elsewhere(bytes) => bytes,
                        Say::Wait(time) => {
                            tokio::time::sleep(time).await;
                            continue;
                        }
                    };
                    if stream.write_all(&bytes).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    loop {
        let mut buffer = [0; 2048];
        let received = poll_fn(|cx| socket.poll_recv(cx, &mut buffer)).await?;
        let said = script(&parse(&buffer[..received.len], false, next(), received.from.port()));
        let (socket, other) = (socket.clone(), other.clone());
        tokio::spawn(async move { say(&*socket, &*other, said, received.from).await });
    }
}

/// Runs `case` on a machine beside the name server, and gives what was asked.
pub(crate) fn with_server<Fut>(
    script: impl Fn(&Ask) -> Vec<Say> + Send + Sync + 'static,
    case: impl Fn(ResolverBuilder, Arc<dyn Network>) -> Fut + 'static,
) -> Vec<Ask>
where
    Fut: Future<Output = ()> + 'static,
{
    let asked = Arc::new(Mutex::new(Vec::new()));
    let log = asked.clone();
    let script: Script = Arc::new(move |ask: &Ask| {
        log.lock().unwrap().push(ask.clone());
        script(ask)
    });
    let case = Arc::new(case);
    let mut cluster = Cluster::new(5)
        .limit(Duration::from_secs(600))
        .node("dns", move |node| serve(node, script.clone()))
        .client("client", move |node| {
            let case = case.clone();
            async move {
                let network = node.network();
                let server = network.lookup("dns").await?[0];
                let builder = Resolver::builder().network(network.clone()).server(server.into());
                case(builder, network).await;
                Ok(())
            }
        });
    cluster.run().unwrap();
    let asked = asked.lock().unwrap();
    asked.clone()
}
