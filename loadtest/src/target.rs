//! Where a run goes: the URL, what the opening handshake says, and the addresses it comes from.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs},
    os::fd::OwnedFd,
};

use nix::sys::socket::{setsockopt, sockopt};
use ringwire::{
    proto::{extensions::Offer, handshake::put_request},
    quote::quoted,
    tls::Connector,
};

use crate::headers::{self, Field};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

/// Connections per source address before the next one is taken: Linux has 28,232 ephemeral ports by default, and looks
/// long for the last ones.
pub(crate) const CONNECTIONS_PER_SOURCE: usize = 10_000;

/// Where a run goes, and how it asks.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) addr: SocketAddr,
    /// As reports have it.
    pub(crate) url: String,
    pub(crate) host: String,
    /// May contain `{room}`.
    pub(crate) path: String,
    pub(crate) headers: Vec<Field>,
    pub(crate) protocols: Vec<String>,
    pub(crate) sources: Vec<Ipv4Addr>,
    /// The URL says wss.
    pub(crate) is_secure: bool,
    /// Makes the sessions of TLS, where it does.
    pub(crate) connector: Option<Connector>,
    /// What is offered of compression.
    pub(crate) offer: Option<Offer>,
}

/// What one connection's opening handshake says beside what all say.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Ask<'a> {
    /// In place of the target's path.
    pub(crate) path: Option<&'a str>,
    /// More header fields.
    pub(crate) headers: &'a [Field],
}

impl Target {
    /// Reads `ws://HOST:PORT/PATH` or `wss://HOST:PORT/PATH`.
    pub(crate) fn parse(url: &str) -> Result<Self, String> {
        let (is_secure, host, path) = split(url)?;
        let host_port =
            if port(host).is_some() { host.to_owned() } else { format!("{host}:{}", if is_secure { 443 } else { 80 }) };
        let addr = host_port.to_socket_addrs().map_err(|error| format!("{host}: {error}"))?.next();
        let addr = addr.ok_or_else(|| format!("{host} has no address"))?;
        Ok(Self {
            addr,
            url: shown(url),
            host: host.to_owned(),
            path,
            headers: Vec::new(),
            protocols: Vec::new(),
            sources: Vec::new(),
            is_secure,
            connector: None,
            offer: None,
        })
    }

