//! The listening sockets of all cores, made before the first core starts.
//!
//! An address that somebody listens on is refused, unless it is to be shared for a restart (`RINGWIRE_REUSEPORT`): then a TCP
//! port is divided between the two servers until the old one has ended, and the path of a Unix socket leads to the new one
//! from the moment it listens.
//!
//! Each exists once, and every core gets a duplicate of its descriptor: the kernel wakes the accepts that wait at a socket in
//! turn, and who is ahead of others has none waiting (see `admission`). Listeners of each core's own (`SO_REUSEPORT`) would
//! be spread over by a hash, which is even for ten thousand connections and not for the few dozen of a load test, and
//! cannot be led to the cores that have few. All are blocking: io_uring fails an accept on an `O_NONBLOCK` socket with
//! `EAGAIN` instead of waiting.

use std::fmt;
use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, ToSocketAddrs as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use listenfd::ListenFd;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::config::Config;
pub use crate::config::ListenAddress;
use crate::engine::listener::defer_accept;
use crate::error::{Error, Result};
use crate::shard::Entrance;
use crate::shard::service::Serves;

/// How often all addresses of a name are tried on one port of the kernel's choice, before it counts as in use.
const PORT_TRIES: usize = 16;

/// The listening sockets, and what they listen on.
#[derive(Debug)]
#[must_use]
pub struct Listeners {
    /// For each core its listeners, in the order of `bound`.
    pub per_core: Vec<Vec<OwnedFd>>,
    /// What each of them listens on, with the real port.
    pub bound: Vec<BoundAddress>,
    /// What each of them is for.
    pub entrances: Vec<Entrance>,
    /// Files of Unix sockets; dropping them removes the files.
    pub files: Vec<SocketFile>,
    /// Whether they were passed by whoever started this process, and keeps them.
    pub are_passed: bool,
}

/// What a listener listens on.
///
/// ```
/// use ringwire::BoundAddress;
///
/// let public = BoundAddress::Inet("192.0.2.7:9001".parse().unwrap());
/// assert_eq!(public.to_string(), "ws://192.0.2.7:9001");
/// assert_eq!(BoundAddress::Secure(Box::new(public)).to_string(), "wss://192.0.2.7:9001");
/// assert_eq!(BoundAddress::Unix("/run/chat.sock".into()).to_string(), "unix:/run/chat.sock");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BoundAddress {
    /// A TCP port.
    Inet(SocketAddr),
    /// A Unix socket's path, empty where it has no name.
    Unix(PathBuf),
    /// One of the others, where TLS is spoken.
    Secure(Box<BoundAddress>),
}

impl BoundAddress {
    /// The TCP address, if it is one.
    ///
    /// ```
    /// use ringwire::BoundAddress;
    ///
    /// let address = BoundAddress::Inet("127.0.0.1:9001".parse().unwrap());
    /// assert_eq!(address.inet().map(|address| address.port()), Some(9001));
    /// assert_eq!(BoundAddress::Unix("/run/chat.sock".into()).inet(), None);
    /// ```
    pub fn inet(&self) -> Option<SocketAddr> {
        match self {
            BoundAddress::Inet(address) => Some(*address),
            BoundAddress::Unix(_) => None,
            BoundAddress::Secure(place) => place.inet(),
        }
    }

    /// Whether TLS is spoken there.
    ///
    /// ```
    /// use ringwire::BoundAddress;
    ///
    /// let address = BoundAddress::Inet("127.0.0.1:9001".parse().unwrap());
    /// assert!(!address.is_secure());
    /// assert!(BoundAddress::Secure(Box::new(address)).is_secure());
    /// ```
    pub fn is_secure(&self) -> bool {
        matches!(self, BoundAddress::Secure(_))
    }

    fn secured(self, is_secure: bool) -> BoundAddress {
        if is_secure { BoundAddress::Secure(Box::new(self)) } else { self }
    }

