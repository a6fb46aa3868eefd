//! Which handler a path leads to: small enough to be no framework.

use std::fmt;

use http::{HeaderValue, Method, StatusCode, header};

use super::request::unescaped;
use super::{Handler, Reply, Request};
use crate::network::BoxFuture;

/// Bytes of a body that nobody wants, at most, before the answer: 64 KiB.
pub(super) const UNWANTED: usize = 64 * 1024;

/// Handlers by method and path.
///
/// A path is exact, segment by segment; `{name}` stands for one segment that is not empty, see
/// [`Request::param`]. The first route that fits wins. GET answers HEAD as well. A path with other methods only
/// is told 405, an unknown one 404.
#[derive(Default)]
pub struct Router {
    routes: Vec<Route>,
    /// By prefix, the longest first.
    nested: Vec<(String, Box<dyn Handler>)>,
}

struct Route {
    method: Method,
    path: Vec<Segment>,
    /// The path as most will ask for it, unless it has parameters.
    plain: Option<String>,
    handler: Box<dyn Handler>,
}

enum Segment {
    Exact(String),
    Param(String),
}

impl fmt::Debug for Router {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nested: Vec<_> = self.nested.iter().map(|(prefix, _)| prefix).collect();
        f.debug_struct("Router").field("routes", &self.routes.len()).field("nested", &nested).finish()
    }
}

impl Router {
    /// A router without routes.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A handler for a method and a path such as `/users/{id}`.
    #[must_use]
    pub fn route(mut self, method: Method, path: &str, handler: impl Handler) -> Self {
        let plain =
            (!path.contains(['%', '{'])).then(|| format!("/{}", path.strip_prefix('/').unwrap_or(path)));
        let path = segments(path)
            .map(|segment| match segment.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
                Some(name) => Segment::Param(name.to_owned()),
                None => Segment::Exact(segment.to_owned()),
            })
            .collect();
        self.routes.push(Route { method, path, plain, handler: Box::new(handler) });
        self
    }

    /// A handler for GET and HEAD.
    #[must_use]
    pub fn get(self, path: &str, handler: impl Handler) -> Self {
        self.route(Method::GET, path, handler)
    }

    /// A handler for POST.
    #[must_use]
    pub fn post(self, path: &str, handler: impl Handler) -> Self {
        self.route(Method::POST, path, handler)
    }

    /// A handler for PUT.
    #[must_use]
    pub fn put(self, path: &str, handler: impl Handler) -> Self {
        self.route(Method::PUT, path, handler)
    }

    /// A handler for every method and every path that begins with the segments of `prefix` and that no route
    /// fits; `/` is for all. See [`Request::rest`].
    #[must_use]
    pub fn nest(mut self, prefix: &str, handler: impl Handler) -> Self {
        let prefix = prefix.trim_end_matches('/').to_owned();
        let at = self.nested.iter().position(|(other, _)| other.len() < prefix.len());
        self.nested.insert(at.unwrap_or(self.nested.len()), (prefix, Box::new(handler)));
        self
    }
}

fn segments(path: &str) -> impl Iterator<Item = &str> {
    path.strip_prefix('/').unwrap_or(path).split('/')
}

impl Route {
    fn fits(&self, path: &str) -> Option<Vec<(String, String)>> {
        let mut params = Vec::new();
        if self.plain.as_deref() == Some(path) {
            return Some(params);
        }
        let mut given = segments(path);
        for segment in &self.path {
            let given = given.next()?;
            match segment {
                Segment::Exact(exact) if *exact == unescaped(given)? => {}
                Segment::Param(name) if !given.is_empty() => {
                    params.push((name.clone(), unescaped(given)?.into_owned()))
                }
                Segment::Exact(_) | Segment::Param(_) => return None,
            }
        }
        given.next().is_none().then_some(params)
    }
}

impl Handler for Router {
    fn handle(&self, mut request: Request) -> BoxFuture<'_, Reply> {
        let mut allowed: Vec<&Method> = Vec::new();
        for route in &self.routes {
            // A route for HEAD itself is allowed.
            let method = request.method();
            let same = route.method == *method || *method == Method::HEAD && route.method == Method::GET;
            match route.fits(request.rest()) {
                Some(mut params) if same => {
                    request.0.params.append(&mut params);
                    return route.handler.handle(request);
                }
                Some(_) => allowed.push(&route.method),
                None => {}
            }
        }
        let rest = request.rest();
        let nested = self.nested.iter().find(|(prefix, _)| {
            rest.strip_prefix(prefix.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        });
        if let Some((prefix, handler)) = nested.filter(|_| allowed.is_empty()) {
            request.0.rest += prefix.len();
            return handler.handle(request);
        }
        let reply = if allowed.is_empty() {
            Reply::status(StatusCode::NOT_FOUND)
        } else {
            let names: Vec<&str> = allowed.into_iter().map(Method::as_str).collect();
            let mut reply = Reply::status(StatusCode::METHOD_NOT_ALLOWED);
            if let Ok(value) = HeaderValue::try_from(names.join(", ")) {
                reply = reply.header(header::ALLOW, value);
            }
            reply
        };
        Box::pin(unwanted(request, reply))
    }
}

/// The reply, after a body that nobody wants was found to be well-formed.
pub(super) async fn unwanted(request: Request, reply: Reply) -> Reply {
    use super::IntoReply;
    match request.into_body().discard(UNWANTED).await {
        Ok(()) => reply,
        Err(error) => error.into_reply(),
    }
}
