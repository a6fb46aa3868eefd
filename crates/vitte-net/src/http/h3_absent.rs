//! In place of HTTP/3, where it was left out: the same names, and nothing that can be made.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use http::{Request, Response};
use tokio::sync::watch;

use super::body::Body;
use super::error::{HttpError, HttpErrorKind, Stage};
use super::server::Connection;
use crate::network::{BoxFuture, Network};
use crate::tls::{ClientTls, ServerTls};

#[derive(Debug, Default)]
pub(super) struct Endpoints;

#[derive(Clone, Debug)]
pub(super) struct Sender(Infallible);

pub(super) struct Dialled {
    pub(super) sender: Sender,
    pub(super) driver: BoxFuture<'static, ()>,
}

impl Sender {
    pub(super) async fn connect(
        _: &Endpoints,
        _: &Arc<dyn Network>,
        _: &ClientTls,
        _: &str,
        _: u16,
        _: usize,
    ) -> Result<Dialled, HttpError> {
        let what = "HTTP/3 was left out of this build: the feature http3".to_owned();
        Err(HttpError::new(Stage::Prepare, HttpErrorKind::Unusable(what)))
    }

    pub(super) fn is_closed(&self) -> bool {
        match self.0 {}
    }

    pub(super) async fn send(
        &mut self,
        _: Request<Body>,
    ) -> Result<Response<Body>, (HttpError, Option<Box<Request<Body>>>)> {
        match self.0 {}
    }
}

#[derive(Debug)]
pub(super) struct Listening(Infallible);

impl Listening {
    pub(super) async fn bind(_: SocketAddr, _: &Arc<dyn Network>, _: &ServerTls) -> io::Result<Self> {
        Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "HTTP/3 was left out of this build: the feature http3",
        ))
    }

    pub(super) async fn run(self, _: Connection, _: usize, _: watch::Receiver<bool>) {
        match self.0 {}
    }
}
