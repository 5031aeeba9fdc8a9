//! Events, the same whichever form their handlers have, and what is acknowledged, both ways.

use std::time::Duration;

use ringwire::{
    AckError, App, BoxError, Connection, Events, FailurePolicy, Hub, Json, Socket, Undecodable, Unhandled, Ws, sleep,
    ws,
};
use serde::Deserialize;
use serde_json::{Value, json};
use tungstenite::Message;

use crate::common::{Client, PATIENCE};
use crate::rig::{Served, block_on, close_frame, event_named, json, log, say, serve, text};

#[derive(Deserialize)]
struct Add {
    a: i64,
    b: i64,
}

/// The same events, each form of handlers in its own way.
fn closures() -> Events {
    at_once(Events::new().on("add", |_, Add { a, b }: Add| Json(a + b)))
}

/// All but the first, in handlers that do not wait.
fn at_once(events: Events) -> Events {
    events
        .on("name", |_, name: Option<String>| name)
        .on("emits", |socket, _: Value| socket.emit("emitted", &1))
        .on_raw("raw", |_, data| data.get().to_owned())
        .on("fails", |_, _: Value| Err::<(), _>("as told"))
        .on("panics", |_, _: Value| -> () { panic!("as told") })
        .on("bytes", |_, _: Value| vec![1_u8])
        .on_unhandled(|_, what| named(what))
}

