// What name servers say about a name: `dns_lookup [NAME] [SERVER]`, by default `example.org` and the system's servers.
// A server is `192.0.2.53`, `tcp://192.0.2.53`, `tls://192.0.2.53#NAME` or `https://192.0.2.53/dns-query#NAME`.

use std::time::Duration;

use vitte_net::resolver::{NameServer, RecordType, ResolveError, Resolver};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let name = arguments.next().unwrap_or_else(|| "example.org".into());
    let builder = match arguments.next() {
        Some(server) => Resolver::builder().server(server.parse::<NameServer>().map_err(anyhow::Error::msg)?),
        None => Resolver::builder().system()?,
    };
    let resolver = builder.timeout(Duration::from_secs(5)).build();

    // In the order in which they should be tried, IPv6 and IPv4 in turn.
    for address in resolver.lookup_ip(&name).await? {
        println!("{name} is at {address}");
    }
    match resolver.lookup(&name, RecordType::Mx).await {
        Ok(records) => records.iter().for_each(|record| println!("{name} takes mail at {}", record.data)),
        Err(ResolveError::NoRecord { .. }) => println!("{name} takes no mail"),
        Err(error) => return Err(error.into()),
    }
    Ok(())
}
