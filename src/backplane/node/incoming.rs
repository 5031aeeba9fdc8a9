//! What comes from the bus: whom it is from, what it means, and whether it has come before.

use std::sync::Arc;

use bytes::Bytes;

use super::super::asking::{Ask, Reply, read_frame};
use super::super::beat::Beat;
use super::super::bytes::Reader;
use super::super::subject::{Place, name};
use super::{Cores, Node, Output, ReplyTo, State, VERSION, kind};
use crate::hub::{ConnectionId, Publication, Scope};
use crate::outbox::FrameBuf;
use crate::proto::frame::Opcode;

/// Senders that are remembered.
const SENDERS_MAX: usize = 1024;

/// What an outsider says of a message, in its headers.
#[derive(Clone, Copy, Debug, Default)]
pub struct Manner {
    /// It is binary, even if it could be text.
    pub is_binary: bool,
    /// It is to be sent as it is, whatever compression was agreed.
    pub is_uncompressed: bool,
}

impl Node {
    /// A message has come; `reply` is where whoever has sent it waits, and `manner` what an outsider says of it.
    pub fn received(&mut self, subject: &str, payload: Bytes, reply: Option<String>, manner: Manner, now_ns: u64) {
        self.at(now_ns);
        let Some(place) = self.subjects.place(subject) else { return };
        let understood = match place {
            Place::InRoom(_) | Place::InId(_) | Place::InAll => self.read_outside(&place, &payload, reply, manner),
            _ => self.read_node(&place, payload),
        };
        if understood.is_none() {
            self.counts.malformed += 1;
        }
    }

    /// `None` if it makes no sense, here as below.
    fn read_outside(
        &mut self,
        place: &Place<'_>,
        payload: &Bytes,
        reply: Option<String>,
        manner: Manner,
    ) -> Option<()> {
        let frame = frame_of_outside(payload, manner);
        match place {
            Place::InId(id) => {
                let id: ConnectionId = id.parse().ok()?;
                if id.node() == self.identity.number {
                    self.counts.received += 1;
                    let to = reply.map_or(ReplyTo::Nobody, ReplyTo::Subject);
                    self.out.push_back(Output::Ask(to, Ask::Emit { id, frame, key: None }));
                }
            }
            Place::InRoom(room) => {
                let name = name(room)?;
                let Some((name, room)) = self.rooms.get_key_value(&*name) else { return Some(()) };
                let (scope, cores) = (Scope::Room(Arc::clone(name)), room.cores());
                self.deliver(scope, frame.into(), cores);
            }
            _ => self.deliver(Scope::Everyone, frame.into(), Cores::All),
        }
        Some(())
    }

    fn deliver(&mut self, scope: Scope, publication: Publication, cores: Cores) {
        self.counts.received += 1;
        self.out.push_back(Output::Deliver { scope, publication, cores });
    }

