//! Revali, "WebSockets": routes with modes, senders, closing, pings, and two clients.

use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::stream::{self, Stream, StreamExt as _};
use ringwire::client::{ClientError, blocking, connect};
use ringwire::testing::{TestServer, block_on};
use ringwire::{App, Delivery, EncodeError, IllegalCloseCode, Json, Mode, Sender, Streamed};
use ringwire::{Ws, interval, sleep, ws};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::given::{NotificationService, is_time, now, printed, serve};

fn handler_of_a_controller() -> App {
    App::new().group("/chat", |chat| chat.ws("/messages", ws().on_text(|_, message| format!("Echo: {message}"))))
}

fn two_way() -> Ws {
    ws().mode(Mode::TwoWay).on_text(|_, message| format!("Echo: {message}"))
}

fn receive_only() -> Ws {
    ws().mode(Mode::ReceiveOnly).on_text(|_, message| println!("Received: {message}"))
}

fn send_only() -> Ws {
    ws().mode(Mode::SendOnly).on_message(|_, _| "Server notification")
}

fn basic_messages(process: fn(&str) -> String) -> Ws {
    ws().on_text(move |_, message| format!("Server: {}", process(message)))
}

fn json_messages() -> Ws {
    #[derive(Deserialize)]
    struct ChatMessage {
        user: String,
        text: String,
    }
    ws().on_json(|_, message: ChatMessage| format!("{}: {}", message.user, message.text))
}

fn async_messages() -> Ws {
    ws().on_text_async(async |_, message| {
        sleep(Duration::from_secs(1)).await;
        format!("Processed: {message}")
    })
}

fn sender_with_a_timer() -> Ws {
    ws().on_connect(|socket| {
        let _ = socket.send("Notifications started");
        Streamed(interval(Duration::from_secs(5)).into_stream().map(|()| format!("Notification {}", now())))
    })
}

async fn one_sender_of_all_types(
    sender: Sender,
    text: String,
    later: impl Future<Output = String>,
    texts: impl Stream<Item = String>,
) -> Result<Delivery, EncodeError> {
    sender.send(text)?;
    sender.send(later.await)?;
    sender.send_stream(texts).await
}

fn closed_when_sent() -> Ws {
    ws().mode(Mode::SendOnly).on_message(|_, _| "Final message")
}

fn open_until_closed(should_close: fn() -> bool) -> Ws {
    ws().on_message(move |socket, _| {
        if should_close() {
            return socket.close(1000, "Normal closure").map(|()| "");
        }
        Ok("Message processed")
    })
}

fn close_codes([done, leaving, wrong, unfit, own]: [Sender; 5]) -> Result<(), IllegalCloseCode> {
    done.close(1000, "Normal closure")?;
    leaving.close(1001, "Going away")?;
    wrong.close(1002, "Protocol error")?;
    unfit.close(1003, "Unsupported data")?;
    own.close(4000, "Custom application error").map(drop)
}

fn pings() -> Ws {
    ws().ping_interval(Duration::from_secs(30)).on_message(|_, _| format!("Pong: {}", now()))
}

fn trigger_on_connect() -> Ws {
    ws().on_open_or_message(|_, message| match message {
        None => "Connected to WebSocket".to_owned(),
        Some(message) => format!("Message: {}", message.as_text().unwrap_or_default()),
    })
}

fn chat_application(messages: &Arc<Mutex<Vec<String>>>) -> App {
    let messages = Arc::clone(messages);
    let chat = ws().on_text(move |socket, message| {
        messages.lock().expect("no panic").push(format!("{}: {message}", now()));
        socket.to_all().send(message)?;
        Ok::<_, EncodeError>("Message received")
    });
    App::new().group("/chat", |group| group.ws("/messages", chat))
}

fn notifications_of_a_service(service: &NotificationService) -> App {
    let service = service.clone();
    let stream = ws().mode(Mode::SendOnly).on_message(move |socket, _| {
        let sender = socket.sender();
        service.listen(move |notification| drop(sender.send(Json(notification))));
        "Notification stream started"
    });
    App::new().group("/notifications", |group| group.ws("/stream", stream))
}

fn upload_progress() -> App {
    let handle_upload = ws().on_json(|_, data: Map<String, Value>| {
        let progress = data.get("progress")?.as_u64()?;
        let filename = data.get("filename")?.as_str()?;
        if progress == 100 {
            return Some(format!("Upload complete: {filename}"));
        }
        Some(format!("Upload progress: {progress}%"))
    });
    App::new().group("/upload", |upload| upload.ws("/progress", handle_upload))
}

