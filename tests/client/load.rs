//! Many connections, and servers or users that are slow.

use std::future::Future as _;
use std::io::Write as _;
use std::pin::pin;
use std::sync::mpsc;
use std::task::{Context, Waker};
use std::thread;
use std::time::Duration;

use ringwire::client::{Client, ClientError, blocking};

use crate::common::raw::{BINARY, FIN};
use crate::common::{PATIENCE, eventually, pattern};
use crate::servers::{self, Speaks, Stream, connect, frame, read_frame, url};

/// The threads of this process with that name.
fn threads_named(name: &str) -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").expect("Linux");
    let comms = tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok());
    comms.filter(|comm| comm.trim() == name).count()
}

#[test]
fn a_thousand_clients_on_one_thread() {
    for speaks in Speaks::ALL {
        let server = servers::own(speaks);
        let url = url(&server, speaks, "/echo");
        // Handshakes of TLS take longer, above all where nothing is optimized.
        let count = if speaks == Speaks::Plain { 1000 } else { 200 };
        let patient = || connect(url.as_str()).handshake_timeout(Duration::from_secs(60));
        let connecting: Vec<_> = (0..count).map(|_| patient().into_future()).collect();
        let mut clients: Vec<Client> =
            connecting.into_iter().map(|one| blocking::block_on(one).expect("a connection")).collect();
        server.await_connections(count);
        // The kernel cuts names to 15 bytes.
        assert_eq!(threads_named("ringwire-client"), 1);
        for round in 0..3 {
            for (number, client) in clients.iter().enumerate() {
                client.try_send(format!("{round} {number}")).expect("room");
            }
            for (number, client) in clients.iter_mut().enumerate() {
                let message = blocking::block_on(client.recv()).expect("a message").expect("no error");
                assert_eq!(message.as_text(), Some(format!("{round} {number}").as_str()));
            }
        }
        drop(clients);
        server.await_connections(0);
    }
}

#[test]
fn sending_waits_while_the_server_does_not_read() {
    for speaks in Speaks::ALL {
        let (go, may_go) = mpsc::channel::<()>();
        let (url, server) = servers::serve(speaks, 1, move |stream: Stream| {
            socket2::SockRef::from(stream.tcp()).set_recv_buffer_size(64 << 10).expect("an option");
            let mut stream = stream;
            let key = servers::read_request(&mut stream);
            stream.write_all(servers::switching(&key).as_bytes()).expect("sent");
            may_go.recv().expect("a word");
            let mut sizes = Vec::new();
            while let Some(frame) = read_frame(&mut stream).filter(|frame| frame.first == FIN | BINARY) {
                assert!(frame.payload == pattern(frame.payload.len()), "frame {}", sizes.len());
                sizes.push(frame.payload.len());
            }
            sizes
        });
        let mut client = connect(url).max_outbox(256 << 10).wait().expect("a connection").into_async();
        let sizes = [10, 70_000, 3000, 40_000, 20_000, 1].into_iter().cycle();
        let mut sent = Vec::new();
        // The socket's buffers take some, the outbox the rest: then it waits, instead of growing. What was sent is counted off
        // by the client thread, and the kernel makes more room as it sees fit: full is what stays so for a while.
        let mut stays_full = |size| {
            for _ in 0..6 {
                match client.try_send(pattern(size)) {
                    Ok(()) => {
                        sent.push(size);
                        return false;
                    }
                    Err(ClientError::Full) => thread::sleep(Duration::from_millis(50)),
                    Err(error) => panic!("{error}"),
                }
            }
            true
        };
        let full = sizes.clone().take(20_000).find(|&size| stays_full(size));
        let size = full.expect("a server that does not read fills any outbox");
        {
            let mut waiting = pin!(client.send(pattern(size)));
            let mut cx = Context::from_waker(Waker::noop());
            assert!(waiting.as_mut().poll(&mut cx).is_pending());
            thread::sleep(Duration::from_millis(20));
            assert!(waiting.as_mut().poll(&mut cx).is_pending());
            go.send(()).expect("the server waits");
            blocking::block_on(waiting).expect("sent");
            sent.push(size);
        }
        for size in sizes.take(50) {
            blocking::block_on(client.send(pattern(size))).expect("sent");
            sent.push(size);
        }
        blocking::block_on(client.close(1000, "")).expect("closed");
        assert_eq!(server.join().expect("no panic"), [sent]);
    }
}

