//! The server's side: the same port as TCP, by UDP.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response, Version};
use quinn::{Incoming as Knock, VarInt};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};

use super::stream::{Incoming, of_stream};
use crate::http::body::Body;
use crate::http::error::{HttpError, Stage};
use crate::http::guard::head;
use crate::http::server::{Activity, Connection, told};
use crate::network::Network;
use crate::quic::{Seats, Use};
use crate::tls::{HANDSHAKE_TIMEOUT, ServerTls};

/// With so many connections an address must prove itself before it gets one more (RFC 9000, section 8.1.2).
const RETRY_ABOVE: usize = 256;
/// The code of a connection that ends for no error (RFC 9114, section 8.1).
const NO_ERROR: VarInt = VarInt::from_u32(0x100);

/// A listening UDP socket.
#[derive(Debug)]
pub(in crate::http) struct Listening {
    endpoint: quinn::Endpoint,
    seats: Arc<Seats>,
}

impl Listening {
    pub(in crate::http) async fn bind(
        at: SocketAddr,
        network: &Arc<dyn Network>,
        tls: &ServerTls,
    ) -> io::Result<Self> {
        let config = super::server_config(network, tls)?;
        let socket = network.bind_udp(at, &crate::quic::socket_options()).await?;
        let socket = crate::quic::for_quinn(socket)?;
        let seats = Arc::new(Seats::default());
        let endpoint = quinn::Endpoint::new_with_abstract_socket(
            crate::quic::endpoint(network),
            Some(config),
            socket,
            seats.clone(),
        )?;
        Ok(Self { endpoint, seats })
    }

    /// How many connections there are, those included that are over and remembered still.
    #[cfg(test)]
    pub(in crate::http) fn counter(&self) -> impl Fn() -> usize + use<> {
        let endpoint = self.endpoint.clone();
        move || endpoint.open_connections()
    }

    /// Accepts until told to stop, then waits for the connections. Dropped, it cuts them.
    pub(in crate::http) async fn run(
        self,
        template: Connection,
        connections_max: usize,
        mut stopped: watch::Receiver<bool>,
    ) {
        let mut connections = JoinSet::new();
        loop {
            let knock = tokio::select! {
                biased;
                () = told(&mut stopped) => break,
                Some(_) = connections.join_next() => continue,
                knock = self.endpoint.accept() => knock,
            };
            let Some(knock) = knock else { break };
            if connections.len() >= connections_max {
                knock.refuse();
            } else if connections.len() >= RETRY_ABOVE
                && knock.may_retry()
                && !knock.remote_address_validated()
            {
                // Whoever cannot retry is not there.
                let _ = knock.retry();
            } else {
                let seats = Arc::clone(&self.seats);
                connections.spawn(connection(knock, seats, template.clone(), stopped.clone()));
            }
        }
        // New ones are turned away while the old ones finish.
        self.endpoint.set_server_config(None);
        while connections.join_next().await.is_some() {}
        self.endpoint.close(NO_ERROR, &[]);
        self.endpoint.wait_idle().await;
    }
}

async fn connection(
    knock: Knock,
    seats: Arc<Seats>,
    mut template: Connection,
    mut stopped: watch::Receiver<bool>,
) {
    let peer = knock.remote_address();
    let limits = template.settings.limits;
    let latest = Instant::now() + limits.head_time;
    let (connecting, seat) = match seats.take(|| knock.accept()) {
        Ok(begun) => begun,
        Err(error) => {
            tracing::debug!(%peer, %error, "no QUIC with a client");
            return;
        }
    };
    let used = Arc::new(seat.begin_use());
    let quinn = match timeout_at(latest.min(Instant::now() + HANDSHAKE_TIMEOUT), connecting).await {
        Ok(Ok(quinn)) => quinn,
        Ok(Err(error)) => {
            tracing::debug!(%peer, %error, "no QUIC with a client");
            return;
        }
        Err(_) => return,
    };
    template.peer = peer;
    template.tls = true;
    let mut builder = h3::server::builder();
    builder.max_field_section_size(limits.head as u64).send_grease(false);
    let Ok(Ok(mut h3)) =
        timeout_at(latest, builder.build::<_, Bytes>(h3_quinn::Connection::new(quinn.clone()))).await
    else {
        return;
    };
    let activity = Arc::new(Activity::new(latest));
    let mut requests = JoinSet::new();
    let mut stopping = false;
    loop {
        tokio::select! {
            biased;
            () = told(&mut stopped), if !stopping => {
                stopping = true;
                if h3.shutdown(0).await.is_err() {
                    break;
                }
            }
            Some(_) = requests.join_next() => {
                if stopping && requests.is_empty() {
                    break;
                }
            }
            accepted = h3.accept(), if !(stopping && requests.is_empty()) => match accepted {
                Ok(Some(resolver)) => {
                    let (template, activity) = (template.clone(), Arc::clone(&activity));
                    let used = Arc::clone(&used);
                    requests.spawn(async move {
                        let resolved = timeout(template.settings.limits.head_time, resolver.resolve_request()).await;
                        if let Ok(Ok((request, stream))) = resolved {
                            let ended = answer(&template, request, stream, activity, used).await;
                            if let Err(error) = ended {
                                tracing::debug!(%peer, %error, "a response was not taken");
                            }
                        }
                    });
                }
                Ok(None) => break,
                Err(error) => {
                    tracing::debug!(%peer, %error, "a connection ended");
                    break;
                }
            },
            _ = activity.watch(limits.idle_time, limits.body_time) => break,
            else => break,
        }
    }
    while requests.join_next().await.is_some() {}
    quinn.close(NO_ERROR, &[]);
}

type Stream = h3::server::RequestStream<h3_quinn::BidiStream<Bytes>, Bytes>;

/// One request, one response. The peer has its time for every piece.
async fn answer(
    template: &Connection,
    request: Request<()>,
    stream: Stream,
    activity: Arc<Activity>,
    used: Arc<Use>,
) -> Result<(), HttpError> {
    let (mut send, receive) = stream.split();
    let (mut head, ()) = request.into_parts();
    head.version = Version::HTTP_3;
    let wait = template.settings.limits.body_time;
    let failed = |error| of_stream(Stage::Body, &error);
    let late = |_| HttpError::new(Stage::Body, io::Error::from(io::ErrorKind::TimedOut));
    // A head with more than one length is refused.
    let length = head::length(&head.headers).unwrap_or_default();
    let incoming = Body::boxed(Incoming::new(receive, None, used).with_length(length));
    let response: Response<Body> = template.answer_many(head, incoming, activity).await;
    let (head, mut body) = response.into_parts();
    timeout(wait, send.send_response(Response::from_parts(head, ()))).await.map_err(late)?.map_err(failed)?;
    loop {
        match body.chunk().await {
            Ok(Some(bytes)) => timeout(wait, send.send_data(bytes)).await.map_err(late)?.map_err(failed)?,
            Ok(None) => break,
            Err(error) => {
                // Half of a body must not look like all of it.
                send.stop_stream(h3::error::Code::H3_INTERNAL_ERROR);
                return Err(error);
            }
        }
    }
    timeout(wait, send.finish()).await.map_err(late)?.map_err(failed)
}
