//! Sends back every byte it receives, with no protocol: the least an echo server can cost.

use std::{error::Error, net::SocketAddr, os::fd::AsRawFd};

use crate::{
    epoll, process,
    uring::{self, Chunk, Driver, Options},
};
use clap::{Parser, ValueEnum};

#[derive(Clone, Copy, ValueEnum)]
enum Engine {
    Uring,
    Epoll,
}

#[derive(Parser)]
#[command(about)]
struct Args {
    #[arg(long, value_enum, default_value = "uring")]
    engine: Engine,
    #[arg(long, default_value = "127.0.0.1:9100")]
    addr: SocketAddr,
    /// Bytes one receive may take.
    #[arg(long, default_value_t = 16 * 1024)]
    buffer_size: u32,
    /// Provided buffers (io_uring): a power of two.
    #[arg(long, default_value_t = 128)]
    buffers: u16,
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
    /// Operations submitted at once (io_uring).
    #[arg(long, default_value_t = 1024)]
    submit_max: usize,
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
    process::exit_on_signals();
    let slots = process::raise_nofile()?.min(65_536) as u32;
    let listener = process::listen(args.addr)?;
    match args.engine {
        Engine::Uring => {
            let options = Options {
                buffers: args.buffers,
                buffer_size: args.buffer_size,
                incremental: args.incremental,
                bundle: args.bundle,
                multishot: !args.no_multishot,
                copy_bytes_max: args.copy_max,
                submit_max: args.submit_max,
                slots,
                timer: None,
            };
            let mut driver = Driver::new(options, Some(listener.as_raw_fd()))?;
            process::announce(&listener)?;
            driver.run(&mut Echo)?;
        }
        Engine::Epoll => {
            process::announce(&listener)?;
            epoll::run(&listener, args.buffer_size as usize, &mut Echo)?;
        }
    }
    Ok(())
}
