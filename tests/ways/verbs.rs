//! What can be done with a connection, but for its rooms.

use std::rc::Rc;
use std::time::Duration;

use ringwire::{App, BoxError, ConnectionId, Envelope, IllegalCloseCode, SlowConsumer};
use serde_json::json;

use crate::host::Setup;
use crate::rig::Rig;
use crate::row::{Log, long, number};
use crate::wire::Event;

row! {
    who_it_is;
    route |ws, log| ws;
    handler |peer, log, message| {
        log.keep(peer.id());
        format!("{} {:?} {:?}", peer.is_open(), peer.peer().map(|peer| peer.is_ipv4()), peer.duration())
    }
    client |rig, way, log| {
        let mut client = rig.open(0, "/den");
        rig.pass_ms(2_000);
        client.text("x");
        rig.settle();
        let texts = client.texts();
        assert_eq!(texts.len(), 1);
        assert!(texts[0].starts_with("true ") && texts[0].ends_with(" 2s"), "{texts:?}");
        let id: ConnectionId = log.kept();
        let _told = rig.cores.hub.send_to(id, "it is").expect("text");
        rig.settle();
        assert_eq!(client.texts(), ["it is"]);
    }
}

row! {
    the_request;
    route |ws, log| ws;
    handler |peer, log, message| {
        // What is asked for stands in the way of nothing.
        let room = peer.param("room");
        let path = peer.request().path();
        let _ = peer.send(room);
        let _ = peer.send(path);
        peer.param("nothing").to_owned()
    }
    client |rig, way, log| {
        let mut client = rig.open(0, "/den");
        client.text("x");
        rig.settle();
        assert_eq!(client.texts(), ["den", "/den", ""]);
    }
}

row! {
    /// Kills: tasks that keep the request that a route forgets.
    a_request_that_is_forgotten;
    route |ws, log| ws.forget_request().on_connect(|socket| socket.param("room").to_owned());
    handler |peer, log, message| {
        let was = peer.param("room").to_owned();
        peer.request();
        was
    }
    client |rig, way, log| {
        let mut client = rig.open(0, "/den");
        client.text("x");
        rig.settle();
        assert_eq!(crate::row::close_code_after(&mut client, &["den"]), Some(1011));
    }
}

