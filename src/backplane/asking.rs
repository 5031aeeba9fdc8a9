//! What a node may be asked by another, and what it answers: plain data.

use bytes::Bytes;

use super::bytes::{Reader, Writer};
use crate::hub::{ConnectionId, ConnectionInfo, Delivery, JoinError};
use crate::message::RawJson;
use crate::outbox::{FrameBuf, Key};

/// A question, most of them about one connection of the node that is asked.
#[derive(Clone, Debug)]
pub enum Ask {
    /// Send it a message.
    Emit {
        /// To whom.
        id: ConnectionId,
        /// What.
        frame: FrameBuf,
        /// Its key.
        key: Option<Key>,
    },
    /// Close it.
    Close {
        /// Which.
        id: ConnectionId,
        /// With which code.
        code: Option<u16>,
        /// And which reason.
        reason: String,
    },
    /// Send it a ping.
    Ping {
        /// To whom.
        id: ConnectionId,
        /// What is in it.
        payload: Bytes,
    },
    /// What its data is.
    Data(ConnectionId),
    /// Set its data.
    SetData {
        /// Whose.
        id: ConnectionId,
        /// What it is from now on.
        data: RawJson,
    },
    /// What is known of it.
    Info(ConnectionId),
    /// Have it join a room.
    Join {
        /// Who.
        id: ConnectionId,
        /// Which room.
        room: String,
    },
    /// Have it leave a room.
    Leave {
        /// Who.
        id: ConnectionId,
        /// Which room.
        room: String,
    },
    /// A part of the node's connections, or of a room's members there.
    Page {
        /// Which room.
        room: Option<String>,
        /// Where to go on, from the answer before; 0 at first.
        cursor: u64,
        /// How many to pass over.
        skip: u64,
        /// How many at most.
        limit: u64,
        /// Their ids alone.
        ids_only: bool,
    },
    /// How many connections there are on each route.
    Routes,
    /// Close the node's members of a room.
    CloseRoom {
        /// Which room.
        room: String,
        /// With which code.
        code: u16,
        /// And which reason.
        reason: String,
    },
}

/// What is answered.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// What became of a message or a ping.
    Delivery(Delivery),
    /// Whether the connection was there, or in the room.
    Found(bool),
    /// Its data, if it is there.
    Data(Option<RawJson>),
    /// What is known of it, if it is there.
    Info(Option<ConnectionInfo>),
    /// How many members the room has there.
    Joined(Result<usize, JoinError>),
    /// A part of the connections.
    Page {
        /// They.
        connections: Vec<ConnectionInfo>,
        /// Or their ids alone.
        ids: Vec<ConnectionId>,
        /// How many were passed over.
        passed: u64,
        /// Where to go on, if that is not all.
        next: Option<u64>,
    },
    /// By path.
    Routes(Vec<(String, u64)>),
    /// The core that could say it has no room in its mailbox.
    Busy,
}

impl Ask {
    /// What is answered by a node that is known to have ended.
    pub(super) fn gone(&self) -> Reply {
        match self {
            Ask::CloseRoom { .. } => Reply::Delivery(Delivery::default()),
            Ask::Emit { .. } | Ask::Ping { .. } => Reply::Delivery(Delivery { gone: 1, ..Delivery::default() }),
            Ask::Close { .. } | Ask::SetData { .. } | Ask::Leave { .. } => Reply::Found(false),
            Ask::Data(_) => Reply::Data(None),
            Ask::Info(_) => Reply::Info(None),
            Ask::Join { .. } => Reply::Joined(Err(JoinError::Gone)),
            Ask::Page { .. } => Reply::Page { connections: Vec::new(), ids: Vec::new(), passed: 0, next: None },
            Ask::Routes => Reply::Routes(Vec::new()),
        }
    }