#[test]
fn nothing_more_is_read_while_nobody_receives() {
    for speaks in Speaks::ALL {
        let (tell, is_told) = mpsc::channel();
        let (url, server) = servers::raw(speaks, move |stream| {
            let wait = |stream: &servers::Stream, patience: Option<Duration>| {
                stream.tcp().set_write_timeout(patience).expect("a timeout");
                // What speaks TLS looks whether there is something to read before it says that it cannot write.
                stream.tcp().set_read_timeout(patience.or(Some(PATIENCE))).expect("a timeout");
            };
            wait(stream, Some(Duration::from_millis(300)));
            let payload = pattern(10_000);
            let bytes = frame(FIN | BINARY, &payload);
            let (mut sent, mut rest) = (0_usize, 0);
            // Up to the first write that the socket does not take whole.
            let blocked = loop {
                match stream.write(&bytes[rest..]) {
                    Ok(len) if rest + len == bytes.len() => (sent, rest) = (sent + 1, 0),
                    Ok(len) => rest += len,
                    Err(_) => break true,
                }
                if sent > 50_000 {
                    break false;
                }
            };
            tell.send(()).expect("somebody waits");
            wait(stream, None);
            stream.write_all(&bytes[rest..]).expect("sent");
            let close = frame(FIN | 8, &1000_u16.to_be_bytes());
            stream.write_all(&close).expect("sent");
            let _ = read_frame(stream);
            (blocked, sent + 1)
        });
        let mut client = connect(url).max_inbox(100_000).wait().expect("a connection");
        is_told.recv_timeout(PATIENCE * 6).expect("it is full, or all is sent");
        let mut received = 0;
        for message in &mut client {
            assert!(message.expect("no error").as_bytes() == pattern(10_000));
            received += 1;
        }
        let (blocked, sent) = server.join().expect("no panic")[0];
        assert!(blocked, "the server could send all of it");
        assert_eq!(received, sent, "and nothing is lost");
        assert!(client.closed().expect("it is closed").clean);
    }
}

// What is held back came before the end, and is received before it is told.
#[test]
fn what_was_sent_before_a_server_died_is_received() {
    for speaks in Speaks::ALL {
        let (url, server) = servers::raw(speaks, |stream| {
            let bytes = frame(FIN | BINARY, &pattern(1000)).repeat(100);
            stream.write_all(&bytes).expect("sent");
        });
        let mut client = connect(url).max_inbox(5000).wait().expect("a connection");
        server.join().expect("no panic");
        thread::sleep(Duration::from_millis(50));
        let received: Vec<bool> = client.by_ref().map(|message| message.is_ok()).collect();
        assert_eq!(received.iter().filter(|ok| **ok).count(), 100);
        assert_eq!(received.last(), Some(&false));
    }
}

// With input held back, closing still works: what is held back is discarded.
#[test]
fn closing_while_input_is_held_back() {
    for speaks in Speaks::ALL {
        let (url, server) = servers::raw(speaks, |stream| {
            stream.write_all(&frame(FIN | BINARY, &pattern(1000)).repeat(50)).expect("sent");
            let close = read_frame(stream).expect("a Close frame");
            stream.write_all(&frame(FIN | 8, &close.payload)).expect("sent");
        });
        let mut client = connect(url).max_inbox(5000).wait().expect("a connection");
        thread::sleep(Duration::from_millis(50));
        let closed = client.close(1000, "").expect("closed");
        assert_eq!((closed.code, closed.clean), (1000, true));
        let received = client.by_ref().inspect(|message| assert!(message.is_ok())).count();
        assert!((5..50).contains(&received), "{received}");
        server.join().expect("no panic");
    }
}

// A send that succeeds wakes nobody: what it has sent must not count as waiting for ever. Kills the mutant that does not
// ask the client thread to count when an outbox is full.
#[test]
fn an_outbox_is_not_full_of_what_was_sent_long_ago() {
    for speaks in Speaks::ALL {
        let server = servers::own(speaks);
        let url = url(&server, speaks, &format!("/rooms/{}", std::process::id()));
        let client = connect(url).max_outbox(100_000).wait().expect("a connection").into_async();
        for _ in 0..3 {
            for len in [30_000, 90_000] {
                eventually(|| client.try_send(vec![0; len]).is_ok(), || "room for a message".into());
                thread::sleep(Duration::from_millis(30));
            }
        }
    }
}
