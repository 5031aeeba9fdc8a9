//! The key exchanges that a client offers (RFC 8446 4.2.7), by their names.

use ringwire::quote::quoted;
use rustls::crypto::{SupportedKxGroup, aws_lc_rs::default_provider};

/// What is offered, in its order: a server goes by it, or by its own. Never empty.
#[derive(Clone, Debug)]
pub(crate) struct KeyExchanges(Vec<&'static dyn SupportedKxGroup>);

impl KeyExchanges {
    /// Reads names as `x25519mlkem768,x25519`.
    pub(crate) fn parse(text: &str) -> Result<KeyExchanges, String> {
        let known = default_provider().kx_groups;
        let mut chosen: Vec<&'static dyn SupportedKxGroup> = Vec::new();
        for name in text.split(',').map(str::trim) {
            let Some(&group) = known.iter().find(|group| name_of(**group) == name.to_ascii_lowercase()) else {
                let names: Vec<String> = known.iter().map(|group| name_of(*group)).collect();
                return Err(format!("{} is no key exchange: there are {}", quoted(name), names.join(", ")));
            };
            if chosen.iter().any(|other| other.name() == group.name()) {
                return Err(format!("{} is named twice", quoted(name)));
            }
            chosen.push(group);
        }
        Ok(KeyExchanges(chosen))
    }

    pub(super) fn groups(&self) -> impl Iterator<Item = &'static dyn SupportedKxGroup> {
        self.0.iter().copied()
    }
}

/// As IANA names it, in small letters.
fn name_of(group: &dyn SupportedKxGroup) -> String {
    group.name().as_str().unwrap_or_default().to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Result<Vec<String>, String> {
        Ok(KeyExchanges::parse(text)?.0.into_iter().map(name_of).collect())
    }

    #[test]
    fn names_are_read_in_their_order() {
        for (text, expected) in [
            ("x25519mlkem768", &["x25519mlkem768"][..]),
            ("x25519", &["x25519"]),
            ("secp256r1", &["secp256r1"]),
            ("secp384r1,X25519MLKEM768, x25519", &["secp384r1", "x25519mlkem768", "x25519"]),
        ] {
            assert_eq!(names(text).expect(text), expected);
        }
    }

    /// Kills: a name that is passed over; an offer of nothing.
    #[test]
    fn what_is_no_name_is_refused_with_all_that_are() {
        for wrong in ["", "x25519,", ",x25519", "x448", "x25519mlkem", "x25519;secp256r1", "x25519\n\u{1b}[2J,"] {
            let error = names(wrong).expect_err(wrong);
            assert!(
                error.contains("is no key exchange: there are x25519mlkem768, x25519, secp256r1, secp384r1"),
                "{error}"
            );
            assert!(!error.contains('\u{1b}'), "{error}");
        }
        assert!(names("x25519,X25519").is_err_and(|error| error.contains("named twice")));
    }
}
