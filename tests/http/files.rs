//! Files of a folder, and downloads of them.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use vitte_net::http::{
    Body, Checksum, Client, Download, Files, HttpErrorKind, Method, Reply, Request, Router, StatusCode,
    Symlinks, header,
};

use crate::{plain, soon};

/// An empty folder for one test.
fn folder(test: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("http").join(test);
    if folder.exists() {
        fs::remove_dir_all(&folder).expect("the folder of an earlier run can be removed");
    }
    fs::create_dir_all(&folder).expect("a folder can be made");
    folder
}

#[tokio::test]
async fn files_come_whole_in_parts_and_not_at_all_when_known() {
    let root = folder("files");
    fs::write(root.join("a.txt"), "0123456789").expect("a file");
    fs::write(root.join("empty"), "").expect("a file");
    let server = plain(Router::new().nest("/", Files::new(&root))).await;
    let client = Client::new();
    let url = format!("http://{}/a.txt", server.local_addr());
    let whole = soon(client.get(&url).send()).await.expect("an answer");
    assert_eq!(whole.headers()[header::CONTENT_TYPE], "text/plain; charset=utf-8");
    let etag = whole.headers()[header::ETAG].clone();
    let modified = whole.headers()[header::LAST_MODIFIED].clone();
    assert_eq!(whole.text().await.expect("a body"), "0123456789");
    for (range, status, content_range, body) in [
        ("bytes=2-4", 206, Some("bytes 2-4/10"), "234"),
        ("bytes=7-", 206, Some("bytes 7-9/10"), "789"),
        ("bytes=-3", 206, Some("bytes 7-9/10"), "789"),
        ("bytes=-99", 206, Some("bytes 0-9/10"), "0123456789"),
        ("bytes=8-99", 206, Some("bytes 8-9/10"), "89"),
        ("bytes=0-99999999999999999999999", 206, Some("bytes 0-9/10"), "0123456789"),
        ("bytes=10-", 416, Some("bytes */10"), "416 Range Not Satisfiable\n"),
        ("bytes=-0", 416, Some("bytes */10"), "416 Range Not Satisfiable\n"),
        ("bytes=4-2", 200, None, "0123456789"),
        ("bytes=0-1,3-4", 200, None, "0123456789"),
        ("bytes=a-b", 200, None, "0123456789"),
        ("lines=1-2", 200, None, "0123456789"),
    ] {
        let response = soon(client.get(&url).header("range", range).send()).await.expect("an answer");
        assert_eq!(response.status(), status, "{range}");
        let found = response.headers().get(header::CONTENT_RANGE).map(|value| value.to_str().expect("text"));
        assert_eq!(found, content_range, "{range}");
        assert_eq!(response.text().await.expect("a body"), body, "{range}");
    }
    let with =
        |name: &'static str, value| client.get(&url).header(name, value).header("range", "bytes=0-0").send();
    let weak = format!("W/{}", etag.to_str().expect("text"));
    for (name, value, status) in [
        ("if-none-match", etag.to_str().expect("text"), 304),
        ("if-none-match", weak.as_str(), 304),
        ("if-none-match", "\"other\", *", 304),
        ("if-none-match", "\"other\"", 206),
        ("if-modified-since", modified.to_str().expect("text"), 304),
        ("if-match", "\"other\"", 412),
        ("if-match", etag.to_str().expect("text"), 206),
        ("if-unmodified-since", "Thu, 01 Jan 1970 00:00:00 GMT", 412),
        ("if-range", etag.to_str().expect("text"), 206),
        ("if-range", weak.as_str(), 200),
        ("if-range", "\"other\"", 200),
        ("if-range", modified.to_str().expect("text"), 206),
    ] {
        assert_eq!(soon(with(name, value)).await.expect("an answer").status(), status, "{name}: {value}");
    }
    let head = soon(client.head(&url).send()).await.expect("an answer");
    assert_eq!(head.headers()[header::CONTENT_LENGTH], "10");
    let empty = format!("http://{}/empty", server.local_addr());
    assert_eq!(soon(client.get(&empty).send()).await.expect("an answer").text().await.expect("a body"), "");
    let posted = soon(client.request(Method::POST, &url).send()).await.expect("an answer");
    assert_eq!(posted.status(), StatusCode::METHOD_NOT_ALLOWED);
}

