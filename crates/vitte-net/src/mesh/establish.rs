//! From a link whose keys are proven to a link of a session: hello, proof, admission.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout, timeout_at};
use vitte_net_proto::frame::Frame;
use vitte_net_proto::{CloseCode, Handshake, Hello, Incarnation, Lane, PeerId, Proof, Session, Step};

use super::Inner;
use super::state::Life;
use crate::identity::{Hellos, Role};
use crate::peer::Shared;
use crate::transport::{Link, LinkError};

/// How long a refused link is kept open so that the peer can read why.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// Why a link did not become part of a session.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HandshakeError {
    /// The link itself failed.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// It had lasted longest of all that had come no further, and a newcomer took its place
    /// ([`Config::handshakes_max`](crate::Config::handshakes_max),
    /// [`handshakes_per_address`](crate::Config::handshakes_per_address)).
    #[error("gave its place to a newcomer: too many handshakes")]
    Evicted,
    /// This side refused the peer; the peer was told.
    #[error("refused {peer}: {code}: {reason}")]
    Refused {
        /// Whom.
        peer: PeerId,
        /// What the peer was told.
        code: CloseCode,
        /// In words.
        reason: String,
    },
    /// The peer refused this side.
    #[error("{peer} refused this node: {code}: {reason:?}")]
    RefusedByPeer {
        /// Who.
        peer: PeerId,
        /// Why.
        code: CloseCode,
        /// In the peer's words. Escape them before they reach a terminal.
        reason: String,
    },
}

impl HandshakeError {
    /// The code of a refusal, by either side.
    #[must_use]
    pub fn code(&self) -> Option<CloseCode> {
        match self {
            Self::Refused { code, .. } | Self::RefusedByPeer { code, .. } => Some(*code),
            Self::Link(_) | Self::Evicted => None,
        }
    }
}

/// A peer that was let in.
struct Greeted {
    hello: Hello,
    /// What this side's hello said.
    generation: u64,
    /// The session with another life of the peer, whose links did not answer.
    silent: Option<Arc<Shared>>,
    /// Bytes that came behind the handshake, or beside it on other lanes: the first of the session.
    first: Vec<(Lane, Vec<u8>)>,
}

/// What came on other lanes, which may be faster than the one that carries the handshake: one run for each, so that a
/// byte costs a byte however small the pieces are that it comes in.
#[derive(Debug, Default)]
struct Ahead(BTreeMap<Lane, Vec<u8>>);

impl Ahead {
    fn keep(&mut self, lane: Lane, run: &[u8]) {
        self.0.entry(lane).or_default().extend_from_slice(run);
    }

    fn bytes(&self) -> usize {
        self.0.values().map(Vec::len).sum()
    }
}

/// A refusal that is on its way to the peer.
struct Refusal(CloseCode, String);

impl Inner {
    /// Makes a link part of a session with the peer whose key it proved, if that is done in time.
    ///
    /// # Cancel safety
    /// A dropped future cuts the link.
    pub(super) async fn establish(
        self: &Arc<Self>,
        mut link: Link,
        until: Instant,
    ) -> Result<Arc<Shared>, HandshakeError> {
        let peer = link.info.peer;
        let outcome = match timeout_at(until, self.greet(&mut link)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(LinkError::HandshakeTimeout.into()),
        };
        let refusal = match outcome {
            Ok(Ok(Greeted { hello, generation, silent, first })) => {
                match self.join(peer, &hello, generation, silent.as_ref()) {
                    Ok(session) => match session.attach(link, first) {
                        Ok(()) => return Ok(session),
                        Err((returned, code)) => {
                            link = *returned;
                            Refusal(code, String::from("the session takes no more links"))
                        }
                    },
                    Err(code) => Refusal(code, code.to_string()),
                }
            }
            Ok(Err(refusal)) => refusal,
            Err(error) => {
                link.writer.close();
                return Err(error);
            }
        };
        let Refusal(code, reason) = refusal;
        last_words(&mut link, code, &reason).await;
        Err(HandshakeError::Refused { peer, code, reason })
    }

