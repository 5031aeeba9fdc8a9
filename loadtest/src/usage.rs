//! CPU time and memory of a process, read from procfs.

use std::{collections::BTreeMap, fs, io, path::Path, time::Duration};

/// Whether a process is there to be looked at.
///
/// # Errors
/// Why not, as the end of a sentence about it.
pub(crate) fn check(pid: u32) -> Result<(), String> {
    match Threads::read(pid).and_then(|_| resident_bytes(pid)) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err("there is no such process on this machine".to_owned())
        }
        Err(error) => Err(error.to_string()),
    }
}

/// CPU time that each thread of a process has used so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Threads(BTreeMap<u32, Duration>);

impl Threads {
    pub(crate) fn read(pid: u32) -> io::Result<Threads> {
        let mut threads = BTreeMap::new();
        for task in fs::read_dir(Path::new("/proc").join(pid.to_string()).join("task"))? {
            let task = task?;
            let number = task.file_name().to_str().and_then(|name| name.parse().ok());
            // A thread may end between listing and reading.
            if let Some((number, nanoseconds)) = number.zip(thread_nanoseconds(&task.path())) {
                threads.insert(number, Duration::from_nanos(nanoseconds));
            }
        }
        Ok(Threads(threads))
    }

    /// What all of them together have used since, and what the busiest one has.
    pub(crate) fn since(&self, begin: &Threads) -> (Duration, Duration) {
        let used =
            |(number, time): (&u32, &Duration)| time.saturating_sub(begin.0.get(number).copied().unwrap_or_default());
        let each = || self.0.iter().map(used);
        (each().sum(), each().max().unwrap_or_default())
    }
}

/// CPU time all threads of a process have used so far.
pub(crate) fn cpu(pid: u32) -> io::Result<Duration> {
    Ok(Threads::read(pid)?.since(&Threads::default()).0)
}

/// How many processors a process may run on.
pub(crate) fn cores(pid: u32) -> Option<usize> {
    cores_of(&fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("status")).ok()?)
}

/// `Cpus_allowed_list: 0-1,4` (proc(5)).
fn cores_of(status: &str) -> Option<usize> {
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?;
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        (last.parse::<usize>().ok()? + 1).checked_sub(first.parse().ok()?)
    };
    list.trim().split(',').map(range).sum::<Option<usize>>().filter(|cores| *cores > 0)
}

/// CPU time of one thread of this process.
pub(crate) fn thread_cpu(thread: i32) -> Duration {
    let path = Path::new("/proc/self/task").join(thread.to_string());
    Duration::from_nanos(thread_nanoseconds(&path).unwrap_or_default())
}

fn thread_nanoseconds(task: &Path) -> Option<u64> {
    fs::read_to_string(task.join("schedstat")).ok()?.split(' ').next()?.parse().ok()
}

/// Resident memory in bytes.
pub(crate) fn resident_bytes(pid: u32) -> io::Result<u64> {
    let status = fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("status"))?;
    let kibibytes = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|rest| rest.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kibibytes
        .map(|kibibytes| kibibytes * 1024)
        .ok_or_else(|| io::Error::other("the process has no memory of its own: it has ended, or is the kernel's"))
}

/// CPU time of all processors together, since the machine began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Host {
    /// That of processes, ours included; not that of interrupts, which are whose they are for.
    pub(crate) used: Duration,
    /// That a hypervisor has given to others.
    pub(crate) stolen: Duration,
}

/// CPU time of this machine, if it says so.
pub(crate) fn host() -> Option<Host> {
    host_of(&fs::read_to_string("/proc/stat").ok()?)
}

/// `cpu  user nice system idle iowait irq softirq steal …`, in hundredths of a second (proc(5)).
fn host_of(stat: &str) -> Option<Host> {
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let ticks: Vec<u64> = line.split_whitespace().map_while(|field| field.parse().ok()).collect();
    let time = |ticks: u64| Duration::from_millis(ticks * 10);
    Some(Host { used: time(ticks.get(..3)?.iter().sum()), stolen: time(*ticks.get(7)?) })
}

/// What the figures were measured on: kernel, processor, number of processors.
pub(crate) fn machine() -> (String, String, usize) {
    let line = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let kernel = line("/proc/sys/kernel/osrelease").trim().to_owned();
    let cpuinfo = line("/proc/cpuinfo");
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let model = model.map_or_else(|| "unknown processor".to_owned(), |(_, name)| name.to_owned());
    let count = cpuinfo.lines().filter(|line| line.starts_with("processor")).count();
    (kernel, model, count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_the_machine_is_read() {
        let stat = "cpu  100 20 30 4000 5 6 7 80 0 0\ncpu0 1 2 3 4 5 6 7 8 9 10\n";
        let expected = Host { used: Duration::from_millis(1500), stolen: Duration::from_millis(800) };
        assert_eq!(host_of(stat), Some(expected));
        for wrong in ["", "cpu0 1 2 3", "cpu  1 2", "cpu  a b c d e f g h"] {
            assert_eq!(host_of(wrong), None, "{wrong}");
        }
        assert!(host().is_some_and(|host| !host.used.is_zero()));
    }

    #[test]
    fn the_processors_of_a_process_are_read() {
        for (list, cores) in
            [("0", Some(1)), ("0-1", Some(2)), ("0-3,8,10-11", Some(7)), ("", None), ("x", None), ("3-1", None)]
        {
            assert_eq!(cores_of(&format!("Name:\tx\nCpus_allowed_list:\t{list}\n")), cores, "{list}");
        }
        assert_eq!(cores_of("Name:\tx\n"), None);
        let here = std::thread::available_parallelism().expect("known").get();
        assert!(cores(std::process::id()).is_some_and(|cores| cores >= here));
    }

    /// Kills: the busiest thread that is the one which has used most before.
    #[test]
    fn what_threads_use_is_counted_from_the_beginning() {
        let threads = |times: &[(u32, u64)]| {
            Threads(times.iter().map(|(number, ms)| (*number, Duration::from_millis(*ms))).collect())
        };
        let begin = threads(&[(1, 9_000), (2, 100), (3, 50)]);
        // One has ended, and one has begun.
        let end = threads(&[(1, 9_010), (2, 500), (4, 30)]);
        assert_eq!(end.since(&begin), (Duration::from_millis(440), Duration::from_millis(400)));
        assert!(!Threads::read(std::process::id()).expect("ours").0.is_empty());
    }

    #[test]
    fn a_process_is_there_or_is_not() {
        assert_eq!(check(std::process::id()), Ok(()));
        // Above the largest number that Linux gives out.
        assert_eq!(check(1 << 23), Err("there is no such process on this machine".to_owned()));
        let mut child = std::process::Command::new("true").spawn().expect("it starts");
        let ended = || check(child.id()).is_err_and(|error| error.contains("has ended"));
        for _ in 0..500 {
            if ended() {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        assert!(ended(), "{:?}", check(child.id()));
        child.wait().expect("ours");
    }
}
