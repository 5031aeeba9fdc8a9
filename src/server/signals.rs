//! SIGTERM and SIGINT while a server runs: the first one drains it, a second one ends the process at once.
//!
//! The second one is acted on in the signal's handler, so that it needs no thread and no lock: whatever of the process
//! hangs, it ends. When the server has ended, or could not be started, the signals do again what they did before.

use std::process::abort;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::{fs, io, thread};

use nix::sys::signal::{SigSet, SigmaskHow, Signal};
#[cfg(feature = "tls")]
use signal_hook::consts::SIGHUP;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::{Handle, Signals};
use signal_hook::{SigId, flag, low_level};

use super::news::Ending;
use crate::error::{Error, Result};
use crate::guard::guarded;

const TAKEN: [i32; 2] = [SIGTERM, SIGINT];

/// How many servers of this process take the signals.
static TAKERS: Mutex<u32> = Mutex::new(0);
/// No server does: a signal whose action was the default one has it again. It cannot be had back from the kernel, since
/// others may have handlers behind the same one by then.
static UNTAKEN: AtomicBool = AtomicBool::new(true);
/// Whether that was arranged for.
static STANDS_BY: OnceLock<Result<(), String>> = OnceLock::new();

/// The signals, taken; given back when it is dropped.
pub(super) struct Taken {
    handlers: Vec<SigId>,
    thread: Option<Handle>,
    /// What this thread had blocked before.
    mask: SigSet,
    ending: Arc<OnceLock<Ending>>,
}

impl Taken {
    /// Takes the signals. Before [`Taken::drain_with`] is called there is nothing to drain, and perhaps something that hangs:
    /// the first one ends the process.
    pub(super) fn new() -> Result<Taken> {
        let failed = || Error::io("taking signals");
        STANDS_BY
            .get_or_init(|| stand_by().map_err(|error| error.to_string()))
            .clone()
            .map_err(|error| failed()(io::Error::other(error)))?;
        // The cores inherit this and are not interrupted. Threads that an embedder started before may still get them.
        let blocked = SigSet::from_iter([Signal::SIGTERM, Signal::SIGINT]);
        let mask = blocked.thread_swap_mask(SigmaskHow::SIG_BLOCK).map_err(|errno| failed()(errno.into()))?;
        add_taker(1);
        let mut taken = Taken { handlers: Vec::new(), thread: None, mask, ending: Arc::default() };
        taken.take(blocked).map_err(failed())?;
        Ok(taken)
    }

    fn take(&mut self, blocked: SigSet) -> io::Result<()> {
        let seen = Arc::new(AtomicBool::new(false));
        for signal in TAKEN {
            // In this order: the first signal finds that none was seen.
            self.handlers.push(flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&seen))?);
            self.handlers.push(flag::register(signal, Arc::clone(&seen))?);
        }
        let mut signals = Signals::new(TAKEN)?;
        self.thread = Some(signals.handle());
        let ending = Arc::clone(&self.ending);
        let run = move || {
            if let Err(error) = blocked.thread_unblock() {
                tracing::error!(%error, "signals cannot be unblocked");
            }
            // It goes on after the first one: the handler needs a thread that has the signals unblocked.
            for signal in signals.forever() {
                let Some(ending) = ending.get() else { low_level::exit(128 + signal) };
                ending.drain();
                // The log may hang, or panic.
                guarded("the log", || tracing::info!(signal, "draining"));
            }
        };
        thread::Builder::new().name("ringwire-signals".into()).spawn(run)?;
        Ok(())
    }

    /// From now on the first signal drains this server.
    pub(super) fn drain_with(&self, ending: Ending) {
        let _ = self.ending.set(ending);
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        add_taker(-1);
        self.handlers.drain(..).for_each(|handler| {
            low_level::unregister(handler);
        });
        if let Some(thread) = &self.thread {
            thread.close();
        }
        if let Err(error) = self.mask.thread_set_mask() {
            tracing::error!(%error, "signals stay blocked");
        }
    }
}

