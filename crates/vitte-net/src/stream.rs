//! What goes over a stream of bytes: values, remote calls, or the bytes of another stream. Any stream that is
//! [`AsyncRead`](tokio::io::AsyncRead) and [`AsyncWrite`](tokio::io::AsyncWrite) will do: TCP, TLS, standard
//! input and output, a byte stream between the peers of a mesh.
//!
//! - [`TypedStream`] (feature `codec`) cuts the bytes into values: [`LengthDelimited`], [`Lines`], [`Postcard`],
//!   [`JsonLines`] (feature `json`), [`ContentLength`].
//! - [`jsonrpc`] (feature `json`): calls both ways by JSON-RPC 2.0, as the Language Server Protocol has them.
//! - [`copy_both`] joins two streams and counts.

#[cfg(feature = "codec")]
mod codec;
#[cfg(feature = "codec")]
mod content_length;
mod copy;
#[cfg(feature = "json")]
mod json;
#[cfg(feature = "json")]
pub mod jsonrpc;
#[cfg(feature = "codec")]
mod typed;

#[cfg(feature = "codec")]
pub use codec::{Codec, LengthDelimited, Lines, Postcard};
#[cfg(feature = "codec")]
pub use content_length::ContentLength;
pub use copy::{Copied, CopyError, CopyMeter, Side, copy_both};
#[cfg(feature = "json")]
pub use json::JsonLines;
#[cfg(feature = "codec")]
pub use typed::{StreamError, TypedStream};
