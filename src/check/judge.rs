//! What to think of the facts.

use std::io;

use super::facts::Facts;
use super::report::{Finding, Report, Verdict};
use crate::config::{Config, Setting};

/// The oldest kernel that has every operation that is needed.
const KERNEL_MIN: (u32, u32) = (6, 1);
/// The oldest kernel that is advised.
const KERNEL_ADVISED: (u32, u32) = (6, 12);
/// The most descriptors that one ring's own table holds (IORING_MAX_FIXED_FILES).
const RING_FILES_MAX: u64 = 1 << 20;
/// Descriptors that a process has besides those that its cores need: standard streams, libraries, a connection or two.
const FILES_BASE: u64 = 64;

pub(super) fn report(config: &Config, facts: &Facts) -> Report {
    let findings = vec![
        kernel(facts.release.as_deref()),
        switch(facts.io_uring_disabled, facts.ring.is_ok()),
        seccomp(facts.is_filtered, &facts.ring),
        ring(config, facts),
        nofile(config, facts),
        memlock(facts.memlock, &facts.ring),
        memory(config, facts.memory_bytes),
        backlog(config, facts.somaxconn),
        processors(config, &facts.cpus),
    ];
    Report { findings }
}

fn finding(what: &'static str, found: impl Into<String>, wanted: impl Into<String>) -> Finding {
    Finding { verdict: Verdict::Good, what, found: found.into(), wanted: wanted.into(), remedy: None }
}

impl Finding {
    fn but(self, verdict: Verdict, remedy: impl Into<String>) -> Finding {
        Finding { verdict, remedy: Some(remedy.into()), ..self }
    }
}

/// Major and minor number of `6.12.3-generic`.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn kernel(release: Option<&str>) -> Finding {
    let finding =
        finding("kernel", release.unwrap_or("unknown"), "Linux 6.1 or later, 6.12 or later for the best speed");
    match release.and_then(version) {
        Some(version) if version >= KERNEL_ADVISED => finding,
        Some(version) if version >= KERNEL_MIN => finding.but(Verdict::Advice, "install a newer kernel"),
        Some(_) => finding.but(Verdict::Bad, "install a newer kernel"),
        None => finding.but(Verdict::Advice, "mount /proc, which tells the kernel's release"),
    }
}

fn switch(io_uring_disabled: Option<u32>, has_ring: bool) -> Finding {
    let found = match io_uring_disabled {
        None => String::from("not there: io_uring is not restricted by it"),
        Some(value) => value.to_string(),
    };
    let finding = finding("kernel.io_uring_disabled", found, "0 (allowed to all)");
    let remedy = "sysctl -w kernel.io_uring_disabled=0, and in /etc/sysctl.d to keep it; with 1 also \
                  membership in the group of kernel.io_uring_group, or CAP_SYS_ADMIN, will do";
    match io_uring_disabled {
        None | Some(0) => finding,
        Some(1) if has_ring => finding,
        Some(_) => finding.but(Verdict::Bad, remedy),
    }
}

const SECCOMP_REMEDY: &str = "allow io_uring_setup, io_uring_enter and io_uring_register: container runtimes \
    block them by default. Docker, Podman: --security-opt seccomp=profile.json with the three added, or \
    seccomp=unconfined; Kubernetes: a seccompProfile of type Localhost; systemd: SystemCallFilter=@io-event";

fn is_forbidden(ring: &io::Result<Vec<&str>>) -> bool {
    let errno = ring.as_ref().err().and_then(io::Error::raw_os_error);
    matches!(errno, Some(libc::EPERM | libc::EACCES | libc::ENOSYS))
}

fn seccomp(is_filtered: Option<bool>, ring: &io::Result<Vec<&str>>) -> Finding {
    let found = match (is_filtered, ring) {
        (Some(false), _) => "no filter",
        (Some(true), Ok(_)) => "a filter that lets io_uring pass",
        (Some(true), Err(_)) => "a filter, and io_uring fails",
        (None, _) => "unknown",
    };
    let finding = finding("seccomp", found, "no filter, or one that allows io_uring");
    match is_filtered {
        Some(true) if is_forbidden(ring) => finding.but(Verdict::Bad, SECCOMP_REMEDY),
        _ => finding,
    }
}

