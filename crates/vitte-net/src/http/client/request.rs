//! Requests before they are sent.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use data_encoding::BASE64;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, StatusCode};

use super::connect::Channel;
use super::received::Patience;
use super::response::Response;
use super::settings::{Protocol, Settings};
use super::{Client, deadline, is_ours, target, watched};
use crate::http::body::Body;
use crate::http::error::{HttpError, HttpErrorKind, Stage};
use crate::http::url::Url;

/// What is asked for where content codings are undone.
const CODINGS: HeaderValue = HeaderValue::from_static("gzip, br, zstd");

/// A request that is being made. [`send`](Self::send) sends it.
#[derive(Debug)]
#[must_use = "a request does nothing until it is sent"]
pub struct RequestBuilder {
    client: Client,
    method: Method,
    url: Result<Url, HttpError>,
    headers: HeaderMap,
    body: Body,
    timeout: Option<Duration>,
    redirects: u32,
    decode: bool,
    protocol: Protocol,
    /// The first thing that was wrong.
    wrong: Option<HttpError>,
}

impl RequestBuilder {
    pub(super) fn new(client: Client, method: Method, url: Result<Url, HttpError>) -> Self {
        let settings = &client.settings;
        Self {
            timeout: settings.timeout,
            redirects: settings.redirects,
            decode: settings.decode,
            protocol: settings.protocol,
            method,
            url,
            headers: HeaderMap::new(),
            body: Body::empty(),
            wrong: None,
            client,
        }
    }

    /// A field, beside others of the same name.
    pub fn header<N, V>(mut self, name: N, value: V) -> Self
    where
        N: TryInto<HeaderName>,
        N::Error: std::fmt::Display,
        V: TryInto<HeaderValue>,
        V::Error: std::fmt::Display,
    {
        match (name.try_into(), value.try_into()) {
            (Ok(name), Ok(value)) => {
                self.headers.append(name, value);
                self
            }
            (Err(error), _) => self.unusable(error.to_string()),
            (_, Err(error)) => self.unusable(error.to_string()),
        }
    }

    /// `Authorization` with a user and a password (RFC 7617).
    pub fn basic_auth(self, user: &str, password: &str) -> Self {
        let value = format!("Basic {}", BASE64.encode(format!("{user}:{password}").as_bytes()));
        self.header(header::AUTHORIZATION, value)
    }

    /// What is sent. A body that is no stream can be sent again, after a redirect or on another connection.
    pub fn body(mut self, body: impl Into<Body>) -> Self {
        self.body = body.into();
        self
    }

    /// As [`ClientBuilder::timeout`](super::ClientBuilder::timeout), for this request.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// As [`ClientBuilder::redirects`](super::ClientBuilder::redirects), for this request.
    pub fn redirects(mut self, most: u32) -> Self {
        self.redirects = most;
        self
    }

    /// As [`ClientBuilder::decode`](super::ClientBuilder::decode), for this request.
    pub fn decode(mut self, decode: bool) -> Self {
        self.decode = decode;
        self
    }

    /// As [`ClientBuilder::protocol`](super::ClientBuilder::protocol), for this request.
    pub fn protocol(mut self, protocol: Protocol) -> Self {
        self.protocol = protocol;
        self
    }

    /// Sends the request and waits for the head of the response. A status that is no success is a response
    /// like others: see [`Response::success`].
    ///
    /// # Errors
    /// [`HttpError`] says what was being done, whose fault it is and whether to try again. A request that
    /// was certainly not processed was tried again already, on another connection.
    ///
    /// # Cancel safety
    /// Dropping the future gives the request up: on HTTP/1.1 its connection is closed, on HTTP/2 the stream
    /// is reset. Whether the server processed it is unknown.
    pub async fn send(mut self) -> Result<Response, HttpError> {
        if let Some(error) = self.wrong {
            return Err(error);
        }
        let mut url = self.url?;
        if let Some(credentials) = url.take_credentials() {
            let mut value =
                HeaderValue::try_from(credentials).map_err(|error| unusable(error.to_string()))?;
            value.set_sensitive(true);
            self.headers.entry(header::AUTHORIZATION).or_insert(value);
        }
        if let Some(name) = is_ours(&self.headers) {
            return Err(unusable(format!("{name} is set by the client itself")).at(&url));
        }
        if self.method == Method::CONNECT {
            return Err(unusable("CONNECT is for proxies".to_owned()).at(&url));
        }
        let settings = &self.client.settings;
        let total = deadline(self.timeout).zip(self.timeout);
        let patience = Patience { head: settings.head_timeout, idle: settings.idle_timeout, total };
        let rest = Rest {
            patience,
            progress: Arc::default(),
            redirects: self.redirects,
            decode: self.decode,
            protocol: self.protocol,
        };
        let plan = Plan {
            method: self.method,
            url,
            headers: self.headers,
            body: self.body,
            redirects: self.redirects,
            protocol: self.protocol,
            rest,
        };
        self.client.carry_out(plan).await
    }

