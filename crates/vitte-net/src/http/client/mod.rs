//! The client: [`Client`], [`RequestBuilder`], [`Response`].

mod connect;
mod decode;
mod pool;
mod received;
mod request;
mod response;
mod settings;

use std::sync::Arc;

use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, Version, header};
use tokio::time::Instant;

pub(super) use self::received::{FromHyper, Received};
pub use self::request::RequestBuilder;
pub use self::response::Response;
pub use self::settings::{ClientBuilder, Protocol, Proxy};

use self::connect::{Channel, Key};
use self::pool::Pool;
use self::request::Plan;
use self::settings::Settings;
use super::body::Body;
use super::error::{HttpError, HttpErrorKind, Retry, Stage};
use super::guard::Expected;
use super::url::{IntoUrl, Url};

/// How often one request is tried on connections of the pool that turn out to be dead.
const STALE_MAX: usize = 3;

/// A client of HTTP/1.1 and HTTP/2. Cheap to clone; clones share the pool of connections.
///
/// ```no_run
/// use vitte_net::http::Client;
///
/// # async fn example() -> Result<(), vitte_net::http::HttpError> {
/// let client = Client::new();
/// let response = client.get("https://example.org/").send().await?;
/// println!("{}: {} bytes", response.status(), response.bytes().await?.len());
/// # Ok(())
/// # }
/// ```
///
/// What it promises, and the limits, are in the [module's documentation](super).
#[derive(Clone, Debug)]
pub struct Client {
    settings: Arc<Settings>,
    pool: Arc<Pool>,
}

impl Default for Client {
    fn default() -> Self {
        Self::new()
    }
}

impl Client {
    /// A client with the defaults of [`ClientBuilder`].
    #[must_use]
    pub fn new() -> Self {
        Self::builder().build()
    }

    /// A client whose settings can be chosen.
    pub fn builder() -> ClientBuilder {
        ClientBuilder::default()
    }

    fn of(settings: Settings) -> Self {
        let pool = Arc::new(Pool::new(settings.pool_idle, settings.pool_idle_time, settings.connections));
        Self { settings: Arc::new(settings), pool }
    }

    /// A request of any method. What is wrong with the URL is told by [`RequestBuilder::send`].
    pub fn request(&self, method: Method, url: impl IntoUrl) -> RequestBuilder {
        RequestBuilder::new(self.clone(), method, url.into_url())
    }

    /// A GET request.
    pub fn get(&self, url: impl IntoUrl) -> RequestBuilder {
        self.request(Method::GET, url)
    }

    /// A HEAD request.
    pub fn head(&self, url: impl IntoUrl) -> RequestBuilder {
        self.request(Method::HEAD, url)
    }

    /// A POST request.
    pub fn post(&self, url: impl IntoUrl) -> RequestBuilder {
        self.request(Method::POST, url)
    }

    /// A PUT request: with [`RequestBuilder::body`] a streaming upload.
    pub fn put(&self, url: impl IntoUrl) -> RequestBuilder {
        self.request(Method::PUT, url)
    }

    /// A wait of between half and all of `wait`.
    pub(super) fn jittered(&self, wait: std::time::Duration) -> std::time::Duration {
        let mut random = [0; 4];
        self.settings.network.fill_random(&mut random);
        let part = f64::from(u32::from_ne_bytes(random)) / f64::from(u32::MAX);
        wait.mul_f64(1.0 - part / 2.0)
    }

    /// Sends what was planned, and follows redirects where that was asked for.
    async fn carry_out(&self, mut plan: Plan) -> Result<Response, HttpError> {
        let mut followed = 0;
        loop {
            let again = plan.again();
            let url = plan.url.clone();
            let response = self.exchange(plan).await.map_err(|error| error.at(&url))?;
            let Some((again, location)) = again.zip(redirect_of(&response)) else { return Ok(response) };
            if again.redirects == 0 {
                return Ok(response);
            }
            let refuse = |why: String| HttpError::new(Stage::Redirect, HttpErrorKind::Redirect(why)).at(&url);
            followed += 1;
            if followed > again.redirects {
                return Err(refuse(format!("more than {} redirects", again.redirects)));
            }
            let to = location.to_str().map_err(|_| refuse("Location is no text".to_owned()))?;
            let next = url.join(to).map_err(|error| error.at(&url))?;
            if url.is_https() && !next.is_https() {
                return Err(refuse(format!("from https to {next}")));
            }
            plan = again.redirected(response.status(), next).map_err(refuse)?;
        }
    }

    /// One request, one response; again only when the first was certainly not processed, or may be twice.
    async fn exchange(&self, plan: Plan) -> Result<Response, HttpError> {
        let mut key = Key::of(&plan.url, plan.protocol);
        let mut plan = plan;
        if let Some(port) = self.pool.alternative(&key) {
            let by_h3 = key.by_h3(port);
            match self.channel(&by_h3, &plan).await {
                Ok(channel) => {
                    self.pool.lease(&by_h3, channel);
                    key = by_h3;
                }
                Err(error) => {
                    tracing::debug!(%error, "no HTTP/3, although the server said so");
                    self.pool.learn(&key, None);
                }
            }
        }
        for _ in 0..STALE_MAX {
            let Some(channel) = self.pool.take(&key).await else { break };
            let spare = plan.again();
            match self.send_on(channel, &key, plan).await {
                Ok(response) => return Ok(response),
                Err((error, unsent)) => {
                    let twice = is_idempotent(&error, unsent.is_some(), spare.as_ref());
                    match unsent.map(|plan| *plan).or_else(|| spare.filter(|_| twice)) {
                        Some(again) => plan = again,
                        None => return Err(error),
                    }
                }
            }
        }
        // A new one: what is left in the pool may be one that just failed, and that does not know it yet.
        let channel = connect::dial(&self.settings, &self.pool, &key, &plan).await?;
        self.send_on(channel, &key, plan).await.map_err(|(error, _)| error)
    }

