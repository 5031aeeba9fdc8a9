//! What is sent comes back as it was.

use std::collections::HashSet;
use std::io::Write as _;

use ringwire::client::{Connect, blocking};
use ringwire::{Json, OwnedMessage};
use serde::{Deserialize, Serialize};
use tungstenite::Message;

use crate::common::raw::{BINARY, FIN, PING, PONG, TEXT};
use crate::common::{TestServer, pattern};
use crate::servers::{self, Speaks, Stream, connect, frame, read_frame, url};

const SIZES: [usize; 10] = [0, 1, 125, 126, 16_383, 16_385, 65_535, 65_536, 1 << 20, 16 << 20];

fn received(client: &mut blocking::Client) -> OwnedMessage {
    client.recv().expect("a message").expect("no error")
}

fn all_sizes(connect: Connect) {
    let mut client = connect.wait().expect("a connection");
    for size in SIZES {
        let bytes = pattern(size);
        client.send(&bytes).expect("sent");
        let reply = received(&mut client);
        assert!(!reply.is_text() && reply.as_bytes() == bytes, "{size} bytes of binary");
        let letters: String = bytes.iter().map(|byte| char::from(b'a' + byte % 26)).collect();
        client.send(letters.as_str()).expect("sent");
        assert!(received(&mut client).as_text() == Some(letters.as_str()), "{size} bytes of text");
    }
    let closed = client.close(1000, "done").expect("closed");
    assert_eq!((closed.code, closed.clean), (1000, true));
    assert!(client.recv().is_none());
}

#[test]
fn messages_of_every_size_come_back() {
    for speaks in Speaks::ALL {
        let server = servers::own(speaks);
        all_sizes(connect(url(&server, speaks, "/echo")));
    }
}

#[test]
fn messages_of_every_size_come_back_from_tungstenite() {
    for speaks in Speaks::ALL {
        let (url, server) = servers::tungstenite(speaks, |socket| {
            while let Ok(message) = socket.read() {
                if message.is_binary() || message.is_text() {
                    socket.send(message).expect("sent");
                }
            }
        });
        all_sizes(connect(url));
        server.join().expect("no panic");
    }
}

#[test]
fn json_and_text_in_all_alphabets() {
    for speaks in Speaks::ALL {
        #[derive(Debug, PartialEq, Serialize, Deserialize)]
        struct Said {
            who: String,
            what: Vec<u32>,
        }
        let server = servers::own(speaks);
        let mut client = connect(url(&server, speaks, "/echo")).wait().expect("a connection");
        let said = Said { who: "Jürgen".into(), what: vec![1, 2, 3] };
        client.send(Json(&said)).expect("sent");
        let reply = received(&mut client);
        assert!(reply.is_text());
        assert_eq!(reply.json::<Said>().expect("JSON"), said);
        client.send("Köln, 東京, 🌍").expect("sent");
        assert_eq!(received(&mut client).as_text(), Some("Köln, 東京, 🌍"));
    }
}

#[test]
fn a_name_is_resolved() {
    for speaks in Speaks::ALL {
        let server = servers::own(speaks);
        let url = format!("{}://localhost:{}/echo", speaks.scheme(), server.address.port());
        // localhost may be ::1 first, where nobody listens: the next address has its turn.
        let mut client = connect(url).wait().expect("a connection");
        client.send("x").expect("sent");
        assert_eq!(received(&mut client).as_text(), Some("x"));
    }
}

#[test]
fn five_thousand_messages_in_order() {
    for speaks in Speaks::ALL {
        let server = servers::own(speaks);
        let mut client = connect(url(&server, speaks, "/echo")).wait().expect("a connection");
        let sender = client.sender();
        let sending = std::thread::spawn(move || {
            for number in 0..5000 {
                blocking::block_on(sender.send(format!("{number}"))).expect("sent");
            }
        });
        for number in 0..5000 {
            assert_eq!(received(&mut client).as_text(), Some(number.to_string().as_str()));
        }
        sending.join().expect("no panic");
    }
}

