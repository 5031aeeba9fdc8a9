//! `/metrics`: what it says after something has happened, over two cores.

use std::sync::{Arc, Barrier};

use prometheus_parse::{Sample, Scrape, Value};
use ringwire::metrics::CONTENT_TYPE;
use ringwire::remote::AskAll as _;

use crate::common::raw::{self, Raw};
use crate::common::{TestServer, config, eventually};
use crate::{ask_with, json_of};

pub(super) fn scrape(server: &TestServer) -> Scrape {
    let response = ask_with(server, "GET", "/metrics", &[], "");
    assert_eq!((response.status, response.header("content-type")), (200, Some(CONTENT_TYPE)));
    Scrape::parse(response.body.lines().map(|line| Ok(line.to_owned()))).expect("the format")
}

/// Summed over cores.
pub(super) fn sum(scrape: &Scrape, name: &str, labels: &[(&str, &str)]) -> f64 {
    let is_it = |sample: &&Sample| {
        sample.metric == name && labels.iter().all(|(label, value)| sample.labels.get(label) == Some(value))
    };
    let samples = scrape.samples.iter().filter(is_it);
    let value = |sample: &Sample| match &sample.value {
        Value::Counter(value) | Value::Gauge(value) => *value,
        Value::Histogram(buckets) => buckets.last().expect("buckets").count,
        other => panic!("{other:?}"),
    };
    samples.map(value).sum()
}

#[test]
fn what_happens_is_in_the_numbers_of_some_core() {
    let server = TestServer::new();
    let mut clients: Vec<Raw> = (0..8).map(|_| server.open("/echo")).collect();
    for client in &mut clients {
        client.send(&raw::text("0123456789"));
        assert_eq!(client.frame().payload.len(), 10);
    }
    let mut closed = clients.pop().expect("a client");
    closed.send(&raw::close(4321, b""));
    drop(closed.frames());
    clients.pop().expect("a client").reset();
    let mut broken = clients.pop().expect("a client");
    broken.send(&[0xFF; 8]);
    drop(broken.frames());
    server.await_connections(5);
    let mut refused = server.raw();
    refused.send(b"GET /echo HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(refused.response(false).status, 426);

    let now = scrape(&server);
    let is = |name: &str, labels: &[(&str, &str)], value: f64| {
        assert_eq!(sum(&now, name, labels), value, "{name} {labels:?}")
    };
    is("ringwire_cores", &[], 2.0);
    is("ringwire_websockets", &[], 5.0);
    is("ringwire_websockets_opened_total", &[], 8.0);
    is("ringwire_websockets_closed_total", &[], 3.0);
    is("ringwire_websockets_closed_total", &[("by", "peer"), ("code", "other")], 1.0);
    is("ringwire_websockets_closed_total", &[("by", "none"), ("code", "1006")], 1.0);
    is("ringwire_websockets_closed_total", &[("by", "local"), ("code", "1002")], 1.0);
    is("ringwire_protocol_errors_total", &[], 1.0);
    is("ringwire_refused_total", &[("reason", "handshake")], 1.0);
    is("ringwire_messages_received_total", &[], 8.0);
    is("ringwire_messages_sent_total", &[], 8.0);
    is("ringwire_outbox_bytes", &[], 0.0);
    assert!(sum(&now, "ringwire_sent_bytes_total", &[]) > 8.0 * 12.0);
    let ticks = sum(&now, "ringwire_ticks_total", &[]);
    assert!(ticks > 8.0 && sum(&now, "ringwire_handler_seconds", &[]) == ticks);
    let enters = sum(&now, "ringwire_ring_enters_total", &[]);
    assert!(enters > 2.0 && sum(&now, "ringwire_ring_completions_total", &[]) > 16.0);
    assert!(sum(&now, "ringwire_handler_longest_seconds", &[]) > 0.0);
    for core in ["0", "1"] {
        assert!(now.samples.iter().any(|sample| sample.labels.get("core") == Some(core)));
    }
}

/// Kills: questions that take the way of messages.
#[test]
fn full_mailboxes_and_closed_doors() {
    let server = TestServer::with(config().mail_depth(16));
    let hub = server.handle().hub();
    // Nobody reads its mail while it waits for a thread that writes to it: that fills the mailboxes, as soon as both have
    // been asked.
    let told = hub.ask_all({
        let (hub, asked) = (hub.clone(), Arc::new(Barrier::new(2)));
        move |_| {
            asked.wait();
            let write = || (0..100).map(|_| hub.send_to_all("x")).filter(Result::is_ok).count();
            std::thread::scope(|scope| scope.spawn(write).join().expect("no panic"))
        }
    });
    assert_eq!(told.map(|told| told.len()), Ok(2));
    eventually(|| sum(&scrape(&server), "ringwire_mail_refused_total", &[]) > 0.0, || "refused letters".to_owned());
    assert_eq!(sum(&scrape(&server), "ringwire_mail_depth", &[]), 0.0);
}

#[test]
fn only_those_who_may_ask() {
    let server = TestServer::with(config().api_token(Some("c2VjcmV0".parse().expect("a token"))));
    let refused = ask_with(&server, "GET", "/metrics", &[], "");
    assert_eq!(refused.status, 401);
    assert!(json_of(&refused)["error"].is_string());
    let shown = [("Authorization", "Bearer c2VjcmV0")];
    assert_eq!(ask_with(&server, "GET", "/metrics", &shown, "").status, 200);
    assert_eq!(ask_with(&server, "POST", "/metrics", &shown, "").status, 405);
    let server = TestServer::new();
    assert_eq!(ask_with(&server, "GET", "/metrics", &[("X-Forwarded-For", "192.0.2.1")], "").status, 403);
}
