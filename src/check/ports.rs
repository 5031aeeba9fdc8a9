//! Whether the addresses can be listened on: each is bound, never listened on, and given up at once.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::path::Path;

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::config::{Config, ListenAddress};

/// An address that is to be listened on, and whether it can be.
#[derive(Debug)]
pub(super) struct Port {
    /// The setting that asks for it.
    pub(super) setting: &'static str,
    pub(super) address: ListenAddress,
    pub(super) result: io::Result<()>,
}

/// All of them; none where sockets are passed, which are used instead.
pub(super) fn try_all(config: &Config) -> Vec<Port> {
    let are_passed = std::env::var_os("LISTEN_FDS").is_some();
    let public = config.addresses.iter().filter(|_| !are_passed).map(|address| ("RINGWIRE_ADDR", address));
    let admin = config.admin_address.iter().map(|address| ("RINGWIRE_ADMIN_ADDR", address));
    let attempt = |(setting, address): (&'static str, &ListenAddress)| Port {
        setting,
        address: address.clone(),
        result: attempt(address, config.reuse_port),
    };
    public.chain(admin).map(attempt).collect()
}

fn attempt(address: &ListenAddress, is_shared: bool) -> io::Result<()> {
    match address.place() {
        ListenAddress::Inet { host, port } => {
            let resolved: Vec<SocketAddr> = (host.as_str(), *port).to_socket_addrs()?.collect();
            let mut absent = None;
            let mut is_any_there = false;
            for address in resolved {
                match attempt_inet(address, is_shared) {
                    // As at a start: a name may have an address of a kind that this machine has not.
                    Err(error) if matches!(error.raw_os_error(), Some(libc::EADDRNOTAVAIL | libc::EAFNOSUPPORT)) => {
                        absent = Some(error);
                    }
                    result => {
                        result?;
                        is_any_there = true;
                    }
                }
            }
            match absent {
                Some(error) if !is_any_there => Err(error),
                _ => Ok(()),
            }
        }
        ListenAddress::Unix(path) => attempt_unix(path, is_shared),
        ListenAddress::Speaking(..) => unreachable!("a place has no scheme"),
    }
}

fn attempt_inet(address: SocketAddr, is_shared: bool) -> io::Result<()> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(is_shared)?;
    if address.is_ipv6() {
        // Somebody on the IPv4 address of the same port is another matter.
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())
}

fn attempt_unix(path: &Path, is_shared: bool) -> io::Result<()> {
    use std::os::unix::fs::FileTypeExt as _;
    let there = match path.symlink_metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            // Its directory has to be there.
            let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
            return directory.metadata().map(|_| ());
        }
        there => there?,
    };
    if !there.file_type().is_socket() {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "the file exists and is no socket"));
    }
    let probe = Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)?;
    match probe.connect(&SockAddr::unix(path)?) {
        _ if is_shared => Ok(()),
        // It was left behind, and is replaced.
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Err(error),
        _ => Err(io::Error::from_raw_os_error(libc::EADDRINUSE)),
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::unix::net::UnixListener;

    use super::*;

    fn kind(result: io::Result<()>) -> Option<io::ErrorKind> {
        result.err().map(|error| error.kind())
    }

    #[test]
    fn what_is_taken_and_what_is_free() {
        let taken = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let address = ListenAddress::from(taken.local_addr().expect("an address"));
        assert_eq!(kind(attempt(&address, false)), Some(io::ErrorKind::AddrInUse));
        // Not by somebody who shares it.
        assert_eq!(kind(attempt(&address, true)), Some(io::ErrorKind::AddrInUse));
        drop(taken);
        assert_eq!(kind(attempt(&address, false)), None);
        let sharing = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        sharing.set_reuse_port(true).expect("an option");
        sharing.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("a port");
        sharing.listen(1).expect("a listener");
        let shared = ListenAddress::from(sharing.local_addr().ok().and_then(|it| it.as_socket()).expect("an address"));
        assert_eq!(kind(attempt(&shared, false)), Some(io::ErrorKind::AddrInUse));
        assert_eq!(kind(attempt(&shared, true)), None);
        for (text, want) in [
            ("127.0.0.1:0", None),
            ("192.0.2.1:9001", Some(io::ErrorKind::AddrNotAvailable)),
            ("unix:/nowhere/at/all", Some(io::ErrorKind::NotFound)),
            ("unix:/etc/hostname", Some(io::ErrorKind::AlreadyExists)),
        ] {
            assert_eq!(kind(attempt(&text.parse().expect(text), false)), want, "{text}");
        }
    }

    #[test]
    fn unix_sockets() {
        let path = std::env::temp_dir().join(format!("ringwire-check-{}.sock", std::process::id()));
        let address = ListenAddress::Unix(path.clone());
        assert_eq!(kind(attempt(&address, false)), None);
        assert!(!path.exists(), "nothing is changed");
        let listener = UnixListener::bind(&path).expect("a listener");
        assert_eq!(kind(attempt(&address, false)), Some(io::ErrorKind::AddrInUse));
        assert_eq!(kind(attempt(&address, true)), None);
        drop(listener);
        assert_eq!(kind(attempt(&address, false)), None);
        assert!(path.exists(), "nothing is changed");
        std::fs::remove_file(path).expect("the file");
    }
}
