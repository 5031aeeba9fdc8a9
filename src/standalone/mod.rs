//! The routes of the stand-alone program, written with the public API alone.
//!
//! Knows of this crate: `app`, `backplane`, `config`, `error`, `hub`, `mail`, `message`, `metrics`, `quote`, `server`.

mod api;
mod console;
mod events;
mod notify;
mod publish;
mod rooms;

use std::io::Write;

use http::StatusCode;
use serde_json::json;

use crate::app::error_http::HttpError;
use crate::app::request::Request;
use crate::app::response::Response;
use crate::app::socket::Socket;
use crate::app::ws::{Ws, ws};
use crate::app::{App, Core, Group};
use crate::config::{Config, History};
use crate::error::Result;
use crate::message::Message;
use crate::metrics::CONTENT_TYPE;
use crate::server::listen::BoundAddress;
use crate::server::{Handle, Server};
use notify::ServiceManager;

/// Serves the stand-alone program's routes until a signal ends it; the first line on standard output says where, and a service
/// manager that asks for it (`NOTIFY_SOCKET`) is told of the start and of the end.
/// `release_memory` is for the allocator: see [`Server::release_memory_with`].
///
/// # Errors
/// If the server cannot be started, or a core fails.
pub fn run(config: Config, release_memory: fn()) -> Result<()> {
    let settings = config.clone();
    let manager = ServiceManager::of_this_process();
    let started = manager.clone();
    Server::new(config)
        .release_memory_with(release_memory)
        .on_start(move |handle| {
            let where_it_is = announce(handle);
            started.ready(&where_it_is);
        })
        .run(move || told_of_its_end(app(&settings), &settings, &manager))
}

/// An app whose shutdown a service manager hears of.
fn told_of_its_end(app: App, config: &Config, manager: &ServiceManager) -> App {
    if !manager.wants_to_know() {
        return app;
    }
    let (manager, time) = (manager.clone(), config.drain_notice.saturating_add(config.drain_timeout));
    app.on_shutdown(async move |core: Core| {
        if core.number() == 0 {
            manager.stopping(time);
        }
    })
}

/// Starts the stand-alone program's routes and returns once they accept connections.
///
/// # Errors
/// If the server cannot be started.
pub fn start(config: Config) -> Result<Handle> {
    let settings = config.clone();
    Server::new(config).start(move || app(&settings))
}

/// Says on standard output where it listens, and returns it.
fn announce(handle: &Handle) -> String {
    let cores = handle.cores();
    let addresses: Vec<String> = handle.addresses().iter().map(ToString::to_string).collect();
    let mut out = std::io::stdout().lock();
    let admin: Vec<String> = handle.admin_addresses().iter().map(BoundAddress::to_http).collect();
    let admin = if admin.is_empty() { String::new() } else { format!(", admin on {}", admin.join(", ")) };
    let node = handle.hub().node_name().map(|name| format!(", node {name}")).unwrap_or_default();
    let where_it_is = format!("listening on {} ({cores} cores){admin}{node}", addresses.join(", "));
    // Nobody may be reading: the server serves all the same.
    let _ = writeln!(out, "ringwire {where_it_is}");
    let _ = out.flush();
    where_it_is
}

/// The stand-alone program as an app, made once on each core.
pub fn app(config: &Config) -> App {
    App::new()
        .group("/", |group| load_routes(group.before(take_first_protocol)))
        .group(events::PATH, |group| group.before(take_first_protocol).ws("/", events::route()))
        .group("/", |group| health_routes(group.admin()))
        .group("/metrics", |group| group.admin().before(api::guard(config)).get("/", metrics))
        .group("/api", |group| api::routes(api::for_pages(group.admin(), config).before(api::guard_api(config))))
        .get("/", console::page)
        .tell_lost(events::lost)
}

/// The routes mean nothing by a subprotocol, and there are clients that fail without one that they offer (RFC 6455 4.1): their
/// favourite will do.
fn take_first_protocol(request: &mut Request) -> Result<(), HttpError> {
    // RFC 6455 4.1: a token. What is none is not said back.
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    let first = request.protocols().next().filter(|first| first.bytes().all(is_token)).map(str::to_owned);
    first.map_or(Ok(()), |first| request.accept_protocol(&first))
}

/// The routes that load tests use. They forget their requests: an idle connection should cost next to nothing.
fn load_routes(group: Group) -> Group {
    group
        .ws(
            "/echo",
            ws().forget_request().on_message(|socket: &mut Socket<'_>, message: Message<'_>| socket.send(message)),
        )
        .ws("/broadcast", room_route(|_| BROADCAST.to_owned()))
        .group("/rooms", |rooms| {
            rooms
                .before(|request| rooms::check(request.param("room")).map_err(HttpError::bad_request))
                .ws("/{room}", room_route(|socket| room_name(socket.param("room"))))
        })
}