#[tokio::test]
async fn no_path_leads_out() {
    let around = folder("paths");
    let root = around.join("root");
    fs::create_dir_all(root.join("sub")).expect("a folder");
    for (name, text) in
        [("secret", "no"), ("root/.hidden", "no"), ("root/sub/index.html", "sub"), ("root/a b", "yes")]
    {
        fs::write(around.join(name), text).expect("a file");
    }
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink("../secret", root.join("out")).expect("a link");
        std::os::unix::fs::symlink("sub", root.join("in")).expect("a link");
    }
    let inside = plain(Router::new().nest("/", Files::new(&root))).await;
    let refusing = plain(Router::new().nest("/", Files::new(&root).symlinks(Symlinks::Refuse))).await;
    let following = plain(Router::new().nest("/", Files::new(&root).symlinks(Symlinks::Follow))).await;
    let ask = async |at: std::net::SocketAddr, path: &str| {
        let raw = format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        crate::status(&crate::raw(at, raw.as_bytes()).await)
    };
    for path in [
        "/../secret",
        "/%2e%2e/secret",
        "/..%2fsecret",
        "/sub/../../secret",
        "/sub/%2e%2e/%2e%2e/secret",
        "/..\\secret",
        "/%5c..%5csecret",
        "/a%20b%00",
        "//a%20b",
        "/sub//index.html",
        "/./a%20b",
        "/.hidden",
        "/%2ehidden",
        "/a%20b/",
        "/missing",
        "/a%20b/x",
        "/%ff",
        "/%c0%ae%c0%ae/secret",
    ] {
        assert_eq!(ask(inside.local_addr(), path).await, Some(404), "{path}");
    }
    for (path, expected) in
        [("/a%20b", 200), ("/sub/", 200), ("/sub", 301), ("/sub/index.html", 200), ("/", 404)]
    {
        assert_eq!(ask(inside.local_addr(), path).await, Some(expected), "{path}");
    }
    #[cfg(unix)]
    for (path, statuses) in [("/out", [404, 404, 200]), ("/in/index.html", [200, 404, 200])] {
        for (server, status) in [&inside, &refusing, &following].into_iter().zip(statuses) {
            assert_eq!(ask(server.local_addr(), path).await, Some(status), "{path}");
        }
    }
}

/// A server of one file that breaks off after so many bytes, as often as it is told to.
struct Flaky {
    text: Vec<u8>,
    etag: &'static str,
    breaks: Mutex<Vec<usize>>,
    ranges: Mutex<Vec<Option<String>>>,
}

impl Flaky {
    fn reply(&self, request: &Request) -> Reply {
        let range =
            request.headers().get(header::RANGE).map(|range| range.to_str().expect("text").to_owned());
        self.ranges.lock().expect("no panic").push(range.clone());
        let first: Option<usize> = range
            .filter(|_| request.headers().get(header::IF_RANGE).is_none_or(|etag| etag == self.etag))
            .and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok());
        let rest = self.text[first.unwrap_or(0)..].to_vec();
        let length = rest.len() as u64;
        let mut pieces = vec![];
        match self.breaks.lock().expect("no panic").pop() {
            Some(after) => {
                pieces.push(Ok(rest[..after.min(rest.len())].to_vec().into()));
                pieces.push(Err(std::io::Error::other("on purpose")));
            }
            None => pieces.push(Ok(rest.into())),
        }
        let body = Body::stream(futures_util::stream::iter(pieces), Some(length));
        let mut reply = Reply::new(body).header(header::ETAG, self.etag.parse().expect("a tag"));
        if let Some(first) = first {
            let range = format!("bytes {first}-{}/{}", self.text.len() - 1, self.text.len());
            reply = reply
                .with_status(StatusCode::PARTIAL_CONTENT)
                .header(header::CONTENT_RANGE, range.parse().expect("a range"));
        }
        reply
    }
}

async fn flaky(etag: &'static str, breaks: &[usize]) -> (vitte_net::http::Serving, Arc<Flaky>) {
    let text = (0..100_000u32).flat_map(u32::to_le_bytes).collect();
    let file = Arc::new(Flaky { text, etag, breaks: Mutex::new(breaks.to_vec()), ranges: Mutex::default() });
    let handler = {
        let file = Arc::clone(&file);
        move |request: Request| {
            let reply = file.reply(&request);
            async move { reply }
        }
    };
    (plain(Router::new().nest("/", handler)).await, file)
}

fn sha256(bytes: &[u8]) -> Checksum {
    Checksum::Sha256(Sha256::digest(bytes).into())
}

