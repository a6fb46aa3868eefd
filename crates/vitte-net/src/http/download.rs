//! Downloads to a file: resumed, checked, and whole or not there.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Version, header};
use sha2::{Digest as _, Sha256};
use tokio::fs::{self, File, OpenOptions};
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufWriter};

use super::client::{Client, Response};
use super::error::{HttpError, HttpErrorKind, Retry, Stage};
use super::url::{IntoUrl, Url};

/// Bytes that are gathered before they are written: 256 KiB.
const WRITE: usize = 256 * 1024;
/// The longest wait between two tries: 30 seconds.
const WAIT_MAX: Duration = Duration::from_secs(30);
/// Bytes of what is remembered of an unfinished download: 4 KiB.
const NOTE_MAX: u64 = 4 * 1024;

/// What a file must be, to the bit.
#[derive(Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Checksum {
    /// BLAKE3 of 256 bits.
    Blake3([u8; 32]),
    /// SHA-256 (FIPS 180-4).
    Sha256([u8; 32]),
}

impl fmt::Display for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Blake3(hash) => write!(f, "blake3:{}", HEXLOWER.encode(hash)),
            Self::Sha256(hash) => write!(f, "sha256:{}", HEXLOWER.encode(hash)),
        }
    }
}

impl fmt::Debug for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Text such as `sha256:` or `blake3:` and 64 hexadecimal digits.
impl FromStr for Checksum {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const WRONG: &str = "a checksum is blake3: or sha256: and 64 hexadecimal digits";
        let (name, digits) = text.split_once(':').ok_or(WRONG)?;
        let hash = HEXLOWER_PERMISSIVE.decode(digits.as_bytes()).map_err(|_| WRONG)?;
        let hash = hash.try_into().map_err(|_| WRONG)?;
        match name {
            "blake3" => Ok(Self::Blake3(hash)),
            "sha256" => Ok(Self::Sha256(hash)),
            _ => Err(WRONG),
        }
    }
}

/// A checksum that is being made.
enum Hasher {
    Blake3(Box<blake3::Hasher>),
    Sha256(Sha256),
}

impl Hasher {
    fn new(like: Checksum) -> Self {
        match like {
            Checksum::Blake3(_) => Self::Blake3(Box::default()),
            Checksum::Sha256(_) => Self::Sha256(Sha256::new()),
        }
    }

    fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Blake3(hasher) => {
                hasher.update(bytes);
            }
            Self::Sha256(hasher) => hasher.update(bytes),
        }
    }

    fn finish(self) -> Checksum {
        match self {
            Self::Blake3(hasher) => Checksum::Blake3(hasher.finalize().into()),
            Self::Sha256(hasher) => Checksum::Sha256(hasher.finalize().into()),
        }
    }
}

/// How far a download is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Bytes of the file that are here.
    pub received: u64,
    /// Bytes that it will have, where the server said so.
    pub total: Option<u64>,
}

/// A download that is there.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Downloaded {
    /// Bytes of the file.
    pub length: u64,
    /// Bytes of it that came with an earlier, unfinished download.
    pub resumed: u64,
    /// How often it was begun again.
    pub retries: u32,
    /// Where it came from in the end.
    pub url: Url,
}

type Callback<'a> = Box<dyn FnMut(Progress) + Send + 'a>;

/// A download to a file. [`run`](Self::run) runs it.
///
/// Bytes go to a file beside the target, of its name and `.part`, which becomes the target by renaming once all
/// of it is there and has its checksum: the target is never half a file. After a failure the part stays, and
/// the next run asks for the rest (`Range`) on the condition that the file is the same still (`If-Range` with
/// a strong `ETag`, which is noted in a file of the name and `.part.etag`); otherwise it begins anew. A failure that may
/// be better later is tried again, after a wait that doubles and is jittered.
///
/// A file whose end nobody marks (HTTP/1 without `Content-Length` and chunks, and without TLS) needs a checksum.
///
/// ```no_run
/// use vitte_net::http::{Client, Download};
///
/// # async fn example() -> Result<(), vitte_net::http::HttpError> {
/// let done = Download::new(&Client::new(), "https://example.org/docs.tar.gz", "docs.tar.gz")
///     .on_progress(|progress| eprintln!("{} bytes", progress.received))
///     .run()
///     .await?;
/// println!("{} bytes", done.length);
/// # Ok(())
/// # }
/// ```
#[must_use = "a download does nothing until it is run"]
pub struct Download<'a> {
    client: Client,
    url: Result<Url, HttpError>,
    to: PathBuf,
    headers: HeaderMap,
    checksum: Option<Checksum>,
    resume: bool,
    retries: u32,
    first_wait: Duration,
    max_size: u64,
    redirects: Option<u32>,
    on_progress: Option<Callback<'a>>,
}

