//! What the bare programs share: their command line, and how they serve on either loop.

use std::{error::Error, net::SocketAddr, os::fd::AsRawFd};

use clap::ValueEnum;

use crate::{
    epoll, process,
    uring::{self, Driver, Options},
};

#[derive(Clone, Copy, ValueEnum)]
enum Engine {
    Uring,
    Epoll,
}

/// Where to serve, on which loop, with which buffers; `BUFFERS` are provided by default.
#[derive(clap::Args)]
pub(crate) struct Bare<const BUFFERS: u16> {
    /// The loop to serve on.
    #[arg(long, value_enum, default_value = "uring")]
    engine: Engine,
    /// Where.
    #[arg(long, default_value = "127.0.0.1:9100")]
    addr: SocketAddr,
    /// Bytes one receive may take.
    #[arg(long, default_value_t = 16 * 1024)]
    buffer_size: u32,
    /// Provided buffers (io_uring): a power of two.
    #[arg(long, default_value_t = BUFFERS)]
    buffers: u16,
    /// Operations submitted at once (io_uring).
    #[arg(long, default_value_t = 1024)]
    submit_max: usize,
}

impl<const BUFFERS: u16> Bare<BUFFERS> {
    /// Serves until the process is told to stop; `options` are those that only one program has.
    pub(crate) fn serve(
        &self,
        app: &mut (impl uring::App + epoll::App),
        options: Options,
    ) -> Result<(), Box<dyn Error>> {
        process::exit_on_signals();
        let slots = process::raise_nofile()?.min(65_536) as u32;
        let listener = process::listen(self.addr)?;
        match self.engine {
            Engine::Uring => {
                let options = Options {
                    buffers: self.buffers,
                    buffer_size: self.buffer_size,
                    submit_max: self.submit_max,
                    slots,
                    ..options
                };
                let mut driver = Driver::new(options, listener.as_raw_fd())?;
                process::announce(&listener)?;
                driver.run(app)?;
            }
            Engine::Epoll => {
                process::announce(&listener)?;
                epoll::run(&listener, self.buffer_size as usize, app)?;
            }
        }
        Ok(())
    }
}