fn ring(config: &Config, facts: &Facts) -> Finding {
    let wanted = format!("a ring of {} submission and {} completion entries", config.ring_entries, config.cq_entries);
    let error = match &facts.ring {
        Ok(lacks) if lacks.is_empty() => return finding("io_uring", "works", wanted),
        Ok(lacks) => {
            let found = format!("works, but lacks {}", lacks.join(", "));
            return finding("io_uring", found, wanted).but(Verdict::Bad, "install a newer kernel");
        }
        Err(error) => error,
    };
    let remedy = match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) if facts.io_uring_disabled.unwrap_or(0) != 0 => "see kernel.io_uring_disabled",
        Some(libc::EPERM | libc::EACCES) => SECCOMP_REMEDY,
        Some(libc::ENOSYS) => {
            "use a kernel with CONFIG_IO_URING; or a seccomp filter or sandbox (gVisor) hides it: run without that"
        }
        Some(libc::ENOMEM) => {
            "lower RINGWIRE_RING_ENTRIES and RINGWIRE_CQ_ENTRIES, or raise the memory limit of the container and \
             RLIMIT_MEMLOCK (ulimit -l, LimitMEMLOCK=)"
        }
        Some(libc::EINVAL) => "install a newer kernel",
        Some(libc::EMFILE | libc::ENFILE) => "raise the limit of open files",
        _ => "look at the kernel's log",
    };
    finding("io_uring", format!("fails: {error}"), wanted).but(Verdict::Bad, remedy)
}

fn nofile(config: &Config, facts: &Facts) -> Finding {
    let cores = config.cores.cpus(&facts.cpus).len() as u64;
    // Connections live in the rings' own tables, each of which may be as large as this limit; only listeners, the ring
    // and the doorbell of each core are descriptors of the process.
    let needed = FILES_BASE + cores * (config.addresses.len() as u64 + 4);
    let wanted = (u64::from(config.connections_max).div_ceil(cores) + FILES_BASE).max(needed);
    let (soft, hard) = match facts.nofile {
        Some(limits) => limits,
        None => return finding("RLIMIT_NOFILE", "unknown", wanted.to_string()),
    };
    let room = cores * hard.min(RING_FILES_MAX);
    let finding = finding(
        "RLIMIT_NOFILE",
        format!("soft {}, hard {} (raised to it at start): room for {room} connections", limit(soft), limit(hard)),
        format!("{wanted} for RINGWIRE_MAX_CONNECTIONS={}", config.connections_max),
    );
    let remedy = format!(
        "ulimit -Hn {wanted} as root; systemd: LimitNOFILE={wanted}; Docker: --ulimit nofile={wanted}:{wanted}"
    );
    if hard < needed {
        finding.but(Verdict::Bad, remedy)
    } else if room >= u64::from(config.connections_max) {
        finding
    } else if hard >= RING_FILES_MAX {
        finding.but(Verdict::Advice, "raise RINGWIRE_CORES, or lower RINGWIRE_MAX_CONNECTIONS")
    } else {
        finding.but(Verdict::Advice, format!("{remedy}; or lower RINGWIRE_MAX_CONNECTIONS"))
    }
}

fn memlock(memlock: Option<(u64, u64)>, ring: &io::Result<Vec<&str>>) -> Finding {
    let found = match memlock {
        Some((soft, hard)) => format!("soft {}, hard {}", limit(soft), limit(hard)),
        None => String::from("unknown"),
    };
    let finding = finding(
        "RLIMIT_MEMLOCK",
        found,
        "anything: rings count as the process's memory since Linux 5.12, and nothing else is locked",
    );
    match ring.as_ref().err().and_then(io::Error::raw_os_error) {
        Some(libc::ENOMEM) => finding.but(
            Verdict::Advice,
            "ulimit -l unlimited as root; systemd: LimitMEMLOCK=infinity; Docker: --ulimit memlock=-1",
        ),
        _ => finding,
    }
}