    fn read_node(&mut self, place: &Place<'_>, payload: Bytes) -> Option<()> {
        let mut reader = Reader(payload);
        if reader.u8()? != VERSION {
            return None;
        }
        let (node, kind) = (reader.u32()?, reader.u8()?);
        if node == self.identity.number {
            return Some(());
        }
        self.make_room_for(node);
        let sender = self.senders.entry(node).or_default();
        sender.heard_ns = self.now_ns;
        let kind = if kind == kind::PART {
            let (number, index, parts) = (reader.number()?, reader.number()?, reader.number()?);
            let bytes_max = self.identity.message_bytes_max;
            let Some(whole) = sender.parts.take(number, index, parts, &reader.0, bytes_max) else { return Some(()) };
            reader = Reader(whole);
            reader.u8()?
        } else {
            kind
        };
        match (place, kind) {
            (Place::Room(_) | Place::All | Place::Route, kind::BATCH) => self.batch(node, place, &mut reader),
            (Place::Beat, kind::BEAT) if self.state == State::Joined => {
                let beat = Beat::read(&mut reader)?;
                self.heard(node, beat);
                Some(())
            }
            (Place::Own("ask"), kind::ASK) => {
                let number = reader.number()?;
                let ask = Ask::read(&mut reader)?;
                if self.is_new(node, number) {
                    self.out.push_back(Output::Ask(ReplyTo::Node(node, number), ask));
                }
                Some(())
            }
            (Place::Own("reply"), kind::REPLY) => {
                let number = reader.number()?;
                let reply = Reply::read(&mut reader)?;
                if self.asks.get(&number).is_some_and(|pending| pending.node == node)
                    && let Some(pending) = self.asks.remove(&number)
                {
                    self.out.push_back(Output::Answer(pending.token, Some(reply)));
                }
                Some(())
            }
            (Place::Own("tell"), kind::TELL_ALL) => {
                self.tell_all = true;
                Some(())
            }
            (Place::Claim, kind::CLAIM) => {
                let started_ns = reader.number()?;
                self.contest(node, started_ns);
                Some(())
            }
            (Place::Own("taken"), kind::TAKEN) => {
                if !matches!(self.state, State::Apart { .. }) {
                    self.part();
                }
                Some(())
            }
            (Place::Beat, _) => Some(()),
            _ => None,
        }
    }

    /// Forgets a sender that is none of the nodes, if there are many.
    fn make_room_for(&mut self, node: u32) {
        if self.senders.len() >= SENDERS_MAX && !self.senders.contains_key(&node) {
            let strangers = self.senders.iter().filter(|(node, _)| self.peers.get(**node).is_none());
            let oldest = strangers.min_by_key(|(_, sender)| sender.heard_ns).map(|(node, _)| *node);
            oldest.map(|oldest| self.senders.remove(&oldest));
        }
    }

    fn is_new(&mut self, node: u32, number: u64) -> bool {
        let is_new = self.senders.entry(node).or_default().seen.take(number);
        self.counts.twice += u64::from(!is_new);
        is_new
    }

    fn batch(&mut self, node: u32, place: &Place<'_>, reader: &mut Reader) -> Option<()> {
        let room = match place {
            Place::Room(token) => {
                let name = name(token)?;
                let Some((name, room)) = self.rooms.get_key_value(&*name) else { return Some(()) };
                Some((Arc::clone(name), room.cores()))
            }
            _ => None,
        };
        while !reader.is_empty() {
            let number = reader.number()?;
            let except = if reader.u8()? == 1 { Some(reader.id()?) } else { None };
            let (scope, cores) = match (&room, place) {
                (Some((name, cores)), _) => (Scope::Room(Arc::clone(name)), cores.clone()),
                (None, Place::All) => (Scope::Everyone, Cores::All),
                (None, _) => (route(reader)?, Cores::All),
            };
            let (frame, key) = read_frame(reader)?;
            if self.is_new(node, number) {
                self.deliver(scope, Publication { frame, key, except, tally: None }, cores);
            }
        }
        Some(())
    }
}

/// The message that an outsider has published.
pub(in crate::backplane) fn frame_of_outside(payload: &[u8], manner: Manner) -> FrameBuf {
    let is_text = !manner.is_binary && str::from_utf8(payload).is_ok();
    let frame = FrameBuf::new(if is_text { Opcode::Text } else { Opcode::Binary }, payload);
    // As an app's envelopes begin.
    let is_event =
        is_text && [br#"{"event":"#.as_slice(), br#"{"path":"#].iter().any(|head| payload.starts_with(head));
    frame.event(is_event).uncompressed(manner.is_uncompressed)
}

fn route(reader: &mut Reader) -> Option<Scope> {
    let kind = reader.u8()?;
    let path = Arc::from(reader.text()?);
    Some(match kind {
        0 => Scope::Path(path),
        1 => Scope::RouteElsewhere { path, made_at: None },
        2 => {
            let made_at = (Arc::from(reader.text()?), reader.u32()?, reader.u32()?);
            Scope::RouteElsewhere { path, made_at: Some(made_at) }
        }
        _ => return None,
    })
}
