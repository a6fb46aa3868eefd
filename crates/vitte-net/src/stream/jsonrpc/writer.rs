//! The task that writes.

use std::io;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use serde_json::json;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;

use super::client::{Outgoing, Shared};
use super::message::ask;
use crate::stream::{Codec, ContentLength, StreamError};

/// So many bytes are gathered before they are written: 64 KiB.
const BATCH: usize = 64 * 1024;

/// Writes messages until one says that it is the last.
pub(super) async fn run(
    mut output: impl AsyncWrite + Unpin,
    mut outgoing: mpsc::Receiver<Outgoing>,
    shared: Arc<Shared>,
) -> Result<(), StreamError> {
    let limits = shared.limits;
    let mut codec = ContentLength::with_message_max(limits.message_max);
    let mut batch = BytesMut::new();
    let mut unwanted = Vec::new();
    let mut ends = false;
    while !ends {
        let mut next = tokio::select! {
            biased;
            next = outgoing.recv() => next,
            () = shared.cancel.notified() => None,
        };
        // A request is queued before it can become unwanted. So once the queue was empty after these were taken,
        // none of their cancellations comes before its request.
        unwanted.extend(shared.take_unwanted());
        loop {
            match next.or_else(|| outgoing.try_recv().ok()) {
                Some(Outgoing::Message(message)) => codec.encode(&message, &mut batch)?,
                Some(Outgoing::End) => {
                    ends = true;
                    break;
                }
                None => {
                    for id in unwanted.drain(..) {
                        codec.encode(&cancellation(id)?, &mut batch)?;
                    }
                    break;
                }
            }
            next = None;
            if batch.len() >= BATCH {
                break;
            }
        }
        let writing = async {
            output.write_all(&batch).await?;
            output.flush().await?;
            if ends { output.shutdown().await } else { Ok(()) }
        };
        match tokio::time::timeout(limits.write_timeout, writing).await {
            Ok(written) => written?,
            Err(_) => {
                let text = format!("the peer did not read for {:?}", limits.write_timeout);
                return Err(io::Error::new(io::ErrorKind::TimedOut, text).into());
            }
        }
        batch.clear();
        if batch.capacity() > 2 * BATCH {
            batch = BytesMut::new();
        }
    }
    Ok(())
}

fn cancellation(id: i64) -> Result<Bytes, StreamError> {
    ask(None, "$/cancelRequest", json!({ "id": id }))
        .map_err(|error| StreamError::Unencodable(error.to_string()))
}