    /// Whether it is written as a URL is, without a look for the host.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn check_url(url: &str) -> Result<(), String> {
        split(url).map(drop)
    }

    /// Whether it is written as a path is.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn check_path(path: &str) -> Result<(), String> {
        if !path.starts_with('/') {
            return Err("it does not begin with a slash".to_owned());
        }
        match path.bytes().all(|byte| byte > b' ' && byte != 0x7f) {
            true => Ok(()),
            // A token may be in it.
            false => Err("it has characters that a URL cannot have".to_owned()),
        }
    }

    /// Takes more source addresses of the loopback network where one has not enough ports: others than those agents before this
    /// one which are on the same machine.
    pub(crate) fn spread_sources(&mut self, connections: usize, agent: usize) {
        let loopback = matches!(self.addr.ip(), IpAddr::V4(ip) if ip.is_loopback());
        if self.sources.is_empty() && loopback && connections > CONNECTIONS_PER_SOURCE {
            let wanted = connections.div_ceil(CONNECTIONS_PER_SOURCE).min(250);
            let last = |place: usize| ((agent * wanted + place) % 250) as u8 + 1;
            self.sources = (0..wanted).map(|place| Ipv4Addr::new(127, 0, 0, last(place))).collect();
        }
    }

    /// The server's name, as its certificate has it.
    pub(crate) fn name(&self) -> &str {
        match self.host.rsplit_once(':') {
            Some((name, port)) if !port.contains(']') => name,
            _ => &self.host,
        }
    }

    /// Appends the opening handshake; `false` if it has characters that HTTP does not allow.
    pub(crate) fn put_request(&self, out: &mut Vec<u8>, room: Option<u32>, key: &str, ask: Ask<'_>) -> bool {
        let with_room;
        let path = match room {
            Some(room) if self.path.contains("{room}") => {
                with_room = self.path.replace("{room}", &format!("room-{room}"));
                &with_room
            }
            _ => ask.path.unwrap_or(&self.path),
        };
        let protocols: Vec<&str> = self.protocols.iter().map(String::as_str).collect();
        let (host, headers) = headers::host_and_others(&self.host, &self.headers, ask.headers);
        let extensions = self.offer.map(|offer| ("Sec-WebSocket-Extensions", offer.value()));
        put_request(out, host, path, key, &protocols, headers.into_iter().chain(extensions)).is_ok()
    }

    /// Whether the handshake can be written as asked for.
    pub(crate) fn check(&self) -> Result<(), String> {
        headers::check_together(self.headers.iter().map(|(name, _)| name)).map_err(|why| format!("--header: {why}"))?;
        match self.put_request(&mut Vec::new(), None, "x", Ask::default()) {
            true => Ok(()),
            false => Err("the URL or a --subprotocol has characters that HTTP does not allow".to_owned()),
        }
    }

    /// A socket to connect, bound to its source address; `number` chooses among several.
    pub(crate) fn socket(&self, number: usize, receive_buffer: Option<usize>) -> io::Result<(OwnedFd, SockAddr)> {
        let socket = Socket::new(Domain::for_address(self.addr), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_tcp_nodelay(true)?;
        if let Some(bytes) = receive_buffer {
            socket.set_recv_buffer_size(bytes)?;
        }
        if !self.sources.is_empty() {
            let source = self.sources[number % self.sources.len()];
            // The port is chosen at connect, where it only has to be unique for the whole address pair.
            setsockopt(&socket, sockopt::IpBindAddressNoPort, &true)?;
            socket.bind(&SocketAddr::from((source, 0)).into())?;
        }
        Ok((socket.into(), self.addr.into()))
    }
}

/// Reads `127.0.0.1,127.0.0.9` or `127.0.0.1-127.0.0.20`, or both.
pub(crate) fn parse_sources(text: &str) -> Result<Vec<Ipv4Addr>, String> {
    let ip =
        |text: &str| text.trim().parse::<Ipv4Addr>().map_err(|_| format!("{} is not an IPv4 address", quoted(text)));
    let mut sources = Vec::new();
    for part in text.split(',') {
        match part.split_once('-') {
            None => sources.push(ip(part)?),
            Some((first, last)) => {
                let (first, last) = (u32::from(ip(first)?), u32::from(ip(last)?));
                if last < first || last - first > 4096 {
                    return Err(format!("{} is not a range of at most 4096 addresses", quoted(part)));
                }
                sources.extend((first..=last).map(Ipv4Addr::from));
            }
        }
    }
    Ok(sources)
}

/// A URL as reports have it: of its query the names, since a value may be secret. A room's name is not.
pub(crate) fn shown(url: &str) -> String {
    let Some((before, query)) = url.split_once('?') else { return url.to_owned() };
    let show = |part: &str| match part.split_once('=') {
        _ if part == "{room}" => part.to_owned(),
        Some((_, "{room}")) => part.to_owned(),
        Some((name, _)) => format!("{name}=…"),
        None => "…".to_owned(),
    };
    format!("{before}?{}", query.split('&').map(show).collect::<Vec<_>>().join("&"))
}

