//! Rooms from any thread: who is in one, who is to be, and the end of one.

use std::sync::Arc;

use crate::hub::{ConnectionId, ConnectionInfo, CoreHub, JoinError, Order, Recovered, RoomInfo, Since, Tally};
use crate::mail::MailError;
use crate::proto::close::{self, IllegalCloseCode};
use crate::remote::Hub;
use crate::remote::answers::{Asking, Delivering, answered};

impl Hub {
    /// Has a connection join a room. The answer comes when every core knows of it, with the number of the room's members, as
    /// [`Socket::join_then`](crate::Socket::join_then) promises it: what is published after it reaches the member. None of the
    /// connection's messages is handled meanwhile.
    ///
    /// ```no_run
    /// # async fn invite(hub: &ringwire::Hub, id: ringwire::ConnectionId) {
    /// match hub.join(id, "lobby").await {
    ///     Some(Ok(members)) => println!("there are {members} in it"),
    ///     Some(Err(error)) => println!("not let in: {error}"),
    ///     None => println!("its core does not answer"),
    /// }
    /// # }
    /// ```
    pub fn join(&self, id: ConnectionId, room: &str) -> Asking<Result<usize, JoinError>> {
        let (answer, asking) = oneshot::channel();
        self.give_to(id, Order::Join { id, room: room.into(), answer });
        Asking(asking)
    }

    /// Has a connection leave a room. The answer comes when every core knows of it; it is false if the connection was not in
    /// the room, or has gone.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, ConnectionId, ws};
    ///
    /// let server = TestServer::new(|| App::new().ws("/", ws().on_connect(|socket| socket.id().to_string())));
    /// let client = server.connect("/");
    /// let id: ConnectionId = client.next_text().parse().unwrap();
    /// let hub = server.hub();
    /// assert_eq!(server.block_on(hub.join(id, "lobby")), Some(Ok(1)));
    /// assert_eq!(server.block_on(hub.leave(id, "lobby")), Some(true));
    /// assert_eq!(server.block_on(hub.leave(id, "lobby")), Some(false));
    /// ```
    pub fn leave(&self, id: ConnectionId, room: &str) -> Asking<bool> {
        let (answer, asking) = oneshot::channel();
        self.give_to(id, Order::Leave { id, room: room.into(), answer });
        Asking(asking)
    }

