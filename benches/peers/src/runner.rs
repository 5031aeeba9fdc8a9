//! Starting servers, one at a time, on a processor of their own.

use std::{
    error::Error,
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sched::{CpuSet, sched_setaffinity},
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// A result with any error.
pub type Outcome<T> = Result<T, Box<dyn Error>>;

const STOP_PATIENCE: Duration = Duration::from_secs(15);

/// One server under measurement; stopped when dropped.
pub struct Running(Child);

impl Running {
    /// Its process.
    pub fn id(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let begin = Instant::now();
        let _ = kill(Pid::from_raw(self.0.id() as i32), Signal::SIGTERM);
        while matches!(self.0.try_wait(), Ok(None)) {
            if begin.elapsed() > STOP_PATIENCE {
                let _ = self.0.kill();
            }
            thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Starts a server and returns it with the address it listens on.
///
/// # Errors
/// If it cannot be started or says nothing.
pub fn start(command: &mut Command) -> Outcome<(Running, String)> {
    let program = command.get_program().to_string_lossy().into_owned();
    let child = command.stdout(Stdio::piped()).spawn().map_err(|error| format!("{program}: {error}"))?;
    let mut running = Running(child);
    let mut line = String::new();
    BufReader::new(running.0.stdout.take().expect("piped")).read_line(&mut line)?;
    let addr = address(&line).ok_or_else(|| format!("{program}: no ready line"))?.to_owned();
    Ok((running, addr))
}

/// The address in a ready line: `listening on ADDR` or `ringwire listening on ws://ADDR (N cores)`.
fn address(line: &str) -> Option<&str> {
    let (_, rest) = line.split_once("listening on ")?;
    rest.trim_start_matches("ws://").split_whitespace().next()
}

/// Keeps this process, and the children it starts from now on, on one CPU.
///
/// # Errors
/// If there is no such CPU.
pub fn pin(cpu: usize) -> Outcome<()> {
    let mut cpus = CpuSet::new();
    cpus.set(cpu)?;
    Ok(sched_setaffinity(Pid::from_raw(0), &cpus)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_lines_of_both_kinds_are_read() {
        assert_eq!(address("listening on 127.0.0.1:81\n"), Some("127.0.0.1:81"));
        assert_eq!(address("ringwire listening on ws://127.0.0.1:9001 (1 cores)\n"), Some("127.0.0.1:9001"));
        assert_eq!(address("error: address in use\n"), None);
    }
}
