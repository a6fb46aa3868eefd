//! The resolver against other people's name servers, dnsmasq and unbound, by UDP, TCP, TLS and HTTPS; and by HTTPS
//! against our own server, in both versions.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::{Child, Command};
use tokio::time::timeout;
use vitte_net::http::{HttpError, Reply, Request, Router, Server, StatusCode, Version, header};
use vitte_net::resolver::{Failure, NameServer, RecordType, ResolveError, Resolver};
use vitte_net::tls::{ClientTls, ServerTls};

use crate::nameserver::{a, parse};
use crate::port::free_port;
use crate::programs::there;
use crate::tls::Authority;

/// No test waits longer.
const LIMIT: Duration = Duration::from_secs(30);

fn folder(name: &str) -> PathBuf {
    let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

fn start(command: &mut Command) -> Child {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap()
}

fn server(text: impl AsRef<str>) -> NameServer {
    text.as_ref().parse().unwrap()
}

async fn texts(resolver: &Resolver, name: &str, kind: RecordType) -> Vec<String> {
    let records = resolver.lookup(name, kind).await.unwrap();
    let mut texts: Vec<_> = records.iter().map(|record| record.data.to_string()).collect();
    texts.sort();
    texts
}

/// Waits until a server answers by UDP: asked again and again, as nothing says when it listens. One that has ended
/// never will: `log` says where it has written why.
async fn awake(child: &mut Child, at: u16, name: &str, log: &str) {
    let builder = Resolver::builder().server(server(format!("127.0.0.1:{at}"))).timeout(LIMIT);
    let resolver = builder.attempt_timeout(Duration::from_millis(100)).rounds(300).build();
    tokio::select! {
        answer = resolver.lookup(name, RecordType::A) => drop(answer.unwrap()),
        ended = child.wait() => panic!("it ended, {}: {log}", ended.unwrap()),
    }
}

/// What both programs are told to say.
async fn says_what_it_was_told(resolver: &Resolver) {
    assert_eq!(texts(resolver, "HOST.test", RecordType::A).await, ["192.0.2.1"]);
    assert_eq!(texts(resolver, "host.test", RecordType::Aaaa).await, ["2001:db8::1"]);
    assert_eq!(texts(resolver, "host.test", RecordType::Mx).await, ["10 mail.test"]);
    assert_eq!(texts(resolver, "host.test", RecordType::Txt).await, ["\"some text\""]);
    assert_eq!(texts(resolver, "_x._tcp.test", RecordType::Srv).await, ["1 2 80 host.test"]);
    assert_eq!(texts(resolver, "alias.test", RecordType::A).await, ["192.0.2.1"]);
    assert_eq!(resolver.reverse("192.0.2.1".parse().unwrap()).await.unwrap(), ["host.test"]);
    let mut both = resolver.lookup_ip("host.test").await.unwrap();
    both.sort();
    assert_eq!(both.len(), 2, "{both:?}");
    let missing = resolver.lookup("nobody.test", RecordType::A).await.unwrap_err();
    assert!(matches!(missing, ResolveError::NotFound(_)), "{missing}");
    // Longer than a datagram that one dares to send.
    let long = texts(resolver, "long.test", RecordType::Txt).await;
    assert_eq!((long.len(), long[0].len()), (40, 202), "{long:?}");
}

fn long_texts() -> impl Iterator<Item = String> {
    (0..40).map(|number| format!("{number:02}{}", "x".repeat(198)))
}

#[tokio::test]
async fn dnsmasq_is_understood() {
    if !there("dnsmasq", "--version", "the resolver and dnsmasq") {
        return;
    }
    let at = free_port();
    let mut command = Command::new("dnsmasq");
    // In the foreground, without children.
    command.args(["--no-daemon", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--pid-file="]);
    command.args(["--listen-address=127.0.0.1", "--bind-interfaces", "--user=root", "--group=root"]);
    command.args(["--local=/test/", "--host-record=host.test,192.0.2.1,2001:db8::1"]);
    command.args(["--mx-host=host.test,mail.test,10", "--txt-record=host.test,some text"]);
    command.args(["--srv-host=_x._tcp.test,host.test,80,1,2", "--cname=alias.test,host.test"]);
    command.args(long_texts().map(|text| format!("--txt-record=long.test,{text}")));
    let mut dnsmasq = start(command.arg(format!("--port={at}")));
    awake(&mut dnsmasq, at, "host.test", "its standard error says why").await;
    for way in ["udp", "tcp"] {
        let resolver = Resolver::builder().server(server(format!("{way}://127.0.0.1:{at}"))).build();
        says_what_it_was_told(&resolver).await;
    }
}

#[tokio::test]
async fn unbound_is_understood_in_the_open_and_in_secret() {
    if !there("unbound", "-V", "the resolver and unbound, by UDP, TCP, TLS and HTTPS") {
        return;
    }
    let (folder, authority) = (folder("unbound"), Authority::new("ours"));
    let (chain, key) = authority.issue(&["dns.test"]);
    std::fs::write(folder.join("chain.pem"), chain).unwrap();
    std::fs::write(folder.join("key.pem"), key).unwrap();
    let (open, secret, web) = (free_port(), free_port(), free_port());
    let here = folder.display();
    let long: String =
        long_texts().map(|text| format!("  local-data: 'long.test. TXT \"{text}\"'\n")).collect();
    let configuration = format!(
        "server:
  interface: 127.0.0.1@{open}
  interface: 127.0.0.1@{secret}
  interface: 127.0.0.1@{web}
  tls-port: {secret}
  https-port: {web}
  tls-service-pem: {here}/chain.pem
  tls-service-key: {here}/key.pem
  do-daemonize: no
  username: \"\"
  chroot: \"\"
  directory: {here}
  pidfile: \"\"
  use-syslog: no
  logfile: {here}/log
  num-threads: 1
  module-config: \"iterator\"
  local-zone: test. static
  local-zone: 2.0.192.in-addr.arpa. static
  local-data: 'host.test. A 192.0.2.1'
  local-data: 'host.test. AAAA 2001:db8::1'
  local-data: 'host.test. MX 10 mail.test.'
  local-data: 'host.test. TXT \"some text\"'
  local-data: '_x._tcp.test. SRV 1 2 80 host.test.'
  local-data: 'alias.test. CNAME host.test.'
  local-data-ptr: '192.0.2.1 host.test'
{long}remote-control:
  control-enable: no
"
    );
    std::fs::write(folder.join("unbound.conf"), configuration).unwrap();
    let mut unbound = start(Command::new("unbound").arg("-dd").arg("-c").arg(folder.join("unbound.conf")));
    awake(&mut unbound, open, "host.test", &format!("see {here}/log")).await;
    let secrets = [format!("tls://127.0.0.1:{secret}#dns.test"), format!("https://127.0.0.1:{web}#dns.test")];
    for way in [format!("udp://127.0.0.1:{open}"), format!("tcp://127.0.0.1:{open}")].iter().chain(&secrets) {
        let resolver = Resolver::builder().server(server(way)).tls(authority.client()).build();
        timeout(LIMIT, says_what_it_was_told(&resolver)).await.expect(way);
    }
    // Somebody else's certificate, and a certificate for another name: nothing is believed.
    for (way, tls) in [
        (secrets[0].clone(), Authority::new("theirs").client()),
        (secrets[1].clone(), Authority::new("theirs").client()),
        (format!("tls://127.0.0.1:{secret}#other.test"), authority.client()),
    ] {
        let resolver = Resolver::builder().server(server(&way)).tls(tls).build();
        let error =
            timeout(LIMIT, resolver.lookup("host.test", RecordType::A)).await.expect(&way).unwrap_err();
        assert!(matches!(error, ResolveError::Failed { .. }), "{way}: {error}");
    }
}

/// Answers DNS over HTTPS: the version that asked is in the last byte of the address.
async fn answer(request: Request) -> Result<Reply, HttpError> {
    assert_eq!(request.headers()[header::CONTENT_TYPE], "application/dns-message");
    assert_eq!((request.host(), request.is_tls()), (Some("dns.test"), true));
    let version = if request.version() == Version::HTTP_2 { 2 } else { 1 };
    let path = request.path().to_owned();
    let ask = parse(&request.bytes(512).await?, true, 0, 0);
    // The id is of no use there.
    assert_eq!(ask.id, 0);
    let message = ask.reply(0x8180, &[a(&ask.name, [192, 0, 2, version])], &[]);
    let kind = "application/dns-message".parse().unwrap();
    Ok(match &*path {
        "/dns-query" => Reply::new(message).header(header::CONTENT_TYPE, kind),
        "/text" => Reply::new(message).header(header::CONTENT_TYPE, "text/plain".parse().unwrap()),
        "/long" => Reply::new(vec![0; 70_000]).header(header::CONTENT_TYPE, kind),
        "/short" => Reply::new(message[..20].to_vec()).header(header::CONTENT_TYPE, kind),
        "/silent" => std::future::pending().await,
        _ => Reply::status(StatusCode::SERVICE_UNAVAILABLE),
    })
}

fn doh(port: u16, path: &str, tls: &ClientTls) -> Resolver {
    let server = server(format!("https://127.0.0.1:{port}{path}#dns.test"));
    Resolver::builder().server(server).tls(tls.clone()).rounds(1).build()
}

#[tokio::test]
async fn https_is_asked_in_the_version_that_the_server_speaks() {
    let authority = Authority::new("ours");
    let (client, tls): (ClientTls, ServerTls) = (authority.client(), authority.server(&["dns.test"]));
    for (http2, version) in [(true, 2), (false, 1)] {
        let builder = Server::builder().tls(tls.clone()).http2(http2);
        let serving = builder.bind("127.0.0.1:0").await.unwrap().serve(Router::new().nest("/", answer));
        let at = serving.local_addr().port();
        let resolver = doh(at, "/dns-query", &client);
        let found = timeout(LIMIT, texts(&resolver, "host.test", RecordType::A)).await.unwrap();
        assert_eq!(found, [format!("192.0.2.{version}")]);
        // Many at a time: each has its own connection and its own answer.
        let names: Vec<_> = (0..8).map(|number| format!("host{number}.test")).collect();
        let lookups = names.iter().map(|name| resolver.lookup(name, RecordType::A));
        for found in timeout(LIMIT, futures_util::future::join_all(lookups)).await.unwrap() {
            assert_eq!(found.unwrap().len(), 1);
        }
        for (path, what) in [
            ("/text", "no DNS message"),
            ("/long", "too l"),
            ("/short", "makes no sense"),
            ("/nowhere", "HTTP status 503"),
            ("/silent", "no answer"),
        ] {
            let resolver = doh(at, path, &client);
            let asked = resolver.lookup("host.test", RecordType::A);
            let error = timeout(LIMIT, asked).await.expect(path).unwrap_err();
            let ResolveError::Failed { tried, .. } = &error else { panic!("{path}: {error}") };
            assert_eq!(tried.len(), 1, "{tried:?}");
            assert!(tried[0].1.to_string().contains(what), "{path}, HTTP/{version}: {error}");
        }
        timeout(LIMIT, serving.shutdown(Duration::from_millis(10))).await.unwrap();
    }
    // A server that offers neither has nothing in common with us, and one that is not there is named.
    let resolver = doh(free_port(), "/dns-query", &client);
    let error = timeout(LIMIT, resolver.lookup("host.test", RecordType::A)).await.unwrap().unwrap_err();
    let ResolveError::Failed { tried, .. } = error else { panic!("{error}") };
    assert!(matches!(tried[0].1, Failure::Network(_)), "{tried:?}");
}
