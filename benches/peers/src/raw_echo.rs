//! Sends back every byte it receives, with no protocol: the least an echo server can cost.

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
    bare: Bare<128>,
    /// Fill provided buffers piece by piece (io_uring).
    #[arg(long)]
    incremental: bool,
    /// Let one completion carry several buffers (io_uring).
    #[arg(long, conflicts_with = "incremental")]
    bundle: bool,
    /// Arm each receive anew (io_uring).
    #[arg(long)]
    no_multishot: bool,
    /// Pieces of together at most this many bytes are copied into one send; above, the send is vectored (io_uring).
    #[arg(long, default_value_t = 16 * 1024)]
    copy_max: usize,
}

struct Echo;

impl uring::App for Echo {
    fn received(&mut self, io: &mut uring::Io, conn: u32, chunk: Chunk) {
        io.send_chunk(conn, chunk);
    }
}

impl epoll::App for Echo {
    fn received(&mut self, io: &mut epoll::Io, conn: u32, bytes: &[u8]) {
        io.send(conn, bytes);
    }
}

/// Serves as the command line `args` says, the program's name first.
///
/// # Errors
/// If the address or the ring cannot be had.
pub fn serve(args: impl IntoIterator<Item = String>) -> Result<(), Box<dyn Error>> {
    let args = Args::parse_from(args);
    let options = Options {
        incremental: args.incremental,
        bundle: args.bundle,
        multishot: !args.no_multishot,
        copy_bytes_max: args.copy_max,
        ..Options::default()
    };
    args.bare.serve(&mut Echo, options)
}
