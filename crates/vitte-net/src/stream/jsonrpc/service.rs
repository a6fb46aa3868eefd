//! What is done with what the peer asks.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use serde::{Serialize, de::DeserializeOwned};
use serde_json::value::{RawValue, to_raw_value};

use super::client::Client;
use super::message::{Params, RpcError};
use super::{Id, Limits};

type Boxed<T> = Pin<Box<dyn Future<Output = T> + Send>>;
type Answer = Result<Box<RawValue>, RpcError>;
type RequestHandler = Arc<dyn Fn(Context, Params) -> Boxed<Answer> + Send + Sync>;
type NotificationHandler = Arc<dyn Fn(Context, Params) -> Boxed<()> + Send + Sync>;

/// What a handler knows beside the parameters.
#[derive(Clone, Debug)]
pub struct Context {
    /// The method that was asked for.
    pub method: String,
    /// The id of the request; none for a notification.
    pub id: Option<Id>,
    /// A handle to call back.
    pub client: Client,
}

/// How a [`JsonRpc`](super::JsonRpc) is set up: what it does for its peer, and its limits.
#[derive(Default)]
#[must_use]
pub struct Builder {
    service: Service,
    limits: Limits,
}

/// The handlers, by method.
#[derive(Default)]
pub(super) struct Service {
    requests: BTreeMap<String, RequestHandler>,
    notifications: BTreeMap<String, NotificationHandler>,
    other_requests: Option<RequestHandler>,
    other_notifications: Option<NotificationHandler>,
}

impl Builder {
    /// Answers requests for `method`. Parameters that are no `P` are answered by
    /// [`RpcError::INVALID_PARAMS`]; absent ones are read as `null`. A handler that panics is answered by
    /// [`RpcError::INTERNAL_ERROR`]; the connection lives.
    pub fn on_request<P, R, F, Fut>(mut self, method: impl Into<String>, handler: F) -> Self
    where
        P: DeserializeOwned + Send + 'static,
        R: Serialize,
        F: Fn(Context, P) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<R, RpcError>> + Send + 'static,
    {
        self.service.requests.insert(method.into(), request_handler(handler));
        self
    }

    /// Answers requests for methods that have no handler of their own. Default: with
    /// [`RpcError::METHOD_NOT_FOUND`].
    pub fn on_other_requests<P, R, F, Fut>(mut self, handler: F) -> Self
    where
        P: DeserializeOwned + Send + 'static,
        R: Serialize,
        F: Fn(Context, P) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<R, RpcError>> + Send + 'static,
    {
        self.service.other_requests = Some(request_handler(handler));
        self
    }

    /// Handles notifications of `method`. Nothing that came later begins before it is done. Parameters that
    /// are no `P` are logged and dropped: nobody waits for an answer.
    pub fn on_notification<P, F, Fut>(mut self, method: impl Into<String>, handler: F) -> Self
    where
        P: DeserializeOwned + Send + 'static,
        F: Fn(Context, P) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        self.service.notifications.insert(method.into(), notification_handler(handler));
        self
    }

    /// Handles notifications of methods that have no handler of their own. Default: they are dropped.
    pub fn on_other_notifications<P, F, Fut>(mut self, handler: F) -> Self
    where
        P: DeserializeOwned + Send + 'static,
        F: Fn(Context, P) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        self.service.other_notifications = Some(notification_handler(handler));
        self
    }

    /// What the connection may hold and how long it waits. Default: [`Limits::default`].
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    pub(super) fn into_parts(self) -> (Service, Limits) {
        (self.service, self.limits)
    }
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("requests", &self.service.requests.keys())
            .field("notifications", &self.service.notifications.keys())
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

impl Service {
    /// The work for a request.
    pub(super) fn request(&self, context: Context, params: Params) -> Boxed<Answer> {
        match self.requests.get(&context.method).or(self.other_requests.as_ref()) {
            Some(handler) => handler(context, params),
            None => {
                let error =
                    RpcError::new(RpcError::METHOD_NOT_FOUND, format!("no method {}", context.method));
                Box::pin(std::future::ready(Err(error)))
            }
        }
    }

    /// The work for a notification, if it is any.
    pub(super) fn notification(&self, context: Context, params: Params) -> Option<Boxed<()>> {
        let handler = self.notifications.get(&context.method).or(self.other_notifications.as_ref())?;
        Some(handler(context, params))
    }
}

fn read<P: DeserializeOwned>(params: &Params) -> serde_json::Result<P> {
    serde_json::from_str(params.as_deref().map_or("null", RawValue::get))
}

fn request_handler<P, R, F, Fut>(handler: F) -> RequestHandler
where
    P: DeserializeOwned + Send + 'static,
    R: Serialize,
    F: Fn(Context, P) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<R, RpcError>> + Send + 'static,
{
    let handler = Arc::new(handler);
    Arc::new(move |context, params| {
        let handler = handler.clone();
        Box::pin(async move {
            let params =
                read(&params).map_err(|error| RpcError::new(RpcError::INVALID_PARAMS, error.to_string()))?;
            let result = handler(context, params).await?;
            to_raw_value(&result).map_err(|error| RpcError::new(RpcError::INTERNAL_ERROR, error.to_string()))
        })
    })
}

fn notification_handler<P, F, Fut>(handler: F) -> NotificationHandler
where
    P: DeserializeOwned + Send + 'static,
    F: Fn(Context, P) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    let handler = Arc::new(handler);
    Arc::new(move |context, params| {
        let handler = handler.clone();
        Box::pin(async move {
            match read(&params) {
                Ok(params) => handler(context, params).await,
                Err(error) => {
                    tracing::warn!(method = context.method, %error, "the parameters of a notification do not fit");
                }
            }
        })
    })
}
