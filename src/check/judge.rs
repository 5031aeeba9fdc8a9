//! What to think of the facts.

use std::io;

use super::facts::Facts;
use super::needs;
use super::network;
use super::report::{Finding, Report, Verdict};
use crate::config::{Config, Setting};
use crate::engine::uring::{Abilities, plain_slots};

/// The oldest kernel that was ever tried.
const KERNEL_MIN: (u32, u32) = (6, 1);
/// The most descriptors that one ring's own table holds (IORING_MAX_FIXED_FILES).
const RING_FILES_MAX: u64 = 1 << 20;
/// Descriptors that a process has besides those that its cores need: standard streams, libraries, a connection or two.
const FILES_BASE: u64 = 64;

pub(super) fn report(config: &Config, facts: &Facts) -> Report {
    let mut findings = vec![
        kernel(facts.release.as_deref()),
        switch(facts.io_uring_disabled, facts.ring.is_ok()),
        seccomp(facts.is_filtered, &facts.ring),
        ring(config, facts),
        closes(facts),
        receives(facts),
        nofile(config, facts),
        memlock(config, facts),
        memory(config, facts),
        backlog(config, facts.somaxconn),
        processors(config, facts),
    ];
    findings.extend(network::findings(config, &facts.ports));
    #[cfg(feature = "tls")]
    findings.extend(super::certificates::findings(&facts.certificates));
    Report { findings }
}

fn finding(what: &'static str, found: impl Into<String>, wanted: impl Into<String>) -> Finding {
    Finding::good(what, found, wanted)
}

