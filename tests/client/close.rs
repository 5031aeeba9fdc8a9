//! How connections end.

use std::io::{ErrorKind, Write as _};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use ringwire::client::{ClientError, Waiting};
use ringwire::proto::ProtocolError;
use tungstenite::Message;
use tungstenite::protocol::CloseFrame;

use crate::common::raw::{self, BINARY, CLOSE, FIN, PING, TEXT};
use crate::servers::{self, Speaks, Stream, connect, frame, read_frame};

#[test]
fn the_server_closes() {
    for speaks in Speaks::ALL {
        for (code, reason) in [(1000, ""), (1001, "restarting"), (1011, "oops"), (4321, "own code: ü")] {
            let (url, server) = servers::tungstenite(speaks, move |socket| {
                socket.send(Message::text("last words")).expect("sent");
                socket.close(Some(CloseFrame { code: code.into(), reason: reason.into() })).expect("sent");
                // The answer, then the end: RFC 6455 5.5.1, the code is echoed.
                loop {
                    match socket.read() {
                        Ok(Message::Close(answer)) => break answer.map(|frame| u16::from(frame.code)),
                        Ok(_) => {}
                        Err(error) => panic!("{error}"),
                    }
                }
            });
            let mut client = connect(url).wait().expect("a connection");
            assert_eq!(client.recv().expect("a message").expect("no error").as_text(), Some("last words"));
            assert!(client.recv().is_none());
            let closed = client.closed().expect("it is closed");
            assert_eq!((closed.code, closed.reason.as_str(), closed.clean), (code, reason, true));
            assert!(matches!(client.send("late"), Err(ClientError::Closed(closed)) if closed.code == code));
            assert_eq!(server.join().expect("no panic"), [Some(code)]);
        }
    }
}

#[test]
fn a_close_frame_without_a_code() {
    for speaks in Speaks::ALL {
        let (url, server) = servers::raw(speaks, |stream| {
            stream.write_all(&frame(FIN | CLOSE, b"")).expect("sent");
            let answer = read_frame(stream).expect("an answer");
            assert_eq!((answer.first, answer.payload), (FIN | CLOSE, Vec::new()));
            assert!(read_frame(stream).is_none(), "it is answered once");
        });
        let mut client = connect(url).wait().expect("a connection");
        assert!(client.recv().is_none());
        assert_eq!(client.closed().expect("it is closed").code, 1005);
        server.join().expect("no panic");
    }
}

#[test]
fn the_client_closes_behind_what_it_has_sent() {
    for speaks in Speaks::ALL {
        let (url, server) = servers::tungstenite(speaks, |socket| {
            let mut seen = Vec::new();
            loop {
                match socket.read() {
                    Ok(Message::Close(frame)) => {
                        let frame = frame.expect("a code");
                        seen.push(format!("{} {}", u16::from(frame.code), frame.reason));
                    }
                    Ok(message) => seen.push(format!("{} bytes", message.len())),
                    Err(_) => break seen,
                }
            }
        });
        let mut client = connect(url).wait().expect("a connection");
        client.send(vec![1; 3 << 20]).expect("sent");
        client.send("x").expect("sent");
        assert!(matches!(client.close(1005, ""), Err(ClientError::IllegalCloseCode(1005))));
        let closed = client.close(4000, "enough").expect("closed");
        assert_eq!((closed.code, closed.clean), (4000, true));
        assert!(client.recv().is_none());
        assert_eq!(client.close(1000, "again").expect("the same").code, 4000);
        assert_eq!(server.join().expect("no panic")[0], ["3145728 bytes", "1 bytes", "4000 enough"]);
    }
}