row! {
    send_and_emit;
    setup |setup| { setup.deflate.bytes_min = 1_000; }
    app |route, log| App::new().envelope(Envelope::Path).ws("/{room}", route);
    route |ws, log| ws;
    handler |peer, log, message| {
        assert!(peer.send("text").is_queued() && peer.send(vec![1_u8]).is_queued());
        assert!(peer.emit("event", &[1])?.is_queued());
        assert!(peer.send_keyed("key", "keyed").is_queued() && peer.emit_keyed("key", "event", &2)?.is_queued());
        log.add(peer.outbox_bytes().to_string());
        Ok::<_, BoxError>(())
    }
    client |rig, way, log| {
        let mut client = rig.open(0, "/den");
        client.text("x");
        rig.settle();
        let texts: Vec<Vec<u8>> = client.events().into_iter().map(|event| match event {
            Event::Message(message) => message.payload,
            event => panic!("{event:?}"),
        }).collect();
        let expected: [&[u8]; 5] =
            [b"text", &[1], br#"{"path":"event","data":[1]}"#, b"keyed", br#"{"path":"event","data":2}"#];
        assert_eq!(texts, expected);
        let wire_bytes: usize = expected.iter().map(|payload| payload.len() + 2).sum();
        assert_eq!(log.take(), [wire_bytes.to_string()]);
    }
}

row! {
    /// Kills: keyed messages of which an older one is kept.
    keyed;
    setup |setup| { setup.outbox_bytes_max = 64 << 10; }
    route |ws, log| ws.slow_consumer(SlowConsumer::KeepLatest);
    handler |peer, log, message| {
        for number in 0..200 {
            let _ = peer.send_keyed("a key", long(number));
        }
        let _ = peer.emit_keyed("another", "event", &1);
    }
    client |rig, way, log| {
        let mut client = rig.open(0, "/den");
        client.client.set_window(100);
        client.text("x");
        rig.settle();
        client.client.set_window(1 << 20);
        rig.pass_ms(10);
        let mut texts = client.texts();
        assert_eq!(texts.pop().as_deref(), Some(r#"{"event":"event","data":1}"#));
        assert_eq!(number(&texts.pop().expect("the latest")), 199);
        assert!(texts.len() < 80, "{} came before the latest", texts.len());
    }
}

row! {
    close;
    route |ws, log| ws;
    handler |peer, log, message| {
        let refused: Result<(), IllegalCloseCode> = peer.close(1005, "no code of a Close frame");
        assert!(refused.is_err() && peer.is_open());
        let _ = peer.send("said before");
        peer.close(4000, "because").expect("a legal code");
        assert!(!peer.is_open() && !peer.send("said after").is_queued());
    }
    client |rig, way, log| {
        let mut client = rig.open(0, "/den");
        client.text("x");
        rig.settle();
        assert_eq!(crate::row::close_code_after(&mut client, &["said before"]), Some(4000));
    }
}

row! {
    close_without_code;
    route |ws, log| ws.on_close(move |_, closed| log.add(format!("{} {}", closed.code, closed.clean)));
    handler |peer, log, message| {
        peer.close_without_code();
        let _second = peer.close(4000, "the first close counts");
    }
    client |rig, way, log| {
        let mut client = rig.open(0, "/den");
        client.text("x");
        rig.settle();
        assert_eq!(client.events(), [Event::Close(None)]);
        client.frame(crate::wire::CLOSE, b"");
        rig.settle();
        assert_eq!(log.take(), ["1005 true"]);
    }
}

row! {
    data;
    route |ws, log| ws.on_close(move |socket, _| log.add(socket.data().to_string()));
    handler |peer, log, message| {
        let before = peer.data();
        peer.set_data(json!({"name": "ada"}));
        format!("{before} {} {}", peer.data(), peer.raw_data())
    }
    client |rig, way, log| {
        let mut client = rig.open(0, "/den");
        client.text("x");
        rig.settle();
        assert_eq!(client.texts(), [r#"null {"name":"ada"} {"name":"ada"}"#]);
        client.client.reset();
        rig.pass_ms(10);
        assert_eq!(log.take(), [r#"{"name":"ada"}"#]);
    }
}

row! {
    /// Kills: clean-ups of tasks that never run, or twice.
    on_cleanup;
    route |ws, log| ws.on_close(move |_, _| log.add("on_close"));
    handler |peer, log, message| {
        peer.on_cleanup(log.line("first"));
        peer.on_cleanup(log.line("second"));
    }
    client |rig, way, log| {
        let mut client = rig.open(0, "/den");
        client.text("x");
        rig.settle();
        assert!(log.take().is_empty());
        client.client.reset();
        rig.pass_ms(10);
        assert_eq!(log.take(), ["on_close", "second", "first"]);
    }
}

row! {
    sender_hub_and_spawn;
    route |ws, log| ws;
    handler |peer, log, message| {
        let (sender, hub) = (peer.sender(), peer.hub().clone());
        let (id, log) = (peer.id(), log.clone());
        peer.spawn(async move {
            ringwire::sleep(Duration::from_millis(5)).await;
            let told = sender.send("by the sender").expect("text").await;
            let data = hub.data(id).await;
            log.add(format!("{} {data:?} {}", told.queued, sender.is_gone()));
        })
        .detach();
    }
    client |rig, way, log| {
        let mut client = rig.open(0, "/den");
        client.text("x");
        rig.pass_ms(10);
        assert_eq!((client.texts(), log.take()), (vec!["by the sender".to_owned()], vec!["1 Some(Some(Null)) false".to_owned()]));
    }
}

row! {
    to_all_and_to_route;
    setup |setup| { setup.cores = 2; }
    app |route, log| App::new().ws("/{room}", route).ws("/beside/it", ringwire::ws());
    route |ws, log| ws;
    handler |peer, log, message| {
        peer.to_all().send("all")?;
        peer.to_all().except_self().emit("all but one", &())?;
        peer.to_route().send("route")?;
        peer.to_route().keyed("key").except_self().send("route but one")?;
        Ok::<_, BoxError>(())
    }
    client |rig, way, log| {
        let mut own = rig.open(0, "/den");
        let mut others = [0, 1].map(|core| rig.open(core, "/other"));
        let mut beside = [0, 1].map(|core| rig.open(core, "/beside/it"));
        own.text("x");
        rig.settle();
        let but_one = r#"{"event":"all but one","data":null}"#;
        assert_eq!(own.texts(), ["all", "route"]);
        others.iter_mut().for_each(|other| assert_eq!(other.texts(), ["all", but_one, "route", "route but one"]));
        beside.iter_mut().for_each(|other| assert_eq!(other.texts(), ["all", but_one]));
    }
}

/// Kills: verbs that reach whoever has the slot of a connection that has gone, and clean-ups that wait for its end.
#[test]
fn what_is_left_to_a_task_when_its_connection_has_gone() {
    let log = Log::default();
    let in_app = log.clone();
    let app = move || {
        let log = in_app.clone();
        let task = async move |mut connection: ringwire::Connection| {
            let _ = connection.join("den").await;
            while connection.recv().await.is_some() {}
            ringwire::sleep(Duration::from_secs(5)).await;
            connection.on_cleanup(log.line("cleaned at once"));
            connection.set_data(json!(1));
            log.add(format!("{:?} {}", connection.join("lair").await, connection.leave("den").await));
            log.add(format!("{} {:?} {}", connection.data(), connection.rooms(), connection.is_in("den")));
            log.add(format!("{:?} {} {}", connection.duration(), connection.is_open(), connection.outbox_bytes()));
            log.add(format!("{} {}", connection.member_count("den"), connection.param("name")));
            for all in [connection.to("den"), connection.to_route()] {
                all.except_self().send("it has gone").expect("text");
            }
        };
        App::new().ws("/{name}", ringwire::ws().task(task))
    };
    let mut rig = Rig::new(&Setup { app: Rc::new(app), ..Setup::default() });
    let gone = rig.open(0, "/first");
    rig.pass_ms(1_000);
    gone.client.reset();
    rig.pass_ms(100);
    let mut heir = rig.open(0, "/second");
    rig.pass_ms(6_000);
    let lines = log.take();
    assert_eq!(lines[..2], ["cleaned at once", "Err(Gone) false"], "{lines:?}");
    assert_eq!((lines[2].as_str(), lines[4].as_str()), ("null [] false", "1 first"));
    assert!(lines[3].starts_with("1") && lines[3].ends_with("s false 0"), "{lines:?}: as long as it was open");
    assert_eq!(heir.texts(), ["it has gone"; 2]);
    rig.finish();
}

/// Kills: a verb that gives a wrong answer where it can give none.
#[test]
fn a_connection_in_the_hands_of_anothers_handler() {
    let log = Log::default();
    let in_app = log.clone();
    let app = move || {
        let (keep, log) = (in_app.clone(), in_app.clone());
        let task = async move |mut connection: ringwire::Connection| {
            keep.keep(connection.clone());
            while connection.recv().await.is_some() {}
        };
        let asks = ringwire::ws().on_message(move |_, message| {
            let connection: ringwire::Connection = log.kept();
            let _ = connection.send("sent all the same");
            log.keep(connection.clone());
            if message.as_text() == Some("ask") {
                log.add(connection.is_in("den").to_string());
            }
            connection.close(4000, "closed all the same")
        });
        App::new().ws("/task", ringwire::ws().task(task)).ws("/asks", asks)
    };
    let mut rig = Rig::new(&Setup { app: Rc::new(app), ..Setup::default() });
    let mut other = rig.open(0, "/task");
    let mut asking = [(); 2].map(|()| rig.open(0, "/asks"));
    asking[0].text("ask");
    rig.settle();
    assert_eq!((asking[0].close_code(), log.take()), (Some(1011), vec![]));
    assert_eq!(other.texts(), ["sent all the same"]);
    asking[1].text("close");
    rig.settle();
    assert_eq!(crate::row::close_code_after(&mut other, &["sent all the same"]), Some(4000));
    drop(log.kept::<ringwire::Connection>());
    rig.finish();
}
