use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Sink, Stream};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

use super::*;
use crate::network::OsNetwork;

fn quick() -> WsOptions {
    WsOptions { close_timeout: Duration::from_secs(60), ..WsOptions::default() }
}

/// Both ends of a WebSocket over a pipe that holds `buffer` bytes.
fn pair(options: &WsOptions, buffer: usize) -> (WebSocket<DuplexStream>, WebSocket<DuplexStream>) {
    let (client, server) = duplex(buffer);
    let (of_client, of_server) = match &options.deflate {
        None => (None, None),
        Some(deflate) => {
            let offer = deflate::offer(deflate);
            let (of_server, answer) = deflate::agree(deflate, [offer.as_str()].into_iter()).unwrap();
            (deflate::check_answer(Some(deflate), [answer.as_str()].into_iter()).unwrap(), Some(of_server))
        }
    };
    let network = Some(Arc::new(OsNetwork) as _);
    (
        WebSocket::new(client, network, options, of_client.as_ref(), None, Bytes::new()),
        WebSocket::new(server, None, options, of_server.as_ref(), None, Bytes::new()),
    )
}

/// A server, and the bare other end.
fn bare(options: &WsOptions) -> (DuplexStream, WebSocket<DuplexStream>) {
    let (client, server) = duplex(1 << 20);
    (client, WebSocket::new(server, None, options, None, None, Bytes::new()))
}

fn messages() -> Vec<Message> {
    let mut messages = vec![Message::text(""), Message::binary(Bytes::new()), Message::text("κόσμε")];
    for len in [1, 125, 126, 65_535, 65_536, 200_000, 1_000_000] {
        messages.push(Message::binary((0..=250).cycle().take(len).collect::<Vec<u8>>()));
        messages.push(Message::text("ab€".repeat(len / 5)));
    }
    messages
}

#[tokio::test]
async fn messages_come_as_they_were_sent() {
    for fragment in [None, Some(1000)] {
        for deflate in [None, Some(Deflate::default())] {
            let options = WsOptions { fragment, deflate, ..quick() };
            let (mut client, mut server) = pair(&options, 10_000);
            let echo = tokio::spawn(async move {
                while let Some(message) = server.recv().await.unwrap() {
                    server.send(message).await.unwrap();
                }
                server.peer_close().unwrap().cloned()
            });
            for message in messages() {
                client.send(message.clone()).await.unwrap();
                assert!(client.recv().await.unwrap().unwrap() == message);
            }
            client.close(CloseCode::NORMAL, "done").await.unwrap();
            assert_eq!(echo.await.unwrap(), Some(CloseFrame::new(CloseCode::NORMAL, "done")));
            assert_eq!(client.peer_close(), Some(Some(&CloseFrame::new(CloseCode::NORMAL, ""))));
            assert!(matches!(client.send("late").await, Err(WsError::Closed)));
        }
    }
}

/// Pieces of one large message that wait are written in order, whoever else writes meanwhile.
#[tokio::test]
async fn halves_work_at_once_and_wait_for_each_other() {
    let (client, server) = pair(&quick(), 1000);
    let (mut to_server, mut from_server) = client.split();
    let (mut to_client, mut from_client) = server.split();
    let send = |sender: &'static str| {
        (0..100).map(move |at| Message::text(format!("{sender} {at} {}", "x".repeat(at * 50))))
    };
    let tasks = [
        tokio::spawn(async move {
            for message in send("client") {
                to_server.send(message).await.unwrap();
                to_server.ping("are you there").await.unwrap();
            }
            to_server.close(CloseCode::NORMAL, "").await.unwrap();
        }),
        tokio::spawn(async move {
            for message in send("server") {
                to_client.send(message).await.unwrap();
            }
        }),
        tokio::spawn(async move {
            for message in send("client") {
                assert_eq!(from_client.recv().await.unwrap(), Some(message));
            }
            assert_eq!(from_client.recv().await.unwrap(), None);
        }),
        tokio::spawn(async move {
            let (mut expected, mut pongs) = (send("server"), 0);
            while let Some(event) = from_server.recv_event().await.unwrap() {
                match event {
                    Event::Message(message) => assert_eq!(Some(message), expected.next()),
                    Event::Pong(content) => {
                        assert_eq!(content, "are you there");
                        pongs += 1;
                    }
                    Event::Ping(_) => panic!("nobody pings here"),
                }
            }
            assert_eq!(expected.next(), None);
            assert_eq!(pongs, 100);
        }),
    ];
    for task in tasks {
        tokio::time::timeout(Duration::from_secs(30), task).await.expect("it hangs").unwrap();
    }
}

