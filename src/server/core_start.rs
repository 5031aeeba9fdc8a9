//! What the thread of a core does: it makes its ring and its app, waits for the other cores, and serves.

use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;

use crate::admission::Admission;
use crate::config::Config;
use crate::engine::Ring as _;
use crate::engine::bell::Doorbell;
use crate::engine::uring::{Options, Uring};
use crate::error::{Error, Result};
use crate::guard::panic_text;
use crate::hub::{CoreHub, IdKey, Letter};
use crate::mail::{Mailbox, Post};
use crate::remote::Hub;
use crate::server::listen::SocketFile;
use crate::server::news::News;
use crate::server::parts::{core_hub, ring_options, settings, websockets_max};
use crate::shard::service::Service;
use crate::shard::{Entrance, Handover, Settings, Shard};
use crate::tls::Acceptor;

/// What a core's thread starts with.
pub(super) struct CoreStart {
    pub(super) core: usize,
    /// Cores of the server.
    pub(super) cores: u32,
    /// The processor to pin its thread to.
    pub(super) pin: Option<usize>,
    pub(super) config: Arc<Config>,
    pub(super) admission: Arc<Admission>,
    pub(super) ids: IdKey,
    pub(super) post: Post<Letter>,
    pub(super) mailbox: Mailbox<Letter>,
    pub(super) bells: mpsc::Receiver<(Vec<Arc<Doorbell>>, Hub)>,
    /// Says once to each core that all have their apps; closed if one has not.
    pub(super) go: Receiver<()>,
    pub(super) news: Sender<(usize, News)>,
    pub(super) handover: Handover,
    /// What each listener is for.
    pub(super) entrances: Vec<Entrance>,
    /// What makes the sessions of each that speaks TLS.
    pub(super) acceptors: Vec<Option<Arc<Acceptor>>>,
    /// What the clocks of all cores count from.
    pub(super) epoch: Instant,
    pub(super) release_memory: Option<fn()>,
    /// Files of Unix sockets, which the last core takes away when its listeners are closed.
    pub(super) _files: Arc<Vec<SocketFile>>,
}

impl CoreStart {
    pub(super) fn run<S: Service>(
        self,
        listeners: Vec<OwnedFd>,
        make: &(impl Fn(&mut CoreHub, Hub) -> S + Send + Sync),
    ) -> Result<()> {
        if let Some(cpu) = self.pin {
            pin(cpu);
        }
        let listener_count = listeners.len() as u8;
        let options = Options { epoch: self.epoch, ..ring_options(&self.config, self.cores) };
        let mut ring = Uring::new(&options, listeners).map_err(|error| {
            let why = match error.raw_os_error() {
                Some(libc::ENOMEM) => {
                    "RLIMIT_MEMLOCK has no room for this ring beside those that its user has, or a memory limit; \
                     `ringwire check` tells how much it takes"
                }
                Some(libc::EPERM | libc::EACCES | libc::ENOSYS) => {
                    "container runtimes block it by default, and deploy/README.md of ringwire's source tells how to allow it; \
                     `ringwire check` tells more"
                }
                _ => "`ringwire check` tells more",
            };
            Error::Unavailable(format!("io_uring cannot be used: {error}; {why}"))
        })?;
        let (bell, slots, descriptors) = (ring.doorbell(), ring.slots(), ring.descriptors());
        let _ = self.news.send((self.core, News::Ring { bell, slots, descriptors }));
        // Without the others' bells the start has failed elsewhere, and was reported there.
        let Ok((bells, handle)) = self.bells.recv() else { return Ok(()) };
        // In this order, so that it is dropped after whatever has the mailbox.
        let _end = handle.end_of(self.core);
        let mailbox = self.mailbox;
        ring.set_doorbells(bells);
        let config = &self.config;
        let mut hub = core_hub(config, self.ids, self.post);
        hub.spares.set_clock(clock_ns);
        hub.set_deflate_clock(clock_ns);
        hub.set_cpu_clock(cpu_ns);
        let service = catch_unwind(AssertUnwindSafe(|| make(&mut hub, handle))).map_err(|panic| {
            Error::Internal(format!("the app of core {} could not be made: {}", self.core, panic_text(panic)))
        })?;
        let _ = self.news.send((self.core, News::Made));
        if self.go.recv().is_err() {
            return Ok(());
        }
        let settings = settings(config, listener_count, ring.buffer_bytes(), ring.bounds_receives());
        let settings = Settings {
            handover: self.handover,
            admin_stays: !config.reuse_port,
            entrances: self.entrances,
            acceptors: self.acceptors,
            websockets_max: websockets_max(ring.slots()),
            ..settings
        };
        let mut shard = Shard::new(ring, service, hub, mailbox, self.admission, settings);
        if let Some(release) = self.release_memory {
            shard.release_memory_with(release);
        }
        shard.run().map_err(Error::io(format!("core {}", self.core)))
    }
}

fn pin(cpu: usize) {
    let mut set = CpuSet::new();
    let pinned = set.set(cpu).and_then(|()| sched_setaffinity(Pid::from_raw(0), &set));
    if let Err(error) = pinned {
        tracing::warn!(cpu, %error, "the core's thread could not be pinned");
    }
}

/// A clock for durations.
fn clock_ns() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    u64::try_from(START.get_or_init(Instant::now).elapsed().as_nanos()).unwrap_or(u64::MAX)
}

/// Processor time of the thread that asks.
fn cpu_ns() -> u64 {
    let taken = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID);
    taken.map_or(0, |taken| u64::try_from(Duration::from(taken).as_nanos()).unwrap_or(u64::MAX))
}
