//! vitte-net itself, as an application uses it: typed calls and channels, byte streams, the default limits.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use postcard_schema::Schema;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::JoinSet;
use tokio::time::Instant;
use vitte_net::{
    Blob, CallContext, Channel, Identity, Incoming, Mesh, Peer, PeerStream, Priority, Request, Secret, Trust,
};

use crate::load::{BLOB, BLOCK, Figure, IN_FLIGHT, Load, MESSAGE, REQUEST, Transport};

const MESSAGES: &str = "messages";
pub(crate) const BULK: &str = "bulk";

/// Answered as it came.
#[derive(Debug, Serialize, Deserialize, Schema)]
struct Echo(Blob);

impl Request for Echo {
    const NAME: &'static str = "echo";
    type Response = Blob;
    type Error = ();
}

/// What comes back over a channel of messages: the bytes of all of them.
pub(crate) type Answer = u64;

/// A mesh with a fresh identity.
pub(crate) async fn mesh(secret: Secret, listen: Option<Transport>) -> anyhow::Result<Mesh> {
    let mut builder = Mesh::builder().identity(Identity::generate()).trust(Trust::secret(secret));
    if let Some(transport) = listen {
        builder = builder.listen(format!("{transport}://127.0.0.1:0"));
    }
    Ok(builder.start().await?)
}

/// Serves all loads, for as long as it is polled.
pub(crate) async fn serve(
    transport: Transport,
    secret: Secret,
    ready: impl FnOnce(String) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mesh = mesh(secret, Some(transport)).await?;
    mesh.serve(|_: CallContext, Echo(blob): Echo| async move { Ok(blob) })?;
    let messages = mesh.accept_duplex::<Answer, Blob>(MESSAGES)?;
    let paced = mesh.accept_duplex::<Answer, Blob>(crate::memory::PACED)?;
    let bulk = mesh.accept_bytes(BULK)?;
    ready(mesh.addresses().first().context("the mesh does not listen")?.to_string())?;
    tokio::try_join!(take_messages(messages), crate::memory::take_paced(paced), take_bulk(bulk))?;
    Ok(())
}

async fn take_messages(mut incoming: Incoming<Channel<Answer, Blob>>) -> anyhow::Result<()> {
    while let Some((_, channel)) = incoming.next().await {
        let (answers, mut messages) = channel.split();
        let mut bytes = 0;
        while let Some(message) = messages.recv().await? {
            bytes += message.len() as u64;
        }
        drop(answers.send(bytes).await?);
        // The near side closes when it has the answer.
        let _ = answers.finish().await;
    }
    Ok(())
}

async fn take_bulk(mut incoming: Incoming<PeerStream>) -> anyhow::Result<()> {
    let mut block = vec![0; BLOCK];
    while let Some((_, mut stream)) = incoming.next().await {
        let mut bytes = 0;
        loop {
            match stream.read(&mut block).await? {
                0 => break,
                read => bytes += read as u64,
            }
        }
        stream.write_u64(bytes).await?;
        // The near side closes when it has the answer.
        let _ = stream.shutdown().await;
    }
    Ok(())
}

/// A session with a far side.
#[derive(Debug)]
pub(crate) struct Near {
    _mesh: Mesh,
    peer: Peer,
}

impl Near {
    pub(crate) async fn connect(address: &str, secret: Secret) -> anyhow::Result<Self> {
        let mesh = mesh(secret, None).await?;
        let peer = mesh.connect(&address.parse()?).await?;
        Ok(Self { _mesh: mesh, peer })
    }

    pub(crate) fn peer(&self) -> &Peer {
        &self.peer
    }

    /// Puts a load on the session.
    pub(crate) async fn run(&self, load: Load, amount: u64) -> anyhow::Result<Figure> {
        match load {
            Load::Sequential => {
                self.sequential(amount / 10).await?;
                Ok(Figure::of_times(self.sequential(amount).await?))
            }
            Load::Flight => {
                self.flight(amount / 10).await?;
                Ok(Figure::of_rate(load, amount, self.flight(amount).await?))
            }
            Load::Messages => {
                Ok(Figure::of_rate(load, amount, self.messages(MESSAGE, amount * MESSAGE as u64).await?))
            }
            Load::Bulk => Ok(Figure::of_rate(load, amount, self.bulk(amount).await?)),
            Load::Blobs => Ok(Figure::of_rate(load, amount, self.messages(BLOB, amount).await?)),
        }
    }

    async fn sequential(&self, calls: u64) -> anyhow::Result<Vec<Duration>> {
        let payload = Blob::from(vec![7; REQUEST]);
        let mut times = Vec::with_capacity(usize::try_from(calls)?);
        for _ in 0..calls {
            let start = Instant::now();
            let answer = self.peer.call(Echo(payload.clone())).await?;
            times.push(start.elapsed());
            ensure!(answer == payload, "the echo is another one");
        }
        Ok(times)
    }

    async fn flight(&self, calls: u64) -> anyhow::Result<Duration> {
        let payload = Blob::from(vec![7; REQUEST]);
        let start = Instant::now();
        let mut callers = JoinSet::new();
        for caller in 0..IN_FLIGHT {
            let (peer, payload) = (self.peer.clone(), payload.clone());
            let calls = calls / IN_FLIGHT + u64::from(caller < calls % IN_FLIGHT);
            callers.spawn(async move {
                for _ in 0..calls {
                    let answer = peer.call(Echo(payload.clone())).await?;
                    ensure!(answer == payload, "the echo is another one");
                }
                Ok(())
            });
        }
        while let Some(ended) = callers.join_next().await {
            ended??;
        }
        Ok(start.elapsed())
    }

    async fn messages(&self, size: usize, bytes: u64) -> anyhow::Result<Duration> {
        let channel = self.peer.channel::<Blob>(MESSAGES).receiving::<Answer>().open().await?;
        let start = Instant::now();
        send_all(channel, size, bytes).await?;
        Ok(start.elapsed())
    }

    async fn bulk(&self, bytes: u64) -> anyhow::Result<Duration> {
        let mut stream = self.peer.byte_stream(BULK).open().await?;
        let block = vec![7; BLOCK];
        let start = Instant::now();
        for _ in 0..bytes / BLOCK as u64 {
            stream.write_all(&block).await?;
        }
        stream.shutdown().await?;
        ensure!(stream.read_u64().await? == bytes, "some bytes are missing");
        Ok(start.elapsed())
    }
}

/// One call of 64 bytes.
pub(crate) async fn echo(peer: &Peer, priority: Priority) -> anyhow::Result<()> {
    let payload = Blob::from(vec![7; REQUEST]);
    let answer = peer.call(Echo(payload.clone())).priority(priority).await?;
    ensure!(answer == payload, "the echo is another one");
    Ok(())
}

/// Sends messages of one size until the other side has taken all of these bytes.
pub(crate) async fn send_all(channel: Channel<Blob, Answer>, size: usize, bytes: u64) -> anyhow::Result<()> {
    let payload = Blob(Bytes::from(vec![7; size]));
    let (messages, mut answers) = channel.split();
    for _ in 0..bytes / size as u64 {
        drop(messages.send(payload.clone()).await?);
    }
    messages.finish().await?;
    let answer = answers.recv().await?.context("no answer came")?;
    ensure!(answer == bytes, "some messages are missing");
    Ok(())
}