fn asyncs() -> Events {
    Events::new()
        .on_async("add", async |_: Connection, Add { a, b }: Add| {
            sleep(Duration::from_millis(2)).await;
            Json(a + b)
        })
        .on_async("name", async |_: Connection, name: Option<String>| name)
        .on_async("emits", async |socket: Connection, _: Value| socket.emit("emitted", &1))
        .on_raw_async("raw", async |_: Connection, data: &serde_json::value::RawValue| data.get().to_owned())
        .on_async("fails", async |_: Connection, _: Value| Err::<(), _>("as told"))
        .on_async("panics", async |_: Connection, _: Value| -> () { panic!("as told") })
        .on_async("bytes", async |_: Connection, _: Value| vec![1_u8])
        .on_unhandled_async(async |_: Connection, what: &Unhandled<'_>| named(what))
}

/// Some of both: those that do not wait are called by the connection's task.
fn mixed() -> Events {
    at_once(Events::new().on_async("add", async |_: Connection, Add { a, b }: Add| {
        sleep(Duration::from_millis(2)).await;
        Json(a + b)
    }))
}

fn named(what: &Unhandled<'_>) -> String {
    match what {
        Unhandled::Event { name, data } => format!("{name} {data}"),
        Unhandled::Text(_) => "text".to_owned(),
        _ => "binary".to_owned(),
    }
}

type Form = (&'static str, fn() -> Events);

const FORMS: [Form; 3] = [("/now", closures), ("/later", asyncs), ("/mixed", mixed)];

fn forms(finish: impl Fn(Events) -> Ws + Clone + Send + Sync + 'static) -> Served {
    serve(move || FORMS.iter().fold(App::new(), |app, (path, make)| app.ws(path, finish(make()))))
}

/// Kills: a form of handlers that answers, fails, or acknowledges otherwise than the others.
#[test]
fn every_form_of_event_handlers_does_the_same() {
    let served = forms(|events| events.into_ws().on_failure(FailurePolicy::Keep));
    for (path, _) in FORMS {
        let mut client = served.client(path);
        let failed = json!({"ack": 9, "error": "the handler failed"});
        let cases = [
            // What is sent, what comes back; the last shows that nothing more did.
            (r#"{"event":"add","data":{"a":1,"b":2}}"#, json!(3)),
            (r#"{"event":"add","data":{"b":2,"a":2},"ack":1}"#, json!({"ack": 1, "data": 4})),
            (r#"{"event":"name","data":"7","ack":2}"#, json!({"ack": 2, "data": "7"})),
            (r#"{"event":"name","ack":3}"#, json!({"ack": 3, "data": null})),
            (r#"{"event":"raw","data":[1, 2]}"#, json!([1, 2])),
            (r#"{"event":"other","data":{"x":1}}"#, json!("other {\"x\":1}")),
            (r#"{"event":"other","data":5,"ack":4}"#, json!({"ack": 4, "data": "other 5"})),
            (r#"{"event":"fails","ack":9}"#, failed.clone()),
            (r#"{"event":"panics","ack":9}"#, failed.clone()),
            (r#"{"event":"bytes","ack":9}"#, failed.clone()),
            (r#"{"event":"add","data":[1,2],"ack":5}"#, json!({"ack": 5, "error": "the data cannot be decoded"})),
            (r#"{"event":"add","ack":"x"}"#, json!("text")),
            ("[]", json!("text")),
            (
                r#"{"event":"add","data":{"a":10,"b":20},"ack":18446744073709551615}"#,
                json!({"ack": u64::MAX, "data": 30}),
            ),
        ];
        for (said, expected) in cases {
            say(&mut client, said);
            let heard = text(&mut client);
            let heard = serde_json::from_str(&heard).unwrap_or(Value::String(heard));
            assert_eq!(heard, expected, "{path} {said}");
        }
        say(&mut client, r#"{"event":"emits","ack":6}"#);
        assert_eq!(event_named(&mut client, "emitted"), json!(1), "{path}");
        assert_eq!(json(&mut client), json!({"ack": 6, "data": null}), "{path}");
        client.send(Message::binary(b"{}".to_vec())).expect("sent");
        assert_eq!(text(&mut client), "binary", "{path}");
    }
}

#[test]
fn every_form_tells_of_undecodable_data() {
    let served = forms(|events| events.undecodable(Undecodable::Tell).into_ws());
    for (path, _) in FORMS {
        let mut client = served.client(path);
        say(&mut client, r#"{"event":"add","data":"x"}"#);
        let error = json!({"event": "add", "message": "the data cannot be decoded"});
        assert_eq!(event_named(&mut client, "error"), error, "{path}");
        say(&mut client, r#"{"event":"add","data":"x","ack":1}"#);
        assert_eq!(json(&mut client), json!({"ack": 1, "error": "the data cannot be decoded"}), "{path}");
    }
    let served = forms(Events::into_ws);
    for (path, _) in FORMS {
        for (said, code) in [(r#"{"event":"add","data":"x"}"#, 1007), (r#"{"event":"panics"}"#, 1011)] {
            let mut client = served.client(path);
            say(&mut client, said);
            assert_eq!(close_frame(&mut client).0, code, "{path} {said}");
        }
    }
}

/// Kills: handlers that overtake one that waits.
#[test]
fn events_are_handled_one_after_the_other() {
    let served = forms(Events::into_ws);
    for (path, _) in FORMS {
        let mut client = served.client(path);
        for number in 0..40 {
            let said = match number % 2 {
                0 => format!(r#"{{"event":"add","data":{{"a":{number},"b":0}}}}"#),
                _ => format!(r#"{{"event":"raw","data":{number}}}"#),
            };
            client.write(Message::text(said)).expect("queued");
        }
        client.flush().expect("sent");
        for number in 0..40 {
            assert_eq!(text(&mut client), number.to_string(), "{path}");
        }
    }
}

#[test]
fn nobody_for_an_event_is_an_answer_too_and_who_ignores_acknowledgements_gives_none() {
    let served = serve(|| {
        App::new()
            .ws("/none", Events::new().ignore("known").on("a", |_, _: Value| "a"))
            .ws("/message", Events::new().on_message(|_, message| message.as_text().map(str::len).map(Json)))
            .ws("/deaf", Events::new().ignore_acks().on("a", |_, _: Value| "a").on_unhandled(|_, what| named(what)))
    });
    let mut client = served.client("/none");
    for (said, heard) in [
        (r#"{"event":"b","ack":1}"#, json!({"ack": 1, "error": "no such event"})),
        (r#"{"event":"known","ack":2}"#, json!({"ack": 2, "data": null})),
        (r#"{"event":"a","ack":3}"#, json!({"ack": 3, "data": "a"})),
    ] {
        say(&mut client, said);
        assert_eq!(json(&mut client), heard);
    }
    let mut client = served.client("/message");
    say(&mut client, r#"{"event":"b","ack":1}"#);
    assert_eq!(json(&mut client), json!({"ack": 1, "data": 21}));
    let mut client = served.client("/deaf");
    for said in [r#"{"event":"a","ack":1}"#, r#"{"event":"a","ack":"x"}"#, r#"{"event":"a","ack":1,"ack":2}"#] {
        say(&mut client, said);
        assert_eq!(text(&mut client), "a");
    }
}

async fn asks(socket: Connection, timeout: Duration) -> Result<(), BoxError> {
    let answer = socket.emit_with_ack("question", &json!({"n": 1}), timeout).await;
    let _ = socket.emit("answered", &shown(answer))?;
    Ok(())
}

fn shown(answer: Result<ringwire::RawJson, AckError>) -> String {
    match answer {
        Ok(data) => data.to_string(),
        Err(error) => error.to_string(),
    }
}

/// A route that asks when it is told to, as a closure, an async handler, an async event handler and a task.
fn asking(timeout: Duration) -> Served {
    serve(move || {
        let ask_now = move |socket: &mut Socket<'_>| {
            let (answer, sender) = (socket.emit_with_ack("question", &json!({"n": 1}), timeout), socket.sender());
            let tell = async move { drop(sender.emit("answered", &shown(answer.await))) };
            socket.spawn(tell).detach();
        };
        App::new()
            .ws("/closure", ws().on_message(move |socket, _| ask_now(socket)))
            .ws("/event", Events::new().on("ask", move |socket, _: Value| ask_now(socket)))
            .ws("/async", ws().on_message_async(async move |socket: Connection, _| asks(socket, timeout).await))
            .ws(
                "/event-async",
                Events::new().on_async("ask", async move |socket: Connection, _: Value| asks(socket, timeout).await),
            )
            .ws(
                "/task",
                ws().task(async move |mut socket: Connection| {
                    while let Some(Ok(event)) = socket.recv_event().await {
                        assert_eq!(event.name(), "ask");
                        asks(socket.clone(), timeout).await?;
                        event.reply(&mut socket, ()).await?;
                    }
                    Ok::<_, BoxError>(())
                }),
            )
    })
}

const ASKING: [&str; 5] = ["/closure", "/event", "/async", "/event-async", "/task"];
const ASK: &str = r#"{"event":"ask"}"#;

fn question(client: &mut Client) -> u64 {
    let asked = json(client);
    assert_eq!((&asked["event"], &asked["data"]), (&json!("question"), &json!({"n": 1})));
    asked["ack"].as_u64().expect("a number")
}

/// Kills: answers that wait behind the handler that waits for them, and that go to a handler.
#[test]
fn a_client_is_asked_and_answers() {
    let served = asking(PATIENCE);
    for path in ASKING {
        let mut client = served.client(path);
        for (data, heard) in [
            (r#""data":{"a": 1}"#, r#"{"a": 1}"#),
            (r#""other":1"#, "null"),
            (r#""error":"no""#, "the client answers with an error: \"\\\"no\\\"\""),
        ] {
            say(&mut client, ASK);
            let number = question(&mut client);
            say(&mut client, format!(r#"{{"ack":{},"data":"of nothing"}}"#, number + 1_000_000));
            say(&mut client, format!(r#"{{"ack":{number},{data}}}"#));
            let answered = event_named(&mut client, "answered");
            if data.starts_with("\"error") {
                assert!(
                    answered.as_str().is_some_and(|text| text.starts_with("the client answers with an error: ")),
                    "{answered}"
                );
            } else {
                assert_eq!(answered, json!(heard), "{path}");
            }
            // Twice, and late: nobody hears of it.
            say(&mut client, format!(r#"{{"ack":{number},"data":1}}"#));
        }
        say(&mut client, ASK);
        question(&mut client);
    }
}

#[test]
fn whoever_does_not_answer_in_time_has_not() {
    let served = asking(Duration::from_millis(20));
    for path in ASKING {
        let mut client = served.client(path);
        say(&mut client, ASK);
        let number = question(&mut client);
        assert_eq!(event_named(&mut client, "answered"), json!("no acknowledgement in time"), "{path}");
        say(&mut client, format!(r#"{{"ack":{number},"data":1}}"#));
        say(&mut client, ASK);
        assert_ne!(question(&mut client), number, "{path}: the late answer was no message");
    }
}

#[test]
fn who_goes_answers_no_more_and_only_so_many_are_asked_at_once() {
    let (tell, told) = log();
    let served = serve(move || {
        let tell = tell.clone();
        App::new().ws(
            "/",
            ws().on_connect(move |socket| {
                let asked: Vec<_> = (0..65).map(|n| socket.emit_with_ack("q", &n, PATIENCE)).collect();
                let tell = tell.clone();
                let wait = async move {
                    for answer in asked {
                        tell(&shown(answer.await));
                    }
                };
                socket.spawn(wait).detach();
            }),
        )
    });
    let mut client = served.client("/");
    let numbers: Vec<u64> = (0..64)
        .map(|n| (json(&mut client), n))
        .map(|(asked, n)| {
            assert_eq!(asked["data"], json!(n));
            asked["ack"].as_u64().expect("a number")
        })
        .collect();
    // In any order.
    for number in numbers[..2].iter().rev() {
        say(&mut client, format!(r#"{{"ack":{number},"data":{number}}}"#));
    }
    assert_eq!(told.take(2), [numbers[0].to_string(), numbers[1].to_string()]);
    drop(client);
    assert_eq!(told.take(62), ["the connection has gone"; 62]);
    assert_eq!(told.next(), "64 events wait for their acknowledgements already");
    let gone = |hub: &Hub| block_on(hub.count()).expect("the cores answer") == 0;
    crate::common::eventually(|| gone(served.hub()), || "a connection".to_owned());
}

#[test]
fn a_task_reads_and_answers_events() {
    let served = serve(|| {
        let task = async |mut socket: Connection| {
            while let Some(received) = socket.recv_event().await {
                match received {
                    Ok(event) if event.name() == "add" => {
                        let Add { a, b } = event.json()?;
                        event.reply(&mut socket, Json(a + b)).await?;
                    }
                    Ok(event) => drop(event),
                    Err(message) => drop(socket.send(message)),
                }
            }
            Ok::<_, BoxError>(())
        };
        App::new().ws("/", ws().task(task))
    });
    let mut client = served.client("/");
    for (said, heard) in [
        (r#"{"event":"add","data":{"a":1,"b":2}}"#, json!(3)),
        (r#"{"event":"add","data":{"a":1,"b":3},"ack":1}"#, json!({"ack": 1, "data": 4})),
        (r#"{"event":"dropped","ack":2}"#, json!({"ack": 2, "error": "the handler failed"})),
        ("[1]", json!([1])),
    ] {
        say(&mut client, said);
        assert_eq!(json(&mut client), heard, "{said}");
    }
    say(&mut client, r#"{"event":"add","data":[1,2],"ack":3}"#);
    assert_eq!(json(&mut client), json!({"ack": 3, "error": "the handler failed"}));
    assert_eq!(close_frame(&mut client).0, 1007, "the task has failed");
}
