//! Modes, and what runs when a connection opens.

use ringwire::{Mode, Sender};

use crate::wire::Event;

row! {
    two_way;
    route |ws, log| ws;
    handler |peer, log, message| {
        pause!();
        message.as_text().map(|text| format!("re: {text}"))
    }
    client |rig, way, log| {
        let mut client = rig.open(0, "/den");
        ["a", "b"].iter().for_each(|text| client.text(text));
        rig.pass_ms(10);
        assert_eq!(client.texts(), ["re: a", "re: b"]);
    }
}

row! {
    /// Kills: results of `on_connect` and of interceptors that a route lets out which only receives.
    receive_only;
    route |ws, log| {
        ws.mode(Mode::ReceiveOnly).on_connect(|_| "a reply").before_message(|_, _| "a reply")
    };
    handler |peer, log, message| {
        log.add("handled");
        pause!();
        let _ = peer.send("said");
        "a reply"
    }
    client |rig, way, log| {
        let mut client = rig.open(0, "/den");
        client.text("x");
        rig.pass_ms(10);
        assert_eq!((client.texts(), log.take()), (vec!["said".to_owned()], vec!["handled".to_owned()]));
    }
}

row! {
    /// Kills: a handler that waits and, on a route that only sends, waits for messages as well.
    send_only_closes_when_it_is_done;
    route |ws, log| ws.mode(Mode::SendOnly);
    once |peer, log| {
        let _ = peer.send("said");
        pause!();
        "a reply"
    }
    client |rig, way, log| {
        let mut client = rig.open(0, "/den");
        rig.pass_ms(10);
        assert_eq!(crate::row::close_code_after(&mut client, &["said", "a reply"]), Some(1000));
    }
}

row! {
    send_only_stays_as_long_as_a_sender_lives;
    route |ws, log| ws.mode(Mode::SendOnly);
    once |peer, log| {
        log.keep(peer.sender());
    }
    client |rig, way, log| {
        let mut client = rig.open(0, "/den");
        client.text("nobody listens");
        rig.pass_ms(1_000);
        let sender: Sender = log.kept();
        let _told = sender.send("pushed").expect("text");
        rig.pass_ms(10);
        assert_eq!((client.texts(), rig.counters(0).messages_discarded), (vec!["pushed".to_owned()], 1));
        drop(sender);
        rig.pass_ms(10);
        assert_eq!(client.close_code(), Some(1000));
    }
}

row! {
    /// Kills: an opening that cannot be told from a message that is empty, or `null`.
    opens_without_a_message;
    route |ws, log| ws;
    opener |peer, log, message| {
        message.map_or("opened".to_owned(), |message| format!("{:?}", message.as_text()))
    }
    client |rig, way, log| {
        let mut client = rig.open(0, "/den");
        rig.settle();
        assert_eq!(client.texts(), ["opened"]);
        ["", "null"].iter().for_each(|text| client.text(text));
        rig.settle();
        assert_eq!(client.texts(), [r#"Some("")"#, r#"Some("null")"#]);
    }
}

row! {
    trigger_on_connect;
    route |ws, log| ws.trigger_on_connect();
    handler_but_no_task("a task runs when the connection opens, and is not given a message") |peer, log, message| {
        message.as_text().map(|text| format!("{text:?}"))
    }
    client |rig, way, log| {
        let mut client = rig.open(0, "/den");
        client.text("x");
        rig.settle();
        assert_eq!(client.texts(), [r#""""#, r#""x""#]);
    }
}

#[test]
fn an_opening_is_no_json() {
    let app = || {
        let route = ringwire::ws().on_open_or_json(|_, value: Option<Option<u32>>| format!("{value:?}"));
        ringwire::App::new().ws("/", route)
    };
    let setup = crate::host::Setup { app: std::rc::Rc::new(app), ..crate::host::Setup::default() };
    let mut rig = crate::rig::Rig::new(&setup);
    let mut client = rig.open(0, "/");
    ["null", "", "7"].iter().for_each(|text| client.text(text));
    rig.settle();
    assert_eq!(client.texts(), ["None", "Some(None)", "Some(None)", "Some(Some(7))"]);
    client.text("{");
    rig.settle();
    assert_eq!(client.events(), [Event::Close(Some(1007))]);
    rig.finish();
}