/// Major and minor number of `6.12.3-generic`.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// What a kernel can is tried, and told below: distributions bring new abilities into old kernels.
fn kernel(release: Option<&str>) -> Finding {
    let finding = finding("kernel", release.unwrap_or("unknown"), "Linux 6.1 or later, 6.17 or later for the best speed");
    match release.and_then(version) {
        Some(version) if version >= KERNEL_MIN => finding,
        Some(_) => finding.but(Verdict::Advice, "install a newer kernel: nobody has tried one as old as this"),
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
    block them by default. ringwire's source has files that do so: Docker, Podman: --security-opt seccomp=deploy/seccomp.json, or \
    deploy/compose.yaml; Kubernetes: deploy/kubernetes.yaml, with deploy/seccomp.json as a seccompProfile of type Localhost; \
    systemd: deploy/ringwire.service, with SystemCallFilter=@system-service, or @aio beside what there is. \
    deploy/README.md tells how";

fn is_forbidden(ring: &io::Result<Abilities>) -> bool {
    let errno = ring.as_ref().err().and_then(io::Error::raw_os_error);
    matches!(errno, Some(libc::EPERM | libc::EACCES | libc::ENOSYS))
}

fn seccomp(is_filtered: Option<bool>, ring: &io::Result<Abilities>) -> Finding {
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
        Ok(Abilities { lacks, needs_no_array: true, .. }) if lacks.is_empty() => {
            return finding("io_uring", "works", wanted);
        }
        // Nothing that anybody would notice.
        Ok(Abilities { lacks, .. }) if lacks.is_empty() => {
            return finding("io_uring", "works, with an array of submissions, as before Linux 6.6", wanted);
        }
        Ok(abilities) => {
            let found = format!("works, but lacks {}", abilities.lacks.join(", "));
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
            "raise RLIMIT_MEMLOCK, see there, or the memory limit of the container; or lower RINGWIRE_RING_ENTRIES and \
             RINGWIRE_CQ_ENTRIES"
        }
        Some(libc::EINVAL) => "install a newer kernel",
        Some(libc::EMFILE | libc::ENFILE) => "raise the limit of open files",
        _ => "look at the kernel's log",
    };
    finding("io_uring", format!("fails: {error}"), wanted).but(Verdict::Bad, remedy)
}

fn cores(config: &Config, facts: &Facts) -> u64 {
    config.cores.cpus(facts.usable_cpus(config)).len() as u64
}

fn closes_late(facts: &Facts) -> bool {
    facts.ring.as_ref().is_ok_and(|abilities| abilities.closes_late)
}

fn closes(facts: &Facts) -> Finding {
    let found = match &facts.ring {
        Ok(abilities) if abilities.closes_late => {
            "late where descriptors are direct: those of connections are the process's instead, and RLIMIT_NOFILE bounds them \
             all together"
        }
        Ok(_) => "in time: descriptors of connections are direct",
        Err(_) => "unknown",
    };
    let finding = finding("closes", found, "in time, as by Linux 6.13 and later");
    if closes_late(facts) { finding.but(Verdict::Advice, "install a newer kernel") } else { finding }
}

fn receives(facts: &Facts) -> Finding {
    let (found, is_best) = match &facts.ring {
        Ok(Abilities { fills_buffers: false, .. }) => (
            "each takes a whole buffer, as before Linux 6.12: messages of more than RINGWIRE_RECV_BUFFER_SIZE come in pieces, and \
             cost 1.6 times (16 KiB) to 2.3 times (1 MiB) as much",
            false,
        ),
        Ok(Abilities { bounds_receives: false, .. }) => (
            "into shared buffers, piece by piece; they cannot be told where to end, as before Linux 6.17, so that messages of \
             more than 128 KiB are copied where they could be received in place",
            false,
        ),
        Ok(_) => ("into shared buffers, piece by piece, or straight into a large message", true),
        Err(_) => ("unknown", true),
    };
    let finding = finding("receives", found, "into shared buffers, piece by piece, as by Linux 6.12, and of large messages 6.17");
    if is_best { finding } else { finding.but(Verdict::Advice, "install a newer kernel") }
}

/// Slots of each core's ring.
fn slots(config: &Config, facts: &Facts) -> u64 {
    let limit = facts.nofile.map_or(RING_FILES_MAX, |(_, hard)| hard);
    let most = match closes_late(facts) {
        true => u64::from(plain_slots(limit, cores(config, facts) as u32)),
        false => limit.min(RING_FILES_MAX),
    };
    most.min(u64::from(config.connections_max))
}

fn nofile(config: &Config, facts: &Facts) -> Finding {
    let cores = cores(config, facts);
    // Where they are direct, connections live in the rings' own tables, each of which may be as large as this limit; then
    // only listeners, the ring and the doorbell of each core are descriptors of the process.
    let listeners = (config.addresses.len() + usize::from(config.admin_address.is_some())) as u64;
    let needed = FILES_BASE + cores * (listeners + 4);
    let of_connections = match closes_late(facts) {
        true => u64::from(config.connections_max) + needed,
        false => u64::from(config.connections_max).div_ceil(cores) + FILES_BASE,
    };
    let wanted = of_connections.max(needed);
    let (soft, hard) = match facts.nofile {
        Some(limits) => limits,
        None => return finding("RLIMIT_NOFILE", "unknown", wanted.to_string()),
    };
    let room = match closes_late(facts) {
        true => cores * u64::from(plain_slots(hard, cores as u32)),
        false => cores * hard.min(RING_FILES_MAX),
    };
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
    } else if hard >= RING_FILES_MAX && !closes_late(facts) {
        finding.but(Verdict::Advice, "raise RINGWIRE_CORES, or lower RINGWIRE_MAX_CONNECTIONS")
    } else {
        finding.but(Verdict::Advice, format!("{remedy}; or lower RINGWIRE_MAX_CONNECTIONS"))
    }
}