/// Whether it is secure, the host with its port if it has one, and the path.
fn split(url: &str) -> Result<(bool, &str, String), String> {
    let (is_secure, rest) = match (url.strip_prefix("ws://"), url.strip_prefix("wss://")) {
        (Some(rest), _) => (false, rest),
        (_, Some(rest)) => (true, rest),
        (None, None) => return Err("the URL must begin with ws:// or wss://".to_owned()),
    };
    let (host, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    if host.contains('@') {
        return Err(
            "the URL has a user in it, which WebSockets do not have: --header 'Authorization: Basic …' says one"
                .to_owned(),
        );
    }
    // A slash may be missing before what is secret.
    if port(host).is_some_and(|port| port.parse::<u16>().is_err()) {
        return Err("its port is no number from 0 to 65535".to_owned());
    }
    if host.is_empty() || host.starts_with(':') {
        return Err("the URL has no host".to_owned());
    }
    let path = match path.chars().next() {
        None => "/".to_owned(),
        Some('?') => format!("/{path}"),
        Some(_) => path.to_owned(),
    };
    Ok((is_secure, host, path))
}

/// What stands behind the colon, which an IPv6 address has more of.
fn port(host: &str) -> Option<&str> {
    host.rsplit_once(':').map(|(_, port)| port).filter(|port| !port.contains(']'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        let target = Target::parse("ws://127.0.0.1:9001/rooms/{room}?x=1").expect("a URL");
        assert_eq!((target.addr.port(), target.path.as_str()), (9001, "/rooms/{room}?x=1"));
        assert_eq!(Target::parse("ws://127.0.0.1").expect("a URL").addr.port(), 80);
        assert_eq!(Target::parse("ws://127.0.0.1?a").expect("a URL").path, "/?a");
        let secure = Target::parse("wss://127.0.0.1/").expect("a URL");
        assert_eq!((secure.addr.port(), secure.is_secure, target.is_secure), (443, true, false));
        for (url, name) in [
            ("wss://127.0.0.1:9/", "127.0.0.1"),
            ("wss://[::1]:9/", "[::1]"),
            ("wss://[::1]/", "[::1]"),
            ("wss://localhost", "localhost"),
        ] {
            assert_eq!(Target::parse(url).expect(url).name(), name, "{url}");
        }
        for wrong in ["http://127.0.0.1/", "wsss://127.0.0.1/", "ws://nowhere.invalid.:x/"] {
            assert!(Target::parse(wrong).is_err(), "{wrong}");
        }
    }

    /// Kills: a token of the URL in every report.
    #[test]
    fn reports_have_the_names_of_a_query_alone() {
        for (url, expected) in [
            ("ws://a/x", "ws://a/x"),
            ("ws://a/x?access_token=s3cret", "ws://a/x?access_token=…"),
            ("ws://a?a=s3cret&b=s=3&s3cret", "ws://a?a=…&b=…&…"),
            ("ws://a/all?{room}", "ws://a/all?{room}"),
            ("ws://a/all?room={room}&token=s3cret?", "ws://a/all?room={room}&token=…"),
        ] {
            assert_eq!(shown(url), expected);
        }
        let target = Target::parse("ws://127.0.0.1:1/x?a=s3cret").expect("a URL");
        assert_eq!((target.url.as_str(), target.path.as_str()), ("ws://127.0.0.1:1/x?a=…", "/x?a=s3cret"));
    }

    #[test]
    fn source_addresses() {
        let sources = parse_sources("127.0.0.9,127.0.0.1-127.0.0.3").expect("sources");
        assert_eq!(sources.iter().map(|ip| ip.octets()[3]).collect::<Vec<_>>(), [9, 1, 2, 3]);
        assert!(parse_sources("127.0.0.3-127.0.0.1").is_err());
        let mut target = Target::parse("ws://127.0.0.1:1/").expect("a URL");
        target.spread_sources(100_000, 0);
        assert_eq!(target.sources.len(), 10);
        // Kills: agents of one machine that have the ports of the same addresses.
        let lasts = |agent| {
            let mut target = Target::parse("ws://127.0.0.1:1/").expect("a URL");
            target.spread_sources(25_000, agent);
            target.sources.iter().map(|ip| ip.octets()[3]).collect::<Vec<_>>()
        };
        assert_eq!([lasts(0), lasts(1), lasts(83)], [[1, 2, 3], [4, 5, 6], [250, 1, 2]]);
    }
}
