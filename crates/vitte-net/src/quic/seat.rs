//! One task for each QUIC connection: quinn's driver of it, and who reads a link.
//!
//! They wake each other with every packet. As two tasks they make a chain of four for a call: the endpoint,
//! the connection, the reader, the handler. A worker of tokio polls three tasks in a row by its
//! slot for the task that was woken last; the fourth goes to a queue, and another worker is woken to steal it.
//! On two cores that doubled the time of a call. Here the two share one task and wake each other inside it.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::UdpSocket;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use quinn::{AsyncTimer, AsyncUdpSocket, Runtime, TokioRuntime};
use tokio::time::{Sleep, sleep};

/// Something that runs until it is over.
type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Rounds of both halves before the task lets others run.
const ROUNDS: usize = 16;
/// Where quinn's driver sits, and where the reader.
const DRIVER: usize = 0;
const READER: usize = 1;
/// How long quinn drives a connection that nobody uses any more: for the last packets of both sides (RFC 9000, section
/// 10.2). By itself it would need three probe timeouts, which are 18 s where the first round trip took 2 s, and its
/// idle timeout for a connection that the same first packet opens and closes, since quinn-proto 0.11 sets no other timer then.
pub(crate) const LINGER: Duration = Duration::from_secs(3);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The runtime of one endpoint: tokio's, except that the driver of each connection gets a [`Seat`].
#[derive(Default)]
pub(crate) struct Seats {
    /// The first task that quinn spawns is the endpoint's own; every other one drives a connection.
    endpoint_runs: AtomicBool,
    /// One connection begins at a time, so that its driver is known.
    turn: Mutex<()>,
    spawned: Mutex<Option<Work>>,
}

impl Seats {
    /// Begins a connection: `begin` makes quinn spawn its driver, unless it fails.
    pub(crate) fn take<T, E>(&self, begin: impl FnOnce() -> Result<T, E>) -> Result<(T, Seat), E> {
        let _turn = lock(&self.turn);
        let begun = begin()?;
        let driver = lock(&self.spawned).take();
        Ok((begun, Seat::begin(driver)))
    }
}

impl fmt::Debug for Seats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seats")
    }
}

impl Runtime for Seats {
    fn new_timer(&self, at: Instant) -> Pin<Box<dyn AsyncTimer>> {
        TokioRuntime.new_timer(at)
    }

    fn spawn(&self, future: Work) {
        if self.endpoint_runs.swap(true, Ordering::Relaxed) {
            *lock(&self.spawned) = Some(future);
        } else {
            TokioRuntime.spawn(future);
        }
    }

    fn wrap_udp_socket(&self, socket: UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        TokioRuntime.wrap_udp_socket(socket)
    }

    fn now(&self) -> Instant {
        TokioRuntime.now()
    }
}

/// The task of a link, where its reader may sit down.
#[derive(Clone)]
pub(crate) struct Seat(Arc<Bench>);

/// What the halves and the task share.
struct Bench(Mutex<State>);

struct State {
    ready: [bool; 2],
    /// The task looks at `ready` again before it sleeps: nobody needs to wake it.
    polling: bool,
    task: Option<Waker>,
    arrival: Option<Work>,
    /// The driver has [`LINGER`] left.
    left: bool,
    over: bool,
}

impl Seat {
    fn begin(driver: Option<Work>) -> Self {
        let state = State {
            ready: [true, false],
            polling: false,
            task: None,
            arrival: None,
            left: false,
            over: false,
        };
        let bench = Arc::new(Bench(Mutex::new(state)));
        let waker = |half| Waker::from(Arc::new(Half { bench: Arc::clone(&bench), half }));
        let task = Task {
            halves: [driver, None],
            wakers: [waker(DRIVER), waker(READER)],
            linger: None,
            bench: Arc::clone(&bench),
        };
        tokio::spawn(task);
        Self(bench)
    }

    /// Uses the connection from its first packet on: when the use is dropped, it is gone soon.
    pub(crate) fn begin_use(&self) -> Use {
        Use(self.clone())
    }