fn memlock(config: &Config, facts: &Facts) -> Finding {
    let found = match facts.memlock {
        Some((soft, hard)) => format!("soft {}, hard {}", limit(soft), limit(hard)),
        None => String::from("unknown"),
    };
    let cores = cores(config, facts);
    let needed = needs::locked_bytes(config, cores);
    // Rings that fit into less than they take do not count.
    let counts = !matches!(facts.all_rings, Some(Ok(())));
    let wanted = match facts.may_lock {
        Some(true) => String::from("anything: it is not for processes with CAP_IPC_LOCK, such as this one"),
        _ if counts => format!(
            "{needed} for the rings of {cores} cores, and as much again for each other process of this user with rings: where \
             they count, as since Linux 6.14, and a process lacks CAP_IPC_LOCK"
        ),
        _ => String::from("anything: this kernel does not count rings"),
    };
    let finding = finding("RLIMIT_MEMLOCK", found, wanted);
    let remedy = format!(
        "ulimit -l {} as root; systemd: LimitMEMLOCK={needed}; Docker: --ulimit memlock={needed}:{needed}; or give it \
         CAP_IPC_LOCK, or lower RINGWIRE_CORES, RINGWIRE_RING_ENTRIES or RINGWIRE_CQ_ENTRIES",
        needed.div_ceil(1024)
    );
    let is_exempt = facts.may_lock == Some(true) || !counts;
    let is_out_of_memory = |tried: Option<&io::Error>| tried.and_then(io::Error::raw_os_error) == Some(libc::ENOMEM);
    let do_not_fit = facts.all_rings.as_ref().is_some_and(|tried| is_out_of_memory(tried.as_ref().err()));
    match facts.memlock {
        _ if is_exempt => finding,
        _ if do_not_fit => finding.but(Verdict::Bad, remedy),
        // What there would be is in use already, or less than a single ring takes.
        Some((soft, _)) if is_out_of_memory(facts.ring.as_ref().err()) => {
            finding.but(if soft < needed { Verdict::Bad } else { Verdict::Advice }, remedy)
        }
        None if is_out_of_memory(facts.ring.as_ref().err()) => finding.but(Verdict::Advice, remedy),
        _ => finding,
    }
}

fn memory(config: &Config, facts: &Facts) -> Finding {
    let limit = facts.limits.memory_bytes.filter(|limit| facts.memory_bytes.is_none_or(|all| *limit < all));
    let bytes = limit.or(facts.memory_bytes);
    let found = match (bytes, limit) {
        (None, _) => String::from("unknown"),
        (Some(bytes), None) => format!("{} MiB", bytes >> 20),
        (Some(bytes), Some(_)) => format!("{} MiB, by the limit of a control group", bytes >> 20),
    };
    let cores = cores(config, facts);
    let direct_slots = if closes_late(facts) { 0 } else { slots(config, facts) };
    let start_bytes = needs::start_bytes(config, cores, direct_slots);
    let setting = Setting::named("RINGWIRE_MAX_MEMORY").map(|it| it.value(config)).unwrap_or_default();
    let wanted = format!(
        "more than the {} MiB that a start with {cores} cores takes, and RINGWIRE_MAX_MEMORY={setting} beside it",
        start_bytes.div_ceil(1 << 20)
    );
    let finding = finding("memory", found, wanted);
    match bytes {
        Some(bytes) if bytes < start_bytes => finding.but(
            Verdict::Bad,
            "give it more memory (systemd: MemoryMax=; Docker: --memory), or lower RINGWIRE_CORES or \
             RINGWIRE_MAX_CONNECTIONS: the kernel would end the process while it starts",
        ),
        Some(bytes) if (config.memory_bytes_max as u64).saturating_add(start_bytes) > bytes => finding.but(
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

fn processors(config: &Config, facts: &Facts) -> Finding {
    let all = facts.cpus.len();
    let usable = facts.usable_cpus(config);
    let setting = Setting::named("RINGWIRE_CORES").map(|it| it.value(config));
    let found = match facts.limits.processors {
        Some(quota) => format!("{all} for this process, and a CPU quota of {quota}"),
        None => format!("{all} for this process"),
    };
    let finding = finding(
        "processors",
        found,
        format!("those of RINGWIRE_CORES={}: {}", setting.unwrap_or_default(), config.cores.cpus(usable).len()),
    );
    match config.cpus(usable) {
        Ok(cores) if cores.len() > all => {
            finding.but(Verdict::Advice, "lower RINGWIRE_CORES: cores that share a processor wait for each other")
        }
        Ok(cores) if cores.len() > facts.limits.cores(cores.len()) => finding.but(
            Verdict::Advice,
            "lower RINGWIRE_CORES: once the CPU quota of a period is spent, all cores stand still until the next; or raise the \
             quota (cpu.max; systemd: CPUQuota=; Docker: --cpus)",
        ),
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
#[path = "judge_tests.rs"]
mod tests;
