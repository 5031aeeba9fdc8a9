//! Handlers that fail, and who hears of it.

use ringwire::{BoxError, FailurePolicy, Panicked};

use crate::row::Way;
use crate::wire::Event;

row! {
    /// Kills: interceptors that are not told of the end of a message whose handler has failed.
    an_error_closes_with_1011;
    route |ws, log| {
        let post = log.line("post");
        ws.on_error(move |socket, error| log.add(format!("{} {error}", socket.param("room")))).after_message(move |_| post())
    };
    handler |peer, log, message| {
        pause!();
        Err::<(), _>("as asked")
    }
    client |rig, way, log| {
        let mut client = rig.open(0, "/den");
        client.text("x");
        rig.pass_ms(10);
        assert_eq!((client.events(), log.take()), (vec![Event::Close(Some(1011))], ["den as asked", "post"].map(String::from).to_vec()));
    }
}

row! {
    /// Kills: panics of which `on_error` does not hear.
    a_panic_closes_with_1011_and_is_told;
    route |ws, log| {
        ws.on_error(move |_, error| log.add(error.downcast_ref::<Panicked>().map_or("an error", Panicked::text)))
    };
    handler |peer, log, message| {
        pause!();
        assert!(message.as_text() != Some("panic"), "as asked");
    }
    client |rig, way, log| {
        let mut client = rig.open(0, "/den");
        client.text("panic");
        rig.pass_ms(10);
        assert_eq!((client.events(), log.take()), (vec![Event::Close(Some(1011))], vec!["as asked".to_owned()]));
    }
}

row! {
    what_cannot_be_decoded_closes_with_1007;
    route |ws, log| ws;
    handler |peer, log, message| {
        let number: u32 = message.json()?;
        Ok::<_, BoxError>(number.to_string())
    }
    client |rig, way, log| {
        let mut client = rig.open(0, "/den");
        ["7", "seven"].iter().for_each(|text| client.text(text));
        rig.settle();
        assert_eq!(crate::row::close_code_after(&mut client, &["7"]), Some(1007));
    }
}

row! {
    a_failure_may_be_survived;
    route |ws, log| ws.on_failure(FailurePolicy::Keep).on_error(move |_, error| log.add(error.to_string()));
    handler |peer, log, message| {
        match message.as_text() {
            Some("panic") => panic!("told"),
            Some("bad") => Err("bad"),
            _ => Ok("fine"),
        }
    }
    client |rig, way, log| {
        let mut client = rig.open(0, "/den");
        ["bad", "good", "panic", "good"].iter().for_each(|text| client.text(text));
        rig.settle();
        // A task that has failed is over, and its connection is not.
        let (texts, told) = if way == Way::Task { (0, 1) } else { (2, 2) };
        assert_eq!((client.texts(), log.take()), (vec!["fine"; texts].into_iter().map(String::from).collect(), ["bad", "panicked: told"][..told].iter().map(|line| (*line).to_owned()).collect()));
        client.close(1000);
        rig.settle();
        assert_eq!(client.close_code(), Some(1000));
    }
}
