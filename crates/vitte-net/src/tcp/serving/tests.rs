use tokio::sync::mpsc;

use super::*;
use crate::tcp::TcpClient;

const GRACE: Duration = Duration::from_secs(20);

async fn server(most: usize) -> TcpServer {
    TcpServer::builder().max_connections(most).bind("127.0.0.1:0").await.unwrap()
}

/// Greets, and ends with the client or when it is told to.
async fn greet(Accepted { mut stream, mut stopping, .. }: Accepted) {
    stream.send(b"hello").await.unwrap();
    tokio::select! {
        biased;
        () = stopping.wait() => stream.send(b"goodbye").await.unwrap(),
        _ = stream.recv() => {}
    }
}

#[tokio::test]
async fn further_connections_wait_while_all_places_are_taken() {
    let serving = server(2).await.serve(greet);
    let at = serving.local_addr().unwrap();
    let mut first = TcpClient::connect(at).await.unwrap();
    let mut second = TcpClient::connect(at).await.unwrap();
    let mut third = TcpClient::connect(at).await.unwrap();
    assert_eq!((first.recv().await.unwrap(), second.recv().await.unwrap()), ("hello".into(), "hello".into()));
    // Its connection stands, in the system's queue, and nobody speaks to it before another is gone.
    let mut waiting = std::pin::pin!(third.recv());
    assert!(std::future::poll_fn(|cx| std::task::Poll::Ready(waiting.as_mut().poll(cx))).await.is_pending());
    drop(first);
    assert_eq!(waiting.await.unwrap(), "hello");
    assert_eq!(serving.shutdown(GRACE).await, 0);
}

#[tokio::test]
async fn a_shutdown_lets_those_who_listen_finish_and_stops_listening() {
    let serving = server(10).await.serve(greet);
    let at = serving.local_addr().unwrap();
    let mut client = TcpClient::connect(at).await.unwrap();
    assert_eq!(client.recv().await.unwrap(), "hello");
    assert_eq!(serving.shutdown(GRACE).await, 0);
    assert_eq!(client.recv().await.unwrap(), "goodbye");
    assert!(client.recv().await.unwrap().is_empty());
    let refused = TcpClient::connect(at).await.unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
}

#[tokio::test]
async fn whoever_does_not_listen_is_cut_when_the_grace_is_over() {
    let (begun, mut begins) = mpsc::channel(3);
    let serving = server(10).await.serve(move |accepted| {
        let begun = begun.clone();
        async move {
            let _held = accepted;
            begun.send(()).await.unwrap();
            std::future::pending::<()>().await;
        }
    });
    let at = serving.local_addr().unwrap();
    let mut clients = Vec::new();
    for _ in 0..3 {
        clients.push(TcpClient::connect(at).await.unwrap());
        begins.recv().await.unwrap();
    }
    assert_eq!(serving.shutdown(Duration::from_millis(20)).await, 3);
    for client in &mut clients {
        assert!(client.recv().await.unwrap().is_empty());
    }
}

#[tokio::test]
async fn a_panic_ends_its_own_connection_alone() {
    let serving = server(1).await.serve(|mut accepted: Accepted| async move {
        let word = accepted.stream.recv().await.unwrap();
        assert_ne!(word, "panic");
        accepted.stream.send(&word).await.unwrap();
    });
    let at = serving.local_addr().unwrap();
    for word in ["panic", "echo"] {
        let mut client = TcpClient::connect(at).await.unwrap();
        client.send(word.as_bytes()).await.unwrap();
        let answer = client.recv().await.unwrap();
        assert_eq!(answer, if word == "panic" { "" } else { word });
    }
}

#[tokio::test]
async fn dropping_it_cuts_everything_and_tells_who_waits() {
    let (told, mut was_told) = mpsc::channel(1);
    let serving = server(10).await.serve(move |Accepted { mut stream, stopping, .. }| {
        let told = told.clone();
        async move {
            stream.send(b"hello").await.unwrap();
            // Out of the server's own tasks.
            tokio::spawn(async move {
                let mut stopping = stopping;
                stopping.wait().await;
                told.send(stopping.is_stopping()).await.unwrap();
            });
            std::future::pending::<()>().await;
        }
    });
    let mut client = TcpClient::connect(serving.local_addr().unwrap()).await.unwrap();
    assert_eq!(client.recv().await.unwrap(), "hello");
    drop(serving);
    assert!(client.recv().await.unwrap().is_empty());
    assert_eq!(was_told.recv().await, Some(true));
}