    /// Exchanges HELLO and WELCOME. The inner error is a refusal that the peer must be told.
    async fn greet(&self, link: &mut Link) -> Result<Result<Greeted, Refusal>, HandshakeError> {
        let peer = link.info.peer;
        if peer == self.id {
            return Ok(Err(Refusal(
                CloseCode::DUPLICATE_IDENTITY,
                String::from("the peer has this node's own key"),
            )));
        }
        if !self.trust.allows(&peer) {
            return Ok(Err(Refusal(
                CloseCode::NOT_TRUSTED,
                String::from("the key is not in the list of trusted keys"),
            )));
        }
        let Some(generation) = self.pin(peer) else {
            return Ok(Err(Refusal(CloseCode::TOO_MANY, String::from("too many peers"))));
        };
        if !link.info.dialled {
            self.readmit(peer).await;
        }
        let hello = self.hello(generation);
        let mut out = Vec::new();
        let mut handshake = Handshake::new(&hello, &mut out);
        let mut heard: Option<(Hello, Option<Arc<Shared>>)> = None;
        let mut run = Vec::new();
        let mut ahead = Ahead::default();
        let mut allowance = self.door.allowance();
        loop {
            send(link, &mut out).await?;
            let step = match handshake.handle(&run) {
                Ok(step) => step,
                Err(violation) => return Ok(Err(Refusal(violation.code, violation.reason.into()))),
            };
            run.clear();
            match step {
                Step::NeedBytes => {
                    let deliver = &mut |lane, bytes: &[u8]| match lane {
                        Lane::CONTROL => run.extend_from_slice(bytes),
                        // It may be lost anyway.
                        Lane::DATAGRAM => {}
                        other => ahead.keep(other, bytes),
                    };
                    link.reader.read(deliver).await?;
                    let early = ahead.bytes();
                    if early > Handshake::BYTES_MAX {
                        let reason = String::from("too many bytes before the welcome");
                        return Ok(Err(Refusal(CloseCode::FLOW_CONTROL, reason)));
                    }
                    if !allowance.holds(early + run.len() + handshake.buffered()) {
                        let reason = String::from("too many bytes of peers that are not let in yet");
                        return Ok(Err(Refusal(CloseCode::TOO_MANY, reason)));
                    }
                }
                Step::Hello(remote) => {
                    if remote.proof != hello.proof {
                        let reason = String::from("one side asks for a secret, the other for a listed key");
                        return Ok(Err(Refusal(CloseCode::AUTH_FAILED, reason)));
                    }
                    let silent = match self.admit(peer, &remote).await {
                        Ok(silent) => silent,
                        Err(code) => return Ok(Err(Refusal(code, code.to_string()))),
                    };
                    let role = if link.info.dialled { Role::Dialler } else { Role::Acceptor };
                    handshake.welcome(self.trust.prove(role, &self.hellos(link, &hello, &remote)), &mut out);
                    heard = Some((remote, silent));
                }
                Step::Welcome { proof, rest } => {
                    let Some((remote, silent)) = heard.take() else { continue };
                    let role = if link.info.dialled { Role::Acceptor } else { Role::Dialler };
                    if !self.trust.verify(role, &self.hellos(link, &hello, &remote), &proof) {
                        let reason = String::from("the peer did not prove the shared secret");
                        return Ok(Err(Refusal(CloseCode::AUTH_FAILED, reason)));
                    }
                    let first = std::iter::once((Lane::CONTROL, rest)).chain(ahead.0).collect();
                    return Ok(Ok(Greeted { hello: remote, generation, silent, first }));
                }
                Step::Refused { code, reason } => {
                    return Err(HandshakeError::RefusedByPeer { peer, code, reason });
                }
            }
        }
    }

    fn hello(&self, generation: u64) -> Hello {
        let mut nonce = [0; 32];
        self.network.fill_random(&mut nonce);
        Hello {
            version_min: 1,
            version_max: 1,
            features: 0,
            incarnation: self.incarnation,
            generation,
            nonce,
            proof: if self.trust.needs_secret() { Proof::Secret } else { Proof::Keys },
            limits: Session::limits(&self.config.session),
        }
    }

    fn hellos(&self, link: &Link, local: &Hello, remote: &Hello) -> Hellos {
        let (ours, theirs) = ((self.id, local.nonce), (link.info.peer, remote.nonce));
        let (dialler, acceptor) = if link.info.dialled { (ours, theirs) } else { (theirs, ours) };
        Hellos {
            dialler: dialler.0,
            acceptor: acceptor.0,
            dialler_nonce: dialler.1,
            acceptor_nonce: acceptor.1,
        }
    }

