//! The shard's own echo, without the application framework: what `/echo` through an app is measured against.
//!
//! ```sh
//! cargo build --release --example shard_echo -p ringwire -p ringwire-loadtest
//! cargo run -p peers --release --bin bars -- --rows 1,2 --ringwire target/release/examples/shard_echo
//! ```

use std::any::Any;
use std::io::Write;

use ringwire::hub::CoreHub;
use ringwire::proto::Incoming;
use ringwire::server::run_service;
use ringwire::shard::service::{Accept, Answer, Ended, Inbound, Service};
use ringwire::{Config, Server};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

struct Echo;

impl Service for Echo {
    fn request(&mut self, _hub: &mut CoreHub, _slot: u32, _generation: u32, _request: &Inbound<'_, '_>) -> Answer {
        Answer::WebSocket(Accept::default())
    }

    fn open(&mut self, _hub: &mut CoreHub, _slot: u32, _context: Option<Box<dyn Any>>) {}

    #[inline]
    fn message(&mut self, hub: &mut CoreHub, slot: u32, message: Incoming<'_>) {
        hub.send_incoming(slot, message);
    }

    fn close(&mut self, _hub: &mut CoreHub, _slot: u32, _ended: &Ended) {}
}

fn main() -> ringwire::Result<()> {
    let config = Config::from_env()?;
    run_service(
        Server::new(config),
        |_, _| Echo,
        |handle| {
            let addresses: Vec<String> = handle.addresses().iter().map(ToString::to_string).collect();
            println!("ringwire listening on {} ({} cores)", addresses.join(", "), handle.cores());
            let _ = std::io::stdout().flush();
        },
    )
}
