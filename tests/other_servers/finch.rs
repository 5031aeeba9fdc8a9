//! Finch, "WebSocket": socket managers, named routes, and the controller that upgrades.

use std::collections::BTreeMap;

use ringwire::client::{ClientError, blocking};
use ringwire::testing::{TestClient, TestServer};
use ringwire::{App, BoxError, Delivery, EncodeError, Envelope, Events, Hub, Json, Request, Response, Socket, Ws, ws};
use serde_json::{Value, json};

use crate::given::{is_time, now, printed, serve};

fn socket_manager() -> Events {
    let events = Events::new()
        .on_connect(|socket| {
            let count = socket.hub().websockets();
            socket.to_all().emit("output", &format!("A user connected. Total: {count}"))?;
            socket.emit("connected", &json!({"message": "Successfully connected to socket!"}))
        })
        .on_message(|_, _| {})
        .on_disconnect(|socket, _| {
            let count = socket.hub().websockets();
            let _ = socket.to_all().emit("output", &format!("A user disconnected. Total: {}", count - 1));
        });
    socket_routes(events)
}

fn socket_routes(events: Events) -> Events {
    events
        .on("test", |socket, _: Value| {
            let headers = socket.request().headers().iter();
            let headers = headers.map(|(name, value)| (name.as_str(), String::from_utf8_lossy(value.as_bytes())));
            socket.emit("test", &[headers.collect::<BTreeMap<_, _>>()])
        })
        .on("time", |socket, _: Value| socket.emit("output", &now()))
}

async fn socket_controller(request: Request, socket: &Ws) -> Response {
    request.upgrade(socket)
}

fn socket_route(app: App) -> App {
    let socket = socket_manager().into_ws();
    app.any("/ws", async move |request| socket_controller(request, &socket).await)
}

fn messages_from_the_server(socket: &mut Socket<'_>, data: &Value) -> Result<Delivery, EncodeError> {
    let _ = socket.emit("channelName", data)?;
    socket.to_all().emit("channelName", data)?;
    socket.to_all().except_self().emit("channelName", data)
}

fn client(url: &str) -> Result<(), ClientError> {
    let ws = blocking::connect(url)?;
    println!("Connected");
    ws.send(Json(json!({"path": "time", "data": {}})))?;
    for message in ws {
        let message: Value = message?.json().unwrap_or_default();
        match message["path"].as_str() {
            Some("connected") => println!("Server says: {}", message["data"]["message"]),
            Some("output") => println!("Output: {}", message["data"]),
            _ => {}
        }
    }
    Ok(())
}

fn count_of_clients(hub: &Hub) -> u32 {
    hub.websockets()
}

fn second_socket_manager() -> Events {
    let events = Events::new()
        .on_connect(|socket| {
            let count = socket.hub().websockets();
            socket.to_all().emit("output", &format!("New user connected! count: {count}"))?;
            socket.emit("connected", &json!({"message": "Soccuess connect to socket!"}))
        })
        .on_message(|_, _| {})
        .on_disconnect(|socket, _| {
            let count = socket.hub().websockets();
            let _ = socket.to_all().emit("output", &format!("User disconnected! count: {}", count - 1));
        });
    test_route(time_event(events))
}

fn time_event(events: Events) -> Events {
    events.on("time", |socket, _: Value| socket.emit("output", &now()))
}

fn test_route(events: Events) -> Events {
    events.on("test", |socket, _: Value| {
        let headers = socket.request().headers().iter();
        let headers = headers.map(|(name, value)| (name.as_str(), String::from_utf8_lossy(value.as_bytes())));
        socket.emit("test", &[headers.collect::<BTreeMap<_, _>>()])
    })
}

fn routes_added_to_the_app(app: App) -> App {
    let socket = second_socket_manager().into_ws();
    app.any("/ws", async move |request: Request| request.upgrade(&socket))
}

fn app(add: fn(App) -> App) -> impl Fn() -> App + Send + Sync {
    move || add(App::new().envelope(Envelope::Path))
}

/// The path and the data of the next message.
fn next(client: &TestClient) -> (String, Value) {
    let mut message: Value = client.next_json();
    (message["path"].as_str().expect("a path").to_owned(), message["data"].take())
}

fn output(text: &str) -> (String, Value) {
    ("output".to_owned(), text.into())
}

fn connected(text: &str) -> (String, Value) {
    ("connected".to_owned(), json!({"message": text}))
}

/// The word comes to all, then to the new one alone; routes answer on their paths; who leaves is counted until then.
#[test]
fn a_socket_manager_tells_of_connections_and_dispatches_to_named_routes() {
    type Manager = (fn(App) -> App, [&'static str; 3]);
    let managers: [Manager; 2] = [
        (
            socket_route,
            ["A user connected. Total: ", "Successfully connected to socket!", "A user disconnected. Total: "],
        ),
        (
            routes_added_to_the_app,
            ["New user connected! count: ", "Soccuess connect to socket!", "User disconnected! count: "],
        ),
    ];
    for (add, [came, welcome, left]) in managers {
        let server = TestServer::builder().cores(2).start(app(add));
        let first = server.connect("/ws");
        assert_eq!([next(&first), next(&first)], [output(&format!("{came}1")), connected(welcome)]);
        let second = server.handshake("/ws").header("x-mark", "here").open();
        assert_eq!([next(&second), next(&second)], [output(&format!("{came}2")), connected(welcome)]);
        assert_eq!(next(&first), output(&format!("{came}2")));
        assert_eq!(count_of_clients(server.hub()), 2);

        second.send_json(&json!({"path": "test", "data": {}}));
        let (path, headers) = next(&second);
        assert_eq!((path.as_str(), &headers[0]["x-mark"]), ("test", &json!("here")));
        second.send_json(&json!({"path": "time", "data": {}}));
        let (path, time) = next(&second);
        assert!(path == "output" && is_time(time.as_str().expect("text")), "{time}");
        // What no route is named after goes to the manager's own handler, which says nothing.
        second.send_json(&json!({"path": "elsewhere", "data": {}}));
        second.send("no JSON");
        second.expect_nothing();

        second.close(1000, "");
        second.expect_close(1000);
        assert_eq!(next(&first), output(&format!("{left}1")));
        assert_eq!(server.get("/ws").send().status(), 426);
    }
}

#[test]
fn messages_go_to_one_to_all_and_to_all_but_one() {
    let told = |socket: &mut Socket<'_>, data: Value| messages_from_the_server(socket, &data);
    let server = TestServer::new(|| App::new().envelope(Envelope::Path).ws("/ws", ws().on_json(told)));
    let (asker, other) = (server.connect("/ws"), server.connect("/ws"));
    asker.send_json(&json!(7));
    for client in [&asker, &asker, &other, &other] {
        client.expect_json(json!({"path": "channelName", "data": 7}));
    }
    asker.expect_nothing();
    other.expect_nothing();
}

#[test]
fn a_client_prints_what_comes_on_the_paths_that_it_knows() {
    // The client listens until it is closed: here, after its question.
    let server = serve(|| {
        let events = Events::new().on_connect(|socket| socket.emit("connected", &json!({"message": "hello"}))).on(
            "time",
            |socket, _: Value| {
                let _ = socket.emit("unknown", &1)?;
                let _ = socket.emit("output", &"12:00")?;
                Ok::<_, BoxError>(socket.close(1000, "")?)
            },
        );
        App::new().envelope(Envelope::Path).ws("/ws", events)
    });
    client(&server.url("/ws")).expect("it goes well");
    assert_eq!(printed(), ["Connected", r#"Server says: "hello""#, r#"Output: "12:00""#]);
}