// RFC 6455 5.4, 5.5
#[test]
fn fragments_byte_by_byte_with_a_ping_between() {
    for speaks in Speaks::ALL {
        let (url, server) = servers::raw(speaks, |stream| {
            let bytes = [frame(TEXT, b"Hel"), frame(FIN | PING, b"?"), frame(0, b""), frame(FIN, b"lo")].concat();
            for byte in bytes {
                stream.write_all(&[byte]).expect("sent");
            }
            let pong = read_frame(stream).expect("a pong");
            (pong.first, pong.payload)
        });
        let mut client = connect(url).wait().expect("a connection");
        assert_eq!(received(&mut client).as_text(), Some("Hello"));
        assert_eq!(server.join().expect("no panic"), [(FIN | PONG, b"?".to_vec())]);
    }
}

// RFC 6455 5.3
#[test]
fn every_frame_has_a_key_of_its_own() {
    for speaks in Speaks::ALL {
        let (url, server) = servers::raw(speaks, |stream| {
            let keys: HashSet<[u8; 4]> = (0..500).map(|_| read_frame(stream).expect("a frame").key).collect();
            keys.len()
        });
        let client = connect(url).wait().expect("a connection");
        for _ in 0..500 {
            client.send("the same").expect("sent");
        }
        let different = server.join().expect("no panic")[0];
        assert!(different >= 499, "{different} of 500");
    }
}

// Frames right behind the answer's head, in the same packet.
#[test]
fn frames_behind_the_handshake_are_received() {
    for speaks in Speaks::ALL {
        let (url, server) = servers::serve(speaks, 1, |mut stream: Stream| {
            let key = servers::read_request(&mut stream);
            let answer = [servers::switching(&key).into_bytes(), frame(FIN | BINARY, b"early")].concat();
            stream.write_all(&answer).expect("sent");
            read_frame(&mut stream)
        });
        let mut client = connect(url).wait().expect("a connection");
        assert_eq!(received(&mut client).as_bytes(), b"early");
        drop(client);
        server.join().expect("no panic");
    }
}

#[test]
fn a_unix_socket() {
    for speaks in Speaks::ALL {
        use ringwire::config::ListenAddress;
        let path = std::env::temp_dir().join(format!("ringwire-client-{}.sock", std::process::id()));
        let addresses = vec![ListenAddress::Unix(path.clone())];
        let config = crate::common::config().addresses(addresses);
        let tls = speaks.config(&servers::pki().1);
        let server = TestServer::with(match tls {
            Some(tls) => config.tls(tls),
            None => config,
        });
        let url = format!("{}://localhost/echo", speaks.scheme());
        let mut client = connect(url).unix(&path).wait().expect("a connection");
        client.send("over a file").expect("sent");
        assert_eq!(received(&mut client).as_text(), Some("over a file"));
        drop(client);
        drop(server);
        let _ = std::fs::remove_file(path);
    }
}

#[test]
fn tungstenite_sees_subprotocols_and_headers() {
    for speaks in Speaks::ALL {
        use tungstenite::handshake::server::{Request, Response};
        let (url, server) = servers::serve(speaks, 1, |stream| {
            let mut seen = Vec::new();
            #[allow(clippy::result_large_err)]
            let callback = |request: &Request, mut response: Response| {
                for name in ["sec-websocket-protocol", "x-test", "host"] {
                    seen.push(request.headers()[name].to_str().expect("text").to_owned());
                }
                seen.push(request.uri().to_string());
                response.headers_mut().insert("sec-websocket-protocol", "v1".parse().expect("a value"));
                response.headers_mut().insert("x-back", "yes".parse().expect("a value"));
                Ok(response)
            };
            let mut socket = tungstenite::accept_hdr(stream, callback).expect("a handshake");
            socket.send(Message::text("hi")).expect("sent");
            let _ = socket.read();
            seen
        });
        let client = connect(format!("{url}path?a=b"))
            .subprotocols(["v2", "v1"])
            .header("X-Test", "one")
            .header("Host", "elsewhere.example")
            .wait();
        let client = client.expect("a connection");
        assert_eq!((client.protocol(), client.headers()["x-back"].as_bytes()), (Some("v1"), b"yes".as_slice()));
        drop(client);
        let seen = &server.join().expect("no panic")[0];
        assert_eq!(seen, &["v2, v1", "one", "elsewhere.example", "/path?a=b"]);
    }
}
