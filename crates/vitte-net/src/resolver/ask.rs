//! From a name to its records: the cache, then the servers in their order.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hickory_proto::rr::Name;
use tokio::time::Instant;

use super::Resolver;
use super::cache::{Key, Outcome};
use super::error::{Failure, ResolveError};
use super::message::{ALIASES_MAX, Question, Reply, text_of};
use super::record::RecordType;

/// How long a server that was silent comes last.
const PENALTY: Duration = Duration::from_secs(30);

pub(super) type Penalty = Option<Instant>;

/// One question that is being asked: who else wants the answer waits for the lock and finds it inside, with the
/// time at which it came.
pub(super) type Flight = Arc<tokio::sync::Mutex<Option<(Instant, Outcome)>>>;

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Forgets the flight when the last who waits for it is gone.
struct Landing<'a> {
    resolver: &'a Resolver,
    key: &'a Key,
    flight: Flight,
}

impl Drop for Landing<'_> {
    fn drop(&mut self) {
        let mut flights = lock(&self.resolver.inner.flights);
        // The map's and this one.
        if Arc::strong_count(&self.flight) <= 2 {
            flights.remove(self.key);
        }
    }
}

impl Resolver {
    /// The records of this very name.
    pub(super) async fn resolve(&self, name: Name, kind: RecordType) -> Outcome {
        let key = (text_of(&name).to_ascii_lowercase(), kind);
        let asked_at = Instant::now();
        if let Some(known) = lock(&self.inner.cache).find(&key, asked_at) {
            return known;
        }
        // Many questions for one name at a time would make an answer easy to guess (RFC 5452, section 5).
        let flight = lock(&self.inner.flights).entry(key.clone()).or_default().clone();
        let landing = Landing { resolver: self, key: &key, flight };
        let mut result = landing.flight.lock().await;
        match &*result {
            Some((at, outcome)) if *at >= asked_at => return outcome.clone(),
            _ => {}
        }
        let (outcome, ttl) = self.follow(name, kind).await;
        let now = Instant::now();
        if let Some(ttl) = ttl {
            lock(&self.inner.cache).insert(key.clone(), outcome.clone(), ttl, now);
        }
        *result = Some((now, outcome.clone()));
        outcome
    }

    /// Asks, and asks again where an alias leads. With the outcome comes how long it may be remembered.
    async fn follow(&self, name: Name, kind: RecordType) -> (Outcome, Option<Duration>) {
        let options = &self.inner.options;
        let (least, most) = options.ttl;
        let mut seen = vec![name.clone()];
        let mut question = Question { name, kind };
        let mut chain = most;
        loop {
            let reply = match self.ask_in_turn(&question).await {
                Ok(reply) => reply,
                Err(error) => return (Err(error), None),
            };
            match reply {
                Reply::Records(mut records) => {
                    for record in &mut records {
                        record.ttl = record.ttl.min(chain);
                    }
                    let ttl = records.iter().map(|record| record.ttl).min().unwrap_or_default();
                    return (Ok(records), Some(ttl.clamp(least, most)));
                }
                Reply::Alias(target, ttl) => {
                    if seen.contains(&target) || seen.len() > ALIASES_MAX {
                        return (Err(ResolveError::Loop(text_of(&seen[0]))), None);
                    }
                    chain = chain.min(ttl);
                    seen.push(target.clone());
                    question.name = target;
                }
                Reply::Nothing { name_exists, remember } => {
                    let name = text_of(&seen[0]);
                    let error = if name_exists {
                        ResolveError::NoRecord { name, kind }
                    } else {
                        ResolveError::NotFound(name)
                    };
                    let ttl = remember.unwrap_or(least).min(chain).min(options.negative_ttl_max);
                    return (Err(error), Some(ttl));
                }
            }
        }
    }

    /// Asks the servers in their order, those that were silent lately last, until one answers.
    async fn ask_in_turn(&self, question: &Question) -> Result<Reply, ResolveError> {
        let options = &self.inner.options;
        let mut tried = Vec::new();
        for _ in 0..options.rounds {
            for at in self.order() {
                let Some(server) = options.servers.get(at) else { continue };
                let asked = self.ask_one(at, question, true);
                let mut answer = tokio::time::timeout(options.attempt_timeout, asked).await;
                if matches!(&answer, Ok(Err(Failure::Refused(_)))) {
                    // Old servers know no extensions (RFC 6891, section 7).
                    let plain = self.ask_one(at, question, false);
                    answer = tokio::time::timeout(options.attempt_timeout, plain).await;
                }
                let failure = match answer {
                    Ok(Ok(reply)) => {
                        self.penalize(at, None);
                        return Ok(reply);
                    }
                    Ok(Err(failure)) => failure,
                    Err(_) => Failure::Silent,
                };
                self.penalize(at, Some(Instant::now() + PENALTY));
                tracing::debug!(%server, %failure, "a name server did not answer");
                tried.push((server.to_string(), failure));
            }
        }
        let name = text_of(&question.name);
        if tried.iter().all(|(_, failure)| *failure == Failure::Loop) {
            return Err(ResolveError::Loop(name));
        }
        Err(ResolveError::Failed { name, tried })
    }

    async fn ask_one(&self, at: usize, question: &Question, extended: bool) -> Result<Reply, Failure> {
        let options = &self.inner.options;
        let server = options.servers.get(at).ok_or(Failure::Silent)?;
        let message = server.ask(question, extended, &*options.network, options.tls.as_ref()).await?;
        question.read(&message)
    }

    fn order(&self) -> Vec<usize> {
        let now = Instant::now();
        let penalties = lock(&self.inner.penalties);
        let mut order: Vec<usize> = (0..penalties.len()).collect();
        // A stable sort: among equals the configured order stays.
        order.sort_by_key(|at| penalties[*at].is_some_and(|until| until > now));
        order
    }

    fn penalize(&self, at: usize, until: Penalty) {
        if let Some(penalty) = lock(&self.inner.penalties).get_mut(at) {
            *penalty = until;
        }
    }
}
