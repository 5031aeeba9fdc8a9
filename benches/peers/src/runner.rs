//! Starting servers, one at a time, on a processor of their own, and the load generator on another.

use std::{
    error::Error,
    fs,
    io::{BufRead, BufReader},
    process::{Child, Command, ExitCode, Stdio, Termination},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sched::{CpuSet, sched_setaffinity},
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

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
    // Each is told to end, and says so at its usual level.
    let child = command
        .env("RINGWIRE_LOG", "warn")
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| format!("{program}: {error}"))?;
    let mut running = Running(child);
    let mut line = String::new();
    BufReader::new(running.0.stdout.take().expect("piped")).read_line(&mut line)?;
    let addr = address(&line).ok_or_else(|| format!("{program}: no ready line"))?.to_owned();
    Ok((running, addr))
}

/// The address in a ready line: `listening on ADDR` or `ringwire listening on ws://ADDR (N cores)`.
fn address(line: &str) -> Option<&str> {
    let (_, rest) = line.split_once("listening on ")?;
    let place = rest.split_whitespace().next()?;
    Some(place.trim_start_matches("wss://").trim_start_matches("ws://"))
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

/// Runs the load generator and returns the figures it writes.
///
/// # Errors
/// If it fails; with what it said.
pub fn measure(client: &mut Command) -> Outcome<Value> {
    let json = std::env::temp_dir().join(format!("ringwire-peers-{}.json", std::process::id()));
    let output = client.arg("--json").arg(&json).output()?;
    if !output.status.success() {
        let text = [output.stdout, output.stderr].concat();
        return Err(format!("the load generator failed:\n{}", String::from_utf8_lossy(&text)).into());
    }
    let figures = serde_json::from_slice(&fs::read(&json)?)?;
    fs::remove_file(&json)?;
    Ok(figures)
}

/// What a program's `main` returns: what came of it, or a failure that is told on standard error.
pub fn end(outcome: Outcome<impl Termination>) -> ExitCode {
    match outcome {
        Ok(value) => value.report(),
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Which rows are wanted, each by its number (from 1) or a part of its name: their places, in order. All if none is named.
///
/// # Errors
/// If there is no such row.
pub fn choose(rows: &[&str], wanted: &[String]) -> Outcome<Vec<usize>> {
    let is_meant = |wanted: &String, place: usize| match wanted.parse::<usize>() {
        Ok(number) => number == place + 1,
        Err(_) => rows[place].contains(wanted.as_str()),
    };
    if let Some(none) = wanted.iter().find(|wanted| !(0..rows.len()).any(|place| is_meant(wanted, place))) {
        return Err(format!("no row is called {none:?}; --list shows them").into());
    }
    let is_wanted = |place: &usize| wanted.is_empty() || wanted.iter().any(|wanted| is_meant(wanted, *place));
    Ok((0..rows.len()).filter(is_wanted).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_chosen_by_number_or_name() {
        let rows = ["echo 64", "echo 64, 16 in flight", "idle"];
        let chosen = |wanted: &[&str]| {
            let wanted: Vec<String> = wanted.iter().map(|text| (*text).to_owned()).collect();
            choose(&rows, &wanted).map_err(|error| error.to_string())
        };
        assert_eq!(chosen(&[]), Ok(vec![0, 1, 2]));
        assert_eq!(chosen(&["idle", "1"]), Ok(vec![0, 2]));
        assert_eq!(chosen(&["echo"]), Ok(vec![0, 1]));
        // A number is never a part of a name.
        assert!(chosen(&["16"]).is_err_and(|error| error.contains("\"16\"")));
        assert!(chosen(&["echo", "nothing"]).is_err_and(|error| error.contains("nothing")));
    }

    #[test]
    fn ready_lines_of_both_kinds_are_read() {
        assert_eq!(address("listening on 127.0.0.1:81\n"), Some("127.0.0.1:81"));
        assert_eq!(address("ringwire listening on ws://127.0.0.1:9001 (1 cores)\n"), Some("127.0.0.1:9001"));
        assert_eq!(address("ringwire listening on wss://127.0.0.1:9001 (1 cores)\n"), Some("127.0.0.1:9001"));
        assert_eq!(address("error: address in use\n"), None);
    }
}
