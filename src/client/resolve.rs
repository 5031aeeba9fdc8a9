//! Names into addresses, on threads of their own: the system's resolver blocks.
//!
//! Threads are made as names wait, up to [`THREADS_MAX`], and end when none does: a program that connects to addresses
//! has none.

use std::collections::VecDeque;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::{Mutex, PoisonError};
use std::thread;

const THREADS_MAX: usize = 8;

type Job = Box<dyn FnOnce() + Send>;

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
    let job = Box::new(move || {
        let found = (host.as_str(), port).to_socket_addrs().map(Iterator::collect::<Vec<SocketAddr>>);
        then(found.and_then(|addresses| match addresses.is_empty() {
            true => Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address")),
            false => Ok(addresses),
        }));
    });
    let mut jobs = JOBS.lock().unwrap_or_else(PoisonError::into_inner);
    jobs.waiting.push_back(job);
    if jobs.threads < THREADS_MAX {
        let spawned = thread::Builder::new().name("ringwire-resolve".into()).spawn(work);
        // Without a single thread the job waits until the next name comes, and its connection for its time-out.
        jobs.threads += usize::from(spawned.is_ok());
    }
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
        job();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

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