#[tokio::test]
async fn a_download_goes_on_where_it_broke_off() {
    let (server, file) = flaky("\"1\"", &[50_000, 100_000]).await;
    let to = folder("resumed").join("file");
    let client = Client::new();
    let mut last = 0;
    let download = Download::new(&client, format!("http://{}/", server.local_addr()), &to)
        .checksum(sha256(&file.text))
        .retries(5, Duration::from_millis(1))
        .on_progress(|progress| last = progress.received);
    let done = soon(download.run()).await.expect("all of it");
    assert_eq!((done.length, done.retries, last), (400_000, 2, 400_000));
    assert!(fs::read(&to).expect("a file") == file.text);
    let ranges = file.ranges.lock().expect("no panic").clone();
    assert_eq!(ranges.len(), 3);
    assert!(ranges[0].is_none() && ranges[1..].iter().all(Option::is_some), "{ranges:?}");
    let left: Vec<_> = fs::read_dir(to.parent().expect("a folder")).expect("a folder").collect();
    assert_eq!(left.len(), 1, "nothing else is left: {left:?}");
}

/// The file changed between two runs: nothing of the old one is in the new one.
#[tokio::test]
async fn a_download_of_a_changed_file_begins_anew() {
    let to = folder("changed").join("file");
    let client = Client::new();
    let (old, _) = flaky("\"old\"", &[50_000]).await;
    let url = format!("http://{}/", old.local_addr());
    soon(Download::new(&client, url, &to).retries(0, Duration::ZERO).run()).await.expect_err("it breaks off");
    assert!(!to.exists() && fs::metadata(to.with_extension("part")).expect("a part").len() > 0);
    let (new, file) = flaky("\"new\"", &[]).await;
    let url = format!("http://{}/", new.local_addr());
    let done = soon(Download::new(&client, url, &to).run()).await.expect("all of it");
    assert_eq!((done.resumed, done.length), (0, 400_000));
    assert!(fs::read(&to).expect("a file") == file.text);
}

#[tokio::test]
async fn a_wrong_checksum_is_no_success_and_leaves_nothing() {
    let (server, _) = flaky("\"1\"", &[]).await;
    let to = folder("checksum").join("file");
    fs::write(&to, "as it was").expect("a file");
    let url = format!("http://{}/", server.local_addr());
    let wrong: Checksum = format!("blake3:{}", "0".repeat(64)).parse().expect("a checksum");
    let error =
        soon(Download::new(&Client::new(), &url, &to).checksum(wrong).run()).await.expect_err("wrong");
    assert!(matches!(error.kind(), HttpErrorKind::Mismatch(_)), "{error:?}");
    let error =
        soon(Download::new(&Client::new(), &url, &to).max_size(5).run()).await.expect_err("too large");
    assert!(matches!(error.kind(), HttpErrorKind::TooLarge { .. }), "{error:?}");
    assert_eq!(fs::read(&to).expect("a file"), b"as it was");
    assert_eq!(fs::read_dir(to.parent().expect("a folder")).expect("a folder").count(), 1);
}

/// Servers that lie about parts are caught.
#[tokio::test]
async fn a_part_that_does_not_fit_is_refused() {
    for (what, headers) in [
        ("another beginning", "Content-Range: bytes 1-9/10\r\nETag: \"1\"\r\nContent-Length: 9"),
        ("no end", "Content-Range: bytes 3-8/10\r\nETag: \"1\"\r\nContent-Length: 6"),
        ("no range", "ETag: \"1\"\r\nContent-Length: 7"),
        ("another version", "Content-Range: bytes 3-9/10\r\nETag: \"2\"\r\nContent-Length: 7"),
        ("another length", "Content-Range: bytes 3-9/10\r\nETag: \"1\"\r\nContent-Length: 5"),
        (
            "a coding",
            "Content-Range: bytes 3-9/10\r\nETag: \"1\"\r\nContent-Encoding: gzip\r\nContent-Length: 7",
        ),
    ] {
        let to = folder("parts").join("file");
        fs::write(to.with_extension("part"), "012").expect("a file");
        fs::write(to.with_extension("part.etag"), "\"1\"").expect("a file");
        let server = crate::canned(format!("HTTP/1.1 206 Partial\r\n{headers}\r\n\r\n345678901")).await;
        let download =
            Download::new(&Client::new(), format!("http://{server}/"), &to).retries(0, Duration::ZERO);
        assert!(soon(download.run()).await.is_err(), "{what}");
        assert!(!to.exists(), "{what}");
    }
    // The end of a connection is no end of a file.
    let to = folder("endless").join("file");
    let server = crate::canned("HTTP/1.1 200 OK\r\n\r\nhalf of i").await;
    let download = Download::new(&Client::new(), format!("http://{server}/"), &to).retries(0, Duration::ZERO);
    assert!(soon(download.run()).await.is_err() && !to.exists());
}
