//! Files of a folder.

use std::fs::Metadata;
use std::io;
use std::path::{Path, PathBuf};

use http::{HeaderValue, Method, StatusCode, header};
use tokio::fs;
use tokio::io::{AsyncReadExt, AsyncSeekExt};

use super::range::{Answer, Validators, answer, whole_second};
use super::request::unescaped;
use super::router::unwanted;
use super::{Handler, Reply, Request};
use crate::http::body::Body;
use crate::network::BoxFuture;

/// What becomes of symbolic links in a folder that is served.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Symlinks {
    /// A path with a link in it does not exist.
    Refuse,
    /// Links that lead to a place inside the folder are followed.
    #[default]
    Inside,
    /// All links are followed: whoever can make one can publish any file that this process can read.
    Follow,
}

/// Serves the files below a folder: GET and HEAD, with `Range`, `ETag` and the conditions of RFC 9110,
/// section 13.
///
/// No path leads out of the folder: `.` and `..`, escaped slashes, backslashes and NUL are told 404, and links
/// are what [`Symlinks`] says. That is checked before a file is opened; who can exchange folders for links while
/// the server runs can win that race. Names that begin with a dot do not exist unless
/// [`hidden`](Self::hidden) is set.
#[derive(Clone, Debug)]
pub struct Files {
    root: PathBuf,
    index: Option<String>,
    symlinks: Symlinks,
    hidden: bool,
}

impl Files {
    /// The files below `root`.
    #[must_use]
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self {
            root: root.into(),
            index: Some("index.html".to_owned()),
            symlinks: Symlinks::default(),
            hidden: false,
        }
    }

    /// The file that stands for a folder. Default: `index.html`.
    #[must_use]
    pub fn index(mut self, name: Option<&str>) -> Self {
        self.index = name.map(str::to_owned);
        self
    }

    /// What becomes of links. Default: [`Symlinks::Inside`].
    #[must_use]
    pub fn symlinks(mut self, symlinks: Symlinks) -> Self {
        self.symlinks = symlinks;
        self
    }

    /// Whether names that begin with a dot are served. Default: no.
    #[must_use]
    pub fn hidden(mut self, serve: bool) -> Self {
        self.hidden = serve;
        self
    }

    /// The file that a path names, if there is one: its name and whether it is named as a folder.
    fn locate(&self, path: &str) -> Option<(PathBuf, bool)> {
        let mut file = self.root.clone();
        let segments: Vec<&str> = path.strip_prefix('/')?.split('/').collect();
        let (last, before) = segments.split_last()?;
        let folder = last.is_empty();
        // `//` is one slash to a file system, and another place to a proxy.
        if before.iter().any(|segment| segment.is_empty()) {
            return None;
        }
        for segment in if folder { before } else { &segments } {
            let name = unescaped(segment)?;
            let outside = name.contains(['/', '\\', '\0']) || name == "." || name == "..";
            let drive = cfg!(windows) && name.contains(':');
            if outside || drive || (!self.hidden && name.starts_with('.')) {
                return None;
            }
            file.push(&*name);
        }
        Some((file, folder))
    }

    /// Whether the links on the way are ones to follow.
    async fn is_allowed(&self, file: &Path) -> io::Result<bool> {
        match self.symlinks {
            Symlinks::Follow => Ok(true),
            Symlinks::Inside => {
                let root = fs::canonicalize(&self.root).await?;
                Ok(fs::canonicalize(file).await?.starts_with(root))
            }
            Symlinks::Refuse => {
                let mut at = self.root.clone();
                for part in file.strip_prefix(&self.root).unwrap_or(file).components() {
                    at.push(part);
                    if fs::symlink_metadata(&at).await?.is_symlink() {
                        return Ok(false);
                    }
                }
                Ok(true)
            }
        }
    }

    async fn reply(&self, request: &Request) -> io::Result<Reply> {
        let missing = || Ok(Reply::status(StatusCode::NOT_FOUND));
        let Some((mut path, folder)) = self.locate(request.rest()) else { return missing() };
        if !self.is_allowed(&path).await? {
            return missing();
        }
        let kind = fs::metadata(&path).await?;
        if kind.is_dir() {
            let Some(index) = &self.index else { return missing() };
            if !folder {
                return Ok(to_folder(request));
            }
            path.push(index);
            if !self.is_allowed(&path).await? {
                return missing();
            }
        } else if folder {
            return missing();
        }
        // A pipe would let whoever opens it wait.
        if !fs::metadata(&path).await?.is_file() {
            return missing();
        }
        let mut file = fs::File::open(&path).await?;
        let metadata = file.metadata().await?;
        if !metadata.is_file() {
            return missing();
        }
        let length = metadata.len();
        let now = validators(&metadata);
        let answer = answer(request.method(), request.headers(), &now, length);
        let reply = |status| {
            let mut reply = Reply::default().with_status(status).header(header::ETAG, now.etag.clone());
            if let Some(modified) = now.modified
                && let Ok(date) = HeaderValue::try_from(httpdate::fmt_http_date(modified))
            {
                reply = reply.header(header::LAST_MODIFIED, date);
            }
            reply.header(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"))
        };
        let (status, first, count) = match answer {
            Answer::NotModified => return Ok(reply(StatusCode::NOT_MODIFIED)),
            Answer::PreconditionFailed => return Ok(Reply::status(StatusCode::PRECONDITION_FAILED)),
            Answer::NoSuchPart => {
                let reply = Reply::status(StatusCode::RANGE_NOT_SATISFIABLE);
                return Ok(with_range(reply, format!("bytes */{length}")));
            }
            Answer::Whole => (StatusCode::OK, 0, length),
            Answer::Part { first, last } => (StatusCode::PARTIAL_CONTENT, first, last - first + 1),
        };
        let mut reply = reply(status)
            .header(header::CONTENT_TYPE, HeaderValue::from_static(media_type(&path)))
            .header(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        if status == StatusCode::PARTIAL_CONTENT {
            reply = with_range(reply, format!("bytes {first}-{}/{length}", first + count - 1));
        }
        if *request.method() == Method::HEAD {
            reply.headers_mut().insert(header::CONTENT_LENGTH, count.into());
            return Ok(reply);
        }
        if first > 0 {
            file.seek(io::SeekFrom::Start(first)).await?;
        }
        *reply.0.body_mut() = Body::reader(file.take(count), Some(count));
        Ok(reply)
    }
}

impl Handler for Files {
    fn handle(&self, mut request: Request) -> BoxFuture<'_, Reply> {
        Box::pin(async move {
            let body = std::mem::take(request.body());
            let reply = if !matches!(*request.method(), Method::GET | Method::HEAD) {
                Reply::status(StatusCode::METHOD_NOT_ALLOWED)
                    .header(header::ALLOW, HeaderValue::from_static("GET, HEAD"))
            } else {
                self.reply(&request).await.unwrap_or_else(|error| match error.kind() {
                    io::ErrorKind::NotFound
                    | io::ErrorKind::NotADirectory
                    | io::ErrorKind::InvalidFilename => Reply::status(StatusCode::NOT_FOUND),
                    io::ErrorKind::PermissionDenied => Reply::status(StatusCode::FORBIDDEN),
                    _ => {
                        tracing::warn!(%error, path = request.path(), "a file cannot be served");
                        Reply::status(StatusCode::INTERNAL_SERVER_ERROR)
                    }
                })
            };
            *request.body() = body;
            unwanted(request, reply).await
        })
    }
}

