//! The client's side: sockets, connections, one request.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response, StatusCode, Version};
use http_body::Body as _;
use tokio::sync::OnceCell;

use super::stream::{Incoming, of_connection, of_stream};
use crate::http::body::Body;
use crate::http::error::{HttpError, HttpErrorKind, Stage};
use crate::http::guard::{INTERIM_MAX, head};
use crate::network::{BoxFuture, Network, Target};
use crate::quic::{Seats, Use};
use crate::tcp::connect::{Race, STAGGER};
use crate::tls::ClientTls;

/// The sockets of a client, one for each family, made when they are needed.
#[derive(Debug, Default)]
pub(in crate::http) struct Endpoints {
    v4: OnceCell<Endpoint>,
    v6: OnceCell<Endpoint>,
}

#[derive(Debug)]
struct Endpoint {
    quinn: quinn::Endpoint,
    seats: Arc<Seats>,
}

impl Endpoints {
    async fn to(&self, address: SocketAddr, network: &Arc<dyn Network>) -> io::Result<&Endpoint> {
        let (cell, any) = match address {
            SocketAddr::V4(_) => (&self.v4, SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0))),
            SocketAddr::V6(_) => (&self.v6, SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0))),
        };
        cell.get_or_try_init(|| async {
            let socket = network.bind_udp(any, &crate::quic::socket_options()).await?;
            let socket = crate::quic::for_quinn(socket)?;
            let config = crate::quic::endpoint(network);
            let seats = Arc::new(Seats::default());
            let quinn = quinn::Endpoint::new_with_abstract_socket(config, None, socket, seats.clone())?;
            Ok(Endpoint { quinn, seats })
        })
        .await
    }
}

/// A connection that takes requests.
#[derive(Clone)]
pub(in crate::http) struct Sender {
    h3: h3::client::SendRequest<h3_quinn::OpenStreams, Bytes>,
    quinn: quinn::Connection,
    used: Arc<Use>,
}

impl std::fmt::Debug for Sender {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sender").field("to", &self.quinn.remote_address()).finish()
    }
}

/// A new connection, and what must be kept running for it.
pub(in crate::http) struct Dialled {
    pub(in crate::http) sender: Sender,
    pub(in crate::http) driver: BoxFuture<'static, ()>,
}

impl Sender {
    /// Connects to `host`, whose addresses race like those of TCP (RFC 8305).
    pub(in crate::http) async fn connect(
        endpoints: &Endpoints,
        network: &Arc<dyn Network>,
        tls: &ClientTls,
        host: &str,
        port: u16,
        max_head: usize,
    ) -> Result<Dialled, HttpError> {
        let config = super::client_config(network, tls)?;
        let addresses = Target::from((host, port)).resolve(&**network).await;
        let addresses = addresses.map_err(|error| HttpError::new(Stage::Connect, error))?;
        let attempt = |address| -> BoxFuture<'_, io::Result<(quinn::Connection, Use)>> {
            let config = config.clone();
            Box::pin(async move {
                let endpoint = endpoints.to(address, network).await?;
                let begun = endpoint.seats.take(|| endpoint.quinn.connect_with(config, address, host));
                let (connecting, seat) = begun.map_err(io::Error::other)?;
                let used = seat.begin_use();
                Ok((connecting.await?, used))
            })
        };
        let mut race = Race::new(addresses, STAGGER, attempt);
        if let Some((connection, used)) = race.run().await {
            return Self::speak(connection, used, max_head).await;
        }
        Err(match race.failed.last() {
            Some((address, error)) => of_quinn(*address, error),
            None => HttpError::new(Stage::Connect, HttpErrorKind::Closed),
        })
    }

    async fn speak(quinn: quinn::Connection, used: Use, max_head: usize) -> Result<Dialled, HttpError> {
        let mut builder = h3::client::builder();
        builder.max_field_section_size(max_head as u64).send_grease(false);
        let made = builder.build(h3_quinn::Connection::new(quinn.clone())).await;
        let (mut driver, h3) = made.map_err(|error| of_connection(Stage::Exchange, &error))?;
        let used = Arc::new(used);
        let held = Arc::clone(&used);
        let driver = Box::pin(async move {
            let error = driver.wait_idle().await;
            drop(held);
            tracing::debug!(%error, "an HTTP/3 connection ended");
        });
        Ok(Dialled { sender: Self { h3, quinn, used }, driver })
    }

    pub(in crate::http) fn is_closed(&self) -> bool {
        self.quinn.close_reason().is_some()
    }

    /// Sends a request and waits for the head of the response. A request of which nothing was sent comes back
    /// with the error.
    pub(in crate::http) async fn send(
        &mut self,
        request: Request<Body>,
    ) -> Result<Response<Body>, (HttpError, Option<Box<Request<Body>>>)> {
        let (head, body) = request.into_parts();
        let stream = self.h3.send_request(Request::from_parts(head.clone(), ())).await;
        let stream = match stream {
            Ok(stream) => stream,
            Err(error) => {
                let error = of_stream(Stage::Exchange, &error);
                let unsent = matches!(error.kind(), HttpErrorKind::Closed | HttpErrorKind::TimedOut { .. });
                return Err((error, unsent.then(|| Box::new(Request::from_parts(head, body)))));
            }
        };
        let (mut send, receive) = stream.split();
        let upload = if body.is_end_stream() {
            send.finish().await.map_err(|error| (of_stream(Stage::Exchange, &error), None))?;
            None
        } else {
            Some(tokio::spawn(upload(body, send)))
        };
        let mut body = Incoming::new(receive, upload, Arc::clone(&self.used));
        let head = final_head(body.half_mut()).await.map_err(|error| (error, None))?;
        let mut response = head.map(|()| Body::boxed(body));
        *response.version_mut() = Version::HTTP_3;
        Ok(response)
    }
}