    /// As a client of HTTP names it: `http://127.0.0.1:9001` or `unix:/path`.
    ///
    /// ```
    /// use ringwire::BoundAddress;
    ///
    /// let address = BoundAddress::Inet("127.0.0.1:9001".parse().unwrap());
    /// assert_eq!(address.to_http() + "/metrics", "http://127.0.0.1:9001/metrics");
    /// ```
    pub fn to_http(&self) -> String {
        match self {
            BoundAddress::Inet(address) => format!("http://{address}"),
            BoundAddress::Unix(_) => self.to_string(),
            BoundAddress::Secure(place) => match &**place {
                BoundAddress::Inet(address) => format!("https://{address}"),
                place => place.to_string(),
            },
        }
    }

    fn to_listen_address(&self) -> ListenAddress {
        match self {
            BoundAddress::Inet(address) => ListenAddress::from(*address),
            BoundAddress::Unix(path) => ListenAddress::Unix(path.clone()),
            BoundAddress::Secure(place) => place.to_listen_address(),
        }
    }
}

/// As a client names it: `ws://127.0.0.1:9001`, `wss://127.0.0.1:9001` or `unix:/path`.
impl fmt::Display for BoundAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BoundAddress::Inet(address) => write!(f, "ws://{address}"),
            BoundAddress::Unix(path) => write!(f, "unix:{}", path.display()),
            BoundAddress::Secure(place) => match &**place {
                BoundAddress::Inet(address) => write!(f, "wss://{address}"),
                place => write!(f, "wss://{place}"),
            },
        }
    }
}

/// A Unix socket's file, removed on drop unless another has taken its place meanwhile.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    /// Keeps the file's inode, whose number another file could have otherwise once this one is gone.
    file: File,
}

impl SocketFile {
    fn new(path: &Path) -> io::Result<SocketFile> {
        // The working directory may be another one by the time of the drop.
        let path = std::path::absolute(path)?;
        let file = File::options().read(true).custom_flags(libc::O_PATH | libc::O_NOFOLLOW).open(&path)?;
        Ok(SocketFile { path, file })
    }

