//! Rooms: who joins and leaves, who is told, and who is counted.

use std::rc::Rc;

use ringwire::{App, BoxError, Connection, History, Hub, JoinError, Notice, OwnedMessage, ws};

use crate::host::Setup;
use crate::rig::Rig;
use crate::row::Log;

/// Asks the hub on a core's thread: what comes of it is in the log.
fn ask<T: std::fmt::Debug + 'static>(log: &Log, answer: impl IntoFuture<Output = T> + 'static) {
    let log = log.clone();
    let future = answer.into_future();
    ringwire::spawn_local(async move { log.add(format!("{:?}", future.await)) }).detach();
}

row! {
    /// Kills: joins of a task that are answered before every core knows.
    join_and_leave;
    setup |setup| { setup.cores = 2; }
    route |ws, log| ws;
    handler |peer, log, message| {
        match message.as_text() {
            Some("join") => {
                let joined = now!(peer.join(peer.param("room")));
                assert!(joined.is_ok() && peer.is_in("den"));
            }
            Some("again") => assert!(now!(peer.join("den")).is_ok()),
            _ => {
                let left = now!(peer.leave("den"));
                assert!(left && !now!(peer.leave("den")));
            }
        }
        format!("{:?} {}", peer.rooms(), peer.member_count("den"))
    }
    client |rig, way, log| {
        let mut clients = [0, 1].map(|core| rig.open(core, "/den"));
        for (text, answers) in [
            ("join", [r#"["den"] 1"#, r#"["den"] 2"#]),
            ("again", [r#"["den"] 2"#, r#"["den"] 2"#]),
            ("leave", ["[] 1", "[] 0"]),
        ] {
            for (client, answer) in clients.iter_mut().zip(answers) {
                client.text(text);
                rig.settle();
                assert_eq!(client.texts(), [answer]);
            }
        }
    }
}

row! {
    to_a_room;
    setup |setup| { setup.cores = 2; }
    route |ws, log| ws.on_connect(|socket| socket.join(socket.param("room")));
    handler |peer, log, message| {
        let room = peer.param("room");
        peer.to(room).send("to")?;
        peer.to(room).except_self().emit("but one", &1)?;
        peer.to(room).keyed("key").send(vec![b'x'; 5_000])?;
        peer.to("nowhere").send("nobody hears")?;
        peer.to_own_room(message)?;
        Ok::<_, BoxError>(())
    }
    client |rig, way, log| {
        let mut own = rig.open(0, "/den");
        let mut others = [0, 1].map(|core| rig.open(core, "/den"));
        let mut stranger = rig.open(1, "/lair");
        own.text("own room");
        rig.settle();
        let long = "x".repeat(5_000);
        let as_text = |client: &mut crate::rig::Socket| -> Vec<String> {
            let payload = |event| match event {
                crate::wire::Event::Message(message) => String::from_utf8(message.payload).expect("text"),
                event => panic!("{event:?}"),
            };
            client.events().into_iter().map(payload).collect()
        };
        assert_eq!(as_text(&mut own), ["to", &long, "own room"]);
        for other in &mut others {
            assert_eq!(as_text(other), ["to", r#"{"event":"but one","data":1}"#, &long, "own room"]);
        }
        assert!(stranger.events().is_empty());
    }
}

row! {
    join_then_and_leave_then;
    setup |setup| { setup.cores = 2; }
    route |ws, log| ws;
    handler |peer, log, message| {
        let notice = |event| peer.notice(event, &peer.param("room"));
        if message.as_text() == Some("join") {
            let notice = notice("came")?;
            peer.join_then("lobby", Some(notice), |socket, members| {
                let _ = socket.send(format!("in, {members}"));
            })?;
        } else {
            let notice = notice("went")?;
            let was_in = peer.leave_then("lobby", Some(notice), |socket, members| {
                let _ = socket.send(format!("out, {members}"));
            });
            assert!(was_in && !peer.leave_then("lobby", None, |_, _| panic!("it was not in it")));
        }
        Ok::<_, BoxError>(())
    }
    client |rig, way, log| {
        let (mut first, mut second) = (rig.open(0, "/first"), rig.open(1, "/second"));
        first.text("join");
        rig.settle();
        second.text("join");
        rig.settle();
        assert_eq!((first.texts(), second.texts()), (vec!["in, 1".into(), r#"{"event":"came","data":"second"}"#.into()], vec!["in, 2".to_owned()]));
        first.text("leave");
        rig.settle();
        assert_eq!((first.texts(), second.texts()), (vec!["out, 1".to_owned()], vec![r#"{"event":"went","data":"first"}"#.to_owned()]));
    }
}

row! {
    /// Kills: history that some way of handling gets late, or of another room.
    join_since_and_join_with_history;
    setup |setup| { setup.cores = 2; }
    route |ws, log| ws.history(History::last(3));
    handler |peer, log, message| {
        let room = peer.param("room").to_owned();
        match message.as_text() {
            Some("join") => peer.join_with_history(&room, 10)?,
            Some("what was there?") => peer.join_since(&room, 2, None, |socket, recovered| {
                let offsets: Vec<u64> = recovered.messages().map(|(offset, _)| offset).collect();
                let _ = socket.send(format!("{} {offsets:?} {}", recovered.members, recovered.is_complete));
            })?,
            Some("types") => drop(peer.to(&room).ephemeral().emit("types", &1)?),
            Some(_) => drop(peer.to(&room).emit("said", &1)?),
            None => drop(peer.to_own_room(message)?),
        }
        Ok::<_, BoxError>(())
    }
    client |rig, way, log| {
        // One of them is on the core that owns the room.
        for room in ["/den", "/lair", "/attic"] {
            let (mut ann, mut ben) = (rig.open(0, room), rig.open(1, room));
            let mut say = |ann: &mut crate::rig::Socket, text: &str, answers: &[&str]| {
                ann.text(text);
                rig.settle();
                assert_eq!(ann.texts(), answers, "{room} {text}");
            };
            say(&mut ann, "join", &[]);
            say(&mut ann, "types", &[r#"{"event":"types","data":1}"#]);
            let said = [1, 2, 3, 4].map(|offset| format!(r#"{{"event":"said","data":1,"offset":{offset}}}"#));
            said.iter().for_each(|said| say(&mut ann, "hello", &[said]));
            say(&mut ben, "join", &[&said[1], &said[2], &said[3]]);
            say(&mut ben, "what was there?", &["2 [3, 4] true"]);
            ben.frame(2, &[7]);
            rig.settle();
            let binary = |socket: &mut crate::rig::Socket| match socket.events().as_slice() {
                [crate::wire::Event::Message(message)] => message.payload.clone(),
                events => panic!("{events:?}"),
            };
            assert_eq!((binary(&mut ann), binary(&mut ben)), (vec![7], vec![7]));
        }
    }
}

row! {
    the_limits_of_rooms;
    route |ws, log| ws.max_rooms(2).max_room_name(4);
    handler |peer, log, message| {
        let too_long = now!(peer.join("12345")).map(|_| ());
        assert_eq!(too_long, Err(JoinError::NameTooLong { max: 4 }));
        let joins = [now!(peer.join("a")).is_ok(), now!(peer.join("b")).is_ok(), now!(peer.join("c")).is_ok()];
        assert_eq!(joins, [true, true, false]);
        peer.close(1000, "done").expect("a legal code");
        assert_eq!(now!(peer.join("a")).map(|_| ()), Err(JoinError::Gone));
        log.add("done");
    }
    client |rig, way, log| {
        let mut client = rig.open(0, "/den");
        client.text("x");
        rig.settle();
        assert_eq!((client.close_code(), log.take()), (Some(1000), vec!["done".to_owned()]));
    }
}

row! {
    /// Kills: members that are led into a room by the hub and are not told there, and rooms of which a page shows too much.
    led_by_the_hub;
    setup |setup| { setup.cores = 2; }
    route |ws, log| ws.on_connect(|socket| socket.set_data(serde_json::json!(socket.param("room"))));
    handler |peer, log, message| {
        let (hub, id, log) = (peer.hub().clone(), peer.id(), log.clone());
        match message.as_text() {
            Some("join") => ask(&log, hub.join(id, "den")),
            Some("leave") => ask(&log, hub.leave(id, "den")),
            Some("too long") => ask(&log, hub.join(id, &"x".repeat(300))),
            Some("page") => ask(&log, async move { pages(&hub).await }),
            Some("close") => ask(&log, hub.close_room("den", 4000, "the end").expect("a legal code")),
            _ => assert!(hub.close_room("den", 1005, "").is_err()),
        }
        Ok::<_, BoxError>(format!("{:?}", peer.rooms()))
    }
    client |rig, way, log| {
        let mut clients: Vec<_> = (0..5).map(|number| (number, rig.open(number % 2, &format!("/{number}")))).collect();
        let say = |rig: &mut Rig, client: &mut crate::rig::Socket, text: &str| {
            client.text(text);
            rig.settle();
            (client.texts(), log.take().pop().unwrap_or_default())
        };
        for (number, client) in &mut clients[..4] {
            let (_, told) = say(rig, client, "join");
            assert_eq!(told, format!("Some(Ok({}))", *number + 1), "the count when all cores know");
        }
        let (last, rest) = clients.split_last_mut().expect("five");
        assert_eq!(say(rig, &mut rest[0].1, "join").1, "Some(Ok(4))", "nothing changes");
        assert_eq!(say(rig, &mut last.1, "leave").1, "Some(false)");
        assert!(say(rig, &mut last.1, "too long").1.contains("NameTooLong"));
        let (_, told) = say(rig, &mut last.1, "page");
        assert_eq!(told, r#"[["\"0\"", "\"2\""], ["\"1\"", "\"3\""]]"#, "core by core, two at a time");
        assert_eq!(say(rig, &mut rest[3].1, "leave").1, "Some(true)");
        assert_eq!(say(rig, &mut rest[3].1, "bad code").0, ["[]"]);
        let (_, told) = say(rig, &mut last.1, "close");
        assert_eq!(told, "Delivery { queued: 3, dropped: 0, gone: 0, refused: 0, elsewhere: 0, unreachable: 0 }");
        for (number, client) in &mut clients {
            let events = client.events();
            let closed = events == [crate::wire::Event::Close(Some(4000))];
            assert!(closed == (*number < 3) && (closed || events.is_empty()), "{number}: {events:?}");
        }
    }
}

/// Kills: joins of tasks, and of the hub, that are answered when only their own core knows, and notices that get lost.
#[test]
fn of_joins_at_once_each_is_counted_or_noticed() {
    type Join = fn(&Connection, Notice) -> std::pin::Pin<Box<dyn Future<Output = usize> + '_>>;
    let by_task: Join = |connection, notice| {
        Box::pin(async move { connection.join_with("den", Some(notice)).await.expect("it may join") })
    };
    let by_hub: Join = |connection, _| {
        Box::pin(async { connection.hub().join(connection.id(), "den").await.expect("its core").expect("it may join") })
    };
    for (way, join) in [("task", by_task), ("hub", by_hub)] {
        let app = move || {
            let handler = async move |connection: Connection, _: OwnedMessage| {
                let notice = connection.notice("came", &())?;
                Ok::<_, BoxError>(format!("in, {}", join(&connection, notice).await))
            };
            App::new().ws("/", ws().on_message_async(handler))
        };
        let mut rig = Rig::new(&Setup { cores: 3, app: Rc::new(app), ..Setup::default() });
        let mut clients = [0, 1, 2].map(|core| rig.open(core, "/"));
        clients.iter_mut().for_each(|client| client.text("join"));
        rig.settle();
        let mut last = 0;
        for client in &mut clients {
            let texts = client.texts();
            let count =
                texts.iter().find_map(|text| text.strip_prefix("in, ")?.parse::<usize>().ok()).expect("a count");
            last = last.max(count);
            if way == "task" {
                assert_eq!(count + texts.len() - 1, 3, "{texts:?}: each is counted or noticed");
            }
        }
        assert_eq!(last, 3, "by {way}: who is answered last counts all");
        rig.finish();
    }
}

/// The data of a room's members, two at a time.
async fn pages(hub: &Hub) -> Vec<Vec<String>> {
    let mut pages = Vec::new();
    let mut told = 0;
    loop {
        let page = hub.members_page("den", told, 2).await.expect("the cores answer");
        if page.is_empty() {
            return pages;
        }
        told += page.len();
        pages.push(page.iter().map(|member| member.data.to_string()).collect());
    }
}