    #[allow(dead_code, reason = "links have a reader, HTTP/3 has none")]
    /// Runs what reads the link in the task of the link, or in one of its own if that is over.
    pub(crate) fn spawn(self, reader: impl Future<Output = ()> + Send + 'static) {
        let mut state = lock(&self.0.0);
        if state.over {
            drop(state);
            tokio::spawn(reader);
            return;
        }
        state.arrival = Some(Box::pin(reader));
        state.wake(READER);
    }
}

impl fmt::Debug for Seat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seat")
    }
}

/// A connection that is used: the handshake, then whoever holds its streams. What still has to be said is said before
/// it is dropped.
#[derive(Debug)]
pub(crate) struct Use(Seat);

impl Drop for Use {
    fn drop(&mut self) {
        let mut state = lock(&self.0.0.0);
        state.left = true;
        state.wake(DRIVER);
    }
}

impl State {
    fn wake(&mut self, half: usize) {
        self.ready[half] = true;
        if !self.polling
            && let Some(task) = &self.task
        {
            task.wake_by_ref();
        }
    }
}

struct Half {
    bench: Arc<Bench>,
    half: usize,
}

impl Wake for Half {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        lock(&self.bench.0).wake(self.half);
    }
}

struct Task {
    halves: [Option<Work>; 2],
    wakers: [Waker; 2],
    /// Runs once nobody uses the connection.
    linger: Option<Pin<Box<Sleep>>>,
    bench: Arc<Bench>,
}

impl Future for Task {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Self { halves, wakers, linger, bench } = &mut *self;
        if linger.as_mut().is_some_and(|linger| Future::poll(linger.as_mut(), cx).is_ready()) {
            halves[DRIVER] = None;
        }
        for _ in 0..ROUNDS {
            let ready = {
                let mut state = lock(&bench.0);
                if state.left && linger.is_none() {
                    drop(state);
                    // Perhaps one of the halves has just dropped it. The timer has to know whom to wake.
                    let linger = linger.insert(Box::pin(sleep(LINGER)));
                    if Future::poll(linger.as_mut(), cx).is_ready() {
                        halves[DRIVER] = None;
                    }
                    continue;
                }
                if let Some(reader) = state.arrival.take() {
                    halves[READER] = Some(reader);
                    state.ready[READER] = true;
                }
                if state.ready == [false; 2] || halves.iter().all(Option::is_none) {
                    state.polling = false;
                    state.over = halves.iter().all(Option::is_none);
                    if state.over {
                        state.task = None;
                        return Poll::Ready(());
                    }
                    match &mut state.task {
                        Some(task) => task.clone_from(cx.waker()),
                        task => *task = Some(cx.waker().clone()),
                    }
                    return Poll::Pending;
                }
                state.polling = true;
                std::mem::take(&mut state.ready)
            };
            for half in [DRIVER, READER] {
                if ready[half]
                    && let Some(work) = &mut halves[half]
                    && work.as_mut().poll(&mut Context::from_waker(&wakers[half])).is_ready()
                {
                    halves[half] = None;
                }
            }
        }
        let mut state = lock(&bench.0);
        state.polling = false;
        drop(state);
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;
    use tokio::time::timeout;

    use super::*;

    /// A driver that has nothing to do, and tells when it is dropped.
    fn driver() -> (Option<Work>, oneshot::Receiver<()>) {
        let (held, dropped) = oneshot::channel();
        let idle: Work = Box::pin(async move {
            std::future::pending::<()>().await;
            drop(held);
        });
        (Some(idle), dropped)
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_nobody_uses_is_driven_for_three_seconds() {
        let (idle, mut dropped) = driver();
        let seat = Seat::begin(idle);
        let used = seat.begin_use();
        assert!(timeout(10 * LINGER, &mut dropped).await.is_err(), "it is used");
        drop(used);
        assert!(timeout(LINGER / 2, &mut dropped).await.is_err(), "it has its time");
        timeout(LINGER, dropped).await.expect("its time is over").unwrap_err();
    }

    /// Its reader is polled by the task that has to set the timer.
    #[tokio::test(start_paused = true)]
    async fn the_reader_may_be_the_last_who_used_it() {
        let (idle, dropped) = driver();
        let seat = Seat::begin(idle);
        let used = seat.begin_use();
        seat.spawn(async move { drop(used) });
        timeout(2 * LINGER, dropped).await.expect("its time is over").unwrap_err();
    }
}
