//! A peer's address, small: a server holds one per connection.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// An `Option<SocketAddr>` in 18 bytes; `None` is a peer on a Unix socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct CompactPeer {
    ip: [u8; 16],
    port: u16,
}

impl From<Option<SocketAddr>> for CompactPeer {
    fn from(peer: Option<SocketAddr>) -> CompactPeer {
        // Nobody connects from the unspecified address, so it can stand for none.
        let Some(address) = peer else { return CompactPeer::default() };
        let ip = match address.ip() {
            IpAddr::V4(ip) => ip.to_ipv6_mapped(),
            IpAddr::V6(ip) => ip,
        };
        CompactPeer { ip: ip.octets(), port: address.port() }
    }
}

impl From<CompactPeer> for Option<SocketAddr> {
    fn from(peer: CompactPeer) -> Option<SocketAddr> {
        peer.ip().map(|ip| SocketAddr::new(ip, peer.port))
    }
}

impl CompactPeer {
    pub(crate) fn ip(self) -> Option<IpAddr> {
        let ip = Ipv6Addr::from(self.ip);
        (!ip.is_unspecified()).then(|| IpAddr::V6(ip).to_canonical())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_survive_compaction() {
        for address in ["127.0.0.1:80", "[2001:db8::1]:65535"] {
            let peer: Option<SocketAddr> = Some(address.parse().unwrap());
            assert_eq!(Option::<SocketAddr>::from(CompactPeer::from(peer)), peer);
        }
        assert_eq!(Option::<SocketAddr>::from(CompactPeer::from(None)), None);
    }
}