    /// Whether the file at its path is the one that was made.
    fn is_own(&self) -> bool {
        let (Ok(own), Ok(there)) = (self.file.metadata(), fs::symlink_metadata(&self.path)) else { return false };
        (own.dev(), own.ino()) == (there.dev(), there.ino())
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.is_own() {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Listens for `cores` cores on the sockets that a service manager passed (`LISTEN_FDS`, with `LISTEN_PID` this
/// process or absent), and on the addresses of `config` if none were.
///
/// Takes the passed sockets out of the environment, so only the first call in a process sees them.
///
/// # Errors
/// [`Error::Listen`] when an address is in use, not allowed or not of this machine, or a passed descriptor is no
/// listening stream socket.
///
/// # Panics
/// When `cores` is 0.
pub fn bind_all(config: &Config, cores: usize) -> Result<Listeners> {
    assert!(cores > 0, "a server has a core");
    let mut listeners = Listeners {
        per_core: (0..cores).map(|_| Vec::new()).collect(),
        bound: Vec::new(),
        entrances: Vec::new(),
        files: Vec::new(),
        are_passed: false,
    };
    let serves = if config.admin_address.is_some() { Serves::Public } else { Serves::All };
    let public = |address: &ListenAddress| Entrance {
        proxy_protocol: config.proxy_protocol.is_on(address),
        is_secure: config.is_secure(address),
        serves,
    };
    let passed = passed_sockets()?;
    listeners.are_passed = !passed.is_empty();
    for (number, socket) in passed.iter().enumerate() {
        adopt(&mut listeners, socket)
            .map_err(|source| Error::Listen { address: format!("passed socket {number}"), source })?;
        let address = listeners.bound.last().expect("one more").to_listen_address();
        listeners.entrances.push(public(&address));
    }
    if passed.is_empty() {
        for address in &config.addresses {
            bind(&mut listeners, address, config)
                .map_err(|source| Error::Listen { address: address.to_string(), source })?;
            listeners.entrances.resize(listeners.bound.len(), public(address));
        }
    }
    if let Some(address) = &config.admin_address {
        bind(&mut listeners, address, config)
            .map_err(|source| Error::Listen { address: address.to_string(), source })?;
        let admin = Entrance { proxy_protocol: false, is_secure: config.is_admin_secure(), serves: Serves::Admin };
        listeners.entrances.resize(listeners.bound.len(), admin);
    }
    let bound = std::mem::take(&mut listeners.bound).into_iter().zip(&listeners.entrances);
    listeners.bound = bound.map(|(bound, entrance)| bound.secured(entrance.is_secure)).collect();
    Ok(listeners)
}

fn bind(listeners: &mut Listeners, address: &ListenAddress, config: &Config) -> io::Result<()> {
    let backlog = i32::try_from(config.backlog).unwrap_or(i32::MAX);
    match address.place() {
        ListenAddress::Inet { host, port } => {
            let mut resolved: Vec<SocketAddr> = (host.as_str(), *port).to_socket_addrs()?.collect();
            resolved.dedup();
            let options = Options {
                backlog,
                shares: config.reuse_port,
                // Both on one port can only be had with an IPv6 socket that leaves IPv4 alone.
                has_ipv4_wildcard: config.addresses.iter().any(|other| {
                    matches!(other.place(), ListenAddress::Inet { host, port: other }
                        if host.parse() == Ok(Ipv4Addr::UNSPECIFIED) && other == port)
                }),
            };
            bind_inet(&resolved, options)?.iter().try_for_each(|socket| share(listeners, socket))
        }
        ListenAddress::Unix(path) => {
            let (socket, file) =
                if config.reuse_port { take_over_unix(path, backlog)? } else { bind_unix(path, backlog)? };
            listeners.files.push(file);
            share(listeners, &socket)
        }
        ListenAddress::Speaking(..) => unreachable!("a place has no scheme"),
    }
}

/// Gives every core a duplicate.
fn share(listeners: &mut Listeners, socket: &Socket) -> io::Result<()> {
    listeners.bound.push(bound_address(socket)?);
    for core in &mut listeners.per_core {
        core.push(socket.try_clone()?.into());
    }
    Ok(())
}

fn bound_address(socket: &Socket) -> io::Result<BoundAddress> {
    let address = socket.local_addr()?;
    Ok(match address.as_socket() {
        Some(inet) => BoundAddress::Inet(inet),
        None => BoundAddress::Unix(address.as_pathname().map(PathBuf::from).unwrap_or_default()),
    })
}

#[derive(Clone, Copy)]
struct Options {
    backlog: i32,
    shares: bool,
    has_ipv4_wildcard: bool,
}

/// For each address that this machine has, a listener. All have the same port, if the kernel chooses it.
fn bind_inet(resolved: &[SocketAddr], options: Options) -> io::Result<Vec<Socket>> {
    let mut tries = 0;
    loop {
        tries += 1;
        match bind_inet_once(resolved, options) {
            // The port that was chosen for the first address was taken on another one.
            Err(error)
                if error.kind() == io::ErrorKind::AddrInUse
                    && resolved.len() > 1
                    && resolved[0].port() == 0
                    && tries < PORT_TRIES => {}
            result => return result,
        }
    }
}

fn bind_inet_once(resolved: &[SocketAddr], options: Options) -> io::Result<Vec<Socket>> {
    let mut listeners: Vec<Socket> = Vec::new();
    let mut absent = None;
    let mut chosen_port = None;
    for address in resolved {
        let mut address = *address;
        if let (0, Some(port)) = (address.port(), chosen_port) {
            address.set_port(port);
        }
        let listener = match listen_inet(address, options) {
            Ok(socket) => socket,
            // A name such as localhost has an IPv6 address on machines without IPv6, too.
            Err(error) if is_absent(&error) => {
                absent = Some(error);
                continue;
            }
            Err(error) => return Err(error),
        };
        if let Some(bound) = listener.local_addr()?.as_socket() {
            chosen_port = Some(bound.port());
        }
        listeners.push(listener);
    }
    match absent {
        Some(error) if listeners.is_empty() => Err(error),
        _ if listeners.is_empty() => Err(io::Error::from(io::ErrorKind::AddrNotAvailable)),
        _ => Ok(listeners),
    }
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EADDRNOTAVAIL | libc::EAFNOSUPPORT))
}

/// The listener of an address. Unless it is to share the port it fails if anyone listens there, and two processes never both
/// succeed: it is bound and listens before it gets `SO_REUSEPORT`, which lets a process of the same user share it that
/// wants to.
fn listen_inet(address: SocketAddr, options: Options) -> io::Result<Socket> {
    let socket = inet_socket(address, options)?;
    socket.set_reuse_port(options.shares)?;
    socket.bind(&address.into())?;
    socket.listen(options.backlog)?;
    socket.set_reuse_port(true)?;
    Ok(socket)
}

fn inet_socket(address: SocketAddr, options: Options) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // Connections of a former run may be in TIME_WAIT.
    socket.set_reuse_address(true)?;
    // Accepted sockets inherit it.
    socket.set_tcp_nodelay(true)?;
    // Whoever has connected and said nothing yet is nobody's until then. A listener that shares its address must be able to
    // serve them all before it goes.
    if !options.shares {
        defer_accept(socket.as_fd())?;
    }
    if let SocketAddr::V6(v6) = address {
        // `[::]` means every address of the machine, IPv4 included, as long as nobody else was asked to take those.
        socket.set_only_v6(!v6.ip().is_unspecified() || options.has_ipv4_wildcard)?;
    }
    Ok(socket)
}

fn bind_unix(path: &Path, backlog: i32) -> io::Result<(Socket, SocketFile)> {
    let address = SockAddr::unix(path)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    match socket.bind(&address) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            remove_stale(path, &address)?;
            socket.bind(&address)?;
        }
        result => result?,
    }
    let file = SocketFile::new(path)?;
    socket.listen(backlog)?;
    Ok((socket, file))
}