#[test]
fn dropping_it_closes_with_1001() {
    for speaks in Speaks::ALL {
        let (url, server) = servers::tungstenite(speaks, |socket| {
            let message = socket.read().expect("a message");
            let Ok(Message::Close(Some(frame))) = socket.read() else { panic!("no Close frame") };
            (message.len(), u16::from(frame.code))
        });
        let client = connect(url).wait().expect("a connection");
        client.send("flushed").expect("sent");
        drop(client);
        assert_eq!(server.join().expect("no panic"), [(7, 1001)]);
    }
}

// RFC 6455 7.1.5: without a Close frame the code is 1006.
#[test]
fn the_server_dies_in_the_middle_of_a_frame() {
    for speaks in Speaks::ALL {
        for resets in [false, true] {
            let (url, server) = servers::raw(speaks, move |stream| {
                stream.write_all(&frame(FIN | TEXT, b"whole")).expect("sent");
                stream.write_all(&frame(FIN | TEXT, &[b'x'; 100])[..50]).expect("sent");
                read_frame(stream).expect("that it has been received");
                if resets {
                    socket2::SockRef::from(stream.tcp()).set_linger(Some(Duration::ZERO)).expect("an option");
                }
            });
            let mut client = connect(url).wait().expect("a connection");
            assert_eq!(client.recv().expect("a message").expect("no error").as_text(), Some("whole"));
            client.send("got it").expect("sent");
            let error = client.recv().expect("why").expect_err("an error");
            let want = if resets { ErrorKind::ConnectionReset } else { ErrorKind::UnexpectedEof };
            assert!(matches!(&error, ClientError::Broken(why) if why.kind() == want), "{error}");
            assert!(client.recv().is_none(), "it is told once");
            let closed = client.closed().expect("it is closed");
            assert_eq!((closed.code, closed.clean), (1006, false));
            assert!(matches!(client.ping(), Err(ClientError::Closed(_))));
            server.join().expect("no panic");
        }
    }
}

#[test]
fn what_the_server_must_not_send() {
    for speaks in Speaks::ALL {
        let text = |payload: &[u8]| frame(FIN | TEXT, payload);
        for (bytes, error, code) in [
            // RFC 6455 5.1: a client MUST close a connection if it detects a masked frame.
            (raw::frame(FIN | TEXT, b"masked"), ProtocolError::Masked, 1002),
            (text(b"\xFF"), ProtocolError::BadUtf8, 1007),
            (frame(FIN | BINARY, &[0; 1001]), ProtocolError::MessageTooBig, 1009),
            (frame(FIN | 3, b""), ProtocolError::ReservedOpcode, 1002),
            (frame(FIN | 0x40 | TEXT, b""), ProtocolError::ReservedBits, 1002),
            (frame(FIN, b""), ProtocolError::UnexpectedContinuation, 1002),
            (frame(PING, b""), ProtocolError::FragmentedControl, 1002),
            (frame(FIN | CLOSE, &[3, 237]), ProtocolError::BadCloseCode, 1002),
        ] {
            let (url, server) = servers::raw(speaks, move |stream| {
                stream.write_all(&[frame(FIN | TEXT, b"good"), bytes.clone()].concat()).expect("sent");
                let close = read_frame(stream).expect("a Close frame");
                assert_eq!(close.first, FIN | CLOSE);
                u16::from_be_bytes([close.payload[0], close.payload[1]])
            });
            let mut client = connect(url).max_message(1000).wait().expect("a connection");
            assert_eq!(client.recv().expect("a message").expect("no error").as_text(), Some("good"));
            let got = client.recv().expect("why").expect_err("an error");
            assert!(matches!(got, ClientError::Protocol(got) if got == error), "{got}");
            assert_eq!(client.closed().expect("it is closed").code, code);
            assert_eq!(server.join().expect("no panic"), [code]);
        }
    }
}

