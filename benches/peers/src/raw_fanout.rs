//! Sends a message to every connection for each message it receives, with no protocol: the least a broadcast can cost.
//!
//! A message is `--message-size` bytes; what is delivered is its last `--delivery-size` bytes. All messages that arrive
//! in one tick leave as one send per connection.

use std::error::Error;

use clap::Parser;

use crate::{
    bare::Bare,
    epoll,
    uring::{self, Chunk, Options},
};

#[derive(Parser)]
#[command(about)]
struct Args {
    #[command(flatten)]
    bare: Bare<64>,
    /// Bytes of a published message.
    #[arg(long)]
    message_size: usize,
    /// Bytes of a delivered message; not more than a published one has.
    #[arg(long)]
    delivery_size: usize,
}

/// Cuts the byte streams of publishers into messages.
struct Fanout {
    message_size: usize,
    delivery_size: usize,
    /// The beginning of a message per connection.
    partial: Vec<Vec<u8>>,
    deliveries: Vec<u8>,
    open: Vec<u32>,
}

impl Fanout {
    fn take(&mut self, conn: u32, mut bytes: &[u8]) {
        if self.partial.len() <= conn as usize {
            self.partial.resize_with(conn as usize + 1, Vec::new);
        }
        let skipped = self.message_size - self.delivery_size;
        let partial = &mut self.partial[conn as usize];
        if !partial.is_empty() {
            let (missing, rest) = bytes.split_at(bytes.len().min(self.message_size - partial.len()));
            partial.extend_from_slice(missing);
            if partial.len() < self.message_size {
                return;
            }
            self.deliveries.extend_from_slice(&partial[skipped..]);
            partial.clear();
            bytes = rest;
        }
        let mut messages = bytes.chunks_exact(self.message_size);
        for message in &mut messages {
            self.deliveries.extend_from_slice(&message[skipped..]);
        }
        partial.extend_from_slice(messages.remainder());
    }

    fn forget(&mut self, conn: u32) {
        if let Some(partial) = self.partial.get_mut(conn as usize) {
            partial.clear();
        }
    }
}

impl uring::App for Fanout {
    fn opened(&mut self, _io: &mut uring::Io, conn: u32) {
        self.open.push(conn);
    }

    fn received(&mut self, io: &mut uring::Io, conn: u32, chunk: Chunk) {
        self.take(conn, chunk.bytes());
        io.recycle(chunk);
    }

    fn closed(&mut self, _io: &mut uring::Io, conn: u32, _error: i32) {
        self.forget(conn);
        self.open.retain(|open| *open != conn);
    }

    fn tick(&mut self, io: &mut uring::Io) -> bool {
        if !self.deliveries.is_empty() {
            io.shared().append(&mut self.deliveries);
            self.open.iter().for_each(|conn| io.send_shared(*conn));
        }
        true
    }
}

impl epoll::App for Fanout {
    fn received(&mut self, _io: &mut epoll::Io, conn: u32, bytes: &[u8]) {
        self.take(conn, bytes);
    }

    fn closed(&mut self, conn: u32) {
        self.forget(conn);
    }

    fn tick(&mut self, io: &mut epoll::Io) {
        if !self.deliveries.is_empty() {
            io.open().for_each(|conn| io.send(conn, &self.deliveries));
            self.deliveries.clear();
        }
    }
}

/// Serves as the command line `args` says, the program's name first.
///
/// # Errors
/// If the address or the ring cannot be had.
pub fn serve(args: impl IntoIterator<Item = String>) -> Result<(), Box<dyn Error>> {
    let args = Args::parse_from(args);
    if args.message_size == 0 || args.delivery_size == 0 || args.delivery_size > args.message_size {
        return Err("--delivery-size must be between 1 and --message-size".into());
    }
    let mut fanout = Fanout {
        message_size: args.message_size,
        delivery_size: args.delivery_size,
        partial: Vec::new(),
        deliveries: Vec::new(),
        open: Vec::new(),
    };
    args.bare.serve(&mut fanout, Options::default())
}