    /// A connection, from the pool or a new one.
    async fn channel(&self, key: &Key, plan: &Plan) -> Result<Channel, HttpError> {
        match self.pool.take(key).await {
            Some(channel) => Ok(channel),
            None => connect::dial(&self.settings, &self.pool, key, plan).await,
        }
    }

    /// Sends the request. The plan comes back with the error if nothing of it was sent.
    async fn send_on(
        &self,
        mut channel: Channel,
        key: &Key,
        mut plan: Plan,
    ) -> Result<Response, (HttpError, Option<Box<Plan>>)> {
        let request = plan.request(&self.settings, &channel).map_err(|error| (error, None))?;
        let (asked_range, method) = (plan.headers.contains_key(header::RANGE), plan.method.clone());
        let rest = plan.rest;
        if let Channel::H1 { line, .. } = &channel {
            line.expect(if method == Method::HEAD { Expected::NoBody } else { Expected::Response });
        }
        let sent = rest.patience.during(&rest.progress, channel.send(request)).await;
        let response = match sent {
            Ok(Ok(response)) => response,
            Ok(Err((error, unsent))) => {
                let plan =
                    unsent.map(|request| Box::new(Plan::unsent(*request, rest, plan.url, plan.headers)));
                return Err((error, plan));
            }
            Err(error) => return Err((error, None)),
        };
        let (head, incoming) = response.into_parts();
        if head.status == StatusCode::PARTIAL_CONTENT && !asked_range {
            let what = "a part (206) of what was asked for as a whole".to_owned();
            return Err((HttpError::new(Stage::Exchange, HttpErrorKind::Mismatch(what)), None));
        }
        let learns = self.settings.alt_svc && plan.protocol == Protocol::Auto && plan.url.is_https();
        if let Some(found) = alternative_of(&head.headers).filter(|_| learns) {
            self.pool.learn(&Key::of(&plan.url, Protocol::Auto), Some(found));
        }
        let lease = self.pool.lease(key, channel);
        let body = Received::response(incoming, &head, &method, &rest.patience, Some(lease));
        response::finish(head, body, &method, plan.url, &rest, &self.settings).map_err(|error| (error, None))
    }
}

/// May the request be sent again after this, although it may have been processed?
fn is_idempotent(error: &HttpError, unsent: bool, spare: Option<&Plan>) -> bool {
    let closed = matches!(error.kind(), HttpErrorKind::Closed | HttpErrorKind::Io(_));
    !unsent
        && closed
        && error.retry() == Retry::IfIdempotent
        && spare.is_some_and(|plan| plan.method.is_idempotent())
}

/// The port at which `Alt-Svc` offers HTTP/3 on the same host, and for how long (RFC 7838, section 3).
fn alternative_of(headers: &HeaderMap) -> Option<(u16, std::time::Duration)> {
    const DAY: u64 = 86_400;
    headers.get_all(header::ALT_SVC).iter().filter_map(|value| value.to_str().ok()).find_map(|value| {
        value.split(',').find_map(|service| {
            let mut parts = service.split(';').map(str::trim);
            let port = parts.next()?.strip_prefix("h3=\":")?.strip_suffix('"')?.parse().ok()?;
            let age = parts.find_map(|part| part.strip_prefix("ma=")).and_then(|age| age.parse().ok());
            Some((port, std::time::Duration::from_secs(age.unwrap_or(DAY).min(30 * DAY))))
        })
    })
}

fn redirect_of(response: &Response) -> Option<HeaderValue> {
    let redirect = matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308);
    response.headers().get(header::LOCATION).filter(|_| redirect).cloned()
}

/// The parts of a request that depend on the connection.
fn target(url: &Url, channel: &Channel) -> Result<(Uri, Version), HttpError> {
    Ok(match channel {
        Channel::H2 { .. } => (url.absolute_form()?, Version::HTTP_2),
        Channel::H3 { .. } => (url.absolute_form()?, Version::HTTP_3),
        Channel::H1 { absolute: true, .. } => (url.absolute_form()?, Version::HTTP_11),
        Channel::H1 { .. } => (url.origin_form()?, Version::HTTP_11),
    })
}

/// The time at which a request that may take `timeout` must be done.
fn deadline(timeout: Option<std::time::Duration>) -> Option<Instant> {
    // A time-out beyond all clocks is none.
    timeout.and_then(|timeout| Instant::now().checked_add(timeout))
}

/// Fields that belong to one connection or to the framing: they are ours.
fn is_ours(headers: &HeaderMap) -> Option<&'static str> {
    const OURS: [header::HeaderName; 6] = [
        header::CONNECTION,
        header::CONTENT_LENGTH,
        header::TE,
        header::TRAILER,
        header::TRANSFER_ENCODING,
        header::UPGRADE,
    ];
    const NAMES: [&str; 6] =
        ["Connection", "Content-Length", "TE", "Trailer", "Transfer-Encoding", "Upgrade"];
    OURS.iter().zip(NAMES).find(|(field, _)| headers.contains_key(*field)).map(|(_, name)| name)
}

/// The body of a request, whose progress is seen.
fn watched(body: Body, progress: &Arc<std::sync::atomic::AtomicU64>) -> Body {
    if body.is_empty() { body } else { received::watch(body, Arc::clone(progress)) }
}
