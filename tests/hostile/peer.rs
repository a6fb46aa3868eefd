//! A victim, its honest peers, and a peer that authenticates properly and then speaks frames of its own.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::timeout;
use vitte_net::network::{Network, OsNetwork};
use vitte_net::tls::{MeshTls, default_provider};
use vitte_net::transport::{Link, LinkError, Transports};
use vitte_net::{Address, Config, Events, Identity, Mesh, MeshEvent, Peer, Request, Schema, Trust};
use vitte_net_proto::frame::{Decoded, Frame, read_frame};
use vitte_net_proto::{CloseCode, Handshake, Hello, Incarnation, Lane, Limits, PeerId, Proof, Step};

/// Longer than anything takes that is expected, on a machine with much to do.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// The transports, by scheme.
pub(crate) const ALL: [&str; 4] = ["quic", "tls", "ws", "wss"];

/// A call that is answered with what it says.
#[derive(Clone, Debug, Serialize, Deserialize, Schema)]
pub(crate) struct Echo(pub(crate) String);

impl Request for Echo {
    const NAME: &'static str = "echo/v1";
    type Response = String;
    type Error = ();
}

pub(crate) fn identity(key: u8) -> Identity {
    Identity::from_secret_key([key; 32])
}

pub(crate) fn id(key: u8) -> PeerId {
    identity(key).peer_id()
}

/// The key of the victim, of its honest peer, and of the hostile one: so that streams of the hostile one are odd
/// or even, whatever the order of the keys is.
pub(crate) const VICTIM: u8 = 1;
pub(crate) const HONEST: u8 = 2;
pub(crate) const HOSTILE: u8 = 3;

/// A mesh that goes by keys, trusts those above, and answers [`Echo`].
pub(crate) async fn mesh(key: u8, listen: &[&str], config: Config) -> Mesh {
    mesh_on(Arc::new(OsNetwork::new()), key, listen, config).await
}

pub(crate) async fn mesh_on(network: Arc<dyn Network>, key: u8, listen: &[&str], config: Config) -> Mesh {
    let mut builder = Mesh::builder()
        .identity(identity(key))
        .trust(Trust::keys([VICTIM, HONEST, HOSTILE].map(id)))
        .network(network)
        .config(config);
    for scheme in listen {
        builder = builder.listen(format!("{scheme}://127.0.0.1:0"));
    }
    let mesh = builder.start().await.expect("the mesh starts");
    mesh.serve(|_, Echo(text)| async move { Ok(text) }).expect("the name is free");
    mesh
}

/// One call there and back.
pub(crate) async fn echo(peer: &Peer) {
    let answer = timeout(SOON, peer.call(Echo(String::from("still here")))).await;
    assert_eq!(answer.expect("an honest peer is answered").as_deref(), Ok("still here"));
}

/// Links below any mesh.
pub(crate) fn transports(key: u8) -> Transports {
    let network: Arc<dyn Network> = Arc::new(OsNetwork::new());
    let tls =
        MeshTls::new(&identity(key), default_provider(), &network).expect("the provider knows all it needs");
    Transports::new(network, tls)
}

/// The next event that somebody waits for.
pub(crate) async fn until<T>(events: &mut Events, mut find: impl FnMut(MeshEvent) -> Option<T>) -> T {
    let found = timeout(SOON, async {
        loop {
            let event = events.next().await.expect("the mesh lives");
            if let Some(found) = find(event) {
                return found;
            }
        }
    });
    found.await.expect("the event comes")
}

/// A peer without a session behind it: a link, and what was heard on it.
pub(crate) struct Raw {
    pub(crate) link: Link,
    heard: Vec<(Lane, Vec<u8>)>,
    ended: Option<LinkError>,
}

impl Raw {
    pub(crate) fn new(link: Link) -> Self {
        Self { link, heard: Vec::new(), ended: None }
    }

    /// Dials and says hello, as a node that was started with this number.
    pub(crate) async fn greeted(transports: &Transports, address: &Address, life: u8) -> Self {
        let mut raw = Self::new(transports.dial(address, None).await.expect("a link"));
        raw.greet(&hello(life)).await;
        raw
    }

    pub(crate) async fn greet(&mut self, hello: &Hello) {
        self.try_greet(hello).await.expect("the victim listens").expect("it lets this peer in");
    }

