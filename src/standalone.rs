//! The routes of the stand-alone program.

use std::io::Write;
use std::sync::Arc;

use http::StatusCode;

use crate::admission::Admission;
use crate::config::Config;
use crate::error::Result;
use crate::hub::{CoreHub, ROOM_NAME_BYTES_MAX, RoomId};
use crate::proto::Incoming;
use crate::server::{Handle, Server};
use crate::shard::{Answer, Ended, Request, Response, Service};

const ECHO: u16 = 0;
const BROADCAST: u16 = 1;
const ROOM: u16 = 2;

/// Serves the stand-alone program's routes until a signal ends it; the first line on standard output says where.
///
/// # Errors
/// If the server cannot be started, or a core fails.
pub fn run(config: Config) -> Result<()> {
    Server::new(config).run(Standalone::new, announce)
}

/// Starts the stand-alone program's routes and returns once they accept connections.
///
/// # Errors
/// If the server cannot be started.
pub fn start(config: Config) -> Result<Handle> {
    Server::new(config).start(Standalone::new)
}

fn announce(handle: &Handle) {
    let cores = handle.cores();
    let addresses: Vec<String> = handle.addresses().iter().map(ToString::to_string).collect();
    let mut out = std::io::stdout().lock();
    // Nobody may be reading: the server serves all the same.
    let _ = writeln!(out, "ringwire listening on {} ({cores} cores)", addresses.join(", "));
    let _ = out.flush();
}

/// One core's part of it.
#[doc(hidden)]
pub struct Standalone {
    admission: Arc<Admission>,
    everybody: RoomId,
    /// The room of the connection that is being opened.
    opening_room: String,
}

impl Standalone {
    /// A core that has no connection yet.
    pub fn new(hub: &mut CoreHub, admission: Arc<Admission>) -> Standalone {
        let everybody = hub.room("broadcast");
        Standalone { admission, everybody, opening_room: String::new() }
    }

    fn route(&mut self, path: &str) -> Option<Answer> {
        let route = match path {
            "/echo" => ECHO,
            "/broadcast" => BROADCAST,
            "/healthz" => return Some(Answer::Response(Response::json(StatusCode::OK, r#"{"status":"ok"}"#))),
            "/readyz" => return Some(Answer::Response(self.readiness())),
            _ => {
                let room = path.strip_prefix("/rooms/")?;
                if room.is_empty() || room.contains('/') || room.len() > ROOM_NAME_BYTES_MAX - "rooms/".len() {
                    return None;
                }
                self.opening_room = format!("rooms/{room}");
                ROOM
            }
        };
        Some(Answer::WebSocket { route })
    }

    fn readiness(&self) -> Response {
        if self.admission.is_draining() {
            Response::json(StatusCode::SERVICE_UNAVAILABLE, r#"{"status":"draining"}"#)
        } else {
            Response::json(StatusCode::OK, r#"{"status":"ok"}"#)
        }
    }
}

impl Service for Standalone {
    fn request(&mut self, _hub: &mut CoreHub, request: &Request<'_, '_>) -> Answer {
        let Some(answer) = self.route(request.head.path()) else {
            return Answer::Response(Response::error(StatusCode::NOT_FOUND, "no such route"));
        };
        match answer {
            Answer::Response(_) if !matches!(request.head.method(), "GET" | "HEAD") => {
                let response = Response::error(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD");
                Answer::Response(response.with_header("allow", "GET, HEAD"))
            }
            answer => answer,
        }
    }

    fn open(&mut self, hub: &mut CoreHub, slot: u32) {
        let joined = match hub.route(slot) {
            BROADCAST => hub.join(slot, "broadcast"),
            ROOM => hub.join(slot, &self.opening_room),
            _ => return,
        };
        debug_assert!(joined.is_ok(), "a new connection can join its first room");
    }

    #[inline]
    fn message(&mut self, hub: &mut CoreHub, slot: u32, message: Incoming<'_>) {
        match hub.route(slot) {
            BROADCAST => {
                hub.publish_incoming(self.everybody, message, None);
            }
            ROOM => {
                if let Some(room) = hub.first_room(slot) {
                    hub.publish_incoming(room, message, None);
                }
            }
            _ => {
                hub.send_incoming(slot, message);
            }
        }
    }

    fn close(&mut self, hub: &mut CoreHub, slot: u32, ended: &Ended) {
        tracing::debug!(id = %hub.id(slot), code = ended.code, reason = %ended.reason, clean = ended.clean, "closed");
    }
}