#[test]
fn a_server_that_does_not_answer_the_close_frame() {
    for speaks in Speaks::ALL {
        let (url, server) = servers::raw(speaks, |stream| while read_frame(stream).is_some() {});
        let mut client = connect(url).close_timeout(Duration::from_millis(100)).wait().expect("a connection");
        let start = Instant::now();
        let closed = client.close(1000, "").expect("closed");
        assert_eq!((closed.code, closed.clean), (1006, false));
        assert!((Duration::from_millis(100)..Duration::from_secs(2)).contains(&start.elapsed()));
        assert!(client.recv().is_none());
        server.join().expect("no panic");
    }
}

// RFC 6455 1.4: what arrives after our Close frame is discarded, the server's own Close excepted.
#[test]
fn messages_behind_our_close_frame_are_discarded() {
    for speaks in Speaks::ALL {
        let (url, server) = servers::raw(speaks, |stream| {
            stream.write_all(&frame(FIN | TEXT, b"before")).expect("sent");
            assert_eq!(read_frame(stream).expect("a Close frame").first, FIN | CLOSE);
            let bytes = [frame(FIN | TEXT, b"after"), frame(FIN | CLOSE, &1000_u16.to_be_bytes())].concat();
            stream.write_all(&bytes).expect("sent");
            stream.shut();
        });
        let mut client = connect(url).wait().expect("a connection");
        let before = client.recv_timeout(Duration::from_secs(5)).expect("a message").expect("no error");
        assert_eq!(before.as_text(), Some("before"));
        assert!(client.close(1000, "").expect("closed").clean);
        assert!(client.recv().is_none());
        server.join().expect("no panic");
    }
}

#[test]
fn pings_of_the_user_are_answered() {
    for speaks in Speaks::ALL {
        let (url, server) = servers::tungstenite(speaks, |socket| while socket.read().is_ok() {});
        let client = connect(url).wait().expect("a connection");
        for _ in 0..3 {
            client.ping().expect("a pong");
        }
        drop(client);
        server.join().expect("no panic");
    }
}

#[test]
fn a_silent_server_is_pinged_and_given_up() {
    for speaks in Speaks::ALL {
        let (told, when) = mpsc::channel();
        let (url, server) = servers::raw(speaks, move |stream: &mut Stream| {
            // Answers the first ping, and no more.
            let ping = read_frame(stream).expect("a ping");
            assert_eq!(ping.first, FIN | PING);
            stream.write_all(&frame(FIN | raw::PONG, &ping.payload)).expect("sent");
            let again = read_frame(stream).expect("another ping");
            assert_eq!(again.first, FIN | PING);
            told.send(Instant::now()).expect("somebody listens");
            assert!(read_frame(stream).is_none());
        });
        let client = connect(url).ping_interval(Duration::from_millis(100)).pong_timeout(Duration::from_secs(1));
        let mut client = client.wait().expect("a connection");
        let error = client.recv().expect("why").expect_err("an error");
        assert!(matches!(error, ClientError::Timeout(Waiting::Pong)), "{error}");
        let waited = when.recv().expect("the second ping").elapsed();
        assert!((Duration::from_millis(600)..Duration::from_secs(5)).contains(&waited), "{waited:?}");
        assert_eq!(client.closed().expect("it is closed").code, 1006);
        server.join().expect("no panic");
    }
}

#[test]
fn no_message_in_time_leaves_the_connection_as_it_was() {
    for speaks in Speaks::ALL {
        let (url, server) = servers::tungstenite(speaks, |socket| {
            let message = socket.read().expect("a message");
            socket.send(message).expect("sent");
            let _ = socket.read();
        });
        let mut client = connect(url).wait().expect("a connection");
        let nothing = client.recv_timeout(Duration::from_millis(20)).expect("an error").expect_err("no message");
        assert!(matches!(nothing, ClientError::Timeout(Waiting::Message)), "{nothing}");
        client.send("now").expect("sent");
        let message = client.recv_timeout(Duration::from_secs(5)).expect("a message").expect("no error");
        assert_eq!(message.as_text(), Some("now"));
        drop(client);
        server.join().expect("no panic");
    }
}