    fn unusable(mut self, why: String) -> Self {
        self.wrong.get_or_insert_with(|| unusable(why));
        self
    }
}

fn unusable(why: String) -> HttpError {
    HttpError::new(Stage::Prepare, HttpErrorKind::Unusable(why))
}

/// All that one exchange needs.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) headers: HeaderMap,
    pub(super) body: Body,
    pub(super) redirects: u32,
    pub(super) protocol: Protocol,
    pub(super) rest: Rest,
}

/// What is not sent.
#[derive(Clone, Debug)]
pub(super) struct Rest {
    pub(super) patience: Patience,
    pub(super) progress: Arc<AtomicU64>,
    pub(super) decode: bool,
    redirects: u32,
    protocol: Protocol,
}

impl Plan {
    /// The same again, if the body is no stream.
    pub(super) fn again(&self) -> Option<Self> {
        Some(Self {
            method: self.method.clone(),
            url: self.url.clone(),
            headers: self.headers.clone(),
            body: self.body.again()?,
            redirects: self.redirects,
            protocol: self.protocol,
            rest: self.rest.clone(),
        })
    }

    /// A request that hyper gave back, with none of it sent.
    pub(super) fn unsent(request: Request<Body>, rest: Rest, url: Url, headers: HeaderMap) -> Self {
        let (redirects, protocol) = (rest.redirects, rest.protocol);
        let (head, body) = request.into_parts();
        Self { method: head.method, url, headers, body, redirects, protocol, rest }
    }

    /// Where a redirect leads (RFC 9110, section 15.4).
    pub(super) fn redirected(mut self, status: StatusCode, to: Url) -> Result<Self, String> {
        let get = match status.as_u16() {
            303 => self.method != Method::HEAD,
            301 | 302 => self.method == Method::POST,
            _ => false,
        };
        if get {
            self.method = Method::GET;
            self.body = Body::empty();
            for name in [header::CONTENT_TYPE, header::CONTENT_ENCODING, header::CONTENT_LANGUAGE] {
                self.headers.remove(name);
            }
        }
        if !self.url.same_origin(&to) {
            for name in [header::AUTHORIZATION, header::COOKIE, header::HOST, header::PROXY_AUTHORIZATION] {
                self.headers.remove(name);
            }
        }
        let mut to = to;
        if to.take_credentials().is_some() {
            return Err("Location names a user or a password".to_owned());
        }
        self.url = to;
        Ok(self)
    }

    /// The request for hyper, on this connection. The body moves.
    pub(super) fn request(
        &mut self,
        settings: &Settings,
        channel: &Channel,
    ) -> Result<Request<Body>, HttpError> {
        let (uri, version) = target(&self.url, channel)?;
        let mut request = Request::new(watched(std::mem::take(&mut self.body), &self.rest.progress));
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = uri;
        *request.version_mut() = version;
        let fields = request.headers_mut();
        if let Channel::H1 { absolute, .. } = channel {
            let host =
                HeaderValue::try_from(self.url.authority()).map_err(|error| unusable(error.to_string()))?;
            fields.insert(header::HOST, host);
            if let Some(value) = settings.proxy.as_ref().and_then(|proxy| proxy.authorization.as_ref())
                && *absolute
            {
                fields.insert(header::PROXY_AUTHORIZATION, value.clone());
            }
        }
        if let Some(name) = &settings.user_agent {
            fields.insert(header::USER_AGENT, name.clone());
        }
        fields.insert(header::ACCEPT, HeaderValue::from_static("*/*"));
        // A part of a coded body cannot be undone.
        if self.rest.decode && !self.headers.contains_key(header::RANGE) {
            fields.insert(header::ACCEPT_ENCODING, CODINGS);
        }
        for name in self.headers.keys() {
            fields.remove(name);
            for value in self.headers.get_all(name) {
                fields.append(name, value.clone());
            }
        }
        Ok(request)
    }
}