#[tokio::test]
async fn it_is_a_stream_and_a_sink() {
    let (mut client, mut server) = pair(&quick(), 1000);
    let serve = tokio::spawn(async move {
        let got = poll_fn(|cx| Pin::new(&mut server).poll_next(cx)).await.unwrap().unwrap();
        let end = poll_fn(|cx| Pin::new(&mut server).poll_next(cx)).await;
        (got, end.is_none())
    });
    poll_fn(|cx| Pin::new(&mut client).poll_ready(cx)).await.unwrap();
    Sink::start_send(Pin::new(&mut client), Message::text("x")).unwrap();
    poll_fn(|cx| Pin::new(&mut client).poll_close(cx)).await.unwrap();
    assert_eq!(client.recv().await.unwrap(), None);
    assert_eq!(serve.await.unwrap(), (Message::text("x"), true));
}

/// Who sends pings and reads nothing takes no memory for their answers, and has the latest one in the end.
#[tokio::test]
async fn pongs_that_nobody_reads_are_bounded() {
    let (client, server) = duplex(100);
    let options = WsOptions { write_buffer: 1000, ..quick() };
    let mut server = WebSocket::new(server, None, &options, None, None, Bytes::new());
    let (mut from, mut to) = tokio::io::split(client);
    let serve = tokio::spawn(async move { while let Ok(Some(_)) = server.recv_event().await {} });
    let mut frame = vec![0x89, 0x80 | 100, 0, 0, 0, 0];
    frame.extend([b'p'; 100]);
    for _ in 0..10_000 {
        to.write_all(&frame).await.unwrap();
    }
    to.write_all(&[0x89, 0x84, 0, 0, 0, 0, b'l', b'a', b's', b't']).await.unwrap();
    let mut pongs = 0;
    loop {
        let mut header = [0; 2];
        from.read_exact(&mut header).await.unwrap();
        assert_eq!(header[0], 0x8a);
        let mut content = vec![0; header[1].into()];
        from.read_exact(&mut content).await.unwrap();
        pongs += 1;
        if content == b"last" {
            break;
        }
    }
    assert!((2..=30).contains(&pongs), "{pongs} pongs");
    drop((from, to));
    serve.await.unwrap();
}

/// A `send` that is given up while the peer does not read leaves whole frames behind.
#[tokio::test]
async fn a_send_that_is_given_up_breaks_nothing() {
    let options = WsOptions { write_buffer: 2000, ..quick() };
    let (mut client, mut server) = pair(&options, 500);
    let mut queued = 0;
    for at in 0..50 {
        let message = Message::text(format!("{at} {}", "y".repeat(400)));
        let mut sending = Box::pin(client.send(message));
        // One poll: it is done, or it waits and is dropped.
        let done = poll_fn(|cx| std::task::Poll::Ready(sending.as_mut().poll(cx).is_ready())).await;
        drop(sending);
        queued += usize::from(done);
    }
    assert!((1..50).contains(&queued), "{queued} went through at once");
    let read = tokio::spawn(async move {
        let mut numbers = Vec::new();
        while let Some(message) = server.recv().await.unwrap() {
            let text = String::from_utf8(message.into_bytes().to_vec()).unwrap();
            assert!(text.ends_with(&"y".repeat(400)));
            numbers.push(text.split(' ').next().unwrap().parse::<usize>().unwrap());
        }
        numbers
    });
    client.close(CloseCode::NORMAL, "").await.unwrap();
    let numbers = read.await.unwrap();
    assert!(numbers.is_sorted() && !numbers.is_empty(), "{numbers:?}");
    assert!(numbers.windows(2).all(|two| two[0] < two[1]), "none twice: {numbers:?}");
}