    pub(super) fn write(&self, writer: &mut Writer) {
        match self {
            Ask::Emit { id, frame, key } => {
                writer.u8(0).id(*id);
                write_frame(writer, frame, *key);
            }
            Ask::Close { id, code, reason } => {
                writer.u8(1).id(*id).number(code.map_or(0, u64::from)).text(reason);
            }
            Ask::Ping { id, payload } => {
                writer.u8(2).id(*id).bytes(payload);
            }
            Ask::Data(id) => {
                writer.u8(3).id(*id);
            }
            Ask::SetData { id, data } => {
                writer.u8(4).id(*id).text(data.as_str());
            }
            Ask::Info(id) => {
                writer.u8(5).id(*id);
            }
            Ask::Join { id, room } => {
                writer.u8(6).id(*id).text(room);
            }
            Ask::Leave { id, room } => {
                writer.u8(7).id(*id).text(room);
            }
            Ask::Page { room, cursor, skip, limit, ids_only } => {
                writer.u8(8).u8(u8::from(room.is_some())).text(room.as_deref().unwrap_or_default());
                writer.number(*cursor).number(*skip).number(*limit).u8(u8::from(*ids_only));
            }
            Ask::Routes => {
                writer.u8(9);
            }
            Ask::CloseRoom { room, code, reason } => {
                writer.u8(10).text(room).number(u64::from(*code)).text(reason);
            }
        }
    }

    pub(super) fn read(reader: &mut Reader) -> Option<Ask> {
        Some(match reader.u8()? {
            0 => {
                let id = reader.id()?;
                let (frame, key) = read_frame(reader)?;
                Ask::Emit { id, frame, key }
            }
            1 => {
                let id = reader.id()?;
                let code = Some(u16::try_from(reader.number()?).ok()?).filter(|code| *code != 0);
                Ask::Close { id, code, reason: reader.text()? }
            }
            2 => Ask::Ping { id: reader.id()?, payload: reader.bytes().filter(|payload| payload.len() <= 125)? },
            3 => Ask::Data(reader.id()?),
            4 => Ask::SetData { id: reader.id()?, data: json(reader)? },
            5 => Ask::Info(reader.id()?),
            6 => Ask::Join { id: reader.id()?, room: reader.text()? },
            7 => Ask::Leave { id: reader.id()?, room: reader.text()? },
            8 => {
                let has_room = reader.u8()? == 1;
                let room = Some(reader.text()?).filter(|_| has_room);
                let (cursor, skip, limit) = (reader.number()?, reader.number()?, reader.number()?);
                Ask::Page { room, cursor, skip, limit, ids_only: reader.u8()? == 1 }
            }
            9 => Ask::Routes,
            10 => {
                let (room, code) = (reader.text()?, u16::try_from(reader.number()?).ok()?);
                Ask::CloseRoom { room, code, reason: reader.text()? }
            }
            _ => return None,
        })
    }
}

impl Reply {
    pub(super) fn write(&self, writer: &mut Writer) {
        match self {
            Reply::Delivery(delivery) => {
                writer.u8(0);
                for count in [delivery.queued, delivery.dropped, delivery.gone, delivery.refused] {
                    writer.number(u64::from(count));
                }
            }
            Reply::Found(found) => {
                writer.u8(1).u8(u8::from(*found));
            }
            Reply::Data(data) => {
                writer.u8(2).text(data.as_ref().map_or("", RawJson::as_str));
            }
            Reply::Info(info) => {
                writer.u8(3);
                info.iter().for_each(|info| write_info(writer, info));
            }
            Reply::Joined(joined) => {
                let (kind, number) = match joined {
                    Ok(members) => (0, *members),
                    Err(JoinError::Gone) => (1, 0),
                    Err(JoinError::TooManyRooms { max }) => (2, *max),
                    Err(JoinError::NameTooLong { max }) => (3, *max),
                };
                writer.u8(4).u8(kind).number(number as u64);
            }
            Reply::Page { connections, ids, passed, next } => {
                writer.u8(5).number(*passed).u8(u8::from(next.is_some())).number(next.unwrap_or(0));
                writer.number(ids.len() as u64);
                for id in ids {
                    writer.id(*id);
                }
                connections.iter().for_each(|info| write_info(writer, info));
            }
            Reply::Routes(routes) => {
                writer.u8(6);
                for (path, count) in routes {
                    writer.text(path).number(*count);
                }
            }
            Reply::Busy => {
                writer.u8(7);
            }
        }
    }

