//! Values and copies over streams that are cut anywhere.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use vitte_net::stream::{
    Codec, ContentLength, Copied, CopyError, CopyMeter, JsonLines, LengthDelimited, Lines, Postcard, Side,
    StreamError, TypedStream, copy_both,
};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Job {
    name: String,
    inputs: Vec<u32>,
}

fn jobs() -> Vec<Job> {
    (0..50).map(|i| Job { name: format!("job {i}\n\u{1b}"), inputs: (0..i * 7).collect() }).collect()
}

/// Sends `values` through a pipe of `room` bytes and returns what arrives.
async fn through<T: Clone, C: Codec<T> + Clone>(values: &[T], codec: C, room: usize) -> Vec<T> {
    let (near, far) = duplex(room);
    let mut near: TypedStream<T, _, _> = TypedStream::new(near, codec.clone());
    let mut far: TypedStream<T, _, _> = TypedStream::new(far, codec);
    let sending = async {
        for value in values {
            near.send(value.clone()).await.unwrap();
        }
        near.finish().await.unwrap();
    };
    let (_, received) = tokio::join!(sending, async {
        let mut received = Vec::new();
        while let Some(value) = far.recv().await.unwrap() {
            received.push(value);
        }
        assert!(far.recv().await.unwrap().is_none());
        received
    });
    received
}

#[tokio::test]
async fn values_survive_any_cut() {
    let bytes: Vec<Bytes> = (0..40_usize).map(|i| vec![7; i * 13].into()).collect();
    let lines: Vec<String> = (0..40_usize).map(|i| "é".repeat(i)).collect();
    for room in [1, 3, 64, 100_000] {
        assert_eq!(through(&jobs(), Postcard::default(), room).await, jobs());
        assert_eq!(through(&jobs(), JsonLines::default(), room).await, jobs());
        assert_eq!(through(&bytes, LengthDelimited::default(), room).await, bytes);
        assert_eq!(through(&bytes, ContentLength::default(), room).await, bytes);
        assert_eq!(through(&lines, Lines::default(), room).await, lines);
    }
}

/// What a peer that sent exactly these bytes is understood to have said.
async fn heard<T, C: Codec<T>>(bytes: &[u8], codec: C) -> Vec<Result<T, StreamError>> {
    let (mut near, far) = duplex(bytes.len().max(1));
    near.write_all(bytes).await.unwrap();
    drop(near);
    TypedStream::<T, _, _>::new(far, codec).collect().await
}

#[tokio::test]
async fn what_is_malformed_does_not_end_the_stream() {
    let heard_lines = heard::<Job, _>(
        b"{\"name\":\"a\",\"inputs\":[]}\n\nnonsense\n{\"name\":\"b\",\"inputs\":[1]}",
        JsonLines::default(),
    );
    let [a, no, b] = <[_; 3]>::try_from(heard_lines.await).unwrap();
    assert_eq!((a.unwrap().name.as_str(), b.unwrap().name.as_str()), ("a", "b"));
    assert!(matches!(no, Err(StreamError::Malformed(_))));
    let frames =
        heard::<(u8, u8), _>(b"\0\0\0\x02\x01\x02\0\0\0\x01\x01\0\0\0\x03\x01\x02\x03", Postcard::default());
    let [whole, short, long] = <[_; 3]>::try_from(frames.await).unwrap();
    assert_eq!(whole.unwrap(), (1, 2));
    assert!(matches!((short, long), (Err(StreamError::Malformed(_)), Err(StreamError::Malformed(_)))));
    let [no, yes] =
        <[_; 2]>::try_from(heard::<String, _>(b"\xff\xfe\nyes\n", Lines::default()).await).unwrap();
    assert!(matches!(no, Err(StreamError::Malformed(_))));
    assert_eq!(yes.unwrap(), "yes");
}

