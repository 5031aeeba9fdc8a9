//! Connections that are not made: every reason is a value.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, TcpListener};
use std::time::{Duration, Instant};

use ringwire::client::{ClientError, Waiting, blocking};
use ringwire::proto::handshake::HandshakeError;
use ringwire::{App, Server, ws};

use crate::common::{PATIENCE, config};
use crate::servers::{self, Speaks, Stream, connect, url};

/// What a client says of a server that gives this answer; `KEY` stands for the right accept key.
fn error_of(speaks: Speaks, answer: &'static str) -> ClientError {
    let (url, server) = servers::serve(speaks, 1, move |mut stream: Stream| {
        let key = servers::read_request(&mut stream);
        let accept = tungstenite::handshake::derive_accept_key(key.as_bytes());
        stream.write_all(answer.replace("KEY", &accept).as_bytes()).expect("sent");
        // Until the client has had enough.
        let _ = stream.read(&mut [0; 64]);
    });
    let error = connect(url).subprotocols(["v1"]).wait().expect_err("no connection");
    server.join().expect("no panic");
    error
}

#[test]
fn refusals_carry_status_headers_and_body() {
    for speaks in Speaks::ALL {
        let server = servers::own(speaks);
        let error = connect(url(&server, speaks, "/nowhere")).wait().expect_err("no such route");
        let ClientError::Refused(refused) = error else { panic!("{error}") };
        assert_eq!(
            (refused.status.as_u16(), refused.headers["content-type"].as_bytes()),
            (404, &b"application/json"[..])
        );
        assert!(refused.body.starts_with(b"{\"error\":"), "{:?}", refused.body);
        // A route of plain HTTP.
        let error = connect(url(&server, speaks, "/healthz")).wait().expect_err("no WebSocket");
        assert!(matches!(error, ClientError::Refused(_)), "{error}");

        let error = error_of(
            speaks,
            "HTTP/1.1 426 Upgrade Required\r\nSec-WebSocket-Version: 99\r\nContent-Length: 3\r\n\r\nno!",
        );
        let ClientError::Refused(refused) = error else { panic!("{error}") };
        assert_eq!((refused.status.as_u16(), &refused.body[..]), (426, &b"no!"[..]));
        assert_eq!(refused.headers["sec-websocket-version"], "99");

        let error = error_of(
            speaks,
            "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 500 Oh\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n",
        );
        let ClientError::Refused(refused) = error else { panic!("{error}") };
        assert_eq!((refused.status.as_u16(), &refused.body[..]), (500, &b"ab"[..]));
    }
}

// A body of unknown length is waited for, but not for long.
#[test]
fn a_refusal_without_end_is_one_after_a_second() {
    for speaks in Speaks::ALL {
        let start = Instant::now();
        let error = error_of(speaks, "HTTP/1.1 503 Busy\r\n\r\ncome back");
        let ClientError::Refused(refused) = error else { panic!("{error}") };
        assert_eq!(&refused.body[..], b"come back");
        assert!(start.elapsed() < Duration::from_secs(4));
    }
}

// RFC 6455 4.1: what a client MUST check.
#[test]
fn answers_that_are_none() {
    for speaks in Speaks::ALL {
        for (answer, want) in [
            ("SSH-2.0-OpenSSH_9.9\r\n", HandshakeError::Malformed),
            (
                "HTTP/1.1 101 X\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: AAAA\r\n\r\n",
                HandshakeError::Accept,
            ),
            ("HTTP/1.1 101 X\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: KEY\r\n\r\n", HandshakeError::Upgrade),
            (
                "HTTP/1.1 101 X\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: KEY\r\n\
                 Sec-WebSocket-Protocol: v9\r\n\r\n",
                HandshakeError::Protocol,
            ),
            (
                "HTTP/1.1 101 X\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: KEY\r\n\
                 Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n",
                HandshakeError::Extension,
            ),
        ] {
            let error = error_of(speaks, answer);
            assert!(matches!(&error, ClientError::Handshake(got) if *got == want), "{answer}: {error}");
        }
    }
}