    pub(super) fn read(reader: &mut Reader) -> Option<Reply> {
        Some(match reader.u8()? {
            0 => {
                let mut delivery = Delivery { queued: reader.u32()?, ..Delivery::default() };
                delivery.dropped = reader.u32()?;
                delivery.gone = reader.u32()?;
                delivery.refused = reader.u32()?;
                Reply::Delivery(delivery)
            }
            1 => Reply::Found(reader.u8()? == 1),
            2 => {
                let text = reader.bytes()?;
                Reply::Data(match text.is_empty() {
                    true => None,
                    false => Some(serde_json::from_slice(&text).ok()?),
                })
            }
            3 if reader.is_empty() => Reply::Info(None),
            3 => Reply::Info(Some(read_info(reader)?)),
            4 => {
                let (kind, number) = (reader.u8()?, usize::try_from(reader.number()?).ok()?);
                Reply::Joined(match kind {
                    0 => Ok(number),
                    1 => Err(JoinError::Gone),
                    2 => Err(JoinError::TooManyRooms { max: number }),
                    _ => Err(JoinError::NameTooLong { max: number }),
                })
            }
            5 => {
                let (passed, has_next, next) = (reader.number()?, reader.u8()? == 1, reader.number()?);
                let count = reader.number()?;
                let ids = (0..count).map_while(|_| reader.id()).collect::<Vec<_>>();
                if ids.len() as u64 != count {
                    return None;
                }
                let mut connections = Vec::new();
                while !reader.is_empty() {
                    connections.push(read_info(reader)?);
                }
                Reply::Page { connections, ids, passed, next: Some(next).filter(|_| has_next) }
            }
            6 => {
                let mut routes = Vec::new();
                while !reader.is_empty() {
                    routes.push((reader.text()?, reader.number()?));
                }
                Reply::Routes(routes)
            }
            7 => Reply::Busy,
            _ => return None,
        })
    }
}

const HAS_KEY: u8 = 1;
const UNCOMPRESSED: u8 = 2;
const EVENT: u8 = 4;
const EPHEMERAL: u8 = 8;

pub(super) fn write_frame(writer: &mut Writer, frame: &FrameBuf, key: Option<Key>) {
    let flag = |is_set: bool, flag: u8| if is_set { flag } else { 0 };
    let flags = flag(key.is_some(), HAS_KEY) | flag(frame.is_uncompressed(), UNCOMPRESSED);
    writer.u8(flags | flag(frame.is_event(), EVENT) | flag(frame.is_ephemeral(), EPHEMERAL));
    if let Some(key) = key {
        writer.0.extend_from_slice(&key.to_bytes());
    }
    writer.bytes(frame.bytes());
}

/// A message of one frame, and nothing else: what comes from elsewhere is queued to sockets as it is.
pub(super) fn read_frame(reader: &mut Reader) -> Option<(FrameBuf, Option<Key>)> {
    let flags = reader.u8()?;
    let key = if flags & HAS_KEY != 0 { Some(Key::from_bytes(reader.array()?)?) } else { None };
    let frame = FrameBuf::from_encoded(reader.bytes()?).uncompressed(flags & UNCOMPRESSED != 0);
    let frame = frame.event(flags & EVENT != 0).ephemeral(flags & EPHEMERAL != 0);
    frame.is_message().then_some((frame, key))
}

fn json(reader: &mut Reader) -> Option<RawJson> {
    serde_json::from_slice(&reader.bytes()?).ok()
}

fn write_info(writer: &mut Writer, info: &ConnectionInfo) {
    let peer = info.peer.map(|peer| peer.to_string()).unwrap_or_default();
    writer.id(info.id).text(&info.route).number(info.core as u64).text(&peer);
    writer.number(info.connected_ms).text(info.data.as_str());
}

