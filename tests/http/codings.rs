//! Content codings: undone, bounded, and never half.

use std::time::Duration;

use async_compression::Level;
use async_compression::tokio::bufread::{BrotliEncoder, GzipEncoder, ZstdEncoder};
use tokio::io::AsyncReadExt;
use vitte_net::http::{Body, Client, HttpErrorKind, Reply, Request, Router, header};

use crate::{canned, plain, soon};

const CODINGS: [&str; 3] = ["gzip", "br", "zstd"];

async fn encode(coding: &str, bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let read = match coding {
        "gzip" => GzipEncoder::new(bytes).read_to_end(&mut out).await,
        "br" => BrotliEncoder::with_quality(bytes, Level::Fastest).read_to_end(&mut out).await,
        _ => ZstdEncoder::new(bytes).read_to_end(&mut out).await,
    };
    read.expect("it can be encoded");
    out
}

fn response(coding: &str, body: &[u8], framing: &str) -> Vec<u8> {
    let mut all = format!("HTTP/1.1 200 OK\r\nContent-Encoding: {coding}\r\n{framing}\r\n").into_bytes();
    all.extend_from_slice(body);
    all
}

async fn get(answer: Vec<u8>) -> Result<Vec<u8>, vitte_net::http::HttpError> {
    let at = canned(answer).await;
    let client = Client::builder().timeout(Duration::from_secs(10)).build();
    let response = soon(client.get(format!("http://{at}/")).send()).await?;
    assert!(!response.headers().contains_key(header::CONTENT_ENCODING));
    Ok(soon(response.bytes()).await?.to_vec())
}

#[tokio::test]
async fn codings_are_undone() {
    let text: Vec<u8> = (0..200_000u32).flat_map(|i| (i / 7).to_le_bytes()).collect();
    for coding in CODINGS {
        let body = encode(coding, &text).await;
        let length = format!("Content-Length: {}\r\n", body.len());
        assert!(get(response(coding, &body, &length)).await.expect(coding) == text, "{coding}");
        // Whoever does not ask for it gets it as it is.
        let at = canned(response(coding, &body, &length)).await;
        let raw =
            soon(Client::new().get(format!("http://{at}/")).decode(false).send()).await.expect("an answer");
        assert!(raw.bytes().await.expect("a body") == body, "{coding}");
    }
    // Two members of gzip are one body (RFC 1952, section 2.2).
    let body = [encode("gzip", b"ab").await, encode("gzip", b"cd").await].concat();
    assert_eq!(get(response("x-gzip", &body, "")).await.expect("two members"), b"abcd");
}

/// Cut at every byte, or with something behind it, it is an error, even where the connection ends cleanly.
#[tokio::test]
async fn a_coding_that_is_cut_off_is_an_error_wherever_it_is_cut() {
    let text: Vec<u8> =
        (0..60u32).flat_map(|i| i.wrapping_mul(i).wrapping_mul(2_654_435).to_le_bytes()).collect();
    for coding in CODINGS {
        let body = encode(coding, &text).await;
        for end in 0..body.len() {
            let outcome = get(response(coding, &body[..end], "")).await;
            assert!(outcome.is_err(), "{coding} cut at {end} of {}: {outcome:?}", body.len());
        }
        let more = [&body[..], b"more"].concat();
        let outcome = get(response(coding, &more, "")).await;
        assert!(outcome.is_err(), "{coding} with more behind it: {outcome:?}");
    }
}

/// 1 GiB of nothing: refused after 32 MiB of it, whoever counts the bytes.
#[tokio::test]
async fn bombs_are_refused() {
    for coding in CODINGS {
        // A gibibyte would take long to make: many members are one body. br has none, so there is less of it.
        let body = match coding {
            "br" => encode(coding, &vec![0; 40 << 20]).await,
            _ => encode(coding, &vec![0; 16 << 20]).await.repeat(64),
        };
        let at = canned(response(coding, &body, "")).await;
        let mut response = soon(Client::new().get(format!("http://{at}/")).send()).await.expect("an answer");
        let mut given = 0;
        let error = loop {
            match soon(response.chunk()).await {
                Ok(Some(bytes)) => given += bytes.len(),
                Ok(None) => panic!("{coding}: all {given} bytes"),
                Err(error) => break error,
            }
        };
        assert!(matches!(error.kind(), HttpErrorKind::Coding { .. }), "{coding}: {error:?}");
        assert!(given <= 33 << 20, "{coding}: {given}");
    }
}

#[tokio::test]
async fn a_limit_counts_what_is_inside() {
    let body = encode("zstd", &[0; 100_000]).await;
    let client = Client::builder().max_body(1000).build();
    let at = canned(response("zstd", &body, "")).await;
    let answer = soon(client.get(format!("http://{at}/")).send()).await.expect("an answer");
    let error = soon(answer.bytes()).await.expect_err("too large");
    assert!(matches!(error.kind(), HttpErrorKind::TooLarge { .. }), "{error:?}");
}

/// The server's own replies are not coded by it; a handler may do so, in both versions.
#[tokio::test]
async fn a_handler_may_code() {
    let body = encode("br", b"abc").await;
    let handler = move |request: Request| {
        let accepted = request.headers()[header::ACCEPT_ENCODING] == "gzip, br, zstd";
        let body = Body::from(body.clone());
        async move {
            assert!(accepted);
            Reply::new(body).header(header::CONTENT_ENCODING, "br".parse().expect("a value"))
        }
    };
    let server = plain(Router::new().nest("/", handler)).await;
    let url = format!("http://{}/", server.local_addr());
    let answer = soon(Client::new().get(&url).send()).await.expect("an answer");
    assert_eq!(answer.text().await.expect("a body"), "abc");
}