impl fmt::Debug for Download<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Download").field("url", &self.url).field("to", &self.to).finish_non_exhaustive()
    }
}

impl<'a> Download<'a> {
    /// A download from `url` to the file `to`, which is replaced if it is there.
    pub fn new(client: &Client, url: impl IntoUrl, to: impl Into<PathBuf>) -> Self {
        Self {
            client: client.clone(),
            url: url.into_url(),
            to: to.into(),
            headers: HeaderMap::new(),
            checksum: None,
            resume: true,
            retries: 4,
            first_wait: Duration::from_millis(500),
            max_size: u64::MAX,
            redirects: None,
            on_progress: None,
        }
    }

    /// Fields of the requests, such as `Authorization`.
    pub fn headers(mut self, headers: HeaderMap) -> Self {
        self.headers = headers;
        self
    }

    /// What the file must be. Default: anything, whole.
    pub fn checksum(mut self, checksum: Checksum) -> Self {
        self.checksum = Some(checksum);
        self
    }

    /// Whether what an earlier run left is used. Default: yes.
    pub fn resume(mut self, resume: bool) -> Self {
        self.resume = resume;
        self
    }

    /// How often a failure that may be better later is tried again, and the first wait, which doubles up to 30
    /// seconds and of which a random part of up to a half is taken off. Default: 4 times, 500 ms.
    pub fn retries(mut self, most: u32, first_wait: Duration) -> Self {
        (self.retries, self.first_wait) = (most, first_wait);
        self
    }

    /// Bytes of the file, at most. Default: no limit.
    pub fn max_size(mut self, bytes: u64) -> Self {
        self.max_size = bytes;
        self
    }

    /// How many redirects are followed. Default: as many as the client follows.
    pub fn redirects(mut self, most: u32) -> Self {
        self.redirects = Some(most);
        self
    }

    /// Is called after every piece. It should return quickly: the download waits for it.
    pub fn on_progress(mut self, callback: impl FnMut(Progress) + Send + 'a) -> Self {
        self.on_progress = Some(Box::new(callback));
        self
    }

    /// Downloads the file.
    ///
    /// # Errors
    /// The last failure, after all tries. The target is as it was; what came is kept for the next run, unless it
    /// is of no use: a wrong checksum, a file that is too large.
    ///
    /// # Cancel safety
    /// The target is as it was; what came is kept for the next run.
    pub async fn run(mut self) -> Result<Downloaded, HttpError> {
        let url = std::mem::replace(&mut self.url, Err(lost()))?;
        let part = beside(&self.to, ".part");
        let note = beside(&self.to, ".part.etag");
        if !self.resume {
            remove(&part).await?;
            remove(&note).await?;
        }
        let mut before = 0;
        let mut retries = 0;
        let mut wait = self.first_wait;
        loop {
            let tried = self.attempt(&url, &part, &note).await;
            let error = match tried {
                Ok(done) => return Ok(Downloaded { retries, ..done }),
                Err(error) => error.at(&url),
            };
            if error.retry() == Retry::No || retries >= self.retries {
                return Err(error);
            }
            // Who comes further each time may go on.
            let here = fs::metadata(&part).await.map_or(0, |metadata| metadata.len());
            if here > before {
                (before, wait) = (here, self.first_wait);
            }
            retries += 1;
            tracing::debug!(%error, ?wait, "a download is tried again");
            tokio::time::sleep(self.client.jittered(wait)).await;
            wait = (wait * 2).min(WAIT_MAX);
        }
    }

