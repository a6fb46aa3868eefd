//! What the system knows: its name servers and its own names.

use std::net::IpAddr;

use super::server::NameServer;

/// Lines of a file that are looked at.
const LINES_MAX: usize = 10_000;
/// Name servers and search domains that are taken (resolv.conf(5) has 3 and 6).
const SERVERS_MAX: usize = 8;
const DOMAINS_MAX: usize = 32;

/// What a `resolv.conf` says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct ResolvConf {
    pub(super) servers: Vec<NameServer>,
    pub(super) search: Vec<String>,
    pub(super) dots: Option<usize>,
}

/// Reads the text of a `resolv.conf` (resolv.conf(5)). What is not understood is skipped.
pub(super) fn resolv_conf(text: &str) -> ResolvConf {
    let mut conf = ResolvConf::default();
    for line in text.lines().take(LINES_MAX) {
        let line = line.split(['#', ';']).next().unwrap_or_default();
        let mut words = line.split_whitespace();
        match words.next() {
            Some("nameserver") => {
                let address = words.next().and_then(|word| word.parse::<IpAddr>().ok());
                conf.servers.extend(address.map(NameServer::from));
            }
            // The last of them counts.
            Some("search" | "domain") => conf.search = words.map(str::to_owned).take(DOMAINS_MAX).collect(),
            Some("options") => {
                for word in words {
                    if let Some(dots) = word.strip_prefix("ndots:").and_then(|number| number.parse().ok()) {
                        conf.dots = Some(usize::min(dots, 15));
                    }
                }
            }
            _ => {}
        }
    }
    conf.servers.truncate(SERVERS_MAX);
    conf
}

/// Reads the text of a `hosts` file (hosts(5)): names in lower case, and their addresses.
pub(super) fn hosts(text: &str) -> Vec<(String, IpAddr)> {
    let mut found = Vec::new();
    for line in text.lines().take(LINES_MAX) {
        let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
        if let Some(address) = words.next().and_then(|word| word.parse().ok()) {
            found.extend(words.map(|name| (name.to_ascii_lowercase(), address)));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configuration_is_read_as_the_manual_says() {
        let conf = resolv_conf(
            "# a comment\nnameserver 192.0.2.1 ; first\nnameserver 2001:db8::1\nnameserver nonsense\n\
             domain old.example\nsearch a.example b.example\noptions timeout:1 ndots:2\nunknown x\n",
        );
        let servers: Vec<String> = conf.servers.iter().map(ToString::to_string).collect();
        assert_eq!(servers, ["192.0.2.1:53", "[2001:db8::1]:53"]);
        assert_eq!((conf.search, conf.dots), (vec!["a.example".to_owned(), "b.example".to_owned()], Some(2)));
        let lines = hosts("127.0.0.1 localhost Box\n::1 localhost # self\nnonsense x\n");
        let expected = [("localhost", "127.0.0.1"), ("box", "127.0.0.1"), ("localhost", "::1")];
        let expected: Vec<_> =
            expected.iter().map(|(name, ip)| ((*name).to_owned(), ip.parse().unwrap())).collect();
        assert_eq!(lines, expected);
    }
}