fn client_that_blocks(url: &str) -> Result<(), ClientError> {
    let channel = blocking::connect(url)?;
    channel.send("Hello WebSocket!")?;
    for message in channel {
        match message {
            Ok(message) => println!("Received: {}", message.as_text().unwrap_or_default()),
            Err(error) => println!("Error: {error}"),
        }
    }
    println!("Connection closed");
    Ok(())
}

async fn client_that_awaits(url: &str) -> Result<(), ClientError> {
    let mut socket = connect(url).await?;
    socket.send("Hello WebSocket!").await?;
    while let Some(message) = socket.recv().await {
        match message {
            Ok(message) => println!("Received: {}", message.as_text().unwrap_or_default()),
            Err(error) => println!("Error: {error}"),
        }
    }
    println!("Connection closed");
    Ok(())
}

fn fitting_modes() -> App {
    App::new()
        .ws("/notifications", ws().mode(Mode::SendOnly).on_message(|_, _| "Notification"))
        .ws("/logs", ws().mode(Mode::ReceiveOnly).on_text(|_, message| println!("{message}")))
}

fn cleanup(dispose: fn()) -> Ws {
    ws().on_message(move |socket, _| {
        socket.on_cleanup(dispose);
        "Data processed"
    })
}

fn type_safe_messages() -> Ws {
    #[derive(Deserialize)]
    struct ChatMessage {
        user: String,
        text: String,
    }
    ws().on_json(|_, message: ChatMessage| format!("{}: {}", message.user, message.text))
}

/// A server with a route at `/`.
fn server(route: impl Fn() -> Ws) -> TestServer {
    TestServer::new(|| App::new().ws("/", route()))
}

#[test]
fn what_a_handler_returns_is_the_reply() {
    let routes = [(TestServer::new(handler_of_a_controller), "/chat/messages"), (server(two_way), "/")];
    for (server, path) in routes {
        let client = server.connect(path);
        client.send("hello");
        client.expect_text("Echo: hello");
    }
    let server = server(|| basic_messages(str::to_uppercase));
    let client = server.connect("/");
    client.send("hello");
    client.expect_text("Server: HELLO");
}

#[test]
fn modes_say_which_way_messages_go() {
    let receiving = server(receive_only);
    let client = receiving.connect("/");
    client.send("hello");
    client.expect_nothing();
    assert_eq!(printed(), ["Received: hello"]);
    let fitting = TestServer::new(fitting_modes);
    let client = fitting.connect("/logs");
    client.send("a line");
    client.expect_nothing();
    assert_eq!(printed(), ["a line"]);
    let sending = [(server(send_only), "/", "Server notification"), (server(closed_when_sent), "/", "Final message")];
    for (server, path, text) in sending.into_iter().chain([(fitting, "/notifications", "Notification")]) {
        let client = server.connect(path);
        client.expect_text(text);
        client.expect_close(1000);
    }
}

#[test]
fn messages_are_of_a_type() {
    for route in [json_messages, type_safe_messages] {
        let server = server(route);
        let client = server.connect("/");
        client.send_json(&json!({"user": "Ann", "text": "hello"}));
        client.expect_text("Ann: hello");
        client.send_json(&json!({"user": "Ann"}));
        client.expect_close(1007);
    }
}

#[test]
fn a_handler_may_wait() {
    let server = server(async_messages);
    let client = server.connect("/");
    client.send("hello");
    client.expect_nothing_for(Duration::from_millis(999));
    client.expect_text("Processed: hello");
}

#[test]
fn a_timer_sends_without_being_asked() {
    let server = server(sender_with_a_timer);
    let client = server.connect("/");
    client.expect_text("Notifications started");
    for _ in 0..3 {
        client.expect_nothing_for(Duration::from_millis(4999));
        let notification = client.next_text();
        assert!(notification.strip_prefix("Notification ").is_some_and(is_time), "{notification}");
        // What the client says meanwhile is heard, and its handler has nothing to say.
        client.send("still here");
    }
    client.expect_nothing();
}

#[test]
fn a_sender_sends_what_is_there_what_comes_later_and_what_comes_in_parts() {
    let server = server(|| {
        ws().on_connect(|socket| {
            let sender = socket.sender();
            let later = async {
                sleep(Duration::from_secs(1)).await;
                "later".to_owned()
            };
            let texts = stream::iter(["one", "two"].map(str::to_owned));
            socket.spawn(one_sender_of_all_types(sender, "now".to_owned(), later, texts)).detach();
        })
    });
    let client = server.connect("/");
    client.expect_text("now");
    client.expect_nothing_for(Duration::from_millis(999));
    ["later", "one", "two"].into_iter().for_each(|text| client.expect_text(text));
    client.expect_nothing();
}

