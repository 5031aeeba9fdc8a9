//! The address of whoever an accept brings.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::engine::Peer;

/// Where the kernel writes the peer's address of one accept in flight.
pub(super) struct AcceptAddress {
    pub(super) storage: libc::sockaddr_storage,
    pub(super) len: libc::socklen_t,
}

impl AcceptAddress {
    pub(super) fn new() -> AcceptAddress {
        // SAFETY: sockaddr_storage is a C struct for which all zeroes is a valid value (family AF_UNSPEC).
        AcceptAddress { storage: unsafe { std::mem::zeroed() }, len: 0 }
    }

    pub(super) fn reset(&mut self) {
        self.storage.ss_family = libc::AF_UNSPEC as libc::sa_family_t;
        self.len = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
    }

    pub(super) fn peer(&self) -> Peer {
        let storage: *const libc::sockaddr_storage = &self.storage;
        match i32::from(self.storage.ss_family) {
            libc::AF_INET => {
                // SAFETY: the family says that the kernel wrote a sockaddr_in, which fits in and is aligned as storage.
                let address = unsafe { *storage.cast::<libc::sockaddr_in>() };
                let ip = Ipv4Addr::from(u32::from_be(address.sin_addr.s_addr));
                Peer::Inet(SocketAddr::new(IpAddr::V4(ip), u16::from_be(address.sin_port)))
            }
            libc::AF_INET6 => {
                // SAFETY: likewise a sockaddr_in6.
                let address = unsafe { *storage.cast::<libc::sockaddr_in6>() };
                let ip = Ipv6Addr::from(address.sin6_addr.s6_addr);
                Peer::Inet(SocketAddr::new(IpAddr::V6(ip).to_canonical(), u16::from_be(address.sin6_port)))
            }
            _ => Peer::Unix,
        }
    }
}
