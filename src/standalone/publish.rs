//! `POST /api/publish`: many messages to many, in one request.
//!
//! All of it is checked before any of it is sent. Messages are sent in their order: whoever gets several of them gets them so.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{events, rooms};
use crate::app::error_http::HttpError;
use crate::app::request::Request;
use crate::hub::{ConnectionId, Delivery};
use crate::message::Json;
use crate::message::json::{check_passed_on, object};

/// Rooms, connections and broadcasts of one request, counted over its messages: each is looked for on its own.
pub(super) const TARGETS_MAX: usize = 1_000;

#[derive(Deserialize)]
struct Batch<'b> {
    #[serde(borrow)]
    messages: Vec<Entry<'b>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry<'b> {
    event: String,
    #[serde(borrow)]
    data: Option<&'b RawValue>,
    #[serde(default)]
    rooms: Vec<String>,
    #[serde(default)]
    ids: Vec<String>,
    /// All event sockets.
    #[serde(default)]
    all: bool,
    #[serde(default)]
    uncompressed: bool,
}

impl Entry<'_> {
    fn targets(&self) -> usize {
        self.rooms.len() + self.ids.len() + usize::from(self.all)
    }

    fn check(&self) -> Result<(), HttpError> {
        if self.targets() == 0 {
            return Err(HttpError::bad_request("a message has no target: rooms, ids or all"));
        }
        self.data.map_or(Ok(()), check_passed_on).map_err(HttpError::invalid_json)?;
        self.rooms.iter().try_for_each(|room| rooms::check(room)).map_err(HttpError::bad_request)
    }
}

/// What became of it all.
#[derive(Serialize)]
pub(super) struct Published {
    /// Whether every message was queued to everybody who was there.
    sent: bool,
    results: Vec<Outcome>,
}

/// What became of one message.
#[derive(Default, Serialize)]
struct Outcome {
    /// To how many it was queued; one that is meant twice gets it twice.
    recipients: u32,
    /// Ids of nobody who is there and takes events.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    gone: Vec<String>,
    /// How many could not be reached, because they or their core do not keep up.
    #[serde(skip_serializing_if = "is_zero")]
    missed: u32,
}

fn is_zero(count: &u32) -> bool {
    *count == 0
}

impl Outcome {
    fn add(&mut self, delivery: Delivery) {
        self.recipients += delivery.queued + delivery.elsewhere;
        self.missed += delivery.dropped + delivery.refused + delivery.unreachable;
    }
}

pub(super) async fn publish(request: Request) -> Result<Json<Published>, HttpError> {
    let is_uncompressed = is_uncompressed(&request)?;
    let batch: Batch<'_> = object(request.body()).map_err(HttpError::invalid_json)?;
    if batch.messages.iter().map(Entry::targets).sum::<usize>() > TARGETS_MAX {
        return Err(HttpError::bad_request(format!("the messages of one request have at most {TARGETS_MAX} targets")));
    }
    batch.messages.iter().try_for_each(Entry::check)?;
    let mut results: Vec<Outcome> = Vec::with_capacity(batch.messages.len());
    let mut found: Vec<Vec<ConnectionId>> = Vec::with_capacity(batch.messages.len());
    for entry in &batch.messages {
        let mut outcome = Outcome::default();
        let mut ids = Vec::with_capacity(entry.ids.len());
        for text in &entry.ids {
            match find(&request, text).await? {
                Some(id) => ids.push(id),
                None => outcome.gone.push(text.clone()),
            }
        }
        results.push(outcome);
        found.push(ids);
    }
    // Nothing is waited for in between, so nothing comes between them either.
    let hub = request.hub();
    let mut sending = Vec::new();
    for (number, (entry, ids)) in batch.messages.iter().zip(&found).enumerate() {
        let (event, data, is_marked) = (&entry.event, &entry.data, is_uncompressed || entry.uncompressed);
        for id in ids {
            sending.push((number, Some(*id), hub.to_connection(*id).marked(is_marked).emit(event, data)?));
        }
        for room in &entry.rooms {
            sending.push((number, None, hub.to(&events::room_name(room)).marked(is_marked).emit(event, data)?));
        }
        if entry.all {
            sending.push((number, None, hub.to_route(events::PATH).marked(is_marked).emit(event, data)?));
        }
    }
    for (number, id, delivering) in sending {
        let delivery = delivering.await;
        results[number].add(delivery);
        // It has gone since it was found.
        let gone = id.filter(|_| delivery.gone > 0);
        results[number].gone.extend(gone.map(|id| id.to_string()));
    }
    let sent = results.iter().all(|outcome| outcome.gone.is_empty() && outcome.missed == 0);
    Ok(Json(Published { sent, results }))
}

/// Whether what a request sends is to go out as it is, whatever compression was agreed: a secret beside text of others'.
pub(super) fn is_uncompressed(request: &Request) -> Result<bool, HttpError> {
    match request.query("uncompressed").as_deref() {
        None | Some("false") => Ok(false),
        Some("true") => Ok(true),
        Some(_) => Err(HttpError::bad_request("uncompressed is neither true nor false")),
    }
}

/// Who has this id and takes events.
async fn find(request: &Request, text: &str) -> Result<Option<ConnectionId>, HttpError> {
    let id: Option<ConnectionId> = text.parse().ok();
    let Some(id) = id.filter(|id| request.hub().may_have(*id)) else { return Ok(None) };
    let connection = request.hub().connection(id).outcome().await?;
    Ok(connection.filter(|connection| &*connection.route == events::PATH).map(|_| id))
}
