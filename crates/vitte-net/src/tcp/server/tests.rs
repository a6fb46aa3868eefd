use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::sync::Mutex;

use tokio::time::Instant;

use super::super::tests::Pipe;
use super::*;
use crate::network::BoxFuture;

const FROM: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 4);

/// Gives the errors in turn, then connections; notes when it was asked, in virtual milliseconds.
#[derive(Debug)]
struct Troubled {
    errors: Mutex<VecDeque<io::Error>>,
    begun: Instant,
    asked: Arc<Mutex<Vec<u128>>>,
}

impl Troubled {
    fn new(errors: impl IntoIterator<Item = io::Error>) -> Self {
        let errors = Mutex::new(errors.into_iter().collect());
        Self { errors, begun: Instant::now(), asked: Arc::default() }
    }
}

impl TcpListen for Troubled {
    fn accept(&self) -> BoxFuture<'_, io::Result<(BoxStream, SocketAddr)>> {
        Box::pin(async {
            self.asked.lock().unwrap().push(self.begun.elapsed().as_millis());
            match self.errors.lock().unwrap().pop_front() {
                Some(error) => Err(error),
                None => {
                    Ok((Box::new(Pipe { stream: tokio::io::duplex(1).0, peer: FROM }) as BoxStream, FROM))
                }
            }
        })
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(FROM)
    }
}

fn kinds(kind: io::ErrorKind, count: usize) -> impl Iterator<Item = io::Error> {
    std::iter::repeat_n(kind, count).map(io::Error::from)
}

#[cfg(unix)]
#[tokio::test(start_paused = true)]
async fn a_loop_survives_too_many_open_files_with_pauses_that_double() {
    let errors = std::iter::repeat_n(libc::EMFILE, 11).map(io::Error::from_raw_os_error);
    let listener = Troubled::new(errors);
    let asked = Arc::clone(&listener.asked);
    let mut server =
        TcpServer { listener: Box::new(listener), recv_limit: RECV_LIMIT, max_connections: MAX_CONNECTIONS };
    let mut accepted = 0;
    while let Ok((_socket, from)) = server.accept().await {
        assert_eq!(from, FROM);
        accepted += 1;
        if accepted == 2 {
            break;
        }
    }
    let asked = asked.lock().unwrap();
    let pauses: Vec<u128> = asked.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert_eq!(pauses, [5, 10, 20, 40, 80, 160, 320, 640, 1000, 1000, 1000, 0]);
}

#[tokio::test(start_paused = true)]
async fn connections_that_died_in_the_queue_cost_no_time() {
    let listener = Troubled::new(kinds(io::ErrorKind::ConnectionAborted, 10));
    accept_patiently(&listener).await.unwrap();
    assert_eq!(*listener.asked.lock().unwrap(), [0; 11]);
}

#[tokio::test(start_paused = true)]
async fn an_endless_row_of_dead_connections_does_not_spin() {
    let listener = Troubled::new(kinds(io::ErrorKind::ConnectionReset, 67));
    accept_patiently(&listener).await.unwrap();
    let asked = listener.asked.lock().unwrap();
    assert_eq!(asked[64], 0);
    assert_eq!(asked[65..], [5, 15, 35]);
}

#[tokio::test(start_paused = true)]
async fn a_broken_listener_is_an_error() {
    let listener = Troubled::new(kinds(io::ErrorKind::InvalidInput, 1));
    let error = accept_patiently(&listener).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
}

#[tokio::test(start_paused = true)]
async fn an_accept_that_is_dropped_while_it_waits_loses_nothing() {
    let listener = Troubled::new(kinds(io::ErrorKind::OutOfMemory, 1));
    let waiting = tokio::time::timeout(Duration::from_millis(2), accept_patiently(&listener)).await;
    assert!(waiting.is_err());
    accept_patiently(&listener).await.unwrap();
}

#[tokio::test]
async fn binding_twice_says_where_and_why() {
    let server = TcpServer::bind("127.0.0.1:0").await.unwrap();
    let at = server.local_addr().unwrap();
    let error = TcpServer::bind(at).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    assert!(error.to_string().starts_with(&format!("cannot listen at {at}: ")), "{error}");
}