/// The rooms of a route are not those of `/ws`, nor the one of `/broadcast`.
fn room_name(room: &str) -> String {
    format!("{ROOM_PREFIX}{room}")
}

const ROOM_PREFIX: &str = "rooms/";
const BROADCAST: &str = "broadcast";

/// Every message to all members of the room that a connection joins when it opens, the sender included.
fn room_route(room: impl Fn(&Socket<'_>) -> String + 'static) -> Ws {
    ws().forget_request()
        // Nobody asks for one.
        .history(History::off().of_rooms(ROOM_PREFIX))
        .history(History::off().of_rooms(BROADCAST))
        // What clients may call a room does not depend on what it is called here.
        .max_room_name(rooms::NAME_BYTES_MAX + ROOM_PREFIX.len())
        .on_connect(move |socket| {
            let room = room(socket);
            socket.join(room)
        })
        .on_message(|socket, message| socket.to_own_room(message))
}

fn health_routes(group: Group) -> Group {
    group.get("/healthz", async |_| ok()).get("/readyz", async |request: Request| {
        if request.hub().is_draining() {
            (StatusCode::SERVICE_UNAVAILABLE, json!({"status": "draining"}))
        } else if request.hub().is_out_of_memory() {
            (StatusCode::SERVICE_UNAVAILABLE, json!({"status": "out of memory"}))
        } else if request.hub().lacks_others() {
            (StatusCode::SERVICE_UNAVAILABLE, json!({"status": "NATS is away"}))
        } else {
            (StatusCode::OK, ok())
        }
    })
}

async fn metrics(request: Request) -> Response {
    Response::bytes(CONTENT_TYPE, request.hub().metrics().await.to_prometheus())
}

fn ok() -> serde_json::Value {
    json!({"status": "ok"})
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::Value;

    use super::*;

    /// Kills: a route that is added, or taken away, and not described.
    #[test]
    fn every_route_of_http_is_described() {
        let router = app(&Config::default()).into_parts().router;
        let mut routes: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for endpoint in router.endpoints.iter().filter(|endpoint| &*endpoint.path != "/") {
            let methods =
                endpoint.methods.iter().filter_map(|(method, ..)| Some(method.as_ref()?.as_str().to_lowercase()));
            let mut methods: Vec<String> = methods.collect();
            methods.sort();
            if !methods.is_empty() {
                routes.insert(endpoint.path.to_string(), methods);
            }
        }
        let described: Value = serde_json::from_str(api::OPENAPI).expect("JSON");
        assert_eq!(described["info"]["version"], env!("CARGO_PKG_VERSION"));
        let paths = described["paths"].as_object().expect("paths");
        let is_method = |key: &&String| key.as_str() != "parameters";
        let paths: BTreeMap<String, Vec<String>> = paths
            .iter()
            .map(|(path, item)| {
                let mut methods: Vec<String> =
                    item.as_object().expect("methods").keys().filter(is_method).cloned().collect();
                methods.sort();
                (path.clone(), methods)
            })
            .collect();
        assert_eq!(paths, routes);
    }

    /// Whatever a description refers to is there, and each parameter of a path is named.
    #[test]
    fn the_description_holds_together() {
        fn references(value: &Value, found: &mut Vec<String>) {
            match value {
                Value::Object(fields) => {
                    found.extend(fields.get("$ref").and_then(Value::as_str).map(str::to_owned));
                    fields.values().for_each(|value| references(value, found));
                }
                Value::Array(items) => items.iter().for_each(|value| references(value, found)),
                _ => {}
            }
        }
        let described: Value = serde_json::from_str(api::OPENAPI).expect("JSON");
        let mut found = Vec::new();
        references(&described, &mut found);
        assert!(found.len() > 50);
        for reference in found {
            let pointer = reference.strip_prefix('#').expect("within the file");
            assert!(described.pointer(pointer).is_some(), "{reference}");
        }
        for (path, item) in described["paths"].as_object().expect("paths") {
            let named: Vec<&str> = path.split('{').skip(1).filter_map(|rest| rest.split('}').next()).collect();
            let said: Vec<&str> = item["parameters"].as_array().map_or(Vec::new(), |list| {
                let resolve = |it: &Value| described.pointer(&it["$ref"].as_str()?[1..]);
                list.iter().filter_map(|it| resolve(it)?["name"].as_str()).collect()
            });
            assert_eq!(named, said, "{path}");
        }
    }
}