#[test]
fn nobody_listens() {
    // Bound, not listening, and kept: nobody else gets the port meanwhile.
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    socket.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("a port");
    let address = socket.local_addr().expect("an address").as_socket().expect("an IP address");
    let error = blocking::connect(format!("ws://{address}/")).expect_err("refused");
    let ClientError::Connect { address: tried, source } = error else { panic!("{error}") };
    assert_eq!((tried, source.kind()), (address.to_string(), ErrorKind::ConnectionRefused));
    let error = connect("ws://x/").unix("/nonexistent/socket").wait().expect_err("no such file");
    assert!(matches!(&error, ClientError::Connect { source, .. } if source.kind() == ErrorKind::NotFound), "{error}");
}

#[test]
fn urls_that_cannot_be() {
    assert!(matches!(blocking::connect("wss:127.0.0.1/"), Err(ClientError::Url { .. })));
    assert!(matches!(blocking::connect("127.0.0.1:9001"), Err(ClientError::Url { .. })));
    assert!(matches!(connect("ws://x/").header("Upgrade", "x").wait(), Err(ClientError::Header(_))));
}

#[test]
fn a_server_that_never_answers_costs_the_timeout() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let url = format!("ws://{}/", listener.local_addr().expect("an address"));
    let start = Instant::now();
    let error = connect(url).handshake_timeout(Duration::from_millis(150)).wait().expect_err("no answer");
    assert!(matches!(error, ClientError::Timeout(Waiting::Handshake)), "{error}");
    assert!((Duration::from_millis(150)..Duration::from_secs(2)).contains(&start.elapsed()));
}

#[test]
fn a_server_that_closes_before_it_answers() {
    for speaks in Speaks::ALL {
        let (url, server) = servers::serve(speaks, 1, |mut stream: Stream| {
            servers::read_request(&mut stream);
            stream.write_all(b"HTTP/1.1 101 Swit").expect("sent");
        });
        let error = connect(url).wait().expect_err("no connection");
        assert!(matches!(&error, ClientError::Broken(why) if why.kind() == ErrorKind::UnexpectedEof), "{error}");
        server.join().expect("no panic");
    }
}

#[test]
fn an_attempt_that_is_dropped_is_given_up() {
    for speaks in Speaks::ALL {
        let (request_in, request) = std::sync::mpsc::channel();
        let (url, server) = servers::serve(speaks, 1, move |mut stream: Stream| {
            servers::read_request(&mut stream);
            request_in.send(()).expect("the test goes on");
            stream.read(&mut [0; 16]).expect("the end, in order")
        });
        let mut connecting = std::pin::pin!(connect(url).into_future());
        let waker = std::task::Waker::noop();
        assert!(connecting.as_mut().poll(&mut std::task::Context::from_waker(waker)).is_pending());
        // The client's thread sends it without being asked again.
        request.recv_timeout(PATIENCE).expect("a request");
        // Replacing it drops it.
        connecting.set(connect("ws:").into_future());
        assert_eq!(server.join().expect("no panic"), [0]);
    }
}

#[test]
fn it_connects_from_the_address_it_is_told() {
    let server = Server::new(config())
        .start(|| App::new().ws("/who", ws().on_connect(|socket| socket.send(format!("{:?}", socket.peer())))));
    let server = server.expect("it starts");
    let address = server.addresses()[0].inet().expect("TCP");
    let local: IpAddr = [127, 0, 0, 7].into();
    let mut client = connect(format!("ws://{address}/who")).bind(local).wait().expect("a connection");
    let message = client.recv().expect("a message").expect("no error");
    assert!(message.as_text().is_some_and(|text| text.contains("127.0.0.7")), "{message:?}");
    drop(client);
    // An IPv4 name cannot be reached from an IPv6 address.
    let url = format!("ws://127.0.0.1:{}/who", address.port());
    assert!(matches!(connect(url).bind("::1".parse().expect("an IP")).wait(), Err(ClientError::Connect { .. })));
    server.shutdown();
    server.join().expect("it ends well");
}