fn memory(config: &Config, memory_bytes: Option<u64>) -> Finding {
    let found = memory_bytes.map_or_else(|| String::from("unknown"), |bytes| format!("{} MiB", bytes >> 20));
    let setting = Setting::named("RINGWIRE_MAX_MEMORY").map(|it| it.value(config)).unwrap_or_default();
    let finding = finding("memory", found, format!("more than RINGWIRE_MAX_MEMORY={setting}"));
    match memory_bytes {
        Some(bytes) if config.memory_bytes_max as u64 >= bytes => finding.but(
            Verdict::Advice,
            "lower RINGWIRE_MAX_MEMORY: the process would be ended before its budget is spent; or give it more memory",
        ),
        _ => finding,
    }
}

fn backlog(config: &Config, somaxconn: Option<u32>) -> Finding {
    let backlog = config.backlog;
    let found = somaxconn.map_or_else(|| String::from("unknown"), |value| value.to_string());
    let wanted = format!("{backlog} for RINGWIRE_BACKLOG={backlog}");
    let finding = finding("net.core.somaxconn", found, wanted);
    match somaxconn {
        Some(value) if value < backlog => {
            finding.but(Verdict::Advice, format!("sysctl -w net.core.somaxconn={backlog}; or lower RINGWIRE_BACKLOG"))
        }
        _ => finding,
    }
}

fn processors(config: &Config, cpus: &[usize]) -> Finding {
    let setting = Setting::named("RINGWIRE_CORES").map(|it| it.value(config));
    let finding = finding(
        "processors",
        format!("{} for this process", cpus.len()),
        format!("those of RINGWIRE_CORES={}: {}", setting.unwrap_or_default(), config.cores.cpus(cpus).len()),
    );
    match config.cpus(cpus) {
        Ok(cores) if cores.len() > cpus.len() => {
            finding.but(Verdict::Advice, "lower RINGWIRE_CORES: cores that share a processor wait for each other")
        }
        Ok(_) => finding,
        Err(error) => finding.but(
            Verdict::Bad,
            format!("{error}; change the list or the process's affinity, or set RINGWIRE_PIN=false"),
        ),
    }
}

