//! nginx in front of our server, and as a server for our client.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use vitte_net::http::{Client, Download};

use crate::port::free_port;
use crate::{echo, pieces, plain, soon};

/// nginx, until it is dropped.
struct Nginx(Child);

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn nginx_before_us_and_behind_us() {
    let there = Command::new("nginx").arg("-v").stderr(Stdio::null()).status();
    if there.is_err() {
        println!("skipped: nginx is not installed");
        return;
    }
    let server = plain(echo(&Arc::default())).await;
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("http").join("nginx");
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(folder.join("files")).expect("a folder can be made");
    let text: Vec<u8> = (0..100_000u32).flat_map(u32::to_le_bytes).collect();
    fs::write(folder.join("files").join("file.txt"), &text).expect("a file can be written");
    let port = free_port();
    let at = folder.display();
    let to = server.local_addr();
    let configuration = format!(
        "daemon off; master_process off; pid {at}/pid; error_log {at}/error.log; events {{}}
         http {{
           access_log off; client_body_temp_path {at}/body; proxy_temp_path {at}/proxy; fastcgi_temp_path {at}/f;
           uwsgi_temp_path {at}/u; scgi_temp_path {at}/s; client_max_body_size 10m; gzip on; gzip_min_length 1;
           upstream ours {{ server {to}; keepalive 4; }}
           server {{
             listen 127.0.0.1:{port};
             location / {{ proxy_pass http://ours; proxy_http_version 1.1; proxy_set_header Connection \"\"; }}
             location /files/ {{ root {at}; types {{ text/plain txt; }} gzip_types text/plain; }}
           }}
         }}"
    );
    let file = folder.join("nginx.conf");
    fs::write(&file, configuration).expect("a file can be written");
    let started = Command::new("nginx").arg("-c").arg(&file).stderr(Stdio::null()).spawn();
    let mut nginx = Nginx(started.expect("it starts"));
    let client = Client::new();
    let hello = async {
        loop {
            if let Ok(response) = client.get(format!("http://127.0.0.1:{port}/")).send().await {
                return response;
            }
            assert!(nginx.0.try_wait().expect("a child").is_none(), "nginx ended: see {at}/error.log");
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    assert_eq!(soon(hello).await.text().await.expect("a body"), "hello");
    for _ in 0..3 {
        let post = client.post(format!("http://127.0.0.1:{port}/echo")).body(pieces(&[7; 1000], 900));
        let response = soon(post.send()).await.expect("an answer");
        assert!(response.bytes().await.expect("a body") == vec![7; 900_000]);
    }
    let url = format!("http://127.0.0.1:{port}/files/file.txt");
    let coded = soon(client.get(&url).send()).await.expect("an answer");
    assert!(coded.length().is_none(), "nginx codes it");
    assert!(soon(coded.bytes()).await.expect("a body") == text);
    // Half of it was here already.
    let to = folder.join("copy");
    let etag =
        soon(client.get(&url).decode(false).send()).await.expect("an answer").headers()["etag"].clone();
    fs::write(to.with_extension("part"), &text[..200_000]).expect("a file can be written");
    fs::write(to.with_extension("part.etag"), etag.as_bytes()).expect("a file can be written");
    let done = soon(Download::new(&client, &url, &to).run()).await.expect("all of it");
    assert_eq!((done.resumed, done.length), (200_000, 400_000));
    assert!(fs::read(&to).expect("a file") == text);
}