    /// Says hello; the inner error is the code of the victim's refusal.
    pub(crate) async fn try_greet(&mut self, hello: &Hello) -> Result<Result<(), CloseCode>, LinkError> {
        let mut out = Vec::new();
        let mut handshake = Handshake::new(hello, &mut out);
        loop {
            self.say_bytes(&std::mem::take(&mut out)).await?;
            let run: Vec<u8> = self.take(Lane::CONTROL);
            match handshake.handle(&run).expect("the victim keeps the rules") {
                Step::NeedBytes => self.listen().await?,
                Step::Hello(_) => handshake.welcome([0; 32], &mut out),
                Step::Welcome { rest, .. } => {
                    self.say_bytes(&std::mem::take(&mut out)).await?;
                    self.heard.insert(0, (Lane::CONTROL, rest));
                    return Ok(Ok(()));
                }
                Step::Refused { code, .. } => return Ok(Err(code)),
            }
        }
    }

    /// Takes the bytes that were heard on a lane.
    pub(crate) fn take(&mut self, lane: Lane) -> Vec<u8> {
        let (mine, others) = std::mem::take(&mut self.heard).into_iter().partition(|(from, _)| *from == lane);
        self.heard = others;
        let runs: Vec<(Lane, Vec<u8>)> = mine;
        runs.into_iter().flat_map(|(_, run)| run).collect()
    }

    /// Throws away what was heard.
    pub(crate) fn forget(&mut self) {
        self.heard.clear();
    }

    pub(crate) async fn listen(&mut self) -> Result<(), LinkError> {
        let heard = &mut self.heard;
        self.link.reader.read(&mut |lane, run| heard.push((lane, run.to_vec()))).await
    }

    pub(crate) async fn say(&mut self, frames: &[Frame<'_>]) -> Result<(), LinkError> {
        let mut out = Vec::new();
        frames.iter().for_each(|frame| frame.put(&mut out));
        self.say_bytes(&out).await
    }

    /// Says bytes on lane 0, whatever they are.
    pub(crate) async fn say_bytes(&mut self, bytes: &[u8]) -> Result<(), LinkError> {
        for run in bytes.chunks(8 << 10) {
            self.link.writer.write(Lane::CONTROL, run)?;
            poll_fn(|cx| self.link.writer.poll_flush(cx)).await?;
        }
        Ok(())
    }

    /// Says bytes, and hears what there is meanwhile, so that neither side waits for the other.
    pub(crate) async fn converse(&mut self, bytes: &[u8]) -> Result<(), LinkError> {
        for run in bytes.chunks(8 << 10) {
            self.link.writer.write(Lane::CONTROL, run)?;
            poll_fn(|cx| {
                loop {
                    let heard = &mut self.heard;
                    let mut hear = |lane, run: &[u8]| heard.push((lane, run.to_vec()));
                    match pin!(self.link.reader.read(&mut hear)).poll(cx) {
                        Poll::Ready(read) => read?,
                        Poll::Pending => return self.link.writer.poll_flush(cx),
                    }
                }
            })
            .await?;
        }
        Ok(())
    }

    /// Reads until the link ends, and says what the last frame was, if it was a CLOSE.
    pub(crate) async fn last_word(&mut self) -> Option<(CloseCode, String)> {
        let ended = timeout(SOON, async {
            loop {
                if let Err(error) = self.listen().await {
                    return error;
                }
            }
        });
        self.ended = Some(ended.await.expect("the victim cuts the link"));
        let mut said = None;
        let run = self.take(Lane::CONTROL);
        let mut rest = &run[..];
        while let Ok(Decoded::Frame(frame, len)) = read_frame(rest) {
            if let Frame::Close { code, reason, .. } = frame {
                said = Some((code, reason.to_owned()));
            }
            rest = &rest[len..];
        }
        said
    }
}

pub(crate) fn hello(life: u8) -> Hello {
    Hello {
        version_min: 1,
        version_max: 1,
        features: 0,
        incarnation: Incarnation([life; 16]),
        generation: 1,
        nonce: [7; 32],
        proof: Proof::Keys,
        limits: Limits { max_message: 1 << 20, stream_window: 1 << 16, max_streams: 64 },
    }
}
