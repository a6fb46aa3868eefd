use std::future::Future as _;
use std::pin::pin;
use std::task::{Context, Waker};
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::{Router, Server};
use crate::http::{Client, Protocol};
use crate::tls::{ClientTls, ServerTls};

/// A client whose first packet closes what it opens leaves nothing behind: quinn sets no timer for its end, and would
/// remember it for as long as a connection may be silent.
#[tokio::test]
async fn a_failed_handshake_is_gone_soon() {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (chain, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    let tls = ServerTls::builder().certificate_pem(chain.as_str(), key).build().unwrap();
    let server = Server::builder().tls(tls).http3(true).bind("127.0.0.1:0").await.unwrap();
    let connections = server.h3.as_ref().unwrap().counter();
    let url = format!("https://127.0.0.1:{}/", server.local_addr().port());
    let _serving = server.serve(Router::new());
    let roots = ClientTls::builder().roots_pem(chain).unwrap().build().unwrap();
    let client = Client::builder().tls(roots).protocol(Protocol::Http3).build();
    {
        // Before its driver has run once.
        let mut asking = pin!(client.get(&url).send());
        assert!(asking.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    }
    let counts = async |wanted: fn(usize) -> bool| {
        while !wanted(connections()) {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(Duration::from_secs(10), counts(|count| count > 0)).await.expect("it comes");
    let begun = Instant::now();
    timeout(Duration::from_secs(12), counts(|count| count == 0)).await.expect("it is forgotten");
    assert!(begun.elapsed() > Duration::from_secs(1), "it said nothing more, so that only time ends it");
}
