//! Proxies: whose word of a client is believed, and on which addresses they speak the PROXY protocol.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net};

use super::types::{ListenAddress, Malformed, NONE};

/// The bits of `::ffff:0:0/96`, before an IPv4 address that is mapped into IPv6.
const MAPPED_BITS: u8 = 96;
/// How a Unix socket's peer is written.
const UNIX: &str = "unix";

/// The proxies that are believed when they say for whom they ask.
///
/// ```
/// use ringwire::config::TrustedProxies;
///
/// let proxies: TrustedProxies = "10.0.0.0/8,2001:db8::/32,unix".parse().unwrap();
/// assert!(proxies.trust("10.1.2.3".parse().ok()));
/// assert!(!proxies.trust("192.0.2.1".parse().ok()));
/// assert!(proxies.trust(None)); // a peer on a Unix socket
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustedProxies {
    networks: Vec<IpNet>,
    are_on_unix: bool,
}

impl TrustedProxies {
    /// Whether nobody is trusted.
    ///
    /// ```
    /// use ringwire::config::TrustedProxies;
    ///
    /// assert!(TrustedProxies::default().is_empty());
    /// assert!(!"unix".parse::<TrustedProxies>().unwrap().is_empty());
    /// ```
    pub fn is_empty(&self) -> bool {
        self.networks.is_empty() && !self.are_on_unix
    }

    /// Whether all addresses of a kind are among them.
    ///
    /// ```
    /// use ringwire::config::TrustedProxies;
    ///
    /// assert!("0.0.0.0/0".parse::<TrustedProxies>().unwrap().are_everybody());
    /// assert!(!"10.0.0.0/8".parse::<TrustedProxies>().unwrap().are_everybody());
    /// ```
    pub fn are_everybody(&self) -> bool {
        self.networks.iter().any(|network| network.prefix_len() == 0)
    }

    /// Whether a peer is one of them; `None` is one on a Unix socket.
    ///
    /// ```
    /// use ringwire::config::TrustedProxies;
    ///
    /// let proxies: TrustedProxies = "10.0.0.0/8".parse().unwrap();
    /// assert!(proxies.trust("10.1.2.3".parse().ok()));
    /// assert!(!proxies.trust("192.0.2.1".parse().ok()) && !proxies.trust(None));
    /// ```
    pub fn trust(&self, peer: Option<IpAddr>) -> bool {
        match peer.map(|ip| ip.to_canonical()) {
            Some(ip) => self.networks.iter().any(|network| network.contains(&ip)),
            None => self.are_on_unix,
        }
    }
}

impl FromStr for TrustedProxies {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let mut proxies = TrustedProxies::default();
        if text == NONE {
            return Ok(proxies);
        }
        for part in text.split(',').map(str::trim) {
            if part.eq_ignore_ascii_case(UNIX) {
                proxies.are_on_unix = true;
            } else {
                proxies.networks.push(network(part).ok_or(Malformed)?);
            }
        }
        Ok(proxies)
    }
}

/// A network, or the one address that is written without a length.
fn network(text: &str) -> Option<IpNet> {
    let network = text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from)).ok()?.trunc();
    // Peers are told by their IPv4 addresses, however they come.
    Some(match network {
        IpNet::V6(v6) if v6.prefix_len() >= MAPPED_BITS && v6.network().to_ipv4_mapped().is_some() => {
            let ip: Ipv4Addr = v6.network().to_ipv4_mapped()?;
            IpNet::V4(Ipv4Net::new(ip, v6.prefix_len() - MAPPED_BITS).ok()?)
        }
        other => other,
    })
}

impl fmt::Display for TrustedProxies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let networks = self.networks.iter().map(ToString::to_string);
        let parts: Vec<String> = networks.chain(self.are_on_unix.then(|| String::from(UNIX))).collect();
        f.write_str(if parts.is_empty() { NONE } else { "" })?;
        f.write_str(&parts.join(","))
    }
}

/// On which addresses a connection begins with a header of the PROXY protocol.
///
/// ```
/// use ringwire::config::ProxyProtocol;
///
/// assert_eq!("true".parse(), Ok(ProxyProtocol::Always));
/// let one: ProxyProtocol = "0.0.0.0:9001".parse().unwrap();
/// assert_eq!(one.to_string(), "0.0.0.0:9001");
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProxyProtocol {
    /// On none.
    #[default]
    Never,
    /// On all public ones.
    Always,
    /// On these of them.
    On(Vec<ListenAddress>),
}