    async fn attempt(&mut self, url: &Url, part: &Path, note: &Path) -> Result<Downloaded, HttpError> {
        let (mut resumed, etag) = leftovers(part, note).await;
        let mut request = self.client.request(Method::GET, url).decode(false);
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        if let Some(most) = self.redirects {
            request = request.redirects(most);
        }
        if let Some(etag) = etag.as_ref().filter(|_| resumed > 0) {
            request =
                request.header(header::RANGE, format!("bytes={resumed}-")).header(header::IF_RANGE, etag);
        }
        let response = request.send().await?;
        let total = match response.status() {
            StatusCode::PARTIAL_CONTENT if resumed > 0 => Some(continued(&response, resumed, etag.as_ref())?),
            StatusCode::RANGE_NOT_SATISFIABLE if resumed > 0 => {
                // What is here is of another file, or all of it and more: begin anew.
                remove(part).await?;
                remove(note).await?;
                return Err(HttpError::new(Stage::Exchange, HttpErrorKind::Closed));
            }
            StatusCode::OK => {
                resumed = 0;
                response.length()
            }
            status => {
                let status = status.as_u16();
                return Err(HttpError::new(Stage::Exchange, HttpErrorKind::Status { status }));
            }
        };
        if total.is_some_and(|total| total > self.max_size) {
            return Err(self.too_large(part, note).await);
        }
        if is_coded(response.headers()) {
            let coding = response.headers().get(header::CONTENT_ENCODING);
            let coding =
                coding.and_then(|value| value.to_str().ok()).unwrap_or("?").escape_debug().to_string();
            let why = "nobody asked for it".to_owned();
            return Err(HttpError::new(Stage::Body, HttpErrorKind::Coding { coding, why }));
        }
        if total.is_none() && self.checksum.is_none() && ends_anyhow(&response) {
            let what =
                "the server does not say where the file ends; with a checksum that would be known".to_owned();
            return Err(HttpError::new(Stage::Exchange, HttpErrorKind::Mismatch(what)));
        }
        let from = response.url().clone();
        let length = self.receive(response, part, note, resumed, total).await?;
        self.check(part, note).await?;
        fs::rename(part, &self.to).await.map_err(file)?;
        remove(note).await?;
        Ok(Downloaded { length, resumed, retries: 0, url: from })
    }

