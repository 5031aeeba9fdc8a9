//! Names into addresses, on threads of their own: the system's resolver blocks.
//!
//! Threads are made as names wait, up to [`THREADS_MAX`], and end when none does: a program that connects to addresses
//! has none.

use std::collections::VecDeque;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::{Mutex, PoisonError};
use std::thread;

use crate::guard::guarded;

const THREADS_MAX: usize = 8;

/// A name that waits for its addresses.
struct Job {
    host: String,
    port: u16,
    then: Option<Found>,
}

impl Job {
    fn run(mut self) {
        let resolve = || (self.host.as_str(), self.port).to_socket_addrs().map(Iterator::collect::<Vec<SocketAddr>>);
        let found = guarded("the resolver", resolve).unwrap_or_else(|| Err(io::Error::other("the resolver failed")));
        self.tell(found.and_then(|addresses| match addresses.is_empty() {
            true => Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address")),
            false => Ok(addresses),
        }));
    }

    fn tell(&mut self, found: io::Result<Vec<SocketAddr>>) {
        if let Some(then) = self.then.take() {
            guarded("what waits for a name", || then(found));
        }
    }
}

/// Whoever waits for a name is told of it, whatever becomes of the job.
impl Drop for Job {
    fn drop(&mut self) {
        self.tell(Err(io::Error::other("the name was not resolved: no thread does so")));
    }
}

struct Jobs {
    waiting: VecDeque<Job>,
    threads: usize,
}

static JOBS: Mutex<Jobs> = Mutex::new(Jobs { waiting: VecDeque::new(), threads: 0 });

/// What is told the addresses of a name, on whatever thread.
pub type Found = Box<dyn FnOnce(io::Result<Vec<SocketAddr>>) + Send>;

/// What finds the addresses of a name and port, without blocking its caller.
pub type Resolve = fn(String, u16, Found);

/// Resolves a name and hands the addresses to `then`, which runs on a thread of the resolver.
pub(super) fn resolve(host: String, port: u16, then: Found) {
    let job = Job { host, port, then: Some(then) };
    let mut jobs = JOBS.lock().unwrap_or_else(PoisonError::into_inner);
    jobs.waiting.push_back(job);
    let mut untold = VecDeque::new();
    if jobs.threads < THREADS_MAX {
        let spawned = thread::Builder::new().name("ringwire-resolve".into()).spawn(work);
        jobs.threads += usize::from(spawned.is_ok());
        if jobs.threads == 0 {
            untold = std::mem::take(&mut jobs.waiting);
        }
    }
    // With the lock given back: those who are told may ask for another name.
    drop(jobs);
    drop(untold);
}

fn work() {
    loop {
        let job = {
            let mut jobs = JOBS.lock().unwrap_or_else(PoisonError::into_inner);
            match jobs.waiting.pop_front() {
                Some(job) => job,
                None => {
                    jobs.threads -= 1;
                    return;
                }
            }
        };
        job.run();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// Kills: threads that a failure takes away, until there is none.
    #[test]
    fn failures_of_whoever_is_told_take_no_thread() {
        for _ in 0..2 * THREADS_MAX {
            resolve("127.0.0.1".into(), 1, Box::new(|_| panic!("on purpose")));
        }
        let (sender, found) = mpsc::channel();
        resolve("127.0.0.1".into(), 1, Box::new(move |found| sender.send(found.is_ok()).unwrap()));
        assert_eq!(found.recv_timeout(std::time::Duration::from_secs(60)), Ok(true));
    }

    #[test]
    fn a_job_that_is_dropped_tells_whoever_waits() {
        let (sender, found) = mpsc::channel();
        let then: Found = Box::new(move |found| sender.send(found.is_err()).unwrap());
        drop(Job { host: "x".into(), port: 1, then: Some(then) });
        assert_eq!(found.recv(), Ok(true));
    }

    #[test]
    fn names_are_resolved_and_errors_reported() {
        let (sender, results) = mpsc::channel();
        for host in ["localhost", "no\0host"] {
            let sender = sender.clone();
            let then = move |found: io::Result<Vec<SocketAddr>>| {
                let _ = sender.send(found.map(|addresses| addresses[0].ip().is_loopback()).ok());
            };
            resolve(host.into(), 80, Box::new(then));
        }
        let mut seen = [results.recv().unwrap(), results.recv().unwrap()];
        seen.sort();
        assert_eq!(seen, [None, Some(true)]);
    }
}
