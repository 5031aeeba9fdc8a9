//! The futures need no particular executor.

use std::pin::Pin;
use std::sync::mpsc;
use std::time::Duration;

use futures_core::Stream as _;
use ringwire::client::{Client, blocking};
use ringwire::{App, BoxError, Server, ws};

use crate::common::{PATIENCE, TestServer, config};
use crate::servers::{self, Speaks, connect};

fn url(server: &TestServer) -> String {
    servers::url(server, Speaks::Tls13, "/echo")
}

/// Says `what` a hundred times and hears it as often.
async fn converse(url: String, what: String) -> usize {
    let mut client = connect(url).await.expect("a connection");
    let mut heard = 0;
    for _ in 0..100 {
        client.send(&what).await.expect("sent");
        let message = client.recv().await.expect("a message").expect("no error");
        heard += usize::from(message.as_text() == Some(what.as_str()));
    }
    client.close(1000, "").await.expect("closed");
    heard
}

#[test]
fn on_tokio() {
    let server = servers::own(Speaks::Tls13);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    let heard = runtime.block_on(async {
        let tasks: Vec<_> =
            (0..20).map(|number| tokio::spawn(converse(url(&server), format!("task {number}")))).collect();
        let mut heard = 0;
        for task in tasks {
            heard += task.await.expect("no panic");
        }
        // A future that is dropped loses nothing: the message comes to the next one.
        let mut client = connect(url(&server)).await.expect("a connection");
        assert!(tokio::time::timeout(Duration::from_millis(10), client.recv()).await.is_err());
        client.send("kept").await.expect("sent");
        assert!(client.recv().await.expect("a message").is_ok());
        heard
    });
    assert_eq!(heard, 2000);
}

#[test]
fn in_a_task_of_a_ringwire_core() {
    let echo = servers::own(Speaks::Tls13);
    let upstream = url(&echo);
    // A proxy: what its clients say goes to the echo server and back.
    let proxy = Server::new(config()).start(move || {
        let upstream = upstream.clone();
        App::new().ws(
            "/proxy",
            ws().task(async move |mut socket| -> Result<(), BoxError> {
                let mut client = connect(upstream.clone()).await?;
                while let Some(message) = socket.recv().await {
                    client.send(message).await?;
                    let Some(reply) = client.recv().await else { break };
                    let _ = socket.send(reply?);
                }
                Ok(())
            }),
        )
    });
    let proxy = proxy.expect("it starts");
    let address = proxy.addresses()[0].inet().expect("TCP");
    let mut client = blocking::connect(format!("ws://{address}/proxy")).expect("a connection");
    for number in 0..50 {
        client.send(format!("by proxy {number}")).expect("sent");
        let message = client.recv_timeout(PATIENCE).expect("a message").expect("no error");
        assert_eq!(message.as_text(), Some(format!("by proxy {number}").as_str()));
    }
    client.close(1000, "").expect("closed");
    proxy.shutdown();
    proxy.join().expect("it ends well");
}

#[test]
fn it_is_a_stream_and_can_move_between_threads() {
    fn is_send_and_sync<T: Send + Sync>(_: &T) {}
    let server = servers::own(Speaks::Tls13);
    let mut client: Client = connect(url(&server)).wait().expect("a connection").into_async();
    is_send_and_sync(&client);
    is_send_and_sync(&client.sender());
    is_send_and_sync(&connect(""));
    let (sender, numbers) = (client.sender(), 0..4);
    let threads: Vec<_> = numbers
        .map(|number| {
            let sender = sender.clone();
            std::thread::spawn(move || {
                for _ in 0..100 {
                    blocking::block_on(sender.send([number; 100])).expect("sent");
                }
            })
        })
        .collect();
    let (counted, counts) = mpsc::channel();
    std::thread::spawn(move || {
        let mut seen = [0; 4];
        for _ in 0..400 {
            let next = blocking::block_on(std::future::poll_fn(|cx| Pin::new(&mut client).poll_next(cx)));
            let message = next.expect("a message").expect("no error");
            assert!(message.as_bytes().iter().all(|byte| *byte == message.as_bytes()[0]));
            seen[usize::from(message.as_bytes()[0])] += 1;
        }
        counted.send(seen).expect("somebody listens");
    });
    assert_eq!(counts.recv_timeout(PATIENCE).expect("all of them"), [100; 4]);
    threads.into_iter().for_each(|thread| thread.join().expect("no panic"));
}
