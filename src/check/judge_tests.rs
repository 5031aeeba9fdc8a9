//! What is thought of machines that are not this one.

use super::*;
use crate::config::CoreSet;
use crate::machine::Limits;

fn fine() -> Facts {
    Facts {
        release: Some(String::from("6.12.3-generic")),
        io_uring_disabled: Some(0),
        ring: Ok(Abilities::default()),
        is_filtered: Some(false),
        nofile: Some((1024, 1_048_576)),
        memlock: Some((8 << 20, 8 << 20)),
        may_lock: Some(false),
        all_rings: None,
        memory_bytes: Some(8 << 30),
        limits: Limits::default(),
        somaxconn: Some(4096),
        ports: Vec::new(),
        #[cfg(feature = "tls")]
        certificates: Default::default(),
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
        ("6.1-cloud", Verdict::Good),
        ("6.0.19", Verdict::Advice),
        ("5.15.0-91-generic", Verdict::Advice),
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
    let remedy_of_filters = remedy(&facts, "io_uring");
    for file in ["deploy/seccomp.json", "deploy/compose.yaml", "deploy/kubernetes.yaml", "deploy/ringwire.service", "deploy/README.md"] {
        assert!(remedy_of_filters.contains(file), "{file}: {remedy_of_filters}");
        assert!(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(file).exists(), "{file}");
    }
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
    let old = Facts { ring: Ok(Abilities { lacks: vec!["MSG_RING"], ..Abilities::default() }), ..fine() };
    assert!(judged(&old, "io_uring").found.contains("MSG_RING"));
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
    let config = Config::default().cores(CoreSet::Count(1)).max_connections(2_000_000);
    let mut facts = fine();
    facts.nofile = Some((u64::MAX, u64::MAX));
    let finding = nofile(&config, &facts);
    assert_eq!(finding.verdict, Verdict::Advice);
    assert!(finding.remedy.is_some_and(|it| it.contains("RINGWIRE_CORES")));
}

fn late() -> Facts {
    Facts { ring: Ok(Abilities { closes_late: true, ..Abilities::default() }), ..fine() }
}

/// Kills: "can run here" on a kernel that closes late, with room for connections that are not there.
#[test]
fn where_the_kernel_closes_late_the_cores_share_the_limit_of_open_files() {
    assert_eq!(judged(&fine(), "closes").verdict, Verdict::Good);
    let finding = judged(&late(), "closes");
    assert!(finding.verdict == Verdict::Advice && finding.found.contains("RLIMIT_NOFILE"), "{finding:?}");
    // 1,048,576 hard, of which 64 are the process's and 6 each core's.
    let finding = judged(&late(), "RLIMIT_NOFILE");
    assert!(finding.found.ends_with("room for 1048500 connections"), "{finding:?}");
    assert_eq!(finding.verdict, Verdict::Good);
    let few = Facts { nofile: Some((1024, 20_000)), ..late() };
    let finding = judged(&few, "RLIMIT_NOFILE");
    assert!(finding.found.ends_with("room for 19924 connections"), "{finding:?}");
    assert_eq!(finding.wanted, "1000074 for RINGWIRE_MAX_CONNECTIONS=1000000");
    assert_eq!(finding.verdict, Verdict::Advice);
    assert_eq!(report(&Config::default(), &few).exit_code(), 0);
}

/// Each way that is gone because the kernel lacks a better one is told, and none that is not gone.
#[test]
fn fallbacks_are_named() {
    let with = |abilities: Abilities| Facts { ring: Ok(abilities), ..fine() };
    let best = Abilities::default;
    for (abilities, what, says, verdict) in [
        (Abilities { closes_late: true, ..best() }, "closes", "late", Verdict::Advice),
        (Abilities { fills_buffers: false, bounds_receives: false, ..best() }, "receives", "a whole buffer", Verdict::Advice),
        (Abilities { bounds_receives: false, ..best() }, "receives", "where to end", Verdict::Advice),
        (Abilities { needs_no_array: false, ..best() }, "io_uring", "array of submissions", Verdict::Good),
    ] {
        assert!(!judged(&fine(), what).found.contains(says));
        let finding = judged(&with(abilities), what);
        assert!(finding.verdict == verdict && finding.found.contains(says), "{finding:?}");
    }
}

/// Kills: what a kernel counts, told by its version.
#[test]
fn rings_count_for_locked_memory_where_they_do_not_fit_into_less() {
    let needed = needs::locked_bytes(&Config::default(), 2);
    assert!((400 << 10..420 << 10).contains(&needed), "two cores of about 200 KiB: {needed}");
    let no_memory = || io::Error::from_raw_os_error(libc::ENOMEM);
    let nothing = || -> Option<io::Result<()>> { None };
    for (soft, may_lock, all_rings, ring, verdict) in [
        (needed, Some(false), nothing(), Ok(Abilities::default()), Verdict::Good),
        (needed - 1, Some(false), Some(Err(no_memory())), Ok(Abilities::default()), Verdict::Bad),
        (65_536, None, Some(Err(no_memory())), Ok(Abilities::default()), Verdict::Bad),
        (65_536, Some(true), nothing(), Ok(Abilities::default()), Verdict::Good),
        (65_536, Some(false), Some(Ok(())), Ok(Abilities::default()), Verdict::Good),
        (0, Some(false), Some(Ok(())), Ok(Abilities::default()), Verdict::Good),
        (65_536, Some(false), nothing(), Err(no_memory()), Verdict::Bad),
        (needed, Some(false), nothing(), Err(no_memory()), Verdict::Advice),
    ] {
        let case = format!("{soft}, {may_lock:?}, {all_rings:?}, {ring:?}");
        let facts = Facts { memlock: Some((soft, soft)), may_lock, all_rings, ring, ..fine() };
        let finding = judged(&facts, "RLIMIT_MEMLOCK");
        assert_eq!(finding.verdict, verdict, "{case}: {finding:?}");
        if let Some(remedy) = &finding.remedy {
            assert!(remedy.contains(&format!("LimitMEMLOCK={needed}")), "{remedy}");
        }
    }
}

#[test]
fn a_remedy_for_systemd_names_a_group_that_has_the_calls() {
    let remedy = remedy(&Facts { is_filtered: Some(true), ..failed(libc::EPERM) }, "seccomp");
    assert!(remedy.contains("SystemCallFilter=@system-service") && !remedy.contains("@io-event"), "{remedy}");
}

#[test]
fn the_memory_budget_is_less_than_the_memory() {
    let with = |memory_bytes_max, memory_bytes| {
        let config = Config::default().max_memory(memory_bytes_max);
        memory(&config, &Facts { memory_bytes, ..fine() })
    };
    assert_eq!(with(0, Some(1 << 30)).verdict, Verdict::Good);
    assert_eq!(with(900 << 20, Some(1 << 30)).verdict, Verdict::Good);
    assert_eq!(with(1 << 30, None).verdict, Verdict::Good);
    let finding = with(1 << 30, Some(1 << 30));
    assert!(finding.verdict == Verdict::Advice && finding.wanted.contains("RINGWIRE_MAX_MEMORY=1GiB"), "{finding:?}");
}

/// Kills: a start that the kernel ends without a word, since a control group has no room for it.
#[test]
fn a_start_must_fit_into_the_memory_of_its_control_group() {
    let with = |mib: u64, facts: Facts| {
        let limits = Limits { memory_bytes: Some(mib << 20), ..Limits::default() };
        judged(&Facts { limits, ..facts }, "memory")
    };
    let one_core = || Facts { cpus: vec![0], nofile: Some((1 << 20, 1 << 20)), ..fine() };
    let finding = with(24, one_core());
    assert_eq!(finding.verdict, Verdict::Bad, "{finding:?}");
    assert!(finding.found.contains("control group") && finding.wanted.contains("28 MiB"), "{finding:?}");
    assert_eq!(with(28, one_core()).verdict, Verdict::Good);
    // Tables that are not there take nothing; nor do those that the limit of open files keeps small.
    let ring = Ok(Abilities { closes_late: true, ..Abilities::default() });
    assert_eq!(with(20, Facts { ring, ..one_core() }).verdict, Verdict::Good);
    assert_eq!(with(16, Facts { nofile: Some((1024, 1024)), ..one_core() }).verdict, Verdict::Good);
    assert_eq!(with(32, Facts { cpus: vec![0, 1], ..one_core() }).verdict, Verdict::Bad);
    // A limit above what the machine has is none.
    assert!(!with(1 << 20, fine()).found.contains("control group"));
}

#[test]
fn processors_must_be_there() {
    let with = |cores| processors(&Config::default().cores(cores), &fine());
    assert_eq!(with(CoreSet::List(vec![0, 9])).verdict, Verdict::Bad);
    assert_eq!(with(CoreSet::Count(4)).verdict, Verdict::Advice);
    assert_eq!(with(CoreSet::All).verdict, Verdict::Good);
}

/// Kills: two cores on half a processor.
#[test]
fn cores_follow_a_cpu_quota_unless_they_are_asked_for() {
    let half = || Facts { limits: Limits { processors: Some(0.5), memory_bytes: None }, ..fine() };
    let finding = processors(&Config::default(), &half());
    assert_eq!((finding.verdict, finding.wanted.as_str()), (Verdict::Good, "those of RINGWIRE_CORES=all: 1"));
    assert!(finding.found.ends_with("a CPU quota of 0.5"), "{finding:?}");
    let asked = Config::default().cores(CoreSet::Count(2));
    let finding = processors(&asked, &half());
    assert_eq!((finding.verdict, finding.wanted.as_str()), (Verdict::Advice, "those of RINGWIRE_CORES=2: 2"));
}
