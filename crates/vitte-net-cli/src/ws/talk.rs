//! One WebSocket and a person (or a program) at stdin and stdout.

use std::io::{BufRead, Read};
use std::process::ExitCode;

use serde_json::{Value, json};
use tokio::sync::mpsc;
use vitte_net::ws::{CloseCode, CloseFrame, Message, WebSocket, WsError, WsReceiver, WsSender};

use super::interrupted;
use crate::problem::Problem;
use crate::terminal::Output;

/// Lines that wait to be sent.
const LINES: usize = 16;
/// Bytes of a binary message that are shown to people.
const SHOWN: usize = 64;

/// How one connection is used.
#[derive(Clone, Copy, Debug)]
pub(super) struct Talk<'a> {
    pub(super) output: &'a Output,
    pub(super) echo: bool,
    pub(super) max: usize,
}

impl Talk<'_> {
    /// Talks as a client, until either side has closed.
    pub(super) async fn with(self, mut socket: WebSocket, url: &str) -> Result<ExitCode, Problem> {
        if self.echo {
            let echoed = tokio::select! {
                biased;
                ended = interrupted() => {
                    ended?;
                    socket.close(CloseCode::GOING_AWAY, "").await.map(|()| None)
                }
                echoed = echo(&mut socket) => echoed,
            };
            return ended(echoed, url);
        }
        let mut record = json!({ "event": "connected", "url": url });
        record["protocol"] = socket.protocol().map_or(Value::Null, Value::from);
        if self.output.is_json() {
            self.output.tell(&[], &record)?;
        }
        self.lines(socket, &mut lines(self.max), url).await
    }

    /// Sends lines and shows messages, until either side has closed. At the end of the lines this side does, and
    /// still shows what is on its way.
    pub(super) async fn lines(
        self,
        socket: WebSocket,
        lines: &mut mpsc::Receiver<String>,
        url: &str,
    ) -> Result<ExitCode, Problem> {
        let (mut sender, mut receiver) = socket.split();
        tokio::select! {
            biased;
            shown = self.show(&mut receiver, url) => shown,
            problem = send(&mut sender, lines) => Err(problem),
        }
    }

    async fn show(self, receiver: &mut WsReceiver, url: &str) -> Result<ExitCode, Problem> {
        loop {
            match receiver.recv().await {
                Ok(Some(message)) => self.output.tell(&[shown(&message)], &record(&message))?,
                Ok(None) => return ended(Ok(receiver.peer_close().flatten()), url),
                Err(error) => return ended(Err(error), url),
            }
        }
    }
}

/// Sends lines until there are no more or it is time to go, and then waits for the receiver to end it all.
async fn send(sender: &mut WsSender, lines: &mut mpsc::Receiver<String>) -> Problem {
    let mut sent = Ok(());
    while sent.is_ok() {
        let line = tokio::select! {
            biased;
            ended = interrupted() => match ended {
                Ok(()) => None,
                Err(problem) => return problem,
            },
            line = lines.recv() => line,
        };
        sent = match line {
            Some(line) => sender.send(line).await,
            None => {
                // If that fails, the receiver knows why.
                let _ = sender.close(CloseCode::NORMAL, "").await;
                break;
            }
        };
    }
    std::future::pending().await
}

/// Sends back whatever comes. What the peer said when it closed, or nothing.
pub(super) async fn echo(socket: &mut WebSocket) -> Result<Option<CloseFrame>, WsError> {
    while let Some(message) = socket.recv().await? {
        // Written when there is nothing more to receive.
        match socket.feed(message).await {
            // The next call knows how it ended.
            Ok(()) | Err(WsError::Closed) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(socket.peer_close().flatten().cloned())
}

/// Success is a goodbye without a complaint.
fn ended(outcome: Result<Option<CloseFrame>, WsError>, url: &str) -> Result<ExitCode, Problem> {
    match outcome {
        Ok(None) => Ok(ExitCode::SUCCESS),
        Ok(Some(frame)) if matches!(frame.code, CloseCode::NORMAL | CloseCode::GOING_AWAY) => {
            Ok(ExitCode::SUCCESS)
        }
        Ok(Some(frame)) => {
            Err(Problem::failed(format!("{url} closed with the code {frame}"), "what the code stands for"))
        }
        Err(error) => Err(Problem::failed(format!("{url}: {error}"), hint(&error))),
    }
}

fn hint(error: &WsError) -> &'static str {
    use vitte_net::ws::Violation::{FrameTooLarge, MessageTooLarge};
    match error {
        WsError::Violation(FrameTooLarge { .. } | MessageTooLarge { .. }) => "a larger --max-message",
        WsError::Violation(_) => "another version of that program: it breaks RFC 6455",
        _ => "the log of the other side; it may have died, or a proxy between may have cut the connection",
    }
}

fn shown(message: &Message) -> String {
    match message {
        Message::Text(text) => text.to_string(),
        Message::Binary(bytes) => {
            let hex: String = bytes.iter().take(SHOWN).map(|byte| format!("{byte:02x}")).collect();
            let more = if bytes.len() > SHOWN { "…" } else { "" };
            format!("binary, {} bytes: {hex}{more}", bytes.len())
        }
    }
}

fn record(message: &Message) -> Value {
    match message {
        Message::Text(text) => json!({ "event": "message", "text": text.as_str() }),
        Message::Binary(bytes) => {
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            json!({ "event": "message", "binary": hex })
        }
    }
}

/// The lines of stdin, read by a thread that nobody waits for: reading a terminal cannot be given up. A line is
/// cut where it has `max` bytes.
pub(super) fn lines(max: usize) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel(LINES);
    std::thread::spawn(move || {
        let mut stdin = std::io::stdin().lock();
        loop {
            let mut line = Vec::new();
            match stdin.by_ref().take(max.max(1) as u64).read_until(b'\n', &mut line) {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
            let text = String::from_utf8_lossy(&line);
            let text = text.strip_suffix('\n').unwrap_or(&text);
            if sender.blocking_send(text.strip_suffix('\r').unwrap_or(text).to_owned()).is_err() {
                return;
            }
        }
    });
    receiver
}
