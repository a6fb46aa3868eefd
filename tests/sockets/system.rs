//! Names, clock, randomness.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, SystemTime};

use super::Ends;

pub(crate) async fn names_and_addresses_are_looked_up(ends: Ends) {
    let found = ends.client.lookup(ends.server_name).await.unwrap();
    assert!(found.contains(&ends.server_ip), "{found:?}");
    for address in [IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), IpAddr::V6(Ipv6Addr::LOCALHOST)] {
        assert_eq!(ends.client.lookup(&address.to_string()).await.unwrap(), [address]);
    }
}

pub(crate) async fn random_bytes_differ(ends: Ends) {
    let mut samples = [[0; 16]; 4];
    for (index, sample) in samples.iter_mut().enumerate() {
        if index % 2 == 0 { ends.client.fill_random(sample) } else { ends.server.fill_random(sample) }
    }
    for (index, sample) in samples.iter().enumerate() {
        assert!(!samples[..index].contains(sample));
    }
}

pub(crate) async fn the_wall_clock_is_of_this_age(ends: Ends) {
    let since = ends.client.wall_clock().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let year = Duration::from_secs(365 * 86_400);
    assert!(since > year * 54 && since < year * 200, "{since:?}");
}