/// A folder is asked for with a slash at its end, so that relative links in it lead into it.
fn to_folder(request: &Request) -> Reply {
    let query = request.query().map(|query| format!("?{query}")).unwrap_or_default();
    // One slash: two would begin an authority.
    let path = request.path().trim_start_matches('/');
    match HeaderValue::try_from(format!("/{path}/{query}")) {
        Ok(to) => Reply::status(StatusCode::MOVED_PERMANENTLY).header(header::LOCATION, to),
        Err(_) => Reply::status(StatusCode::NOT_FOUND),
    }
}

fn with_range(reply: Reply, range: String) -> Reply {
    match HeaderValue::try_from(range) {
        Ok(value) => reply.header(header::CONTENT_RANGE, value),
        Err(_) => reply,
    }
}

/// The tag changes when the file does: by its length, its times and, where there is one, its number.
fn validators(metadata: &Metadata) -> Validators {
    let modified = metadata.modified().ok();
    let nanos = modified.and_then(|time| time.duration_since(std::time::SystemTime::UNIX_EPOCH).ok());
    let nanos = nanos.unwrap_or_default().as_nanos();
    #[cfg(unix)]
    let more = {
        use std::os::unix::fs::MetadataExt;
        format!("-{:x}-{:x}{:08x}", metadata.ino(), metadata.ctime(), metadata.ctime_nsec())
    };
    #[cfg(not(unix))]
    let more = String::new();
    let etag = HeaderValue::try_from(format!("\"{:x}-{nanos:x}{more}\"", metadata.len()));
    Validators {
        // Hexadecimal digits are text.
        etag: etag.unwrap_or(HeaderValue::from_static("\"\"")),
        modified: modified.map(whole_second),
    }
}

/// What a browser needs to be told (RFC 9110, section 8.3), by the end of the name.
fn media_type(path: &Path) -> &'static str {
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    match extension.to_ascii_lowercase().as_str() {
        "css" => "text/css; charset=utf-8",
        "csv" => "text/csv; charset=utf-8",
        "gif" => "image/gif",
        "gz" | "tgz" => "application/gzip",
        "htm" | "html" => "text/html; charset=utf-8",
        "ico" => "image/x-icon",
        "jpeg" | "jpg" => "image/jpeg",
        "js" | "mjs" => "text/javascript; charset=utf-8",
        "json" | "map" => "application/json",
        "md" | "rs" | "toml" | "txt" | "yaml" | "yml" => "text/plain; charset=utf-8",
        "mp3" => "audio/mpeg",
        "mp4" => "video/mp4",
        "pdf" => "application/pdf",
        "png" => "image/png",
        "svg" => "image/svg+xml",
        "tar" => "application/x-tar",
        "wasm" => "application/wasm",
        "webm" => "video/webm",
        "webp" => "image/webp",
        "woff" => "font/woff",
        "woff2" => "font/woff2",
        "xml" => "application/xml",
        "zip" => "application/zip",
        "zst" => "application/zstd",
        _ => "application/octet-stream",
    }
}
