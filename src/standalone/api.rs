//! `/api/*`: messages into the event sockets, and a look at all connections, for programs that speak HTTP.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue, ORIGIN, WWW_AUTHENTICATE};
use http::uri::Authority;
use http::{HeaderMap, StatusCode};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::publish::{is_uncompressed, publish};
use super::{events, rooms};
use crate::app::error_http::HttpError;
use crate::app::request::Request;
use crate::app::response::Response;
use crate::app::{Cors, Group};
use crate::backplane::NodeInfo;
use crate::config::{ApiToken, Config, Origins};
use crate::hub::ConnectionId;
use crate::hub::{ConnectionInfo, Delivery, RoomInfo};
use crate::mail::MailError;
use crate::message::Json;
use crate::message::RawJson;
use crate::message::json::check_passed_on;
use crate::message::json::object;

/// Connections in one answer, unless the request says otherwise.
const PAGE_LEN_DEFAULT: usize = 1_000;
/// Connections in one answer, whatever the request says: a core looks at all of its own for it.
const PAGE_LEN_MAX: usize = 10_000;
/// Rooms in one answer, unless the request says otherwise, and whatever it says.
const ROOMS_LEN_DEFAULT: usize = 100;
const ROOMS_LEN_MAX: usize = 1_000;
/// Machines in one answer.
const NODES_LEN_MAX: usize = 1_000;

/// Why somebody was disconnected through the API.
const REASON: &str = "Admin action";

/// All of this, for programs that read such descriptions.
pub(super) const OPENAPI: &str = include_str!("openapi.json");

/// How long a browser may go by what it was told of pages of other origins.
const PAGES_MAY_GO_BY_THIS: Duration = Duration::from_secs(600);

const USER_GONE: &str = "User not connected";
const CONNECTION_GONE: &str = "Connection not found";

pub(super) fn routes(group: Group) -> Group {
    group
        .post("/broadcast", broadcast)
        .get("/nodes", nodes)
        .get("/openapi.json", async |_| Response::bytes("application/json", OPENAPI))
        .post("/publish", publish)
        .post("/message/{id}", message)
        .get("/rooms", list_rooms)
        .post("/rooms/{room}", room)
        .delete("/rooms/{room}", close_room)
        .get("/ws/connections", connections)
        .delete("/ws/connections/{id}", disconnect)
        .get("/ws/connections/{id}/data", data)
        .put("/ws/connections/{id}/data", set_data)
}

// ---- who may ask --------------------------------------------------------------------------------------------------

/// Lets in who shows the token, if one is set, and otherwise only this machine.
pub(super) fn guard(config: &Config) -> impl Fn(&mut Request) -> Result<(), HttpError> + 'static {
    check(config.api_token.clone(), None)
}

/// As [`guard`], for what pages of other origins may use, if the settings say so.
pub(super) fn guard_api(config: &Config) -> impl Fn(&mut Request) -> Result<(), HttpError> + 'static {
    check(config.api_token.clone(), config.api_origins.clone())
}

fn check(
    token: Option<ApiToken>,
    origins: Option<Origins>,
) -> impl Fn(&mut Request) -> Result<(), HttpError> + 'static {
    move |request| match &token {
        Some(token) => check_token(token, request.headers()),
        None => check_local(request, origins.as_ref()),
    }
}

/// Lets pages of the origins that the settings name read what is answered.
pub(super) fn for_pages(group: Group, config: &Config) -> Group {
    match &config.api_origins {
        Some(origins) => {
            group.cors(Cors::of(origins.clone()).headers([AUTHORIZATION, CONTENT_TYPE]).max_age(PAGES_MAY_GO_BY_THIS))
        }
        None => group,
    }
}