fn read_info(reader: &mut Reader) -> Option<ConnectionInfo> {
    Some(ConnectionInfo {
        id: reader.id()?,
        route: reader.text()?.into(),
        core: usize::try_from(reader.number()?).ok()?,
        peer: Some(reader.text()?).filter(|peer| !peer.is_empty()).map(|peer| peer.parse()).transpose().ok()?,
        connected_ms: reader.number()?,
        data: json(reader)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::frame::Opcode;

    fn id(number: u8) -> ConnectionId {
        ConnectionId::from_bytes([number; 16])
    }

    #[test]
    fn questions_come_back_and_what_is_cut_is_refused() {
        let frame = FrameBuf::new(Opcode::Text, b"hi").uncompressed(true);
        let asks = [
            Ask::Emit { id: id(1), frame, key: Some(Key::of(b"k")) },
            Ask::Close { id: id(2), code: Some(4000), reason: "why".into() },
            Ask::Close { id: id(2), code: None, reason: String::new() },
            Ask::Ping { id: id(3), payload: Bytes::from_static(b"p") },
            Ask::Data(id(4)),
            Ask::SetData { id: id(5), data: serde_json::from_str("[1.50]").expect("JSON") },
            Ask::Info(id(6)),
            Ask::Join { id: id(7), room: "a b".into() },
            Ask::Leave { id: id(8), room: String::new() },
            Ask::Page { room: Some(String::new()), cursor: 1 << 40, skip: 2, limit: 3, ids_only: true },
            Ask::Routes,
            Ask::CloseRoom { room: "a".into(), code: 4001, reason: "r".into() },
        ];
        for ask in asks {
            let mut writer = Writer::default();
            ask.write(&mut writer);
            let bytes = writer.into_bytes();
            let back = Ask::read(&mut Reader(bytes.clone())).expect("whole");
            assert_eq!(format!("{back:?}"), format!("{ask:?}"));
            for len in 0..bytes.len() {
                assert!(Ask::read(&mut Reader(bytes.slice(..len))).is_none(), "{ask:?} cut to {len}");
            }
        }
    }

    #[test]
    fn answers_come_back() {
        let info = ConnectionInfo {
            id: id(1),
            route: "/ws".into(),
            core: 3,
            peer: Some("[::1]:80".parse().expect("an address")),
            connected_ms: 12,
            data: serde_json::from_str(r#"{"a":1}"#).expect("JSON"),
        };
        let delivery = Delivery { queued: 1, dropped: 2, gone: 3, refused: 4, ..Delivery::default() };
        let replies = [
            Reply::Delivery(delivery),
            Reply::Found(true),
            Reply::Data(None),
            Reply::Data(Some(info.data.clone())),
            Reply::Info(None),
            Reply::Info(Some(info.clone())),
            Reply::Joined(Ok(7)),
            Reply::Joined(Err(JoinError::TooManyRooms { max: 9 })),
            Reply::Page { connections: vec![info.clone(), info], ids: vec![id(9)], passed: 4, next: Some(1 << 33) },
            Reply::Routes(vec![("/ws".into(), 3)]),
            Reply::Busy,
        ];
        for reply in replies {
            let mut writer = Writer::default();
            reply.write(&mut writer);
            assert_eq!(Reply::read(&mut Reader(writer.into_bytes())), Some(reply));
        }
    }

    #[test]
    fn what_is_no_message_is_not_queued_to_sockets() {
        let mut writer = Writer::default();
        for wrong in [&b"\x88\x00"[..], b"\x81\x05hi", b"", b"\x01\x02hi", b"\x81\x82\0\0\0\0hi", b"\x81\x02hi\x81\x00"] {
            writer.0.clear();
            writer.u8(0).bytes(wrong);
            assert_eq!(read_frame(&mut Reader(writer.0.clone().into())), None, "{wrong:?}");
        }
    }
}
