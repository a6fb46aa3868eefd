//! Texts that people and files give: addresses, keys, secrets. What is read is the same when it is written
//! and read again.

use vitte_net::{Address, PeerId, Secret};

pub fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(address) = text.parse::<Address>() {
        assert_eq!(address.to_string().parse(), Ok(address.clone()));
        assert!(!address.host().is_empty() && address.host().len() <= 255);
        assert!(address.path().starts_with('/') && address.path().len() <= 1024);
        assert!(!address.to_string().chars().any(|c| c.is_control() || c.is_whitespace()));
    }
    if let Ok(id) = text.parse::<PeerId>() {
        assert_eq!(id.to_string().parse(), Ok(id));
    }
    if let Ok(secret) = Secret::parse(text) {
        let again = Secret::parse(&secret.expose()).map(|secret| secret.expose());
        assert_eq!(again.ok(), Some(secret.expose()));
        assert!(!format!("{secret:?}").contains(text.trim()), "a secret is not shown");
    }
}
