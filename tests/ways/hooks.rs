//! Hooks and interceptors, in their order.

use ringwire::{App, HttpError, Request};

use crate::wire::Event;

#[derive(Clone)]
struct User(&'static str);

row! {
    /// Kills: interceptors that run around the arrival of a message and not around its handler.
    the_order_of_a_life;
    app |route, log| {
        let (observe, before, before_async) = (log.line("observe"), log.line("before"), log.line("before_async"));
        let (observe_close, after) = (log.line("observe_close"), log.line("after"));
        App::new().group("/", move |group| {
            group
                .observe(move |_| observe())
                .before(move |_| {
                    before();
                    Ok(())
                })
                .before_async(async move |_: &mut Request| {
                    before_async();
                    Ok(())
                })
                .observe_close(move |_| observe_close())
                .after(move |_, _| after())
                .ws("/{room}", route)
        })
    };
    route |ws, log| {
        let (connect, pre, post, close) = (log.line("on_connect"), log.line("pre"), log.line("post"), log.line("on_close"));
        let clean = log.line("clean-up");
        ws.on_connect(move |socket| {
            connect();
            socket.on_cleanup(clean.clone());
        })
        .before_message(move |_, _| pre())
        .after_message(move |socket| {
            post();
            // After the reply, which is queued by now.
            let _ = socket.send("post");
        })
        .on_close(move |_, _| close())
    };
    handler |peer, log, message| {
        log.add("begin");
        pause!();
        log.add("end");
        format!("re: {}", message.as_text().unwrap_or_default())
    }
    client |rig, way, log| {
        let mut client = rig.open(0, "/den");
        ["a", "b"].iter().for_each(|text| client.text(text));
        rig.pass_ms(10);
        assert_eq!(client.texts(), ["re: a", "post", "re: b", "post"]);
        client.close(1000);
        rig.pass_ms(10);
        assert_eq!(client.events(), [Event::Close(Some(1000))]);
        let message = ["pre", "begin", "end", "post"];
        let opened = ["observe", "before", "before_async", "on_connect"];
        let ended = ["observe_close", "on_close", "after", "clean-up"];
        assert_eq!(log.take(), [opened, message, message, ended].concat());
    }
}

row! {
    /// Kills: typed values that a task does not get.
    what_a_hook_attached;
    app |route, log| {
        App::new().group("/", |group| {
            let attach = |request: &mut Request| {
                request.extensions_mut().insert(User("ada"));
                Ok(())
            };
            group.before(attach).ws("/{room}", route)
        })
    };
    route |ws, log| {
        ws.on_connect(|socket| {
            socket.extensions().insert(7_u8);
        })
        .on_close(move |socket, _| log.add(format!("{:?}", socket.extension::<u32>())))
    };
    handler |peer, log, message| {
        let user = peer.extension::<User>().expect("the hook has attached it");
        let number = *peer.extensions().get::<u8>().expect("on_connect has attached it");
        peer.extensions().insert(u32::from(number) + 1);
        user.0
    }
    client |rig, way, log| {
        let mut client = rig.open(0, "/den");
        client.text("x");
        rig.settle();
        assert_eq!(client.texts(), ["ada"]);
        client.client.reset();
        rig.pass_ms(10);
        assert_eq!(log.take(), ["Some(8)"], "what is attached later is there at the end");
    }
}

row! {
    who_is_refused_is_not_handled;
    app |route, log| {
        App::new().group("/", |group| group.before(|_| Err(HttpError::forbidden("no"))).ws("/{room}", route))
    };
    route |ws, log| ws.on_connect(move |_| log.add("connected"));
    opener |peer, log, message| {
        log.add("handled");
    }
    client |rig, way, log| {
        let mut client = rig.open(0, "/den");
        rig.settle();
        let answer = String::from_utf8(client.received()).expect("text");
        assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
        assert!(log.take().is_empty());
    }
}

row! {
    /// Kills: a message that its interceptor keeps from a closure alone.
    an_interceptor_keeps_a_message_from_its_handler;
    route |ws, log| {
        let post = log.clone();
        ws.on_failure(ringwire::FailurePolicy::Keep)
            .before_message(|_, message| if message.as_text() == Some("bad") { Err("bad") } else { Ok(()) })
            .after_message(move |_| post.add("post"))
            .on_error(move |_, error| log.add(error.to_string()))
    };
    handler |peer, log, message| {
        format!("re: {}", message.as_text().unwrap_or_default())
    }
    client |rig, way, log| {
        let mut client = rig.open(0, "/den");
        ["bad", "good", "bad"].iter().for_each(|text| client.text(text));
        rig.settle();
        assert_eq!((client.texts(), log.take()), (vec!["re: good".to_owned()], ["bad", "post", "bad"].map(String::from).to_vec()));
    }
}

row! {
    /// Kills: messages behind the one for which the connection is being closed that are handled all the same.
    an_interceptor_that_fails_or_closes_is_the_last;
    route |ws, log| {
        ws.before_message(|socket, message| match message.as_text() {
            Some("bad") => Err("bad"),
            Some("close") => {
                socket.close(4000, "enough").expect("a legal code");
                Ok(())
            }
            _ => Ok(()),
        })
    };
    handler |peer, log, message| {
        log.add("handled");
    }
    client |rig, way, log| {
        for (how, code) in [("bad", 1011), ("close", 4000)] {
            let mut client = rig.open(0, "/den");
            ["good", how, "good"].iter().for_each(|text| client.text(text));
            rig.settle();
            assert_eq!((client.events(), log.take()), (vec![Event::Close(Some(code))], vec!["handled".to_owned()]), "{how}");
        }
    }
}

row! {
    on_close_is_told_how_and_when;
    route |ws, log| {
        ws.on_close(move |socket, closed| {
            log.add(format!("{} {} {:?} {}", closed.code, closed.reason, closed.duration, socket.data()));
        })
    };
    handler |peer, log, message| {
        peer.set_data(serde_json::json!("known"));
        peer.close(4001, "enough")
    }
    client |rig, way, log| {
        let mut client = rig.open(0, "/den");
        rig.pass_ms(3_000);
        client.text("x");
        rig.settle();
        assert_eq!(client.close_code(), Some(4001));
        client.close(4001);
        rig.pass_ms(10);
        assert_eq!(log.take(), ["4001 enough 3s \"known\""]);
    }
}
