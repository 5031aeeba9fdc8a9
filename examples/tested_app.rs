//! An app and its tests: a hook, an HTTP handler and a chat, without a port. `cargo test` runs them; `cargo run --example
//! tested_app` serves the app on port 9001.
//!
//! What tests need is the feature `testing`, for tests alone:
//!
//! ```toml
//! [dev-dependencies]
//! ringwire = { path = "../ringwire", features = ["testing"] }
//! ```

use ringwire::{App, HttpError, Request, Server, ws};
use serde_json::{Value, json};

fn main() -> ringwire::Result<()> {
    Server::from_env()?.run(app)
}

#[derive(Clone, Debug, PartialEq)]
struct User(String);

fn authenticate(request: &mut Request) -> Result<(), HttpError> {
    let name = request.cookie("user").ok_or_else(|| HttpError::unauthorized("log in first"))?.to_owned();
    request.extensions_mut().insert(User(name));
    Ok(())
}

async fn count(request: Request) -> Value {
    json!({"connections": request.hub().websockets()})
}

fn app() -> App {
    let chat = ws().on_connect(|socket| socket.join(socket.param("room"))).on_message(|socket, message| {
        let name = socket.extensions().get::<User>().map_or_else(String::new, |user| user.0.clone());
        let text = format!("{name}: {}", message.as_text().unwrap_or_default());
        socket.to(socket.param("room")).send(text)
    });
    App::new().get("/count", count).group("/rooms", |group| group.before(authenticate).ws("/{room}", chat))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringwire::testing::{TestServer, request};

    #[test]
    fn a_hook_is_a_function() {
        let mut of_ann = request("GET", "/rooms/lobby").header("cookie", "user=ann").build();
        assert!(authenticate(&mut of_ann).is_ok());
        assert_eq!(of_ann.extensions().get(), Some(&User("ann".to_owned())));
        assert_eq!(authenticate(&mut request("GET", "/").build()).unwrap_err().status(), 401);
    }

    #[test]
    fn an_http_handler_counts_connections() {
        let server = TestServer::new(app);
        let _ann = server.handshake("/rooms/lobby").cookie("user", "ann").open();
        assert_eq!(server.get("/count").send().json::<Value>(), json!({"connections": 1}));
    }

    #[test]
    fn a_chat_has_rooms_and_names() {
        let server = TestServer::new(app);
        let join = |room: &str, name: &str| server.handshake(&format!("/rooms/{room}")).cookie("user", name).open();
        let (ann, ben, eve) = (join("lobby", "ann"), join("lobby", "ben"), join("other", "eve"));
        ann.send("hello");
        ben.expect_text("ann: hello");
        eve.expect_nothing();
        assert_eq!(server.handshake("/rooms/lobby").refusal().status(), 401);
    }
}
