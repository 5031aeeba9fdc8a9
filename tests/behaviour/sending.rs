//! Sending to one, to all, to all but one, from handlers, HTTP and any thread.

use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use ringwire::{App, HttpError, Request, Sender, interval, ws};
use serde_json::{Value, json};

use crate::common::{PATIENCE, eventually};
use crate::examples::{finch, greeted, output, path_event, ringwire_ids};
use crate::rig::{event, say, serve, text};

#[test]
fn a04_emit_to_all_from_a_handler_http_and_any_thread() {
    let served = serve(|| {
        let route = ws().on_message(|socket, message| {
            let text = message.as_text().map(str::to_owned);
            socket.to_all().emit("chat", &json!({"message": text}))
        });
        App::new().ws("/", route).post("/all", async |request: Request| {
            let told = request.hub().emit_to_all("http", &request.json::<Value>()?)?.await;
            Ok::<_, HttpError>(told.queued.to_string())
        })
    });
    let mut clients = served.clients_on_both_cores("/", 8);
    let count = clients.len() as u32;
    say(&mut clients[0], "hi");
    for client in &mut clients {
        assert_eq!(text(client), r#"{"event":"chat","data":{"message":"hi"}}"#);
    }
    assert_eq!(served.http("POST", "/all", "[1,2]"), (200, count.to_string()));
    for client in &mut clients {
        assert_eq!(event(client), ("http".to_owned(), json!([1, 2])));
    }
    let hub = served.hub().clone();
    let told = thread::spawn(move || hub.emit_to_all("thread", "x").expect("text").wait()).join().expect("no panic");
    assert_eq!((told.queued, told.gone), (count, 0));
    for client in &mut clients {
        assert_eq!(event(client), ("thread".to_owned(), json!("x")));
    }
}

#[test]
fn f02_send_to_one_to_all_and_to_all_but_one() {
    let served = finch();
    let mut first = greeted(&served, 1);
    let mut second = greeted(&served, 2);
    assert_eq!(path_event(&mut first), output("A user connected. Total: 2"));

    say(&mut first, r#"{"path":"others","data":"not to me"}"#);
    assert_eq!(path_event(&mut second), output("not to me"));
    assert_eq!(served.http_json("POST", "/announce", r#""to all""#), (200, json!({"recipients": 2})));
    for client in [&mut first, &mut second] {
        assert_eq!(path_event(client), output("to all"));
    }
    say(&mut first, r#"{"path":"test","data":null}"#);
    assert_eq!(path_event(&mut first).0, "test");

    // The same from outside.
    let ids = ringwire_ids(&served);
    let told = served.hub().emit_to_all_except(ids[0], "output", "but one").expect("text").wait();
    assert_eq!(told.queued, 1);
    assert_eq!(served.hub().emit_to(ids[0], "output", "but one").expect("text").wait().queued, 1);
    for client in [&mut first, &mut second] {
        assert_eq!(path_event(client), output("but one"));
    }
}

#[test]
fn r05_a_sender_works_from_any_thread_and_knows_when_it_is_over() {
    let (give, given) = channel::<Sender>();
    let give = Arc::new(Mutex::new(give));
    let served = serve(move || {
        let give = Arc::clone(&give);
        let route = ws().on_connect(move |socket| give.lock().expect("no panic").send(socket.sender()));
        // A timer of the core's own does it too.
        let timer = ws().on_connect(|socket| {
            let sender = socket.sender();
            socket
                .spawn(async move {
                    let mut ticks = interval(Duration::from_millis(5));
                    for number in 0.. {
                        ticks.tick().await;
                        if sender.is_gone() || sender.send(format!("tick {number}")).is_err() {
                            return;
                        }
                    }
                })
                .detach();
        });
        App::new().ws("/", route).ws("/timer", timer)
    });
    let mut client = served.client("/");
    let sender = given.recv_timeout(PATIENCE).expect("a sender");
    let threads: Vec<_> = (0..4)
        .map(|thread| {
            let sender = sender.clone();
            thread::spawn(move || {
                for number in 0..100 {
                    assert_eq!(sender.send(format!("{thread} {number}")).expect("text").wait().queued, 1);
                }
            })
        })
        .collect();
    let mut next = [0; 4];
    for _ in 0..400 {
        let got = text(&mut client);
        let (thread, number) = got.split_once(' ').expect("two numbers");
        let next = &mut next[thread.parse::<usize>().expect("a number")];
        assert_eq!(number, next.to_string(), "each thread's messages keep their order");
        *next += 1;
    }
    for thread in threads {
        thread.join().expect("no panic");
    }
    assert!(!sender.is_gone());
    drop(client);
    eventually(|| sender.is_gone(), || "the sender to know".to_owned());
    assert_eq!(sender.send("too late").expect("text").wait().gone, 1);

    let mut client = served.client("/timer");
    for number in 0..3 {
        assert_eq!(text(&mut client), format!("tick {number}"));
    }
}