    /// What a room with a history has kept of its messages, and how many members it has: all of it, or the last so many, or
    /// what came behind a [`Position`](crate::Position).
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, History, ws};
    ///
    /// let server = TestServer::builder().cores(2).start(|| App::new().ws("/", ws().history(History::last(100))));
    /// let hub = server.hub();
    /// server.block_on(hub.send_to_room("lobby", "hello").unwrap());
    /// let recovered = server.block_on(hub.history("lobby", 10)).unwrap();
    /// let texts: Vec<_> = recovered.messages().filter_map(|(_, message)| message.as_text().map(str::to_owned)).collect();
    /// assert_eq!((texts, recovered.members), (vec!["hello".to_owned()], 0));
    /// ```
    pub fn history(&self, room: &str, since: impl Into<Since>) -> Asking<Recovered> {
        let (answer, asking) = oneshot::channel();
        self.give(self.owner(room), Order::History { room: room.into(), since: since.into(), answer }.into());
        Asking(asking)
    }

    /// Closes all members of a room, on all cores, each after what has been queued to it. The answer counts as queued those
    /// that are being closed by this, and as gone those that were closing already. Who joins later is not closed.
    ///
    /// ```
    /// use ringwire::{App, Request};
    ///
    /// App::new().delete("/rooms/{room}", async |request: Request| {
    ///     let closing = request.hub().close_room(request.param("room"), 4000, "the room is closed");
    ///     closing.expect("a legal code").await.queued.to_string()
    /// });
    /// ```
    ///
    /// # Errors
    /// If the code is not one that may be sent: 1000-1003, 1007-1014 and 3000-4999 may. Nothing happens then.
    pub fn close_room(&self, room: &str, code: u16, reason: &str) -> Result<Delivering, IllegalCloseCode> {
        let code = close::legal(code)?;
        Ok(self.close_room_on((0..self.cores()).chain(self.bridge_if_wanted()), room, code, reason))
    }

    /// On these cores, and other machines, if the bridge is one of them.
    pub(super) fn close_room_on(
        &self,
        cores: impl Iterator<Item = usize>,
        room: &str,
        code: u16,
        reason: &str,
    ) -> Delivering {
        let (room, reason): (Arc<str>, Arc<str>) = (room.into(), reason.into());
        let (tally, answer) = Tally::new();
        for core in cores {
            let (room, reason, tally) = (Arc::clone(&room), Arc::clone(&reason), Arc::clone(&tally));
            self.give(core, Order::CloseMembers { room, code, reason, tally }.into());
        }
        Delivering(answer)
    }

    /// The members of a room, core by core, which are asked for a part at a time: whoever is in it all the while is told, once.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, ConnectionId, ws};
    ///
    /// let server = TestServer::new(|| App::new().ws("/", ws().on_connect(|socket| socket.id().to_string())));
    /// let client = server.connect("/");
    /// let id: ConnectionId = client.next_text().parse().unwrap();
    /// server.block_on(server.hub().join(id, "lobby"));
    /// assert_eq!(server.block_on(server.hub().members("lobby")).unwrap(), [id]);
    /// assert_eq!(server.block_on(server.hub().members("attic")).unwrap(), []);
    /// ```
    ///
    /// # Errors
    /// If a core's mailbox is full.
    pub async fn members(&self, room: &str) -> Result<Vec<ConnectionId>, MailError> {
        let mut all = self.members_here(room).await?;
        all.extend(self.ids_elsewhere(room).await?);
        Ok(all)
    }

    async fn members_here(&self, room: &str) -> Result<Vec<ConnectionId>, MailError> {
        // A mebibyte of them: many, as each part looks at all members of its core.
        const PART_LEN: usize = 64 << 10;
        let room: Arc<str> = room.into();
        let mut all = Vec::new();
        for core in 0..self.cores() {
            let mut from = Some(0);
            while let Some(slot) = from {
                let room = Arc::clone(&room);
                let question = self.question(core, move |hub| hub.member_ids(&room, slot, PART_LEN));
                let Some((ids, next)) = answered(question).await? else { break };
                all.extend(ids);
                from = next;
            }
        }
        Ok(all)
    }

    /// A part of the members of a room, core by core, with what is known of each: at most `limit` of them after the first
    /// `offset`, and no more bytes than [`Hub::connections_page`] gives.
    ///
    /// ```no_run
    /// # async fn example(hub: &ringwire::Hub) -> Result<(), ringwire::MailError> {
    /// let mut told = 0;
    /// loop {
    ///     let page = hub.members_page("lobby", told, 100).await?;
    ///     if page.is_empty() {
    ///         break;
    ///     }
    ///     told += page.len();
    ///     for member in page {
    ///         println!("{}: {}", member.id, member.data);
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// If a core's mailbox is full.
    pub async fn members_page(
        &self,
        room: &str,
        offset: usize,
        limit: usize,
    ) -> Result<Vec<ConnectionInfo>, MailError> {
        let name = room.to_owned();
        let part =
            move |hub: &CoreHub, from, skip, limit, bytes_max| hub.members_page(&name, from, skip, limit, bytes_max);
        self.page_of_all(Some(room), offset, limit, part).await
    }

    /// A part of the rooms that have members, in the order of their names' bytes: at most `limit` of those whose names begin with
    /// `prefix` and come after `after`. The next part comes after the last of this one. One core is asked, and what it has not
    /// heard of yet is not in it.
    ///
    /// ```no_run
    /// # async fn example(hub: &ringwire::Hub) -> Result<(), ringwire::MailError> {
    /// let mut after = String::new();
    /// while let Some(last) = {
    ///     let page = hub.rooms_page("games/", &after, 100).await?;
    ///     page.iter().for_each(|room| println!("{}: {} in it", room.name, room.members));
    ///     page.into_iter().last()
    /// } {
    ///     after = last.name;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// If a core's mailbox is full.
    pub async fn rooms_page(&self, prefix: &str, after: &str, limit: usize) -> Result<Vec<RoomInfo>, MailError> {
        let (prefix, after): (Arc<str>, Arc<str>) = (prefix.into(), after.into());
        // Each knows of all, and one that has ended does not say.
        for core in 0..self.cores() {
            let (prefix, after) = (Arc::clone(&prefix), Arc::clone(&after));
            let question = self.question(core, move |hub| hub.rooms_page(&prefix, &after, limit));
            if let Some(rooms) = answered(question).await? {
                return Ok(rooms);
            }
        }
        Ok(Vec::new())
    }

    /// How many members a room has, over all cores. On a core, [`Socket::member_count`](crate::Socket::member_count) knows
    /// it without asking the others.
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, ws};
    ///
    /// let route = || ws().on_connect(|socket| socket.join("lobby"));
    /// let server = TestServer::builder().cores(2).start(move || App::new().ws("/", route()));
    /// let _clients = [server.connect("/"), server.connect("/")];
    /// assert_eq!(server.block_on(server.hub().member_count("lobby")).unwrap(), 2);
    /// ```
    ///
    /// # Errors
    /// If a core's mailbox is full.
    pub async fn member_count(&self, room: &str) -> Result<usize, MailError> {
        let room = room.to_owned();
        let counts = self.gather(move |hub| (hub.local_members(&room).len(), hub.members_abroad(&room))).await?;
        // Each core knows of the other machines, one perhaps a moment later than another.
        let elsewhere = counts.iter().map(|(_, abroad)| *abroad).max().unwrap_or(0);
        Ok(counts.iter().map(|(here, _)| here).sum::<usize>() + elsewhere)
    }
}
