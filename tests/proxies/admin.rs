//! The admin listener: what is there, and what is not.

use std::net::SocketAddr;

use ringwire::config::ProxyProtocol;
use ringwire::{App, Config, Server};

use crate::common::raw::Raw;
use crate::common::{TestServer, config};
use crate::{ask, get, upgrade, with_token};

fn with_admin(config: Config) -> Config {
    config.admin_address(Some("127.0.0.1:0".parse().expect("an address")))
}

fn admin_of(server: &TestServer) -> SocketAddr {
    assert_eq!(server.handle().addresses().len(), 1);
    server.handle().admin_addresses()[0].inet().expect("an address")
}

const OPERATORS: [&str; 5] = ["/healthz", "/readyz", "/metrics", "/api/ws/connections", "/api/ws/connections/x/data"];

/// Kills: one table of routes for all listeners.
#[test]
fn operators_routes_are_there_and_nowhere_else() {
    let server = TestServer::with(with_admin(config()));
    let (public, admin) = (server.address, admin_of(&server));
    for path in OPERATORS {
        let response = ask(Raw::connect(public), &get(path, &[]));
        assert_eq!((response.status, response.body.as_str()), (404, r#"{"error":"not found"}"#), "{path}");
        let wanted = if path.contains("/x/") { 404 } else { 200 };
        let response = ask(Raw::connect(admin), &get(path, &[]));
        assert_eq!(response.status, wanted, "{path}");
        assert_ne!(response.body, r#"{"error":"not found"}"#, "{path}");
    }
    // Nothing tells that they are there: neither another method, nor the answer to a head whose body is held back.
    for method in ["POST", "DELETE", "PUT", "OPTIONS"] {
        for expect in ["", "Expect: 100-continue\r\n"] {
            let head =
                format!("{method} /api/broadcast HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 2\r\n{expect}\r\n");
            let bytes = if expect.is_empty() { head + "{}" } else { head };
            assert_eq!(ask(Raw::connect(public), bytes.as_bytes()).status, 404, "{method} {expect}");
        }
    }
    let options = b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n";
    let allowed = |address| ask(Raw::connect(address), options).header("allow").map(str::to_owned);
    assert_eq!(allowed(public).as_deref(), Some("OPTIONS, GET, HEAD"));
    assert!(allowed(admin).is_some_and(|methods| methods.contains("DELETE")));

    for path in ["/", "/ws", "/echo", "/rooms/x"] {
        assert_eq!(ask(Raw::connect(admin), &get(path, &[])).status, 404, "{path}");
        assert_eq!(ask(Raw::connect(admin), &upgrade(path, &[])).status, 404, "{path}");
        assert_ne!(ask(Raw::connect(public), &get(path, &[])).status, 404, "{path}");
    }
    assert_eq!(ask(Raw::connect(public), &upgrade("/ws", &[])).status, 101);
}

#[test]
fn the_same_rules_hold_there() {
    let server = TestServer::with(with_token(with_admin(config())));
    let admin = || Raw::connect(admin_of(&server));
    assert_eq!(ask(admin(), &get("/metrics", &[])).status, 401);
    assert_eq!(ask(admin(), &get("/metrics", &[("Authorization", "Bearer c2VjcmV0")])).status, 200);
    assert_eq!(ask(admin(), &get("/healthz", &[])).status, 200);
    let server = TestServer::with(with_admin(config()));
    let admin = || Raw::connect(admin_of(&server));
    assert_eq!(ask(admin(), &get("/metrics", &[("X-Forwarded-For", "192.0.2.1")])).status, 403);
    assert_eq!(ask(admin(), &get("/metrics", &[("Origin", "http://evil.test")])).status, 403);
}

/// While strangers flood the public address, operators are let in; and they speak no PROXY protocol.
#[test]
fn limits_of_addresses_and_rates_do_not_hold_there() {
    let limits = config().max_connections_per_ip(1).accept_rate(1);
    let server = TestServer::with(with_admin(limits.proxy_protocol(ProxyProtocol::Always)));
    let open: Vec<Raw> = (0..40)
        .map(|number| {
            let mut client = Raw::connect(admin_of(&server));
            client.send(&get("/healthz", &[]));
            assert_eq!(client.response(false).status, 200, "{number}");
            client
        })
        .collect();
    drop(open);
}

/// As an embedder has it.
#[test]
fn groups_of_any_app_can_be_for_operators() {
    let app = || {
        App::new().get("/", async |_| "everybody").fallback(async |_| "fallback").group("/internal", |group| {
            group.admin().get("/version", async |_| "1").group("/deep", |g| g.get("/x", async |_| "2"))
        })
    };
    let bodies = |config: Config, number: usize| {
        let handle = Server::new(config).start(app).expect("a server");
        let all: Vec<_> = handle.addresses().iter().chain(handle.admin_addresses()).cloned().collect();
        let address = all[number].inet().expect("an address");
        let paths = ["/", "/internal/version", "/internal/deep/x", "/nothing"];
        let answers = paths.map(|path| ask(Raw::connect(address), &get(path, &[])).body);
        handle.shutdown();
        handle.join().expect("it ends");
        answers
    };
    let not_found = r#"{"error":"not found"}"#;
    assert_eq!(bodies(config(), 0), ["everybody", "1", "2", "fallback"]);
    assert_eq!(bodies(with_admin(config()), 0), ["everybody", "fallback", "fallback", "fallback"]);
    assert_eq!(bodies(with_admin(config()), 1), [not_found, "1", "2", not_found]);
}