#[tokio::test]
async fn limits_and_cuts_have_their_errors() {
    let only =
        async |bytes: &[u8], codec| <[_; 1]>::try_from(heard::<Bytes, LengthDelimited>(bytes, codec).await);
    let [error] = only(b"\xff\xff\xff\xff", LengthDelimited::default()).await.unwrap();
    assert!(matches!(error, Err(StreamError::TooLong { limit: 16_777_216 })));
    let [error] = only(b"\0\0\0\x05abcd", LengthDelimited::default()).await.unwrap();
    assert!(matches!(error, Err(StreamError::Truncated)));
    let [error] = only(b"\0\0", LengthDelimited::default()).await.unwrap();
    assert!(matches!(error, Err(StreamError::Truncated)));
    let [error] =
        <[_; 1]>::try_from(heard::<String, _>(&[b'a'; 20], Lines::with_line_max(10)).await).unwrap();
    assert!(matches!(error, Err(StreamError::TooLong { limit: 10 })));

    // What is too large is not sent, and the stream goes on.
    let (near, far) = duplex(100);
    let mut near: TypedStream<String, _, _> = TypedStream::new(near, JsonLines::with_line_max(10));
    let error = near.send("more than ten".to_owned()).await.unwrap_err();
    assert!(matches!(error, StreamError::TooLarge { len: 15, limit: 10 }));
    assert_eq!(io::Error::from(error).kind(), io::ErrorKind::InvalidInput);
    near.send("ten".to_owned()).await.unwrap();
    let mut far: TypedStream<String, _, _> = TypedStream::new(far, JsonLines::default());
    assert_eq!(far.recv().await.unwrap().unwrap(), "ten");
    let mut lines: TypedStream<String, _, _> = TypedStream::new(duplex(9).0, Lines::default());
    assert!(matches!(lines.send("a\nb".to_owned()).await, Err(StreamError::Unencodable(_))));
}

#[tokio::test]
async fn headers_are_read_strictly() {
    let read =
        async |text: &str| heard::<Bytes, _>(text.as_bytes(), ContentLength::with_message_max(99)).await;
    for text in [
        "Content-Length: 2\r\n\r\nhi",
        "content-length:2 \r\nContent-Type: application/vscode-jsonrpc; charset=utf-8\r\n\r\nhi",
        "X-Other: y\r\nCONTENT-LENGTH: 2\r\nContent-Type: a/b; charset=\"utf8\"\r\n\r\nhi",
    ] {
        assert_eq!(read(text).await[0].as_ref().unwrap(), "hi", "{text}");
    }
    for text in [
        "Content-Length: 2\n\nhi\r\n\r\n",
        "Content-Length: +2\r\n\r\nhi",
        "Content-Length: -2\r\n\r\nhi",
        "Content-Length: 2\r\nContent-Length: 2\r\n\r\nhi",
        "Content-Length: 99999999999999999999999\r\n\r\nhi",
        "Content-Length: \r\n\r\nhi",
        "Content-Type: a/b\r\n\r\nhi",
        "Content-Length: 2\r\nContent-Type: a/b; charset=latin1\r\n\r\nhi",
        "\r\n\r\nhi",
        "no colon\r\n\r\nhi",
    ] {
        assert!(matches!(read(text).await[..], [Err(StreamError::Framing(_))]), "{text}");
    }
    assert!(matches!(
        read("Content-Length: 100\r\n\r\n").await[..],
        [Err(StreamError::TooLong { limit: 99 })]
    ));
    assert!(matches!(read(&"x".repeat(5000)).await[..], [Err(StreamError::Framing(_))]));
    for text in ["Content-Length: 2\r\n\r\nh", "Content-Length: 2\r\n\r\n", "Content-Len"] {
        assert!(matches!(read(text).await[..], [Err(StreamError::Truncated)]), "{text}");
    }
}

