//! Calls: answered, failed, panicking, too late, given up.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep, timeout};
use vitte_net::{Blob, CallContext, CallError, NotSent, Request, Schema};
use vitte_net_sim::invariants::{Promise, Verdict};

use super::Job;
use crate::node::{ON_PURPOSE, Site};
use crate::run::Run;

/// How much later than its deadline a call may end: timers and ticks are of a millisecond each.
const LATE_MAX: Duration = Duration::from_millis(5);

const HOUR_MS: u64 = 3_600_000;

#[derive(Serialize, Deserialize, Schema)]
pub(crate) struct Ask {
    /// Empty, or of a flow.
    pub(crate) message: Blob,
    pub(crate) think_ms: u64,
    /// 0 answers, 1 fails, 2 panics.
    pub(crate) answer: u8,
}

impl Request for Ask {
    const NAME: &'static str = "ask/v1";
    type Response = Blob;
    type Error = String;
}

/// Counts handlers whose futures live.
struct Running(Arc<Run>);

impl Running {
    fn new(run: Arc<Run>) -> Self {
        run.handlers.fetch_add(1, Ordering::SeqCst);
        Self(run)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.handlers.fetch_sub(1, Ordering::SeqCst);
    }
}

pub(super) fn serve(site: &Site) {
    let (run, name) = (site.run.clone(), site.name);
    let handler = move |_: CallContext, ask: Ask| {
        let running = Running::new(run.clone());
        async move {
            if !ask.message.is_empty() {
                running.0.ledger.saw(name, &ask.message);
            }
            sleep(Duration::from_millis(ask.think_ms)).await;
            match ask.answer {
                0 => Ok(ask.message),
                1 => Err(String::from("no")),
                _ => panic!("{ON_PURPOSE}"),
            }
        }
    };
    site.mesh.serve::<Ask, _, _>(handler).expect("the name is free");
}

/// Some calls, one after the other or side by side.
pub(super) async fn some(job: &mut Job) {
    let flow = job.site.run.ledger.flow(job.label("calls"), job.to, Promise::Once);
    let mut side_by_side = Vec::new();
    for _ in 0..job.dice.within(1, 8) {
        let (number, message) = flow.offer(job.len().max(16));
        let answer = job.dice.of(&[0, 0, 0, 0, 0, 0, 1, 2]);
        let deadline = job.dice.one_in(2).then(|| job.dice.millis(1, 400));
        let patience = job.dice.one_in(5).then(|| job.dice.millis(0, 100));
        // A handler that would think for an hour is stopped, or is there when nothing else is.
        let endless = (deadline.is_some() || patience.is_some()) && job.dice.one_in(4);
        let think_ms = if endless { HOUR_MS } else { job.dice.of(&[0, 0, 0, 1, 20, 200]) };
        let notes = [
            (true, "calls"),
            (deadline.is_some(), "calls with a deadline"),
            (patience.is_some(), "calls that their caller gives up"),
            (endless, "calls whose handler never ends by itself"),
        ];
        notes.iter().filter(|(holds, _)| *holds).for_each(|(_, note)| job.note(note));
        let mut call = job.peer.call(Ask { message: Blob::from(message.clone()), think_ms, answer });
        call = call.priority(job.priority());
        if let Some(deadline) = deadline {
            call = call.deadline(deadline);
        }
        let flow = flow.clone();
        let (ledger, label) = (job.site.run.ledger.clone(), job.label("call"));
        let peer = job.peer.clone();
        side_by_side.push(async move {
            let start = Instant::now();
            let ended = match patience {
                None => call.await,
                Some(patience) => match timeout(patience, call).await {
                    Ok(ended) => ended,
                    Err(_) => return flow.withdraw(number),
                },
            };
            let took = start.elapsed();
            if let Some(deadline) = deadline {
                ledger.expect(took <= deadline + LATE_MAX, || {
                    format!("{label}: it ended after {took:?}, with a deadline of {deadline:?}")
                });
            }
            if let Some(deadline) = deadline
                && let Err(CallError::NotSent(NotSent::Expired)) = &ended
            {
                ledger.expect(took + LATE_MAX >= deadline, || format!("{label}: too late after {took:?}"));
            }
            match &ended {
                Ok(answer) => {
                    ledger.expect(answer.to_vec() == message, || format!("{label}: another answer"))
                }
                Err(CallError::Decode(why)) => ledger.accuse(format!("{label}: {why}")),
                Err(error @ CallError::Unknown) => {
                    ledger.expect(peer.is_lost(), || format!("{label}: {error}, and the session lives"));
                }
                Err(error @ CallError::DeadlineExceeded) => {
                    ledger.expect(deadline.is_some(), || format!("{label}: {error}, and it has none"));
                }
                Err(_) => {}
            }
            flow.settle(number, verdict(&ended));
        });
        if job.dice.one_in(2) {
            together(job, &mut side_by_side).await;
            sleep(job.dice.millis(0, 30)).await;
        }
    }
    together(job, &mut side_by_side).await;
}

fn verdict(ended: &Result<Blob, CallError<String>>) -> Verdict {
    match ended {
        // The handler ran.
        Ok(_) | Err(CallError::Failed(_) | CallError::Panicked) => Verdict::Delivered,
        Err(CallError::NotSent(NotSent::Expired)) => Verdict::Expired,
        Err(CallError::NotSent(_) | CallError::Refused(_)) => Verdict::Refused,
        Err(_) => Verdict::Unknown,
    }
}

async fn together(job: &Job, calls: &mut Vec<impl Future<Output = ()>>) {
    let mut calls: Vec<_> = calls.drain(..).map(Box::pin).collect();
    let all = std::future::poll_fn(|cx| {
        calls.retain_mut(|call| call.as_mut().poll(cx).is_pending());
        if calls.is_empty() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    });
    job.in_time("calls", all).await;
}
