//! The client thread: one for the whole process, started by the first connection, asleep when there is nothing to do.

use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit};
use nix::sys::signal::SigSet;

use super::driver::Driver;
use super::error::ClientError;
use super::letter::Courier;
use super::resolve::resolve;
use crate::engine::uring::{Options, Uring};
use crate::guard::guarded;

/// Most connections of the thread; RLIMIT_NOFILE may allow fewer.
const SLOTS_MAX: u32 = 1 << 16;

static COURIER: Mutex<Option<Arc<Courier>>> = Mutex::new(None);

/// The way to the process's client thread, which is started if there is none.
pub(super) fn courier() -> Result<Arc<Courier>, ClientError> {
    let mut courier = COURIER.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(courier) = courier.as_ref().filter(|courier| !courier.has_ended()) {
        return Ok(Arc::clone(courier));
    }
    let started = start()?;
    *courier = Some(Arc::clone(&started));
    Ok(started)
}

fn start() -> Result<Arc<Courier>, ClientError> {
    let (ready, readiness) = mpsc::channel();
    let run = move || {
        // Signals are for the program's own threads.
        let _ = SigSet::all().thread_block();
        let ring = match Uring::new(&options(), Vec::new()) {
            Ok(ring) => ring,
            Err(error) => {
                let _ = ready.send(Err(error));
                return;
            }
        };
        let (courier, letters) = Courier::new(ring.bell());
        let _ = ready.send(Ok(courier));
        // However it ends, its connections end with it, and the next one starts a thread anew.
        if let Some(Err(error)) = guarded("the client thread", move || Driver::new(ring, letters, resolve).run()) {
            tracing::error!(%error, "the client thread's ring failed");
        }
    };
    let unavailable = |why: &str| ClientError::Unavailable(format!("the client thread cannot run: {why}"));
    thread::Builder::new()
        .name("ringwire-client".into())
        .spawn(run)
        .map_err(|error| unavailable(&error.to_string()))?;
    match readiness.recv() {
        Ok(Ok(courier)) => Ok(courier),
        Ok(Err(error)) => Err(unavailable(&format!("io_uring cannot be used: {error}"))),
        Err(_) => Err(unavailable("it ended while starting")),
    }
}

fn options() -> Options {
    let files = getrlimit(Resource::RLIMIT_NOFILE).map_or(1024, |(soft, _)| soft);
    Options {
        sq_entries: 256,
        cq_entries: 4096,
        slots: u32::try_from(files).unwrap_or(u32::MAX).min(SLOTS_MAX),
        descriptors: None,
        rings: 1,
        buffers: 1024,
        buffer_bytes: 4096,
        incremental_bytes: 64 << 10,
        spin: Duration::ZERO,
        epoch: Instant::now(),
    }
}
