//! Messages, as JSON-RPC 2.0 writes them.

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::error::Category;
use serde_json::value::RawValue;

/// What a request and its response have in common.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Id {
    /// A number. Fractions are refused (JSON-RPC 2.0, section 4).
    Number(i64),
    /// A text.
    Text(String),
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{number}"),
            Self::Text(text) => write!(f, "{text:?}"),
        }
    }
}

/// An error that answers a request (JSON-RPC 2.0, section 5.1).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message} (code {code})")]
pub struct RpcError {
    /// Says which error it is.
    pub code: i64,
    /// Says so in one sentence.
    pub message: String,
    /// More about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<serde_json::Value>,
}

impl RpcError {
    /// The message was no JSON.
    pub const PARSE_ERROR: i64 = -32700;
    /// The JSON was no request.
    pub const INVALID_REQUEST: i64 = -32600;
    /// There is no such method.
    pub const METHOD_NOT_FOUND: i64 = -32601;
    /// The parameters do not fit the method.
    pub const INVALID_PARAMS: i64 = -32602;
    /// The other side failed.
    pub const INTERNAL_ERROR: i64 = -32603;
    /// The request was cancelled by who sent it (Language Server Protocol, "ErrorCodes").
    pub const REQUEST_CANCELLED: i64 = -32800;
    /// The other side has too much to do; nothing was done. The code is one that JSON-RPC leaves to servers.
    pub const BUSY: i64 = -32000;

    /// An error with this code, and no data.
    #[must_use]
    pub fn new(code: i64, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), data: None }
    }
}

/// What a peer says.
#[derive(Debug)]
pub(super) enum Message {
    Request {
        id: Id,
        method: String,
        params: Params,
    },
    Notification {
        method: String,
        params: Params,
    },
    /// Without an id it complains about something that could not be read.
    Response {
        id: Option<Id>,
        result: Result<Box<RawValue>, RpcError>,
    },
}

/// An object, a list, or nothing.
pub(super) type Params = Option<Box<RawValue>>;

#[derive(Deserialize)]
struct Wire<'a> {
    #[serde(borrow)]
    jsonrpc: Cow<'a, str>,
    #[serde(default, deserialize_with = "present")]
    id: Option<Box<RawValue>>,
    #[serde(default)]
    method: Option<String>,
    #[serde(default)]
    params: Params,
    #[serde(default, deserialize_with = "present")]
    result: Option<Box<RawValue>>,
    #[serde(default)]
    error: Option<RpcError>,
}

/// Tells `null` from nothing.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Box<RawValue>>, D::Error> {
    Box::<RawValue>::deserialize(deserializer).map(Some)
}

/// Reads a message. What cannot be read is to be answered by the error, without an id.
pub(super) fn parse(bytes: &[u8]) -> Result<Message, RpcError> {
    let invalid = |why: &str| RpcError::new(RpcError::INVALID_REQUEST, why);
    let wire: Wire<'_> = serde_json::from_slice(bytes).map_err(|error| match error.classify() {
        Category::Data => invalid(&error.to_string()),
        Category::Io | Category::Syntax | Category::Eof => {
            RpcError::new(RpcError::PARSE_ERROR, error.to_string())
        }
    })?;
    if wire.jsonrpc != "2.0" {
        return Err(invalid("the version is not 2.0"));
    }
    let id = match wire.id.as_deref().map(RawValue::get) {
        None => None,
        Some("null") => Some(None),
        Some(text) => match serde_json::from_str::<Id>(text) {
            Ok(id) => Some(Some(id)),
            Err(_) => return Err(invalid("the id is neither a whole number nor a text")),
        },
    };
    if let Some(method) = wire.method {
        if wire.result.is_some() || wire.error.is_some() {
            return Err(invalid("both a request and a response"));
        }
        if wire.params.as_ref().is_some_and(|params| !params.get().starts_with(['[', '{'])) {
            return Err(invalid("params are neither a list nor an object"));
        }
        return match id {
            None => Ok(Message::Notification { method, params: wire.params }),
            Some(Some(id)) => Ok(Message::Request { id, method, params: wire.params }),
            Some(None) => Err(invalid("the id of a request is null")),
        };
    }
    match (id, wire.result, wire.error) {
        (Some(Some(id)), Some(result), None) => Ok(Message::Response { id: Some(id), result: Ok(result) }),
        (Some(id), None, Some(error)) => Ok(Message::Response { id, result: Err(error) }),
        _ => Err(invalid("neither a request nor a response")),
    }
}

#[derive(Serialize)]
struct Ask<'a, P> {
    jsonrpc: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<i64>,
    method: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    params: Option<P>,
}

/// Writes a request, or a notification if there is no id. Parameters that come out as `null` are left out: JSON-RPC
/// takes lists and objects.
pub(super) fn ask<P: Serialize>(id: Option<i64>, method: &str, params: P) -> serde_json::Result<Bytes> {
    let params = serde_json::value::to_raw_value(&params)?;
    let params = Some(params).filter(|params| params.get() != "null");
    if params.as_ref().is_some_and(|params| !params.get().starts_with(['[', '{'])) {
        return Err(serde::ser::Error::custom("parameters are a list or an object: use (value,) for one"));
    }
    serde_json::to_vec(&Ask { jsonrpc: "2.0", id, method, params }).map(Bytes::from)
}

#[derive(Serialize)]
struct Answer<'a> {
    jsonrpc: &'a str,
    id: Option<&'a Id>,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a RpcError>,
}

/// Writes a response.
pub(super) fn answer(id: Option<&Id>, result: &Result<Box<RawValue>, RpcError>) -> serde_json::Result<Bytes> {
    let (result, error) = match result {
        Ok(result) => (Some(&**result), None),
        Err(error) => (None, Some(error)),
    };
    serde_json::to_vec(&Answer { jsonrpc: "2.0", id, result, error }).map(Bytes::from)
}