/// Listens at another path and moves that to the place of the one that is wanted, so that there is always somebody there.
fn take_over_unix(path: &Path, backlog: i32) -> io::Result<(Socket, SocketFile)> {
    if let Ok(file) = fs::symlink_metadata(path)
        && !file.file_type().is_socket()
    {
        let message = "the file exists and is no socket";
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, message));
    }
    let mut other = path.as_os_str().to_owned();
    other.push(format!(".{}", std::process::id()));
    let other = PathBuf::from(other);
    let (socket, mut file) = bind_unix(&other, backlog)?;
    fs::rename(&other, path)?;
    file.path = std::path::absolute(path)?;
    Ok((socket, file))
}

/// Removes the socket file of a process that is gone.
///
/// # Errors
/// When it is no socket, or somebody listens on it.
fn remove_stale(path: &Path, address: &SockAddr) -> io::Result<()> {
    if !fs::symlink_metadata(path)?.file_type().is_socket() {
        let message = "the file exists and is no socket";
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, message));
    }
    // A listener with a full backlog would block a blocking connect.
    let probe = Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)?;
    match probe.connect(address) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Err(error),
        _ => Err(io::Error::from_raw_os_error(libc::EADDRINUSE)),
    }
}

/// The sockets that a service manager passed to this process.
fn passed_sockets() -> Result<Vec<Socket>> {
    let mut passed = ListenFd::from_env();
    let mut sockets = Vec::with_capacity(passed.len());
    for number in 0..passed.len() {
        let socket = match passed.take_unix_listener(number) {
            Ok(listener) => listener.map(Socket::from),
            Err(_) => passed
                .take_tcp_listener(number)
                .map_err(|source| Error::Listen { address: format!("passed socket {number}"), source })?
                .map(Socket::from),
        };
        sockets.extend(socket);
    }
    Ok(sockets)
}

fn adopt(listeners: &mut Listeners, socket: &Socket) -> io::Result<()> {
    if !socket.is_listener()? {
        let message = "the socket does not listen";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
    }
    // The flag belongs to the open socket, so it holds for all duplicates.
    socket.set_nonblocking(false)?;
    if socket.local_addr()?.as_socket().is_some() {
        socket.set_tcp_nodelay(true)?;
    }
    share(listeners, socket)
}

#[cfg(test)]
#[path = "listen/tests.rs"]
mod tests;
