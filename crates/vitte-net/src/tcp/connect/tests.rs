use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Mutex;
use std::time::SystemTime;

use super::super::tests::Pipe;
use super::*;
use crate::network::{BoxStream, Datagrams, TcpListen, UdpOptions};

const MS: Duration = Duration::from_millis(1);

#[derive(Clone, Copy, Debug)]
enum Fate {
    Stands(Duration),
    Fails(Duration),
    Silent,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Event {
    Tried(&'static str),
    Dropped(&'static str),
}

/// A network on paper: what every address does, and a diary in virtual milliseconds.
#[derive(Debug)]
struct Paper {
    host: Vec<IpAddr>,
    lookup_takes: Duration,
    fates: BTreeMap<SocketAddr, (&'static str, Fate)>,
    begun: Instant,
    diary: Arc<Mutex<Vec<(u128, Event)>>>,
}

impl Paper {
    fn new(fates: &[(&'static str, Fate)]) -> Self {
        let fates: Vec<_> =
            fates.iter().map(|(ip, fate)| (ip.parse::<IpAddr>().unwrap(), *ip, *fate)).collect();
        Self {
            host: fates.iter().map(|(ip, ..)| *ip).collect(),
            lookup_takes: Duration::ZERO,
            fates: fates.iter().map(|(ip, name, fate)| ((*ip, 80).into(), (*name, *fate))).collect(),
            begun: Instant::now(),
            diary: Arc::default(),
        }
    }

    async fn connect(self) -> (io::Result<TcpStream>, Vec<(u128, Event)>, Duration) {
        let (begun, diary) = (self.begun, Arc::clone(&self.diary));
        let outcome = TcpConnector::new().network(Arc::new(self)).connect("host.example:80").await;
        let diary = diary.lock().unwrap().clone();
        (outcome, diary, begun.elapsed())
    }
}

/// Notes that an attempt was dropped before it had ended.
struct Pending {
    name: &'static str,
    begun: Instant,
    diary: Arc<Mutex<Vec<(u128, Event)>>>,
    ended: bool,
}

impl Drop for Pending {
    fn drop(&mut self) {
        if !self.ended {
            let at = self.begun.elapsed().as_millis();
            self.diary.lock().unwrap().push((at, Event::Dropped(self.name)));
        }
    }
}

impl Network for Paper {
    fn connect_tcp<'a>(&'a self, to: SocketAddr, _: &'a TcpOptions) -> BoxFuture<'a, io::Result<BoxStream>> {
        let (name, fate) = self.fates[&to];
        Box::pin(async move {
            self.diary.lock().unwrap().push((self.begun.elapsed().as_millis(), Event::Tried(name)));
            let diary = Arc::clone(&self.diary);
            let mut pending = Pending { name, begun: self.begun, diary, ended: false };
            let answer = match fate {
                Fate::Silent => std::future::pending().await,
                Fate::Stands(after) => {
                    tokio::time::sleep(after).await;
                    Ok(Box::new(Pipe { stream: tokio::io::duplex(1).0, peer: to }) as BoxStream)
                }
                Fate::Fails(after) => {
                    tokio::time::sleep(after).await;
                    Err(io::Error::new(io::ErrorKind::ConnectionRefused, "refused on paper"))
                }
            };
            pending.ended = true;
            answer
        })
    }

    fn lookup<'a>(&'a self, host: &'a str) -> BoxFuture<'a, io::Result<Vec<IpAddr>>> {
        Box::pin(async move {
            assert_eq!(host, "host.example");
            tokio::time::sleep(self.lookup_takes).await;
            Ok(self.host.clone())
        })
    }

    fn listen_tcp<'a>(
        &'a self,
        _: SocketAddr,
        _: &'a TcpOptions,
    ) -> BoxFuture<'a, io::Result<Box<dyn TcpListen>>> {
        unreachable!("nothing here listens")
    }

    fn bind_udp<'a>(
        &'a self,
        _: SocketAddr,
        _: &'a UdpOptions,
    ) -> BoxFuture<'a, io::Result<Arc<dyn Datagrams>>> {
        unreachable!("nothing here sends datagrams")
    }

    fn wall_clock(&self) -> SystemTime {
        unreachable!("nothing here asks the time")
    }

    fn fill_random(&self, _: &mut [u8]) {
        unreachable!("nothing here rolls dice")
    }
}

fn winner(outcome: io::Result<TcpStream>) -> String {
    outcome.unwrap().peer_addr().unwrap().ip().to_string()
}

#[test]
fn families_take_turns_and_the_first_one_begins() {
    let order = |list: &[&str]| {
        let list = list.iter().map(|ip| (ip.parse::<IpAddr>().unwrap(), 1).into()).collect();
        interleave(list).iter().map(|address| address.ip().to_string()).collect::<Vec<_>>()
    };
    assert_eq!(
        order(&["::1", "::2", "::3", "1.0.0.1", "1.0.0.2"]),
        ["::1", "1.0.0.1", "::2", "1.0.0.2", "::3"]
    );
    assert_eq!(order(&["1.0.0.1", "1.0.0.2", "::1"]), ["1.0.0.1", "::1", "1.0.0.2"]);
    assert!(order(&[]).is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_quick_first_address_stays_alone() {
    let paper = Paper::new(&[("::1", Fate::Stands(100 * MS)), ("1.0.0.1", Fate::Stands(MS))]);
    let (outcome, diary, took) = paper.connect().await;
    assert_eq!(winner(outcome), "::1");
    assert_eq!(diary, [(0, Event::Tried("::1"))]);
    assert_eq!(took, 100 * MS);
}

#[tokio::test(start_paused = true)]
async fn a_silent_first_address_is_joined_after_250_ms_and_dropped_when_it_lost() {
    let paper =
        Paper::new(&[("::1", Fate::Silent), ("::2", Fate::Stands(MS)), ("1.0.0.1", Fate::Stands(400 * MS))]);
    let (outcome, diary, took) = paper.connect().await;
    // At 250 ms IPv4 joins, at 500 ms the second IPv6 address, which is quick and wins.
    assert_eq!(winner(outcome), "::2");
    assert_eq!(
        diary[..3],
        [(0, Event::Tried("::1")), (250, Event::Tried("1.0.0.1")), (500, Event::Tried("::2"))]
    );
    let dropped = [(501, Event::Dropped("::1")), (501, Event::Dropped("1.0.0.1"))];
    assert_eq!(diary[3..], dropped);
    assert_eq!(took, 501 * MS);
}

#[tokio::test(start_paused = true)]
async fn a_failure_calls_the_next_address_at_once_and_the_delay_begins_anew() {
    let paper = Paper::new(&[
        ("::1", Fate::Silent),
        ("1.0.0.1", Fate::Fails(20 * MS)),
        ("::2", Fate::Silent),
        ("1.0.0.2", Fate::Stands(5 * MS)),
    ]);
    let (outcome, diary, took) = paper.connect().await;
    assert_eq!(winner(outcome), "1.0.0.2");
    assert_eq!(
        diary,
        [
            (0, Event::Tried("::1")),
            (250, Event::Tried("1.0.0.1")),
            (270, Event::Tried("::2")),
            (520, Event::Tried("1.0.0.2")),
            (525, Event::Dropped("::1")),
            (525, Event::Dropped("::2")),
        ]
    );
    assert_eq!(took, 525 * MS);
}

#[tokio::test(start_paused = true)]
async fn a_first_address_that_fails_hands_over_at_once() {
    let paper = Paper::new(&[("::1", Fate::Fails(20 * MS)), ("1.0.0.1", Fate::Stands(5 * MS))]);
    let (outcome, diary, took) = paper.connect().await;
    assert_eq!(winner(outcome), "1.0.0.1");
    assert_eq!(diary, [(0, Event::Tried("::1")), (20, Event::Tried("1.0.0.1"))]);
    assert_eq!(took, 25 * MS);
}

#[tokio::test(start_paused = true)]
async fn when_all_fail_the_error_names_each_of_them() {
    let paper = Paper::new(&[("::1", Fate::Fails(MS)), ("1.0.0.1", Fate::Fails(MS))]);
    let (outcome, _, took) = paper.connect().await;
    let error = outcome.unwrap_err();
    assert_eq!(took, 2 * MS);
    assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    assert_eq!(
        error.to_string(),
        "cannot connect to host.example:80: [::1]:80: refused on paper; 1.0.0.1:80: refused on paper"
    );
    let failure = error.get_ref().unwrap().downcast_ref::<ConnectFailure>().unwrap();
    assert_eq!(failure.failed.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn the_time_out_covers_all_and_tells_who_was_silent_and_who_was_not_tried() {
    let mut paper = Paper::new(&[
        ("::1", Fate::Fails(MS)),
        ("1.0.0.1", Fate::Silent),
        ("::2", Fate::Silent),
        ("1.0.0.2", Fate::Stands(MS)),
    ]);
    paper.lookup_takes = 29_700 * MS;
    let (outcome, diary, took) = paper.connect().await;
    let error = outcome.unwrap_err();
    assert_eq!(took, Duration::from_secs(30));
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    assert_eq!(
        error.to_string(),
        "cannot connect to host.example:80 within 30s: [::1]:80: refused on paper; 1.0.0.1:80: no answer; \
         [::2]:80: no answer; 1.0.0.2:80: not tried"
    );
    assert_eq!(diary[2], (29_951, Event::Tried("::2")));
}

#[tokio::test(start_paused = true)]
async fn a_lookup_that_hangs_ends_with_the_time_out() {
    let mut paper = Paper::new(&[("::1", Fate::Silent)]);
    paper.lookup_takes = Duration::from_secs(3600);
    let (outcome, diary, took) = paper.connect().await;
    let error = outcome.unwrap_err();
    assert_eq!((error.kind(), took), (io::ErrorKind::TimedOut, Duration::from_secs(30)));
    assert!(error.to_string().starts_with("the lookup of host.example:80 took longer"), "{error}");
    assert!(diary.is_empty());
}

#[tokio::test(start_paused = true)]
async fn dropping_the_future_drops_the_attempts() {
    let paper = Paper::new(&[("::1", Fate::Silent), ("1.0.0.1", Fate::Silent)]);
    let diary = Arc::clone(&paper.diary);
    assert!(tokio::time::timeout(300 * MS, paper.connect()).await.is_err());
    let diary = diary.lock().unwrap();
    assert_eq!(diary[2..], [(300, Event::Dropped("::1")), (300, Event::Dropped("1.0.0.1"))]);
}
