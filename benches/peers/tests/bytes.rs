//! The bare programs move every byte, in order, whatever the peer does.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

struct Server {
    child: Child,
    addr: SocketAddr,
}

impl Server {
    fn start(program: &str, options: &str) -> Self {
        let mut child = Command::new(program)
            .args(["--addr", "127.0.0.1:0"])
            .args(options.split_whitespace())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("a line");
        let addr = line.trim().strip_prefix("listening on ").expect("the ready line").parse().expect("an address");
        Self { child, addr }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.addr).expect("accepted");
        stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a TCP socket");
        stream
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn pattern(len: usize, seed: u32) -> Vec<u8> {
    let mut state = seed | 1;
    let next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    std::iter::repeat_with(next).take(len).collect()
}

const ECHO: &str = env!("CARGO_BIN_EXE_raw_echo");
const FANOUT: &str = env!("CARGO_BIN_EXE_raw_fanout");
const ENGINES: [&str; 8] = [
    "--engine epoll",
    "--engine epoll --buffer-size 65536",
    "--buffers 4 --buffer-size 1024",
    "",
    "--buffers 16 --buffer-size 65536",
    "--incremental --buffers 4 --buffer-size 65536",
    "--bundle",
    "--no-multishot --copy-max 0",
];

#[test]
fn a_reader_that_comes_late_gets_everything() {
    for options in ENGINES {
        let server = Server::start(ECHO, options);
        let sent = pattern(24 << 20, 7);
        let mut stream = server.connect();
        let mut writer = stream.try_clone().expect("a socket");
        let mut received = vec![0; sent.len()];
        thread::scope(|scope| {
            scope.spawn(|| writer.write_all(&sent).expect("open"));
            thread::sleep(Duration::from_millis(150));
            stream.read_exact(&mut received).unwrap_or_else(|error| panic!("{options:?}: {error}"));
        });
        assert!(received == sent, "{options:?}");
    }
}

#[test]
fn many_connections_share_few_buffers() {
    for options in ENGINES {
        let server = Server::start(ECHO, options);
        let mut streams: Vec<TcpStream> = (0..40).map(|_| server.connect()).collect();
        for round in 0..20 {
            for (stream, seed) in streams.iter_mut().zip(0..) {
                stream.write_all(&pattern(3000, seed * 31 + round)).expect("open");
            }
            for (stream, seed) in streams.iter_mut().zip(0..) {
                let mut received = [0; 3000];
                stream.read_exact(&mut received).unwrap_or_else(|error| panic!("{options:?}: {error}"));
                assert!(received[..] == pattern(3000, seed * 31 + round), "{options:?}");
            }
        }
    }
}

#[test]
fn connections_that_come_and_go_leave_nothing_behind() {
    for options in ENGINES {
        let server = Server::start(ECHO, options);
        for round in 0..60 {
            let mut stream = server.connect();
            let sent = pattern(if round % 3 == 0 { 200_000 } else { 50 }, round);
            if round % 3 == 0 {
                // Goes with bytes on the way in both directions.
                stream.set_nonblocking(true).expect("a socket");
                let _ = stream.write(&sent);
                continue;
            }
            stream.write_all(&sent).expect("open");
            let mut received = vec![0; sent.len()];
            stream.read_exact(&mut received).unwrap_or_else(|error| panic!("{options:?}: {error}"));
            assert!(received == sent, "{options:?}");
        }
    }
}

#[test]
fn a_published_message_reaches_all() {
    for options in ["--engine epoll", "", "--buffers 4 --buffer-size 16"] {
        let server = Server::start(FANOUT, &format!("{options} --message-size 10 --delivery-size 6"));
        let mut streams: Vec<TcpStream> = (0..5).map(|_| server.connect()).collect();
        thread::sleep(Duration::from_millis(100));
        // In three writes that cut messages apart.
        for part in [&b"0123abcdef0123gh"[..], b"ijk", b"l0123mnopqr"] {
            streams[2].write_all(part).expect("open");
            thread::sleep(Duration::from_millis(20));
        }
        for stream in &mut streams {
            let mut received = [0; 18];
            stream.read_exact(&mut received).expect("three deliveries");
            assert_eq!(&received, b"abcdefghijklmnopqr", "{options:?}");
        }
    }
}