#[tokio::test]
async fn it_is_a_stream_and_a_sink() {
    let (near, far) = duplex(10);
    let near: TypedStream<u32, _, _> = TypedStream::new(near, Postcard::default());
    let far: TypedStream<u32, _, _> = TypedStream::new(far, Postcard::default());
    let (mut sink, _) = near.split();
    let all = futures_util::stream::iter((0..100).map(Ok));
    let (sent, received) = tokio::join!(
        async {
            sink.send_all(&mut all.boxed()).await?;
            sink.close().await
        },
        far.map(Result::unwrap).collect::<Vec<_>>()
    );
    sent.unwrap();
    assert_eq!(received, (0..100).collect::<Vec<_>>());
}

#[tokio::test]
async fn what_was_read_ahead_is_handed_back() {
    let (mut near, far) = duplex(100);
    near.write_all(b"HELO\nrest of it").await.unwrap();
    let mut far: TypedStream<String, _, _> = TypedStream::new(far, Lines::default());
    assert_eq!(far.recv().await.unwrap().unwrap(), "HELO");
    let (_, ahead) = far.into_inner();
    assert_eq!(&ahead[..], b"rest of it");
}

fn pipes() -> (DuplexStream, DuplexStream, DuplexStream, DuplexStream) {
    let ((a, b), (c, d)) = (duplex(1000), duplex(1000));
    (a, b, c, d)
}

#[tokio::test]
async fn both_directions_are_copied_and_counted() {
    let (mut client, mut one, mut two, mut server) = pipes();
    let meter = CopyMeter::default();
    let copying = copy_both(&mut one, &mut two, Some(Duration::from_secs(5)), &meter);
    let (copied, _, all) = tokio::join!(
        copying,
        async {
            client.write_all(&[1; 5000]).await.unwrap();
            // The end of this direction comes through, and the answer still comes back.
            client.shutdown().await.unwrap();
            let mut answer = Vec::new();
            client.read_to_end(&mut answer).await.unwrap();
            assert_eq!(answer, b"thanks");
        },
        async {
            let mut all = Vec::new();
            server.read_to_end(&mut all).await.unwrap();
            server.write_all(b"thanks").await.unwrap();
            server.shutdown().await.unwrap();
            all.len()
        }
    );
    assert_eq!((copied.unwrap(), all), (Copied { forth: 5000, back: 6 }, 5000));
    assert_eq!(meter.copied(), Copied { forth: 5000, back: 6 });
}

#[tokio::test(start_paused = true)]
async fn a_silent_pair_is_given_up_and_a_busy_one_is_not() {
    let (mut client, mut one, mut two, mut server) = pipes();
    let (meter, idle) = (CopyMeter::default(), Duration::from_secs(10));
    let talk = async {
        for _ in 0..5 {
            tokio::time::sleep(Duration::from_secs(8)).await;
            client.write_all(b"x").await.unwrap();
            server.read_exact(&mut [0]).await.unwrap();
        }
        tokio::time::Instant::now()
    };
    let (ended, last) = tokio::join!(
        async { (copy_both(&mut one, &mut two, Some(idle), &meter).await, tokio::time::Instant::now()) },
        talk
    );
    assert!(matches!(ended.0, Err(CopyError::Idle(limit)) if limit == idle));
    assert_eq!(ended.1 - last, idle);
    assert_eq!(meter.copied(), Copied { forth: 5, back: 0 });
}

#[tokio::test]
async fn the_side_that_failed_is_named() {
    let (mut client, mut one, mut two, server) = pipes();
    drop(server);
    client.write_all(b"x").await.unwrap();
    let error = copy_both(&mut one, &mut two, None, &CopyMeter::default()).await.unwrap_err();
    assert!(matches!(error, CopyError::Stream { side: Side::Second, .. }), "{error}");
    let (client, mut one, mut two, mut server) = pipes();
    drop(client);
    server.write_all(b"x").await.unwrap();
    let error = copy_both(&mut one, &mut two, None, &CopyMeter::default()).await.unwrap_err();
    assert!(matches!(error, CopyError::Stream { side: Side::First, .. }), "{error}");
}