/// Reads what is written to the bare end until its end.
async fn told(client: &mut DuplexStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    client.read_to_end(&mut bytes).await.unwrap();
    bytes
}

#[tokio::test(start_paused = true)]
async fn who_breaks_a_rule_is_told_and_waited_for() {
    let options =
        WsOptions { close_timeout: Duration::from_secs(5), max_message: 10, ..WsOptions::default() };
    for (bytes, code) in [
        (&[0xc1, 0x80, 0, 0, 0, 0][..], 1002_u16),
        (&[0x81, 0x81, 0, 0, 0, 0, 0xff], 1007),
        (&[0x82, 0x8b, 0, 0, 0, 0], 1009),
    ] {
        let (mut client, mut server) = bare(&options);
        client.write_all(bytes).await.unwrap();
        let (outcome, told) = tokio::join!(server.recv(), async {
            let told = told(&mut client).await;
            drop(client);
            told
        });
        let Err(WsError::Violation(violation)) = outcome else { panic!("{outcome:?}") };
        assert_eq!(u16::from(violation.code()), code);
        assert_eq!((told[0], &told[2..4]), (0x88, &code.to_be_bytes()[..]));
        assert!(server.recv().await.unwrap().is_none(), "it is over");
    }
    // One that does not listen: the close has an end all the same.
    let (mut client, mut server) = bare(&options);
    client.write_all(&[0x83, 0x80, 0, 0, 0, 0]).await.unwrap();
    let begin = tokio::time::Instant::now();
    assert!(matches!(server.recv().await, Err(WsError::Violation(Violation::ReservedOpcode(3)))));
    assert_eq!(begin.elapsed().as_secs(), 5);
}

#[tokio::test(start_paused = true)]
async fn a_close_that_is_not_answered_has_an_end() {
    let (mut client, mut server) = bare(&WsOptions::default());
    let begin = tokio::time::Instant::now();
    let closing = server.close(CloseCode::GOING_AWAY, "enough");
    // Messages do not make it longer.
    let talk = async {
        while client.write_all(&[0x81, 0x81, 0, 0, 0, 0, b'x']).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let outcome = tokio::select! { biased; outcome = closing => outcome, () = talk => unreachable!() };
    assert!(matches!(outcome, Err(WsError::CloseTimeout)), "{outcome:?}");
    assert_eq!(begin.elapsed().as_secs(), 5);

    // The half that receives ends too when the other has closed.
    let (_client, server) = bare(&WsOptions::default());
    let (mut sender, mut receiver) = server.split();
    let receiving = tokio::spawn(async move { receiver.recv().await });
    tokio::task::yield_now().await;
    sender.close(CloseCode::NORMAL, "").await.unwrap();
    assert!(matches!(receiving.await.unwrap(), Err(WsError::CloseTimeout)));
}

#[tokio::test]
async fn an_end_without_a_close_is_no_end() {
    for begun in [&b""[..], &[0x81], &[0x81, 0x85, 0, 0, 0, 0, b'x'], &[0x01, 0x81, 0, 0, 0, 0, b'x']] {
        let (mut client, mut server) = bare(&WsOptions::default());
        client.write_all(begun).await.unwrap();
        drop(client);
        assert!(matches!(server.recv().await, Err(WsError::Aborted)), "{begun:x?}");
        assert!(server.recv().await.unwrap().is_none());
    }
}

#[tokio::test]
async fn a_long_reason_is_cut_and_a_long_ping_refused() {
    let (mut client, mut server) = pair(&quick(), 1000);
    assert!(matches!(client.ping(vec![0; 126]).await, Err(WsError::ControlTooLong(126))));
    let closing =
        tokio::spawn(async move { client.close(CloseCode::new(4000).unwrap(), &"€".repeat(50)).await });
    assert!(server.recv().await.unwrap().is_none());
    let reason = server.peer_close().unwrap().unwrap().reason.clone();
    assert_eq!(reason, "€".repeat(41).as_str());
    drop(server);
    closing.await.unwrap().unwrap();
}
