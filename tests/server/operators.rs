//! What operators see of a server: by a listener of their own they can watch a drain to its end, and its metrics tell how busy
//! each core is.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_gettime};
use ringwire::client::blocking::block_on;
use ringwire::config::{CoreSet, ListenAddress};
use ringwire::{App, BoundAddress, Config, Message, Server, Socket};

use crate::common::raw::{self, Raw};
use crate::common::{PATIENCE, TestServer, config, eventually};

const HOUR: Duration = Duration::from_secs(3600);

/// Which takes hours to drain if somebody stays.
fn patient(admin: &ListenAddress, cores: usize) -> Config {
    let config = config().admin_address(Some(admin.clone())).cores(CoreSet::Count(cores));
    config.drain_timeout(HOUR).close_timeout(HOUR).idle_timeout(Duration::ZERO).write_timeout(HOUR)
}

/// Begins a drain; how it ends comes later.
fn drain(server: TestServer) -> Receiver<ringwire::Result<()>> {
    let (result_in, result) = mpsc::channel();
    thread::spawn(move || result_in.send(server.shutdown()));
    result
}

/// What a scrape or a probe is answered: the status and the rest; an error where nobody listens.
fn ask(admin: &BoundAddress, path: &str) -> std::io::Result<(u16, String)> {
    fn talk(mut stream: impl Read + Write, path: &str) -> std::io::Result<String> {
        write!(stream, "GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }
    let answer = match admin {
        BoundAddress::Unix(path_of) => {
            let stream = UnixStream::connect(path_of)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            talk(stream, path)?
        }
        _ => {
            let stream = TcpStream::connect_timeout(&admin.inet().expect("an address"), PATIENCE)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            talk(stream, path)?
        }
    };
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
    Ok((status.unwrap_or_else(|| panic!("{answer:?}")), answer))
}

/// The value of a metric, added up over the cores; and of how many there is one.
fn metric(metrics: &str, name: &str) -> (u64, usize) {
    let values = metrics.lines().filter_map(|line| {
        let rest = line.strip_prefix(name)?;
        rest.starts_with([' ', '{']).then(|| line.rsplit(' ').next()?.parse::<u64>().ok())?
    });
    let values: Vec<u64> = values.collect();
    (values.iter().sum(), values.len())
}

fn scratch(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("ringwire-{name}-{}.sock", std::process::id()))
}

/// Kills: a drain that closes the operators' listener with the clients' one, or as soon as one of the cores has nobody left; one
/// that says it is ready, or has lost count; a client let in; a listener that outlives the drain.
#[test]
fn a_drain_can_be_watched_to_its_end() {
    let any_port: ListenAddress = "127.0.0.1:0".parse().expect("an address");
    let path = scratch("watched");
    for admin in [any_port, ListenAddress::Unix(path.clone())] {
        for cores in [1, 3] {
            let server = TestServer::with(patient(&admin, cores));
            let (public, admin) = (server.address, server.handle().admin_addresses()[0].clone());
            let (handle, stays) = (server.handle().clone(), server.open("/echo"));
            assert_eq!(ask(&admin, "/readyz").expect("an answer").0, 200);
            let ended = drain(server);
            eventually(|| TcpStream::connect(public).is_err(), || "the end of the clients' listener".into());
            let start = Instant::now();
            while start.elapsed() < Duration::from_secs(2) {
                let (status, metrics) = ask(&admin, "/metrics").expect("an answer");
                assert_eq!((status, metric(&metrics, "ringwire_draining")), (200, (1, 1)));
                assert_eq!(metric(&metrics, "ringwire_websockets"), (1, cores), "{metrics}");
                assert_eq!(ask(&admin, "/readyz").expect("an answer").0, 503);
                assert_eq!(ask(&admin, "/healthz").expect("an answer").0, 200);
                assert!(TcpStream::connect(public).is_err());
                thread::sleep(Duration::from_millis(100));
            }
            assert_eq!(handle.connections(), 1);
            drop(stays);
            ended.recv_timeout(PATIENCE).expect("it ends when the last one has gone").expect("well");
            assert!(ask(&admin, "/metrics").is_err());
        }
    }
    assert!(!path.exists());
}

/// Kills: an old process that keeps operators who are to be answered by the one that takes over.
#[test]
fn where_the_address_is_shared_the_next_process_answers_operators() {
    let any_port: ListenAddress = "127.0.0.1:0".parse().expect("an address");
    let old = TestServer::with(patient(&any_port, 2).reuse_port(true));
    let (public, admin) = (old.address, old.handle().admin_addresses()[0].clone());
    let stays = old.open("/echo");
    let same = ListenAddress::from(admin.inet().expect("an address"));
    let _new = TestServer::with(patient(&same, 2).addresses(vec![public.into()]).reuse_port(true));
    let handle = old.handle().clone();
    let ended = drain(old);
    // It first leaves new handshakes unanswered, for half a second, and then is gone.
    thread::sleep(Duration::from_secs(1));
    for number in 0..30 {
        let (status, _) = ask(&admin, "/readyz").unwrap_or_else(|error| panic!("{number}: {error}"));
        assert_eq!(status, 200, "{number}");
    }
    assert_eq!(handle.connections(), 1);
    drop(stays);
    ended.recv_timeout(PATIENCE).expect("it ends").expect("well");
}

/// Kills: the time of the whole process, or of a tick's handling, in the place of the core's own: one that waits in a handler is not
/// at work.
#[test]
fn processor_time_is_told_of_each_core() {
    const BURNED: Duration = Duration::from_millis(300);
    fn burn() {
        let taken = || Duration::from(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).expect("a time"));
        let until = taken() + BURNED;
        while taken() < until {}
    }
    let app = || {
        App::new().ws("/", |socket: &mut Socket<'_>, message: Message<'_>| {
            if message.as_bytes() == b"burn" {
                burn()
            } else {
                thread::sleep(BURNED)
            }
            socket.send(message)
        })
    };
    let handle = Server::new(config()).start(app).expect("it starts");
    let mut client = Raw::connect(handle.addresses()[0].inet().expect("an address"));
    client.upgrade("/");
    let taken_ms = || -> Vec<u64> {
        let cores = block_on(handle.hub().metrics()).cores;
        cores.iter().map(|core| core.cpu_ns / 1_000_000).collect()
    };
    let mut during = |word: &str| -> Vec<u64> {
        let before = taken_ms();
        client.send(&raw::text(word));
        assert_eq!(client.frame().payload, word.as_bytes());
        let mut grown: Vec<u64> = taken_ms().iter().zip(before).map(|(after, before)| after - before).collect();
        grown.sort_unstable();
        grown
    };
    let burned = during("burn");
    assert!(burned[0] < 100 && (299..600).contains(&burned[1]), "{burned:?}");
    let waited = during("wait");
    assert!(waited[1] < 100, "{waited:?}");
    handle.shutdown();
    handle.join().expect("well");
}