impl ProxyProtocol {
    /// Whether it is spoken on this address.
    ///
    /// ```
    /// use ringwire::config::ProxyProtocol;
    ///
    /// let one: ProxyProtocol = "0.0.0.0:9001".parse().unwrap();
    /// assert!(one.is_on(&"0.0.0.0:9001".parse().unwrap()));
    /// assert!(!one.is_on(&"unix:/run/chat.sock".parse().unwrap()));
    /// ```
    pub fn is_on(&self, address: &ListenAddress) -> bool {
        match self {
            ProxyProtocol::Never => false,
            ProxyProtocol::Always => true,
            ProxyProtocol::On(addresses) => addresses.iter().any(|on| on.place() == address.place()),
        }
    }
}

impl FromStr for ProxyProtocol {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        match text.to_ascii_lowercase().as_str() {
            "true" | "yes" | "on" | "1" => Ok(ProxyProtocol::Always),
            "false" | "no" | "off" | "0" => Ok(ProxyProtocol::Never),
            _ => text.split(',').map(|part| part.trim().parse()).collect::<Result<_, _>>().map(ProxyProtocol::On),
        }
    }
}

impl fmt::Display for ProxyProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ProxyProtocol::Never => f.write_str("false"),
            ProxyProtocol::Always => f.write_str("true"),
            ProxyProtocol::On(addresses) => {
                let parts: Vec<String> = addresses.iter().map(ToString::to_string).collect();
                f.write_str(&parts.join(","))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trusted_proxies() {
        for (text, shown) in [
            ("(none)", "(none)"),
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("10.1.2.3/8 , 192.0.2.1", "10.0.0.0/8,192.0.2.1/32"),
            ("::1,2001:DB8::5/32", "::1/128,2001:db8::/32"),
            ("unix", "unix"),
            ("UNIX,127.0.0.1", "127.0.0.1/32,unix"),
            ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
            ("0.0.0.0/0,::/0", "0.0.0.0/0,::/0"),
        ] {
            let proxies: TrustedProxies = text.parse().expect(text);
            assert_eq!(proxies.to_string(), shown);
            assert_eq!(shown.parse(), Ok(proxies));
        }
        for text in
            ["", ",", "10.0.0.0/33", "10.0.0/8", "10.0.0.0/-1", "proxy.test", "10.0.0.1,", "unix:/run/x", "none"]
        {
            assert_eq!(text.parse::<TrustedProxies>(), Err(Malformed), "{text}");
        }
    }

    #[test]
    fn who_is_trusted() {
        let trusts = |list: &str, peer: &str| {
            let list: TrustedProxies = list.parse().expect(list);
            list.trust((peer != "unix").then(|| peer.parse().expect(peer)))
        };
        for (list, peer, want) in [
            ("10.0.0.0/8", "10.255.0.1", true),
            ("10.0.0.0/8", "11.0.0.1", false),
            ("10.0.0.0/8", "::ffff:10.0.0.1", true),
            ("::ffff:10.0.0.0/104", "10.0.0.1", true),
            ("10.0.0.0/8", "unix", false),
            ("unix", "unix", true),
            ("unix", "127.0.0.1", false),
            ("2001:db8::/32", "2001:db8:ffff::1", true),
            ("2001:db8::/32", "2001:db9::1", false),
            ("0.0.0.0/0", "2001:db8::1", false),
            ("(none)", "127.0.0.1", false),
            ("(none)", "unix", false),
        ] {
            assert_eq!(trusts(list, peer), want, "{list} {peer}");
        }
        assert!(TrustedProxies::default().is_empty() && !"unix".parse::<TrustedProxies>().expect("a list").is_empty());
    }

    #[test]
    fn where_the_protocol_is_spoken() {
        let address = |text: &str| text.parse::<ListenAddress>().expect(text);
        for (text, shown, on_first, on_second) in [
            ("true", "true", true, true),
            ("off", "false", false, false),
            ("127.0.0.1:1", "127.0.0.1:1", true, false),
            ("unix:/x, 127.0.0.1:1", "unix:/x,127.0.0.1:1", true, true),
        ] {
            let protocol: ProxyProtocol = text.parse().expect(text);
            assert_eq!(protocol.to_string(), shown);
            assert_eq!(shown.parse(), Ok(protocol.clone()));
            assert_eq!(protocol.is_on(&address("127.0.0.1:1")), on_first, "{text}");
            assert_eq!(protocol.is_on(&address("unix:/x")), on_second, "{text}");
        }
        for text in ["", "maybe", "127.0.0.1"] {
            assert_eq!(text.parse::<ProxyProtocol>(), Err(Malformed), "{text}");
        }
    }
}
