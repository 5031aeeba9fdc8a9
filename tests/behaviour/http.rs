//! HTTP beside WebSockets, and requests that are no handshake.

use ringwire::{App, Request, ws};
use serde_json::json;

use crate::examples::{arcade, finch, greeted, welcomed};
use crate::rig::{close_frame, event_named, json, request, serve, text};

#[test]
fn a10_http_routes_beside_sockets() {
    let served = arcade();
    let mut clients = served.clients_on_both_cores("/ws", 2);
    let ids: Vec<String> = clients.iter_mut().map(|client| welcomed(client).to_string()).collect();
    let count = clients.len();

    let (status, answer) = served.http_json("POST", "/api/broadcast", r#"{"message":"all"}"#);
    assert_eq!((status, answer), (200, json!({"sent": true, "recipients": count})));
    for client in &mut clients {
        assert_eq!(event_named(client, "broadcast")["message"], "all");
    }
    for bad in ["", "{", "[]", r#"{"text":1}"#] {
        let (status, answer) = served.http_json("POST", "/api/broadcast", bad);
        assert_eq!(status, 400, "{bad}");
        assert!(answer["error"].is_string());
    }

    let (status, room) = served.http_json("POST", "/api/rooms", r#"{"name":"New"}"#);
    assert_eq!((status, &room["name"]), (200, &json!("New")));
    let mut member = served.client(room["wsUrl"].as_str().expect("a path"));
    assert_eq!(json(&mut member)["room"]["name"], "New");

    let (_, list) = served.http_json("GET", "/api/ws/connections", "");
    assert_eq!(list["count"], count + 1);
    for id in &ids {
        assert!(list["connections"].as_array().expect("a list").iter().any(|known| known["id"] == *id), "{id}");
    }

    for (client, id) in clients.iter_mut().zip(&ids) {
        let path = format!("/api/ws/connections/{id}");
        assert_eq!(served.http_json("DELETE", &path, ""), (200, json!({"disconnected": true})));
        assert_eq!(event_named(client, "disconnect"), json!({"reason": "Admin action"}));
        assert_eq!(close_frame(client), (1008, "Admin action".to_owned()));
        assert_eq!(served.http("DELETE", &path, "").0, 404);
    }
    served.await_count(1);

    assert_eq!(served.http("GET", "/nothing/here", "").0, 404);
    let mut client = served.raw();
    client.send(&request("DELETE", "/api/broadcast", ""));
    let refused = client.response(false);
    assert_eq!((refused.status, refused.header("allow")), (405, Some("POST")));
    // The same connection goes on.
    client.send(&request("GET", "/api/ws/connections", ""));
    assert_eq!(client.response(false).status, 200);
    let len = (1 << 20) + 1;
    client.send(format!("POST /api/broadcast HTTP/1.1\r\nHost: x\r\nContent-Length: {len}\r\n\r\n").as_bytes());
    assert_eq!(client.response(false).status, 413);
}

#[test]
fn s06_a_request_that_is_no_handshake() {
    let served = serve(|| {
        App::new()
            .ws("/only", ws())
            .ws("/both", ws().on_connect(|_| "a socket"))
            .get("/both", async |_: Request| "a page")
    });
    let mut client = served.raw();
    client.send(&request("GET", "/only", ""));
    let refused = client.response(false);
    assert_eq!((refused.status, refused.header("upgrade")), (426, Some("websocket")));
    assert_eq!(served.http("GET", "/both", ""), (200, "a page".to_owned()));
    assert_eq!(text(&mut served.client("/both")), "a socket");
}

#[test]
fn f06_an_http_handler_decides_about_the_upgrade() {
    let served = finch();
    greeted(&served, 1);
    assert_eq!(served.connect("/ws?banned=1", &[]).err(), Some(403));
    // The handler takes all methods; the handshake is a GET (RFC 6455 4.1).
    for method in ["POST", "PUT", "DELETE"] {
        let mut client = served.raw();
        client.send(&request(method, "/ws", ""));
        let refused = client.response(false);
        assert_eq!((refused.status, refused.header("allow").is_some()), (405, true), "{method}");
    }
    let mut client = served.raw();
    client.send(&request("GET", "/ws", ""));
    let refused = client.response(false);
    assert_eq!((refused.status, refused.header("upgrade")), (426, Some("websocket")));
}
