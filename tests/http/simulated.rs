//! The same client and server on a simulated network: what they do is a function of the seed.

use std::time::Duration;

use vitte_net::http::{Body, Client, Protocol, Reply, Request, Router, Server};
use vitte_net_sim::{Cluster, Fault, Report};

fn run(seed: u64) -> Report {
    let mut cluster = Cluster::new(seed)
        .limit(Duration::from_secs(120))
        .node("server", |node| async move {
            let router = Router::new().post("/", |request: Request| async move {
                let body = request.bytes(1 << 20).await?;
                Ok::<_, vitte_net::http::HttpError>(Reply::new(body))
            });
            let server = Server::builder().network(node.network()).bind("0.0.0.0:80").await?;
            server.serve(router).ended().await?;
            Ok(())
        })
        .client("client", |node| async move {
            let client = Client::builder().network(node.network()).build();
            for protocol in [Protocol::Http1, Protocol::Http2, Protocol::Http1] {
                let body = Body::from(vec![5; 100_000]);
                let response = client.post("http://server/").protocol(protocol).body(body).send().await?;
                let date = response.headers()["date"].to_str()?.to_owned();
                let length = response.bytes().await?.len();
                node.event(format!("{protocol:?}: {length} bytes at {date}"));
                assert_eq!(length, 100_000);
                // The second request is sent into the partition.
                tokio::time::sleep(Duration::from_millis(1500)).await;
            }
            Ok(())
        })
        .fault(Duration::from_secs(1), Fault::Partition { a: "server".into(), b: "client".into() })
        .fault(Duration::from_secs(4), Fault::Heal { a: "server".into(), b: "client".into() });
    cluster.run().expect("it ends well")
}

#[test]
fn requests_outlive_a_partition_and_the_same_seed_is_the_same_run() {
    let (first, second) = (run(7), run(7));
    assert_eq!(first.digest, second.digest);
    assert!(first.elapsed > Duration::from_secs(4));
}