fn check_token(token: &ApiToken, headers: &HeaderMap) -> Result<(), HttpError> {
    let refused = |message: &'static str, challenge: &'static str| {
        Err(HttpError::unauthorized(message).with_header(WWW_AUTHENTICATE, HeaderValue::from_static(challenge)))
    };
    let shown = headers.get(AUTHORIZATION).and_then(|value| {
        let (scheme, token) = value.as_bytes().split_at_checked("Bearer ".len())?;
        // RFC 9110 11.1: the scheme's name is in any case.
        scheme.eq_ignore_ascii_case(b"Bearer ").then_some(token)
    });
    match shown {
        Some(shown) if token.is(shown.trim_ascii()) => Ok(()),
        // RFC 6750 3: an error code only where a token was shown.
        Some(_) => refused("wrong token", r#"Bearer realm="ringwire", error="invalid_token""#),
        None => refused("a bearer token is needed", r#"Bearer realm="ringwire""#),
    }
}

/// Only programs of this machine, by its loopback addresses or a Unix socket: not who is behind a proxy that runs here,
/// and not a browser on behalf of another site's page.
///
/// A proxy need not say that it is one: what passes on the host that it was asked for is told by that host's name, and the
/// rest cannot be told at all.
fn check_local(request: &Request, origins: Option<&Origins>) -> Result<(), HttpError> {
    let is_local = request.peer().is_none_or(|peer: SocketAddr| peer.ip().to_canonical().is_loopback());
    let headers = request.headers();
    let is_invited = || {
        let origin = headers.get(ORIGIN).and_then(|origin| origin.to_str().ok());
        origin.is_some() && origins.is_some_and(|origins| origins.allow(origin))
    };
    let is_relayed = request.is_relayed() || is_forwarded(headers);
    if is_local && !is_relayed && is_for_no_name(headers) && (is_same_origin(headers) || is_invited()) {
        Ok(())
    } else {
        Err(HttpError::forbidden("only for this machine and by its address, unless RINGWIRE_API_TOKEN is set"))
    }
}

/// How the names of fields begin with which proxies and content delivery networks say for whom they ask, or that they do.
const PROXY_FIELDS: [&str; 19] = [
    "forwarded",
    "x-forwarded",
    "via",
    "cdn-loop",
    "cf-",
    "client-ip",
    "do-connecting-ip",
    "fastly-",
    "fly-",
    "true-client-ip",
    "x-amzn-",
    "x-appengine-",
    "x-azure-",
    "x-client-ip",
    "x-cluster-client-ip",
    "x-envoy-",
    "x-original-",
    "x-real-ip",
    "x-vercel-",
];

/// Whether a proxy has said that it is one.
fn is_forwarded(headers: &HeaderMap) -> bool {
    // The names in the map are in lower case.
    headers.keys().any(|name| {
        let name = name.as_str();
        // Most differ in the first letter.
        PROXY_FIELDS.iter().any(|start| start.as_bytes()[0] == name.as_bytes()[0] && name.starts_with(start))
    })
}

/// Whether the request is for an address or `localhost`. A name that is not this machine's own may be anybody's who lets it
/// point here, and then his pages are of the same origin (DNS rebinding); and it is what a proxy passes on.
fn is_for_no_name(headers: &HeaderMap) -> bool {
    // HTTP/1.0 has requests without a host, and browsers have none.
    let Some(host) = headers.get(HOST) else { return true };
    let Some(authority) = host.to_str().ok().and_then(|text| Authority::from_str(text).ok()) else { return false };
    let host = authority.host();
    match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(v6) => v6.parse::<Ipv6Addr>().is_ok(),
        None => host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok(),
    }
}

/// Whether the request is no browser's, or of a page of this server, or of whoever sits before the browser.
fn is_same_origin(headers: &HeaderMap) -> bool {
    // Of a GET for an image or a script there is no Origin, but this (Fetch Metadata). A page of the same site is one of
    // another port, as any program of this machine may show.
    if headers.get_all("sec-fetch-site").iter().any(|site| site != "same-origin" && site != "none") {
        return false;
    }
    let Some(origin) = headers.get(ORIGIN) else { return true };
    let authority = |value: &HeaderValue, prefixes: &[&str]| {
        let text = value.to_str().ok()?;
        let rest = prefixes.iter().find_map(|prefix| text.strip_prefix(prefix))?;
        Authority::from_str(rest).ok()
    };
    let asked = headers.get(HOST).and_then(|host| authority(host, &[""]));
    asked.is_some() && authority(origin, &["http://", "https://"]) == asked
}

// ---- messages -----------------------------------------------------------------------------------------------------

/// An event for many; Arcade's form has only a message.
#[derive(Deserialize)]
struct Outgoing<'b> {
    event: Option<String>,
    #[serde(borrow)]
    data: Option<&'b RawValue>,
    #[serde(borrow, default, deserialize_with = "some")]
    message: Option<&'b RawValue>,
}

/// A `null` is a message too.
fn some<'b, D: Deserializer<'b>>(deserializer: D) -> Result<Option<&'b RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

impl<'b> Outgoing<'b> {
    fn read(request: &'b Request) -> Result<Outgoing<'b>, HttpError> {
        let outgoing: Outgoing<'_> = object(request.body()).map_err(HttpError::invalid_json)?;
        for passed_on in [outgoing.data, outgoing.message].into_iter().flatten() {
            check_passed_on(passed_on).map_err(HttpError::invalid_json)?;
        }
        Ok(outgoing)
    }
}

async fn broadcast(request: Request) -> Result<Value, HttpError> {
    let outgoing = Outgoing::read(&request)?;
    let to = request.hub().to_route(events::PATH).marked(is_uncompressed(&request)?);
    let delivering = match (outgoing.event, outgoing.message) {
        (Some(event), _) => to.emit(&event, &outgoing.data)?,
        (None, Some(message)) => {
            let data = Broadcast { message, timestamp: events::now() };
            to.emit("broadcast", &data)?
        }
        (None, None) => return Err(HttpError::bad_request("an event, or a message, is missing")),
    };
    sent_to(delivering.await)
}

#[derive(Serialize)]
struct Broadcast<'b> {
    message: &'b RawValue,
    timestamp: String,
}

