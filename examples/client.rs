//! A small `wscat`: connects, prints what comes, sends the lines of standard input.
//!
//!     cargo run --example client -- ws://127.0.0.1:9001/echo
//!
//! It ends at the end of its input, or when the server closes.

use std::io::{BufRead, Write};
use std::process::ExitCode;
use std::thread;

use ringwire::client::{ClientError, blocking, connect};

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let Some(url) = arguments.next() else {
        eprintln!("usage: client URL [SUBPROTOCOL...]");
        return ExitCode::from(64);
    };
    match connect(url).subprotocols(arguments).wait().and_then(converse) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn converse(mut client: blocking::Client) -> Result<(), ClientError> {
    eprintln!("connected{}", client.protocol().map(|name| format!(", speaking {name}")).unwrap_or_default());
    let sender = client.sender();
    thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if let Err(error) = blocking::block_on(sender.send(line)) {
                return eprintln!("{error}");
            }
        }
        // 1000 is a legal code; if the connection has ended, there is nothing to close.
        let _ = sender.close(1000, "end of input");
    });
    let mut out = std::io::stdout().lock();
    for message in &mut client {
        let message = message?;
        let written = match message.as_text() {
            Some(text) => writeln!(out, "{text}"),
            None => writeln!(out, "({} bytes) {:02x?}", message.as_bytes().len(), message.as_bytes()),
        };
        if written.is_err() {
            // Nobody reads it any more.
            break;
        }
    }
    match client.closed() {
        Some(closed) => eprintln!("closed: {} {}", closed.code, closed.reason),
        None => eprintln!("closed"),
    }
    Ok(())
}