#[test]
fn a_connection_stays_open_until_it_is_closed() {
    thread_local! {
        static CLOSES: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
    }
    let server = server(|| open_until_closed(|| CLOSES.get()));
    let client = server.connect("/");
    client.send("hello");
    client.expect_text("Message processed");
    CLOSES.set(true);
    client.send("hello");
    assert_eq!(client.expect_close(1000), "Normal closure");
}

#[test]
fn each_closes_with_its_code_and_reason() {
    let senders = Arc::new(Mutex::new(Vec::new()));
    let held = Arc::clone(&senders);
    let server = server(move || {
        let held = Arc::clone(&held);
        ws().on_connect(move |socket| held.lock().expect("no panic").push(socket.sender()))
    });
    let clients: Vec<_> = (0..5).map(|_| server.connect("/")).collect();
    let senders = std::mem::take(&mut *senders.lock().expect("no panic")).try_into();
    close_codes(senders.unwrap_or_else(|_| panic!("five connections"))).expect("legal codes");
    let closed = [
        (1000, "Normal closure"),
        (1001, "Going away"),
        (1002, "Protocol error"),
        (1003, "Unsupported data"),
        (4000, "Custom application error"),
    ];
    for (client, (code, reason)) in clients.iter().zip(closed) {
        assert_eq!(client.expect_close(code), reason);
    }
}

#[test]
fn the_server_pings_each_thirty_seconds() {
    let server = server(pings);
    let client = server.connect("/");
    client.send("hello");
    assert!(client.next_text().strip_prefix("Pong: ").is_some_and(is_time));
    for _ in 0..2 {
        client.expect_nothing_for(Duration::from_secs(29));
        client.expect_ping();
    }
}

#[test]
fn a_handler_runs_when_the_connection_opens() {
    let server = server(trigger_on_connect);
    let client = server.connect("/");
    client.expect_text("Connected to WebSocket");
    client.send("hello");
    client.expect_text("Message: hello");
    client.send("");
    client.expect_text("Message: ");
}

#[test]
fn a_chat_keeps_and_broadcasts_what_is_said() {
    let messages = Arc::default();
    let server = TestServer::builder().cores(2).start(|| chat_application(&messages));
    let (ann, ben) = (server.connect("/chat/messages"), server.connect("/chat/messages"));
    ann.send("hello");
    ann.expect_text("hello");
    ann.expect_text("Message received");
    ben.expect_text("hello");
    ben.expect_nothing();
    let messages = messages.lock().expect("no panic");
    assert!(messages.len() == 1 && messages[0].strip_suffix(": hello").is_some_and(is_time), "{messages:?}");
}

#[test]
fn a_service_notifies_as_long_as_it_lives() {
    let service = NotificationService::default();
    let server = TestServer::new(|| notifications_of_a_service(&service));
    let client = server.connect("/notifications/stream");
    client.expect_text("Notification stream started");
    for title in ["one", "two"] {
        client.expect_nothing_for(Duration::from_secs(5));
        service.notify(title);
        client.expect_json(json!({"title": title}));
    }
    service.end();
    client.expect_close(1000);
}

#[test]
fn an_upload_is_told_how_far_it_is() {
    let server = TestServer::new(upload_progress);
    let client = server.connect("/upload/progress");
    for (progress, text) in [(50, "Upload progress: 50%"), (100, "Upload complete: a.txt")] {
        client.send_json(&json!({"progress": progress, "filename": "a.txt"}));
        client.expect_text(text);
    }
}

#[test]
fn clients_print_what_they_receive_and_that_they_were_closed() {
    let app = || {
        let echo = ws().on_text(|socket, message| {
            let _ = socket.send(format!("Echo: {message}"));
            socket.close(1000, "")
        });
        App::new().ws("/chat/messages", echo)
    };
    let server = serve(app);
    let url = server.url("/chat/messages");
    for client in [&client_that_blocks as &dyn Fn(&str) -> _, &|url| block_on(client_that_awaits(url))] {
        client(&url).expect("it goes well");
        assert_eq!(printed(), ["Received: Echo: Hello WebSocket!", "Connection closed"]);
    }
}

#[test]
fn resources_are_cleaned_up_when_the_connection_closes() {
    let server = server(|| cleanup(|| println!("disposed")));
    let client = server.connect("/");
    client.send("hello");
    client.expect_text("Data processed");
    assert_eq!(printed(), [""; 0]);
    client.reset();
    server.advance(Duration::from_secs(1));
    assert_eq!(printed(), ["disposed"]);
}