/// SIGHUP while a server with certificates is run: they are read again. Before and after it does what it did.
#[cfg(feature = "tls")]
pub(super) struct Hangups {
    thread: Handle,
}

/// Whether SIGHUP does what it would by default, where that was its action.
#[cfg(feature = "tls")]
static HANGS_UP: AtomicBool = AtomicBool::new(true);

#[cfg(feature = "tls")]
impl Hangups {
    pub(super) fn renew(renewal: super::renewal::Renewal) -> Result<Hangups> {
        static STANDS_BY: OnceLock<()> = OnceLock::new();
        let failed = || Error::io("taking SIGHUP");
        STANDS_BY.get_or_init(|| {
            let status = fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
            if is_default(&status, SIGHUP) {
                let _ = flag::register_conditional_default(SIGHUP, &HANGS_UP);
            }
        });
        HANGS_UP.store(false, Ordering::SeqCst);
        let mut signals = Signals::new([SIGHUP]).map_err(failed())?;
        let thread = signals.handle();
        let run = move || signals.forever().for_each(|_| _ = renewal.nudge());
        thread::Builder::new().name("ringwire-hangups".into()).spawn(run).map_err(failed())?;
        Ok(Hangups { thread })
    }
}

#[cfg(feature = "tls")]
impl Drop for Hangups {
    fn drop(&mut self) {
        self.thread.close();
        HANGS_UP.store(true, Ordering::SeqCst);
    }
}

fn add_taker(more: i32) {
    let mut takers = TAKERS.lock().unwrap_or_else(PoisonError::into_inner);
    *takers = takers.checked_add_signed(more).unwrap_or_else(|| abort());
    UNTAKEN.store(*takers == 0, Ordering::SeqCst);
}

/// Sees to it that the signals whose action is the default one have it while no server takes them. Before anything else has
/// a handler put in for them.
fn stand_by() -> io::Result<()> {
    let status = fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    for signal in TAKEN.into_iter().filter(|signal| is_default(&status, *signal)) {
        flag::register_conditional_default(signal, &UNTAKEN)?;
    }
    Ok(())
}

/// Whether a signal is neither ignored nor caught, by what proc_pid_status(5) says; where it says nothing, it is taken for so.
fn is_default(status: &str, signal: i32) -> bool {
    let has_bit = |name: &str| {
        let set = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let set = set.and_then(|set| u64::from_str_radix(set.trim(), 16).ok()).unwrap_or(0);
        set & (1 << (signal - 1)) != 0
    };
    !has_bit("SigIgn") && !has_bit("SigCgt")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_signal_does_is_read_from_the_masks() {
        let status = "Name:\tx\nSigBlk:\t0000000000004002\nSigIgn:\t0000000000001000\nSigCgt:\t0000000000004000\n";
        assert!(!is_default(status, SIGTERM) && is_default(status, SIGINT) && !is_default(status, 13));
        assert!(is_default("", SIGTERM));
    }

    /// Kills: a start that fails and leaves the signals blocked on its caller's thread.
    #[test]
    fn a_thread_that_has_given_them_back_has_them_as_before() {
        let before = SigSet::thread_get_mask().expect("a mask");
        let taken = Taken::new().expect("the signals");
        let masked = SigSet::thread_get_mask().expect("a mask");
        assert!(masked.contains(Signal::SIGTERM) && masked.contains(Signal::SIGINT));
        assert!(!UNTAKEN.load(Ordering::SeqCst));
        let again = Taken::new().expect("the signals");
        drop(again);
        assert!(!UNTAKEN.load(Ordering::SeqCst), "the other one still takes them");
        drop(taken);
        assert!(UNTAKEN.load(Ordering::SeqCst));
        let after = SigSet::thread_get_mask().expect("a mask");
        for signal in [Signal::SIGTERM, Signal::SIGINT] {
            assert_eq!(after.contains(signal), before.contains(signal));
        }
    }
}
