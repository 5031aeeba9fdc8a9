//! Who is behind a proxy: by the header of the PROXY protocol that a connection begins with, or by a request's fields.
//!
//! The one is a matter of the connection, whose peer it becomes before anything else is read; the other of each request,
//! because a proxy sends those of many clients on one connection, until one of them opens a WebSocket, whose peer it is then.
//! Only trusted proxies are believed, and what they say gives nobody the rights of a local peer: see `is_relayed`.

use std::net::SocketAddr;

use http::StatusCode;

use super::conn::Stash;
use super::gate::Worker;
use super::input::Next;
use super::log;
use super::requests::Then;
use crate::metrics::RefusalReason;
use crate::proto::forwarded::{self, Told};
use crate::proto::http::RequestHead;
use crate::proto::proxy::{self, Source};
use crate::shard::service::{Reply, Serves, Service};

/// Who asks.
pub(super) struct Client {
    /// The address; `None` on a Unix socket.
    pub(super) peer: Option<SocketAddr>,
    /// Whether a proxy stands in between that has said so.
    pub(super) is_relayed: bool,
}

impl<S: Service> Worker<'_, S> {
    /// Which routes there are for this connection.
    pub(super) fn serves(&self) -> Serves {
        self.cx.settings.entrance(self.conn.listener).serves
    }

    /// Who has sent this request.
    pub(super) fn client(&self, head: &RequestHead<'_>) -> Client {
        let (peer, is_relayed) = (self.conn.peer, self.conn.relayed);
        let direct = Client { peer: peer.into(), is_relayed };
        let proxies = &self.cx.settings.trusted_proxies;
        if proxies.is_empty() || !proxies.trust(peer.ip()) {
            return direct;
        }
        match forwarded::client(head, |ip| proxies.trust(Some(ip))) {
            Told::Nothing => direct,
            Told::Client(address) => Client { peer: Some(address), is_relayed: true },
            Told::Unclear => Client { is_relayed: true, ..direct },
        }
    }

    /// Reads the header of the PROXY protocol, and behind it requests. A connection that begins in another way is closed
    /// without a word.
    pub(super) fn proxy_header(&mut self, data: &mut [u8]) -> Next {
        match self.conn.stash.take() {
            None => self.proxy_header_in(data),
            Some(mut stash) => {
                stash.bytes.extend_from_slice(data);
                self.proxy_header_in(&mut stash.bytes)
            }
        }
    }

    fn proxy_header_in(&mut self, data: &mut [u8]) -> Next {
        let (source, len) = match proxy::parse(data) {
            Ok(Some(read)) => read,
            Ok(None) => {
                self.conn.stash = Some(Box::new(Stash { bytes: data.to_vec(), ..Stash::default() }));
                return Next::Go;
            }
            Err(_) => {
                self.cx.hub.counters.refused.add(RefusalReason::Proxy, 1);
                log::refused(self.cx.hub, self.conn.peer.into(), RefusalReason::Proxy, None);
                return Next::Flush;
            }
        };
        self.conn.awaits_proxy = false;
        self.conn.relayed = true;
        if let Source::Client(address) = source {
            self.conn.peer = Some(address).into();
        }
        // Behind a proxy that is trusted there may be another one, whose clients are told by their requests.
        let ip = self.conn.peer.ip();
        if !self.cx.settings.trusted_proxies.trust(ip) {
            self.conn.counted = true;
            if !self.cx.admission.arrive(ip) {
                self.cx.hub.counters.refused.add(RefusalReason::Address, 1);
                log::refused(self.cx.hub, self.conn.peer.into(), RefusalReason::Address, Some(429));
                if self.cx.wires.has_line(self.cx.slot) {
                    return Next::Flush;
                }
                let message = "too many connections from this address";
                let reply = Reply::error(StatusCode::TOO_MANY_REQUESTS, message).with_retry_after();
                self.queue_reply(&reply, Then::Close, &data[len..]);
                return Next::Refuse;
            }
        }
        match &mut data[len..] {
            [] => Next::Go,
            rest if self.cx.wires.has_line(self.cx.slot) => {
                self.conn.begins_tls = true;
                self.conn.stash = Some(Box::new(Stash { bytes: rest.to_vec(), ..Stash::default() }));
                Next::Go
            }
            rest => self.requests_in(rest, 0),
        }
    }
}
