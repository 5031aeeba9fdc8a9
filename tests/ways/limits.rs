//! Limits of a route.

use std::time::Duration;

use crate::row::{Way, noise};
use crate::wire::{BINARY, Event, PING};

row! {
    max_message;
    route |ws, log| ws.max_message(10);
    handler |peer, log, message| {
        message.as_bytes().len().to_string()
    }
    client |rig, way, log| {
        let mut client = rig.open(0, "/den");
        client.frame(BINARY, &[7; 10]);
        rig.settle();
        assert_eq!(client.texts(), ["10"]);
        client.frame(BINARY, &[7; 11]);
        rig.settle();
        assert_eq!(client.close_code(), Some(1009));
    }
}

row! {
    message_rate;
    route |ws, log| ws.message_rate(5);
    handler |peer, log, message| {
        log.add("handled");
    }
    client |rig, way, log| {
        let mut client = rig.open(0, "/den");
        for _ in 0..3 {
            (0..5).for_each(|_| client.text("x"));
            rig.pass_ms(1_100);
        }
        assert_eq!((client.events(), log.take().len()), (vec![], 15), "five a second are well");
        (0..50).for_each(|_| client.text("x"));
        rig.pass_ms(10);
        assert_eq!(client.close_code(), Some(1008));
        assert!(log.take().len() < 10);
    }
}

row! {
    ping_interval_and_idle_timeout;
    route |ws, log| {
        ws.ping_interval(Duration::from_millis(300))
            .idle_timeout(Duration::from_secs(1))
            .on_close(move |_, closed| log.add(closed.code.to_string()))
    };
    handler |peer, log, message| {
        log.add("handled");
    }
    client |rig, way, log| {
        let mut client = rig.open(0, "/den");
        rig.pass_ms(350);
        assert_eq!(client.events(), [Event::Ping(vec![])]);
        client.text("life");
        rig.pass_ms(900);
        assert!(client.events().iter().all(|event| matches!(event, Event::Ping(_))));
        assert_eq!(log.take(), ["handled"]);
        client.frame(PING, b"");
        rig.pass_ms(900);
        assert!(log.take().is_empty(), "it is alive");
        rig.pass_ms(3_000);
        assert_eq!(log.take(), ["1006"]);
    }
}

row! {
    write_timeout;
    route |ws, log| {
        ws.write_timeout(Duration::from_millis(500)).on_close(move |_, closed| log.add(closed.code.to_string()))
    };
    handler |peer, log, message| {
        let _ = peer.send(noise(100_000));
    }
    client |rig, way, log| {
        let mut client = rig.open(0, "/den");
        client.client.set_window(100);
        client.text("x");
        rig.pass_ms(400);
        assert!(log.take().is_empty());
        rig.pass_ms(3_000);
        assert_eq!(log.take(), ["1006"]);
    }
}

row! {
    /// Kills: an inbox that has no bound, or of which what is behind it is lost.
    inbox_depth;
    route |ws, log| ws.inbox_depth(2);
    handler |peer, log, message| {
        pause!();
        format!("re: {}", message.as_text().unwrap_or_default())
    }
    client |rig, way, log| {
        let mut client = rig.open(0, "/den");
        let texts: Vec<String> = (0..50).map(|number| number.to_string()).collect();
        texts.iter().for_each(|text| client.text(text));
        rig.settle();
        let waiting = rig.counters(0).messages_in;
        // A closure has handled all by now. For the others one is being handled, and two may wait.
        let taken = if way == Way::Closure { 50 } else { 3 };
        assert!(waiting <= taken, "{waiting}");
        rig.pass_ms(200);
        assert_eq!(client.texts(), texts.iter().map(|text| format!("re: {text}")).collect::<Vec<_>>());
    }
}

row! {
    subprotocols;
    route |ws, log| ws.subprotocols(["chat"]);
    opener |peer, log, message| {
        log.add("in");
    }
    client |rig, way, log| {
        // This client offers none.
        let mut client = rig.open(0, "/den");
        let answer = String::from_utf8(client.received()).expect("text");
        assert!(answer.starts_with("HTTP/1.1 400 ") && log.take().is_empty(), "{answer}");
    }
}
