//! One POST over HTTP/2 (RFC 9113), which many servers of DNS over HTTPS demand (RFC 8484, section 5.2).

use std::pin::pin;

use bytes::Bytes;
use http::{Request, StatusCode, Uri, header};

use super::error::Failure;
use super::https::{HEAD, authority, is_message, wrong};
use crate::network::BoxStream;

/// Posts a question and returns the body of the answer. The connection is for this one, and no task outlives
/// the question.
pub(super) async fn post(
    stream: BoxStream,
    host: &str,
    path: &str,
    query: &[u8],
) -> Result<Vec<u8>, Failure> {
    let uri = Uri::builder().scheme("https").authority(authority(host)).path_and_query(path).build();
    let kind = "application/dns-message";
    let request = Request::post(uri.map_err(|error| Failure::Network(format!("its URL: {error}")))?)
        .header(header::ACCEPT, kind)
        .header(header::CONTENT_TYPE, kind)
        .header(header::CONTENT_LENGTH, query.len())
        .body(())
        .map_err(|error| Failure::Network(format!("its URL: {error}")))?;
    let (sender, connection) = h2::client::Builder::new()
        .enable_push(false)
        .max_header_list_size(u32::try_from(HEAD).unwrap_or(u32::MAX))
        .handshake::<_, Bytes>(stream)
        .await
        .map_err(|error| of_h2(&error))?;
    let query = Bytes::copy_from_slice(query);
    let mut exchange = pin!(async move {
        let mut sender = sender.ready().await.map_err(|error| of_h2(&error))?;
        let (response, mut body) = sender.send_request(request, false).map_err(|error| of_h2(&error))?;
        body.send_data(query, true).map_err(|error| of_h2(&error))?;
        receive(response.await.map_err(|error| of_h2(&error))?).await
    });
    tokio::select! {
        biased;
        answer = &mut exchange => answer,
        // What arrived before the end still counts; if it is not all, the exchange fails.
        _ = connection => exchange.await,
    }
}

async fn receive(response: http::Response<h2::RecvStream>) -> Result<Vec<u8>, Failure> {
    if response.status() != StatusCode::OK {
        return Err(Failure::Refused(format!("HTTP status {}", response.status().as_u16())));
    }
    let kind = response.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    if !kind.is_some_and(is_message) {
        return Err(wrong("it is no DNS message"));
    }
    let mut body = response.into_body();
    let mut answer = Vec::new();
    while let Some(piece) = body.data().await {
        let piece = piece.map_err(|error| of_h2(&error))?;
        if answer.len() + piece.len() > usize::from(u16::MAX) {
            return Err(wrong("it is too long"));
        }
        answer.extend_from_slice(&piece);
        body.flow_control().release_capacity(piece.len()).map_err(|error| of_h2(&error))?;
    }
    Ok(answer)
}

fn of_h2(error: &h2::Error) -> Failure {
    Failure::Network(format!("HTTP/2: {error}"))
}
