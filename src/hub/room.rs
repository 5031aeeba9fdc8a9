//! One room on one core.

use std::collections::VecDeque;
use std::sync::Arc;

use smallvec::SmallVec;

/// Names a room on this core, from [`CoreHub::room`](super::CoreHub::room) or a join.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RoomId(pub(super) u32);

/// What is known of a room.
///
/// ```
/// use ringwire::testing::TestServer;
/// use ringwire::{App, ws};
///
/// let route = || ws().on_connect(|socket| socket.join("lobby"));
/// let server = TestServer::new(move || App::new().ws("/", route()));
/// let _client = server.connect("/");
/// let rooms = server.block_on(server.hub().rooms_page("", "", 100)).unwrap();
/// assert_eq!((rooms[0].name.as_str(), rooms[0].members), ("lobby", 1));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RoomInfo {
    /// Its name.
    pub name: String,
    /// How many are in it, over all cores.
    pub members: usize,
}

/// The connection could not join the room.
///
/// ```
/// use ringwire::testing::TestServer;
/// use ringwire::{App, JoinError, ws};
///
/// let route = || {
///     ws().max_rooms(1).on_text(|socket, room| match socket.join(room) {
///         Ok(()) => "welcome".to_owned(),
///         Err(JoinError::TooManyRooms { max }) => format!("{max} room is enough"),
///         Err(other) => other.to_string(),
///     })
/// };
/// let server = TestServer::new(move || App::new().ws("/", route()));
/// let client = server.connect("/");
/// client.send("lobby");
/// client.expect_text("welcome");
/// client.send("attic");
/// client.expect_text("1 room is enough");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum JoinError {
    /// The connection is closing or has gone, or has left the room before all cores knew of its join.
    #[error("the connection is closing")]
    Gone,
    /// It is in as many rooms as it may be: [`Config::max_rooms`](crate::Config::max_rooms), or what its route says.
    #[error("the connection is in {max} rooms already, and may be in no more")]
    TooManyRooms {
        /// How many it may be in.
        max: usize,
    },
    /// The name is longer than 256 bytes, or than what the route says.
    #[error("a room's name has at most {max} bytes")]
    NameTooLong {
        /// How many it may have.
        max: usize,
    },
}

pub(super) struct Room {
    pub(super) name: Arc<str>,
    /// Who gets what is published.
    pub(super) members: Vec<u32>,
    /// Whose join is not known to all cores yet, each with its change's number, in their order: see [`super::changes`].
    pub(super) joining: VecDeque<(u64, u32)>,
    /// Members, and those that are joining, whose joins are changes.
    pub(super) changed_in: u32,
    pub(super) elsewhere: Elsewhere,
    /// What the other cores have been told of this one.
    pub(super) told: Told,
    /// And the bridge, in all.
    pub(super) told_abroad: u32,
    /// On the list of rooms to tell of.
    pub(super) is_news: bool,
    /// Kept although empty: somebody holds its id.
    pub(super) pinned: bool,
    /// What is published goes by way of its owner: see [`super::history`].
    pub(super) has_history: bool,
}

impl Room {
    pub(super) fn new(name: Arc<str>, has_history: bool) -> Room {
        Room {
            name,
            members: Vec::new(),
            joining: VecDeque::new(),
            changed_in: 0,
            elsewhere: Elsewhere::default(),
            told: Told::default(),
            told_abroad: 0,
            is_news: false,
            pinned: false,
            has_history,
        }
    }

    /// How many are in it here, those included whose join is not known to all yet.
    pub(super) fn count(&self) -> usize {
        self.members.len() + self.joining.len()
    }

    /// What the others are to know.
    pub(super) fn to_tell(&self) -> Told {
        Told { plain: self.count() as u32 - self.changed_in, changed_in: self.changed_in }
    }

    pub(super) fn is_unused(&self) -> bool {
        self.count() == 0 && self.elsewhere.is_empty() && !self.pinned && !self.is_news
    }
}

/// How many members a core has, by the way in which the others hear of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Told {
    /// By urgent letters.
    pub(super) plain: u32,
    /// By changes, in line with the messages.
    pub(super) changed_in: u32,
}

/// How many members other cores have; those that have none are left out.
#[derive(Debug, Default)]
pub(super) struct Elsewhere(SmallVec<[(u16, Told); 2]>);

impl Elsewhere {
    pub(super) fn set_plain(&mut self, core: usize, members: u32) {
        self.change(core, |told| told.plain = members);
    }

    pub(super) fn set_changed_in(&mut self, core: usize, members: u32) {
        self.change(core, |told| told.changed_in = members);
    }

    /// Whether there was something to forget.
    pub(super) fn forget(&mut self, core: usize) -> bool {
        let before = self.0.len();
        self.0.retain(|(of, _)| usize::from(*of) != core);
        self.0.len() < before
    }

    fn change(&mut self, core: usize, change: impl FnOnce(&mut Told)) {
        let place = self.0.iter().position(|(of, _)| usize::from(*of) == core).unwrap_or_else(|| {
            self.0.push((core as u16, Told::default()));
            self.0.len() - 1
        });
        change(&mut self.0[place].1);
        if self.0[place].1 == Told::default() {
            self.0.swap_remove(place);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn cores(&self) -> impl Iterator<Item = usize> + '_ {
        self.0.iter().map(|(core, _)| usize::from(*core))
    }

    /// How many one of them has.
    pub(super) fn of(&self, core: usize) -> usize {
        let told = self.0.iter().find(|(of, _)| usize::from(*of) == core);
        told.map_or(0, |(_, told)| told.plain as usize + told.changed_in as usize)
    }

    pub(super) fn members(&self) -> usize {
        self.0.iter().map(|(_, told)| told.plain as usize + told.changed_in as usize).sum()
    }
}

/// A connection's place among a room's members, and how it came there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place(u32);

impl Place {
    /// On the list of those that are joining.
    pub(super) const JOINING: Place = Place(u32::MAX);
    const CHANGED_IN: u32 = 1 << 31;

    pub(super) fn plain(index: usize) -> Place {
        debug_assert!(index < Place::CHANGED_IN as usize);
        Place(index as u32)
    }

    pub(super) fn changed_in(index: usize) -> Place {
        debug_assert!(index < (Place::JOINING.0 & !Place::CHANGED_IN) as usize);
        Place(index as u32 | Place::CHANGED_IN)
    }

    /// The same way to another place.
    pub(super) fn moved_to(self, index: usize) -> Place {
        if self.is_changed_in() { Place::changed_in(index) } else { Place::plain(index) }
    }

    pub(super) fn is_joining(self) -> bool {
        self == Place::JOINING
    }

    /// Whether the others hear of it by changes.
    pub(super) fn is_changed_in(self) -> bool {
        self.0 & Place::CHANGED_IN != 0
    }

    /// Among the members.
    pub(super) fn index(self) -> Option<usize> {
        (!self.is_joining()).then_some((self.0 & !Place::CHANGED_IN) as usize)
    }
}
