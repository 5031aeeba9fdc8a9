//! Types of an embedder as replies and responses, wherever a handler comes to one.

use futures_util::stream;
use http::StatusCode;
use ringwire::testing::{TestResponse, TestServer};
use ringwire::{App, BoxError, Events, IntoReply, IntoResponse, IntoWs, Json, ReplySink, Response, Streamed, Ws, ws};

/// A type that its own crate makes a reply and a response of.
struct Degrees(f64);

impl IntoReply for Degrees {
    fn reply(self, sink: &mut dyn ReplySink) -> Result<(), BoxError> {
        Json(self.0).reply(sink)
    }
}

impl IntoResponse for Degrees {
    fn into_response(self) -> Response {
        Response::text(format!("{} degrees", self.0)).with_status(StatusCode::ACCEPTED)
    }
}

/// A generic one.
struct Twice<T>(T);

impl<T: IntoReply + Clone> IntoReply for Twice<T> {
    fn reply(self, sink: &mut dyn ReplySink) -> Result<(), BoxError> {
        self.0.clone().reply(sink)?;
        self.0.reply(sink)
    }
}

const ONE: &[&str] = &["21.5"];
const TWO: &[&str] = &["21.5", "21.5"];

/// A way, the route that goes it, and what its client gets for a message.
type Way = (&'static str, fn() -> Ws, &'static [&'static str]);

const WAYS: &[Way] = &[
    ("a closure", || ws().on_message(|_, _| Degrees(21.5)), ONE),
    (
        "a route that is a closure",
        || IntoWs::into_ws(|_: &mut ringwire::Socket<'_>, _: ringwire::Message<'_>| Degrees(21.5)),
        ONE,
    ),
    ("an async handler", || ws().on_message_async(async |_, _| Degrees(21.5)), ONE),
    ("a handler of text", || ws().on_text(|_, _| Degrees(21.5)), ONE),
    ("an async handler of text", || ws().on_text_async(async |_, _| Degrees(21.5)), ONE),
    ("a handler of JSON", || ws().on_json(|_, _: u32| Degrees(21.5)), ONE),
    ("an option", || ws().on_message(|_, _| Some(Degrees(21.5))), ONE),
    ("a result", || ws().on_message(|_, _| Ok::<_, BoxError>(Degrees(21.5))), ONE),
    ("an async result", || ws().on_message_async(async |_, _| Ok::<_, BoxError>(Degrees(21.5))), ONE),
    ("a stream", || ws().on_message(|_, _| Streamed(stream::iter([Degrees(21.5), Degrees(21.5)]))), TWO),
    ("a generic type", || ws().on_message(|_, _| Twice("21.5")), TWO),
    ("a generic type, async", || ws().on_message_async(async |_, _| Twice("21.5")), TWO),
];

#[test]
fn a_type_of_another_crate_is_a_reply_in_every_way() {
    for &(way, route, replies) in WAYS {
        let server = TestServer::new(move || App::new().ws("/", route()));
        let client = server.connect("/");
        client.send("7");
        for reply in replies {
            assert_eq!(client.next_text(), *reply, "{way}");
        }
        client.expect_nothing();
    }
}

#[test]
fn a_type_of_another_crate_is_the_data_of_an_acknowledgement() {
    let server = TestServer::new(|| {
        let events = Events::new()
            .on("now", |_, (): ()| Degrees(21.5))
            .on_async("later", async |_, (): ()| Degrees(21.5))
            .on_raw("raw", |_, _| Degrees(21.5));
        App::new().ws("/ws", events)
    });
    let client = server.connect("/ws");
    for (ack, name) in ["now", "later", "raw"].iter().enumerate() {
        client.send(format!(r#"{{"event":"{name}","data":null,"ack":{ack}}}"#));
        client.expect_text(&format!(r#"{{"ack":{ack},"data":21.5}}"#));
    }
}

#[test]
fn a_type_of_another_crate_is_a_response() {
    let server = TestServer::new(|| {
        App::new()
            .get("/plain", async |_| Degrees(21.5))
            .get("/result", async |_| Ok::<_, ringwire::HttpError>(Degrees(21.5)))
            .get("/with-status", async |_| (StatusCode::CREATED, Degrees(21.5)))
            .get("/endless", async |_| {
                loop {
                    ringwire::sleep(std::time::Duration::from_secs(3600)).await;
                }
            })
    });
    for (path, status) in [("/plain", 202), ("/result", 202), ("/with-status", 201)] {
        assert_eq!(server.get(path).send().expect_status(status).text(), "21.5 degrees", "{path}");
    }
    assert_eq!(TestResponse::of(Degrees(3.0)).expect_status(202).text(), "3 degrees");
}