    /// Whether a hello may go on. Another life of a peer that is still here is an impostor or a mistake;
    /// of one that does not answer, its successor: the answer is the session that it may replace. A node
    /// that drains begins no session.
    async fn admit(&self, peer: PeerId, hello: &Hello) -> Result<Option<Arc<Shared>>, CloseCode> {
        let known = self.session_of(peer);
        let same = |life: &Life| life.incarnation == hello.incarnation;
        match known {
            Some((_, life)) if same(&life) && hello.generation < life.generation => {
                Err(CloseCode::STALE_GENERATION)
            }
            Some((_, life)) if same(&life) && hello.generation == life.generation => Ok(None),
            _ if self.state().draining => Err(CloseCode::SHUTDOWN),
            Some((session, life)) if !same(&life) => {
                if session.transport().is_some() && session.probe().await {
                    return Err(CloseCode::DUPLICATE_IDENTITY);
                }
                Ok(Some(session))
            }
            _ => Ok(None),
        }
    }

    /// Finds the session that a hello belongs to, or begins it.
    pub(super) fn join(
        self: &Arc<Self>,
        peer: PeerId,
        hello: &Hello,
        generation: u64,
        silent: Option<&Arc<Shared>>,
    ) -> Result<Arc<Shared>, CloseCode> {
        let life = Life { incarnation: hello.incarnation, generation: hello.generation };
        let (session, replaced) = {
            let mut state = self.state();
            let draining = state.draining;
            let entry = state.peers.get_mut(&peer).ok_or(CloseCode::STALE_GENERATION)?;
            if entry.generation != generation {
                return Err(CloseCode::STALE_GENERATION);
            }
            match &entry.session {
                Some((session, known)) if *known == life && !session.is_lost() => return Ok(session.clone()),
                Some((_, known))
                    if known.incarnation == life.incarnation && known.generation > life.generation =>
                {
                    return Err(CloseCode::STALE_GENERATION);
                }
                // It began after this hello was admitted: dialled again, it is asked for a sign of life.
                Some((session, known))
                    if known.incarnation != life.incarnation
                        && !session.is_lost()
                        && !silent.is_some_and(|silent| Arc::ptr_eq(silent, session)) =>
                {
                    return Err(CloseCode::STALE_GENERATION);
                }
                _ if draining => return Err(CloseCode::SHUTDOWN),
                _ => {}
            }
            let config = self.config.session.clone();
            let session = Shared::new(
                |now| Session::new(config, self.id, peer, hello.limits, now),
                Arc::new(self.clone()),
            );
            entry.announced = false;
            let replaced = entry.session.replace((session.clone(), life));
            if !state.seat(self.config.peers_max) {
                if let Some(entry) = state.peers.get_mut(&peer) {
                    entry.session = None;
                }
                return Err(CloseCode::TOO_MANY);
            }
            (session, replaced)
        };
        if let Some((old, _)) = replaced {
            old.lose(CloseCode::STALE_GENERATION, "the peer has begun anew");
        }
        session.start();
        Ok(session)
    }
}

async fn send(link: &mut Link, out: &mut Vec<u8>) -> Result<(), LinkError> {
    if !out.is_empty() {
        link.writer.write(Lane::CONTROL, out)?;
        out.clear();
    }
    poll_fn(|cx| link.writer.poll_flush(cx)).await
}

/// Tells the peer why its link ends, and gives it a moment to read that.
async fn last_words(link: &mut Link, code: CloseCode, reason: &str) {
    let mut out = Vec::new();
    Frame::Close { code, session: false, reason }.put(&mut out);
    let said = async {
        send(link, &mut out).await?;
        loop {
            link.reader.read(&mut |_, _| ()).await?;
        }
    };
    let _: Result<Result<(), LinkError>, _> = timeout(LAST_WORDS, said).await;
    link.writer.close();
}

/// Draws the incarnation of a mesh.
pub(super) fn incarnation(network: &dyn crate::network::Network) -> Incarnation {
    let mut bits = [0; 16];
    network.fill_random(&mut bits);
    Incarnation(bits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_come_ahead_one_by_one_cost_no_more_than_together() {
        let mut ahead = Ahead::default();
        for count in 0..1000 {
            let lane = Lane(2 + u8::from(count % 3 == 0));
            ahead.keep(lane, &[u8::try_from(count % 256).unwrap()]);
        }
        assert_eq!(ahead.bytes(), 1000);
        assert_eq!(ahead.0.len(), 2, "one run for each lane");
        let room: usize = ahead.0.values().map(Vec::capacity).sum();
        assert!(room <= 2048, "{room} bytes for 1000");
        assert_eq!(ahead.0[&Lane(3)][..3], [0, 3, 6], "in their order");
    }
}