/// The head of the final response, behind interim ones (RFC 9114, section 4.1).
async fn final_head(half: &mut ReceiveHalf) -> Result<Response<()>, HttpError> {
    for _ in 0..=INTERIM_MAX {
        let head = half.recv_response().await.map_err(|error| of_stream(Stage::Exchange, &error))?;
        let length = head::length(head.headers());
        if let Some(fault) = length.err() {
            return Err(HttpError::rules(Stage::Exchange, fault.what));
        }
        if head.status() == StatusCode::SWITCHING_PROTOCOLS {
            return Err(HttpError::rules(Stage::Exchange, "another protocol, which HTTP/3 cannot become"));
        }
        if !head.status().is_informational() {
            return Ok(head);
        }
    }
    Err(HttpError::rules(Stage::Exchange, "too many interim responses"))
}

type ReceiveHalf = h3::client::RequestStream<h3_quinn::RecvStream, Bytes>;
type SendHalf = h3::client::RequestStream<h3_quinn::SendStream<Bytes>, Bytes>;

/// Sends a body. A body that fails resets the stream: the server must not take half of it for all.
async fn upload(mut body: Body, mut send: SendHalf) {
    loop {
        match body.chunk().await {
            Ok(Some(bytes)) => {
                if send.send_data(bytes).await.is_err() {
                    return;
                }
            }
            Ok(None) => {
                let _ = send.finish().await;
                return;
            }
            Err(_) => {
                send.stop_stream(h3::error::Code::H3_REQUEST_CANCELLED);
                return;
            }
        }
    }
}

/// A handshake that failed: TLS has its own stage.
fn of_quinn(address: SocketAddr, error: &io::Error) -> HttpError {
    let transport = error.get_ref().and_then(|inner| inner.downcast_ref::<quinn::ConnectionError>());
    let stage = match transport {
        // RFC 9001, section 4.8: alerts of TLS are errors 0x100 to 0x1ff.
        Some(quinn::ConnectionError::TransportError(error)) if u64::from(error.code) & !0xff == 0x100 => {
            Stage::Tls
        }
        Some(quinn::ConnectionError::ConnectionClosed(close))
            if u64::from(close.error_code) & !0xff == 0x100 =>
        {
            Stage::Tls
        }
        _ => Stage::Connect,
    };
    let kind = if stage == Stage::Tls { io::ErrorKind::InvalidData } else { error.kind() };
    HttpError::new(stage, io::Error::new(kind, format!("{address}: {error}")))
}