    /// Writes the body behind what is there. All of it is on the disk afterwards.
    async fn receive(
        &mut self,
        mut response: Response,
        part: &Path,
        note: &Path,
        resumed: u64,
        total: Option<u64>,
    ) -> Result<u64, HttpError> {
        let mut options = OpenOptions::new();
        let out = if resumed > 0 {
            options.append(true).open(part).await.map_err(file)?
        } else {
            // The old note must never stand beside new bytes.
            remove(note).await?;
            let out = options.write(true).create(true).truncate(true).open(part).await.map_err(file)?;
            if let Some(etag) = strong_etag(response.headers()) {
                fs::write(note, etag.as_bytes()).await.map_err(file)?;
            }
            out
        };
        let mut out = BufWriter::with_capacity(WRITE, out);
        let mut received = resumed;
        let ended = loop {
            match response.chunk().await {
                Ok(Some(bytes)) => {
                    received += bytes.len() as u64;
                    if received > self.max_size || total.is_some_and(|total| received > total) {
                        drop(out);
                        return Err(self.too_large(part, note).await);
                    }
                    out.write_all(&bytes).await.map_err(file)?;
                    if let Some(callback) = &mut self.on_progress {
                        callback(Progress { received, total });
                    }
                }
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        // What came before a failure is kept.
        out.flush().await.map_err(file)?;
        ended?;
        if total.is_some_and(|total| received < total) {
            return Err(HttpError::new(Stage::Body, HttpErrorKind::CutOff));
        }
        out.get_ref().sync_all().await.map_err(file)?;
        Ok(received)
    }

    async fn too_large(&self, part: &Path, note: &Path) -> HttpError {
        let kind = HttpErrorKind::TooLarge { what: "a file", limit: self.max_size };
        match (remove(part).await, remove(note).await) {
            (Err(error), _) | (_, Err(error)) => error,
            _ => HttpError::new(Stage::Body, kind),
        }
    }

    /// The checksum is of the file as it was written, earlier runs included.
    async fn check(&self, part: &Path, note: &Path) -> Result<(), HttpError> {
        let Some(expected) = self.checksum else { return Ok(()) };
        let found = checksum_of(part, expected).await.map_err(file)?;
        if found == expected {
            return Ok(());
        }
        remove(part).await?;
        remove(note).await?;
        let what = format!("the checksum is {found} and should be {expected}");
        Err(HttpError::new(Stage::Body, HttpErrorKind::Mismatch(what)))
    }
}

/// The checksum of a file, of the kind of `like`.
async fn checksum_of(path: &Path, like: Checksum) -> io::Result<Checksum> {
    let mut file = File::open(path).await?;
    let mut hasher = Hasher::new(like);
    let mut buffer = vec![0; WRITE];
    loop {
        match file.read(&mut buffer).await? {
            0 => return Ok(hasher.finish()),
            len => hasher.update(&buffer[..len]),
        }
    }
}

/// What an earlier run left: how much, and of which version of the file.
async fn leftovers(part: &Path, note: &Path) -> (u64, Option<HeaderValue>) {
    let here = fs::metadata(part).await.map_or(0, |metadata| metadata.len());
    let mut etag = Vec::new();
    let read = match File::open(note).await {
        Ok(file) => file.take(NOTE_MAX).read_to_end(&mut etag).await,
        Err(error) => Err(error),
    };
    let etag = read.ok().and_then(|_| HeaderValue::from_bytes(&etag).ok()).filter(is_strong);
    // Without a version there is no telling whether the rest belongs to it.
    if etag.is_some() { (here, etag) } else { (0, None) }
}

/// Checks that a part is the rest of what is here, and says how much it is in all.
fn continued(response: &Response, resumed: u64, etag: Option<&HeaderValue>) -> Result<u64, HttpError> {
    let wrong = |why: String| HttpError::new(Stage::Exchange, HttpErrorKind::Mismatch(why));
    let range = response.headers().get(header::CONTENT_RANGE).and_then(|range| range.to_str().ok());
    let parsed = range.and_then(|range| {
        let (bounds, total) = range.strip_prefix("bytes ")?.split_once('/')?;
        let (first, last) = bounds.split_once('-')?;
        Some((first.parse::<u64>().ok()?, last.parse::<u64>().ok()?, total.parse::<u64>().ok()?))
    });
    let Some((first, last, total)) = parsed else {
        return Err(wrong("a part of a file that does not say which".to_owned()));
    };
    if first != resumed || last.checked_add(1) != Some(total) || first > last {
        return Err(wrong(format!(
            "bytes {first} to {last} of {total}, and those from {resumed} were asked for"
        )));
    }
    if response.length().is_some_and(|length| length != total - first) {
        return Err(wrong("a part whose length is not the one it says".to_owned()));
    }
    if let Some(now) = response.headers().get(header::ETAG)
        && etag.is_some_and(|etag| etag != now)
    {
        return Err(wrong("a part of another version of the file".to_owned()));
    }
    Ok(total)
}

/// Whether the end of the connection is the end of the body, and anybody in between can end it.
fn ends_anyhow(response: &Response) -> bool {
    let old = response.version() <= Version::HTTP_11;
    old && !response.url().is_https() && !response.headers().contains_key(header::TRANSFER_ENCODING)
}

fn strong_etag(headers: &HeaderMap) -> Option<&HeaderValue> {
    headers.get(header::ETAG).filter(|etag| is_strong(etag))
}

/// RFC 9110, section 8.8.3.
fn is_strong(etag: &HeaderValue) -> bool {
    let bytes = etag.as_bytes();
    bytes.len() >= 2 && bytes.starts_with(b"\"") && bytes.ends_with(b"\"") && bytes.len() as u64 <= NOTE_MAX
}

fn is_coded(headers: &HeaderMap) -> bool {
    let coded =
        |value: &HeaderValue| !value.as_bytes().eq_ignore_ascii_case(b"identity") && !value.is_empty();
    headers.get_all(header::CONTENT_ENCODING).iter().any(coded)
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    PathBuf::from(name)
}

async fn remove(path: &Path) -> Result<(), HttpError> {
    match fs::remove_file(path).await {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(file(error)),
        _ => Ok(()),
    }
}

fn file(error: io::Error) -> HttpError {
    HttpError::new(Stage::File, error)
}

fn lost() -> HttpError {
    HttpError::new(Stage::Prepare, HttpErrorKind::Url("the URL is used".to_owned()))
}