fn limit(value: u64) -> String {
    match value {
        u64::MAX => String::from("unlimited"),
        value => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::CoreSet;

    fn fine() -> Facts {
        Facts {
            release: Some(String::from("6.12.3-generic")),
            io_uring_disabled: Some(0),
            ring: Ok(Vec::new()),
            is_filtered: Some(false),
            nofile: Some((1024, 1_048_576)),
            memlock: Some((65_536, u64::MAX)),
            memory_bytes: Some(8 << 30),
            somaxconn: Some(4096),
            cpus: vec![0, 1],
        }
    }

    fn judged(facts: &Facts, what: &str) -> Finding {
        let report = report(&Config::default(), facts);
        let finding = report.findings.into_iter().find(|finding| finding.what == what).expect(what);
        assert_eq!(finding.remedy.is_none(), finding.verdict == Verdict::Good);
        finding
    }

    fn failed(errno: i32) -> Facts {
        Facts { ring: Err(io::Error::from_raw_os_error(errno)), ..fine() }
    }

    fn remedy(facts: &Facts, what: &str) -> String {
        judged(facts, what).remedy.expect("a remedy")
    }

    #[test]
    fn a_fine_machine() {
        let report = report(&Config::default(), &fine());
        for finding in &report.findings {
            assert_eq!(finding.verdict, Verdict::Good, "{finding:?}");
        }
        assert_eq!(report.exit_code(), 0);
    }

    #[test]
    fn kernels() {
        let cases = [
            ("7.0.0-rc1", Verdict::Good),
            ("6.12.0", Verdict::Good),
            ("6.11.9", Verdict::Advice),
            ("6.1-cloud", Verdict::Advice),
            ("6.0.19", Verdict::Bad),
            ("5.15.0-91-generic", Verdict::Bad),
            ("", Verdict::Advice),
        ];
        for (release, verdict) in cases {
            assert_eq!(kernel(Some(release)).verdict, verdict, "{release}");
        }
    }

    #[test]
    fn a_forbidden_ring_is_traced_to_what_forbids_it() {
        let mut facts = failed(libc::EPERM);
        facts.is_filtered = Some(true);
        assert!(remedy(&facts, "io_uring").contains("seccomp=unconfined"));
        assert_eq!(judged(&facts, "seccomp").verdict, Verdict::Bad);

        facts = failed(libc::EPERM);
        facts.io_uring_disabled = Some(2);
        assert_eq!(remedy(&facts, "io_uring"), "see kernel.io_uring_disabled");
        assert!(remedy(&facts, "kernel.io_uring_disabled").contains("sysctl -w"));
        assert_eq!(report(&Config::default(), &facts).exit_code(), 78);
    }

    #[test]
    fn other_failures_of_the_ring() {
        for (errno, says) in [
            (libc::ENOSYS, "CONFIG_IO_URING"),
            (libc::ENOMEM, "RINGWIRE_RING_ENTRIES"),
            (libc::EINVAL, "newer kernel"),
            (libc::EMFILE, "open files"),
        ] {
            let facts = failed(errno);
            assert!(remedy(&facts, "io_uring").contains(says));
        }
        assert!(remedy(&failed(libc::ENOMEM), "RLIMIT_MEMLOCK").contains("LimitMEMLOCK"));
        let old = Facts { ring: Ok(vec!["SENDMSG_ZC"]), ..fine() };
        assert!(judged(&old, "io_uring").found.contains("SENDMSG_ZC"));
        assert_eq!(judged(&old, "io_uring").verdict, Verdict::Bad);
    }

    #[test]
    fn a_restricted_switch_is_fine_for_the_privileged() {
        let privileged = Facts { io_uring_disabled: Some(1), ..fine() };
        assert_eq!(judged(&privileged, "kernel.io_uring_disabled").verdict, Verdict::Good);
    }

    #[test]
    fn limits() {
        let with = |hard| Facts { nofile: Some((1024, hard)), ..fine() };
        // Two cores, each with a table of its own.
        assert_eq!(judged(&with(500_000), "RLIMIT_NOFILE").verdict, Verdict::Good);
        let few = judged(&with(20_000), "RLIMIT_NOFILE");
        assert_eq!(few.verdict, Verdict::Advice);
        assert!(few.found.ends_with("room for 40000 connections"));
        assert_eq!(judged(&with(70), "RLIMIT_NOFILE").verdict, Verdict::Bad);

        let short = Facts { somaxconn: Some(128), ..fine() };
        assert!(remedy(&short, "net.core.somaxconn").contains("somaxconn=4096"));
    }

    #[test]
    fn one_ring_cannot_hold_more_than_its_table() {
        let config = Config { cores: CoreSet::Count(1), connections_max: 2_000_000, ..Config::default() };
        let mut facts = fine();
        facts.nofile = Some((u64::MAX, u64::MAX));
        let finding = nofile(&config, &facts);
        assert_eq!(finding.verdict, Verdict::Advice);
        assert!(finding.remedy.is_some_and(|it| it.contains("RINGWIRE_CORES")));
    }

    #[test]
    fn the_memory_budget_is_less_than_the_memory() {
        let with = |memory_bytes_max| Config { memory_bytes_max, ..Config::default() };
        assert_eq!(memory(&with(0), Some(1 << 30)).verdict, Verdict::Good);
        assert_eq!(memory(&with((1 << 30) - 1), Some(1 << 30)).verdict, Verdict::Good);
        assert_eq!(memory(&with(1 << 30), None).verdict, Verdict::Good);
        let finding = memory(&with(1 << 30), Some(1 << 30));
        assert_eq!((finding.verdict, finding.wanted.as_str()), (Verdict::Advice, "more than RINGWIRE_MAX_MEMORY=1GiB"));
    }

    #[test]
    fn processors_must_be_there() {
        let with = |cores| Config { cores, ..Config::default() };
        let bad = processors(&with(CoreSet::List(vec![0, 9])), &[0, 1]);
        assert_eq!(bad.verdict, Verdict::Bad);
        let crowded = processors(&with(CoreSet::Count(4)), &[0, 1]);
        assert_eq!(crowded.verdict, Verdict::Advice);
    }
}