async fn room(request: Request) -> Result<Value, HttpError> {
    let outgoing = Outgoing::read(&request)?;
    let event = outgoing.event.ok_or(HttpError::bad_request("the event is missing"))?;
    rooms::check(request.param("room")).map_err(HttpError::bad_request)?;
    let room = events::room_name(request.param("room"));
    let to = request.hub().to(&room).marked(is_uncompressed(&request)?);
    sent_to(to.emit(&event, &outgoing.data)?.await)
}

/// Of the rooms of the event sockets; the load routes' are nobody's concern.
#[derive(Serialize)]
struct Rooms {
    rooms: Vec<RoomEntry>,
    /// What the next part comes after, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

#[derive(Serialize)]
struct RoomEntry {
    room: String,
    members: usize,
}

async fn list_rooms(request: Request) -> Result<Json<Rooms>, HttpError> {
    let limit = number(&request, "limit")?.unwrap_or(ROOMS_LEN_DEFAULT).min(ROOMS_LEN_MAX);
    let after = request.query("after").unwrap_or_default();
    // One more, to know whether there is one.
    let page = request.hub().rooms_page(&events::room_name(""), &events::room_name(&after), limit + 1).await?;
    let entry = |room: RoomInfo| RoomEntry { room: events::shown_room(&room.name).to_owned(), members: room.members };
    let has_more = page.len() > limit;
    let rooms: Vec<RoomEntry> = page.into_iter().take(limit).map(entry).collect();
    let next = rooms.last().filter(|_| has_more).map(|last| last.room.clone());
    Ok(Json(Rooms { rooms, next }))
}

#[derive(Serialize)]
struct NodeEntry {
    node: String,
    number: String,
    #[serde(rename = "self")]
    is_self: bool,
    connections: u64,
    rooms: usize,
    uptime_ms: u64,
    heard_ms: u64,
}

#[derive(Serialize)]
struct Nodes {
    nodes: Vec<NodeEntry>,
}

/// The machines that are joined, this one first, as it knows of them; none where there is only this one.
async fn nodes(request: Request) -> Json<Nodes> {
    let hub = request.hub();
    let own = hub.own_node();
    let others = if own.is_some() { hub.nodes() } else { Vec::new() };
    let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
    let mut nodes: Vec<NodeEntry> = others.into_iter().map(|node| node_entry(node, now_ms, false)).collect();
    nodes.sort_by(|one, other| one.node.cmp(&other.node));
    nodes.truncate(NODES_LEN_MAX);
    nodes.splice(..0, own.map(|node| node_entry(node, now_ms, true)));
    Json(Nodes { nodes })
}

fn node_entry(node: NodeInfo, now_ms: u64, is_self: bool) -> NodeEntry {
    NodeEntry {
        node: node.name,
        number: format!("{:06x}", node.number),
        is_self,
        connections: node.connections,
        rooms: node.rooms,
        uptime_ms: now_ms.saturating_sub(node.started_unix_ms),
        heard_ms: u64::try_from(node.heard_ago.as_millis()).unwrap_or(u64::MAX),
    }
}

async fn close_room(request: Request) -> Result<Value, HttpError> {
    rooms::check(request.param("room")).map_err(HttpError::bad_request)?;
    let room = events::room_name(request.param("room"));
    let hub = request.hub();
    // Both go the same way, so the event is queued before the Close frame.
    drop(hub.emit_to_room(&room, "disconnect", &json!({ "reason": REASON }))?);
    let closing = hub.close_room(&room, 1008, REASON).expect("the code may be sent").await;
    match closing {
        Delivery { refused: 0, unreachable: 0, queued, .. } => Ok(json!({ "disconnected": queued })),
        Delivery { queued, .. } => Err(HttpError::unavailable(format!("busy: it reached {queued} and not all"))),
    }
}

fn sent_to(delivery: Delivery) -> Result<Value, HttpError> {
    match delivery {
        Delivery { refused: 0, unreachable: 0, queued, elsewhere, .. } => {
            Ok(json!({ "sent": true, "recipients": queued + elsewhere }))
        }
        Delivery { queued, .. } => Err(HttpError::unavailable(format!("busy: it reached {queued} and not all"))),
    }
}

/// That a message was queued.
#[derive(Serialize)]
struct Sent {
    sent: bool,
}

async fn message(request: Request) -> Result<Json<Sent>, HttpError> {
    let is_uncompressed = is_uncompressed(&request)?;
    let id = id(&request, USER_GONE)?;
    let data: &RawValue = serde_json::from_slice(request.body()).map_err(HttpError::invalid_json)?;
    check_passed_on(data).map_err(HttpError::invalid_json)?;
    let sending = request.hub().emit_on_route(id, events::PATH, "private-message", data, is_uncompressed)?;
    let Some(delivery) = sending.await? else {
        let message = format!("the connection is on another route than {}: it takes no events", events::PATH);
        return Err(HttpError::new(StatusCode::CONFLICT, message));
    };
    match delivery {
        Delivery { queued: 1.., .. } => Ok(Json(Sent { sent: true })),
        Delivery { refused: 1.., .. } => Err(MailError::Full.into()),
        Delivery { unreachable: 1.., .. } => Err(MailError::Unreachable.into()),
        Delivery { dropped: 1.., .. } => Err(HttpError::unavailable("the user does not keep up")),
        _ => Err(HttpError::not_found(USER_GONE)),
    }
}

/// Whether a connection speaks events: on the other routes they would be messages like any other.
async fn has_events(request: &Request, id: ConnectionId, gone: &'static str) -> Result<bool, HttpError> {
    match request.hub().connection(id).outcome().await? {
        Some(connection) => Ok(&*connection.route == events::PATH),
        None => Err(HttpError::not_found(gone)),
    }
}

// ---- connections --------------------------------------------------------------------------------------------------

#[derive(Serialize)]
struct Listing {
    count: usize,
    connections: Vec<Entry>,
    /// Where the next part begins, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<usize>,
}

#[derive(Serialize)]
struct Entry {
    id: String,
    route: String,
    core: usize,
    peer: Option<SocketAddr>,
    connected_ms: u64,
    data: RawJson,
}

impl From<ConnectionInfo> for Entry {
    fn from(info: ConnectionInfo) -> Entry {
        let ConnectionInfo { id, route, core, peer, connected_ms, data } = info;
        Entry { id: id.to_string(), route: route.to_string(), core, peer, connected_ms, data }
    }
}

async fn connections(request: Request) -> Result<Json<Listing>, HttpError> {
    let offset = number(&request, "offset")?.unwrap_or(0);
    let limit = number(&request, "limit")?.unwrap_or(PAGE_LEN_DEFAULT).min(PAGE_LEN_MAX);
    let hub = request.hub();
    let count = hub.count().await?;
    let page = hub.connections_page(offset, limit).await?;
    let end = offset.saturating_add(page.len());
    let next = (!page.is_empty() && end < count).then_some(end);
    Ok(Json(Listing { count, connections: page.into_iter().map(Entry::from).collect(), next }))
}

async fn disconnect(request: Request) -> Result<Value, HttpError> {
    let id = id(&request, CONNECTION_GONE)?;
    let hub = request.hub();
    if has_events(&request, id, CONNECTION_GONE).await? {
        // Both go the same way, so the event is queued before the Close frame.
        drop(hub.emit_to(id, "disconnect", &json!({ "reason": REASON }))?);
    }
    let asked = hub.disconnect(id, 1008, REASON).expect("the code may be sent");
    found(asked.outcome().await?, json!({ "disconnected": true }))
}

async fn data(request: Request) -> Result<RawJson, HttpError> {
    let id = id(&request, CONNECTION_GONE)?;
    request.hub().raw_data(id).outcome().await?.ok_or(HttpError::not_found(CONNECTION_GONE))
}

async fn set_data(request: Request) -> Result<RawJson, HttpError> {
    let id = id(&request, CONNECTION_GONE)?;
    let data: RawJson = serde_json::from_slice(request.body()).map_err(HttpError::invalid_json)?;
    found(request.hub().set_data(id, data.clone()).outcome().await?, data)
}

/// The answer to a question to a connection: 404 if it has gone.
fn found<B>(is_found: bool, body: B) -> Result<B, HttpError> {
    if is_found { Ok(body) } else { Err(HttpError::not_found(CONNECTION_GONE)) }
}

// ---- requests -----------------------------------------------------------------------------------------------------

fn id(request: &Request, gone: &'static str) -> Result<ConnectionId, HttpError> {
    let id: Option<ConnectionId> = request.param("id").parse().ok();
    // An id that was made up may name a core that is not there.
    id.filter(|id| request.hub().may_have(*id)).ok_or(HttpError::not_found(gone))
}

fn number(request: &Request, name: &str) -> Result<Option<usize>, HttpError> {
    let bad = |_| HttpError::bad_request(format!("{name} is not a number"));
    request.query(name).map(|text| text.parse().map_err(bad)).transpose()
}
