//! The client: connections, their ends, and connecting again.

use std::time::Duration;

use ringwire::client::{ClientError, Event, Reconnecting, blocking, connect};
use ringwire::{App, ws};

use crate::common::config;
use crate::examples::dart;
use crate::rig::{block_on, request, say, serve, serve_with, text};

#[test]
fn d01_a_client_connects_sends_listens_closes_or_fails() {
    let served = dart();
    let url = format!("ws://{}/", served.address);
    let mut client = blocking::connect(&url).expect("a connection");
    client.send("Hello from Dart!").expect("sent");
    client.send([1, 2, 3]).expect("sent");
    let mut next = || client.recv().expect("a message").expect("no error");
    assert_eq!(next().as_text(), Some("Echo: Hello from Dart!"));
    assert_eq!(next().as_bytes(), [1, 2, 3]);
    let closed = client.close(1000, "bye").expect("closed");
    assert_eq!((closed.code, closed.clean), (1000, true));
    assert!(client.recv().is_none(), "done");

    // Awaited, it ends when the server says so.
    let mut client = block_on(connect(&url)).expect("a connection");
    let hub = served.hub();
    let id = block_on(hub.ids()).expect("the cores answer")[0];
    assert_eq!(hub.disconnect(id, 4001, "go").expect("a legal code").wait(), Some(true));
    assert!(matches!(block_on(client.recv()), None | Some(Err(_))));
    assert_eq!(client.closed().map(|closed| (closed.code, closed.reason)), Some((4001, "go".to_owned())));

    // Failures are values.
    let nowhere = blocking::connect(format!("{url}nowhere")).expect_err("no such route");
    assert!(nowhere.to_string().contains("404"), "{nowhere}");
    served.shutdown();
    assert!(matches!(blocking::connect(&url), Err(ClientError::Connect { .. })), "nobody listens there any more");
    assert!(matches!(blocking::connect("http://x"), Err(ClientError::Url { .. })));
}

#[test]
fn d02_many_clients_and_a_refusal_of_others() {
    let served = dart();
    let mut clients = served.clients_on_both_cores("/", 50);
    for (number, client) in clients.iter_mut().enumerate() {
        say(client, format!("from {number}"));
    }
    for (number, client) in clients.iter_mut().enumerate() {
        assert_eq!(text(client), format!("Echo: from {number}"));
    }
    let mut other = served.raw();
    other.send(&request("GET", "/", ""));
    assert_eq!(other.response(false).status, 403);
}

#[test]
fn a14_a_client_that_reconnects_doubling_its_delay() {
    let app = || App::new().ws("/", ws().on_connect(|_| "hello"));
    let served = serve(app);
    let address = served.address;
    let first = Duration::from_millis(50);
    let mut client = Reconnecting::new(connect(format!("ws://{address}/"))).delays(first, first * 4);
    let mut next = || block_on(client.next()).expect("it goes on");
    assert!(matches!(next(), Event::Opened { .. }));
    assert!(matches!(next(), Event::Message(message) if message.as_text() == Some("hello")));
    served.shutdown();
    // Each delay is twice the last one, up to the longest, times a random number between 0.5 and 1.5.
    for factor in [1, 2, 4, 4] {
        let Event::Closed { retry_in: Some(delay), .. } = next() else { panic!("it is closed") };
        assert!(delay >= first * factor / 2 && delay <= first * factor * 3 / 2, "{delay:?} {factor}");
    }
    let config = config().addresses(vec![address.into()]);
    let served = serve_with(config, app);
    // Attempts may have failed while it started.
    while !matches!(next(), Event::Opened { .. }) {}
    assert!(matches!(next(), Event::Message(_)));
    served.shutdown();
    let Event::Closed { retry_in: Some(delay), .. } = next() else { panic!("it is closed") };
    assert!(delay <= first * 3 / 2, "the first delay again: {delay:?}");
}
