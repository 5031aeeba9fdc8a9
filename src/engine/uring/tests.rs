//! The real ring over loopback: what [`Ring`] promises, kept by this machine's kernel.

use std::cell::Cell;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::thread;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use socket2::{Domain, SockRef, Socket, Type};

use super::setup::BUFFER_BYTES_AT_FIRST;
use super::*;
use crate::engine::{BATCH_PIECES_MAX, Pieces};

/// Far longer than anything here takes.
pub(super) const LONG: Duration = Duration::from_secs(10);
pub(super) const LONG_NS: Nanos = 10_000_000_000;
const GENERATION: u32 = 3;

pub(super) fn token(op: Op, slot: u32) -> Token {
    Token::new(op, GENERATION, slot)
}

thread_local! {
    /// Where the sockets of this test's rings are; `None`: where this kernel closes them in time.
    static DESCRIPTORS: Cell<Option<Descriptors>> = const { Cell::new(None) };
}

/// A small ring; its buffers are consumed incrementally where the kernel can.
pub(super) fn small() -> Options {
    let descriptors = DESCRIPTORS.get();
    Options { sq_entries: 64, cq_entries: 256, slots: 64, buffers: 64, descriptors, ..Options::default() }
}

/// The same with whole buffers.
fn small_plain() -> Options {
    Options { incremental_bytes: 0, ..small() }
}

/// A ring with one TCP listener, and what it completed that nobody has asked for yet.
pub(super) struct Bench {
    pub(super) ring: Uring,
    address: SocketAddr,
    pub(super) seen: VecDeque<Completion>,
}

impl Bench {
    pub(super) fn new(options: &Options) -> Bench {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
        // Accepted sockets inherit it: a socket is soon full.
        SockRef::from(&listener).set_send_buffer_size(16 << 10).expect("a buffer size");
        let address = listener.local_addr().expect("bound");
        let ring = Uring::new(options, vec![listener.into()]).expect("io_uring");
        Bench { ring, address, seen: VecDeque::new() }
    }

    pub(super) fn turn(&mut self, wait: Wait) {
        self.turn_with(&[], wait);
    }

    pub(super) fn turn_with(&mut self, sends: &[(u32, &[u8])], wait: Wait) {
        let batch = sends
            .iter()
            .map(|(slot, bytes)| BatchSend { token: token(Op::SendNow, *slot), pieces: Pieces::One(bytes) });
        self.ring.turn(batch, wait).expect("a working ring");
        self.seen.extend(std::iter::from_fn(|| self.ring.completion()));
    }

    /// The completions of this batch, and no other turn.
    pub(super) fn send_now(&mut self, sends: &[(u32, &[u8])]) -> Vec<(u32, Result<u32, i32>)> {
        self.turn_with(sends, Wait::No);
        self.failed_sends()
    }

    pub(super) fn failed_sends(&mut self) -> Vec<(u32, Result<u32, i32>)> {
        let (sends, others) = self.seen.drain(..).partition::<Vec<_>, _>(|seen| seen.token.op() == Op::SendNow);
        self.seen.extend(others);
        sends.iter().map(|seen| (seen.token.index(), seen.result)).collect()
    }

    /// Turns until there is a completion of this kind for this slot.
    pub(super) fn until(&mut self, op: Op, slot: u32) -> Completion {
        let end = self.ring.now() + LONG_NS;
        loop {
            let is_it = |seen: &Completion| seen.token.op() == op && seen.token.index() == slot;
            if let Some(at) = self.seen.iter().position(is_it) {
                let found = self.seen.remove(at).expect("the place was just found");
                assert!(op == Op::Doorbell || found.token.is_of_generation(GENERATION));
                return found;
            }
            assert!(self.ring.now() < end, "no {op:?} of slot {slot}; there were {:?}", self.seen);
            self.turn(Wait::Until(end));
        }
    }

    pub(super) fn connect(&mut self, slot: u32) -> TcpStream {
        self.connect_with(slot, |_| {})
    }

    fn connect_with(&mut self, slot: u32, prepare: impl Fn(&Socket)) -> TcpStream {
        self.ring.accept(0, token(Op::Accept, slot));
        self.turn(Wait::No);
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        prepare(&socket);
        socket.connect(&self.address.into()).expect("a listener");
        let client = TcpStream::from(socket);
        client.set_read_timeout(Some(LONG)).expect("a timeout");
        client.set_write_timeout(Some(LONG)).expect("a timeout");
        self.until(Op::Accept, slot).result.expect("accepted");
        client
    }

    /// A connection whose client takes few bytes unless it reads.
    fn connect_narrow(&mut self, slot: u32) -> TcpStream {
        self.connect_with(slot, |socket| socket.set_recv_buffer_size(8 << 10).expect("a buffer size"))
    }

    /// Sends until the socket is full, and stays so for a while; all that it took.
    fn fill(&mut self, slot: u32) -> Vec<u8> {
        let pattern: Vec<u8> = (0..4u32 << 20).map(|at| (at / 7) as u8).collect();
        let mut sent = 0;
        let mut refusals = 0;
        while refusals < 3 {
            match self.send_now(&[(slot, &pattern[sent..])])[..] {
                [(_, Ok(taken))] => {
                    sent += taken as usize;
                    refusals = 0;
                }
                [(_, Err(libc::EAGAIN))] => {
                    refusals += 1;
                    // What was under way to the client may make room.
                    thread::sleep(Duration::from_millis(10));
                }
                ref other => panic!("{other:?}"),
            }
        }
        pattern[..sent].to_vec()
    }

    /// Receives this many bytes, recycling as it goes, arming again as needed. A receive is armed when it returns.
    pub(super) fn receive(&mut self, slot: u32, len: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        while bytes.len() < len {
            let seen = self.until(Op::Recv, slot);
            if let Some(filled) = seen.filled {
                assert_eq!(seen.result, Ok(filled.byte_count()));
                bytes.extend_from_slice(self.ring.buffer(&filled));
                self.ring.recycle(filled);
            } else {
                assert_eq!((seen.result, seen.more), (Err(libc::ENOBUFS), false));
            }
            if !seen.more {
                self.ring.recv(token(Op::Recv, slot));
            }
        }
        bytes
    }

    pub(super) fn assert_quiet(&mut self) {
        self.turn(Wait::Until(self.ring.now() + 20_000_000));
        assert!(self.seen.is_empty(), "{:?}", self.seen);
    }
}

fn read_exactly(client: &mut TcpStream, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    client.read_exact(&mut bytes).expect("this many bytes");
    bytes
}

// ---- accepting ----------------------------------------------------------------------------------------------------

#[test]
fn accepts_tell_who_it_is() {
    let mut bench = Bench::new(&small());
    for slot in [5, 0, 63] {
        let client = bench.connect(slot);
        assert_eq!(bench.ring.peer(slot), Peer::Inet(client.local_addr().unwrap()));
    }
    // Several in flight at once, each with an address of its own.
    (10..14).for_each(|slot| bench.ring.accept(0, token(Op::Accept, slot)));
    bench.turn(Wait::No);
    let clients: Vec<TcpStream> = (0..4).map(|_| TcpStream::connect(bench.address).unwrap()).collect();
    let mut peers = Vec::new();
    while peers.len() < 4 {
        bench.turn(Wait::Until(bench.ring.now() + LONG_NS));
        peers.extend(bench.seen.drain(..).map(|seen| bench.ring.peer(seen.token.index())));
    }
    for client in clients {
        assert!(peers.contains(&Peer::Inet(client.local_addr().unwrap())));
    }
}

#[test]
fn unix_peers_have_no_address() {
    let name = format!("ringwire-engine-test-{}", std::process::id());
    let address = std::os::unix::net::SocketAddr::from_abstract_name(name).unwrap();
    let listener = UnixListener::bind_addr(&address).unwrap();
    let mut ring = Uring::new(&small(), vec![listener.into()]).unwrap();
    ring.accept(0, token(Op::Accept, 1));
    ring.turn(std::iter::empty(), Wait::No).unwrap();
    let _client = UnixStream::connect_addr(&address).unwrap();
    ring.turn(std::iter::empty(), Wait::Until(LONG_NS)).unwrap();
    let seen = ring.completion().expect("accepted");
    assert_eq!((seen.token.op(), seen.result.is_ok()), (Op::Accept, true));
    assert_eq!(ring.peer(1), Peer::Unix);
}

#[test]
fn mapped_addresses_are_shown_as_what_they_are() {
    let Ok(listener) = TcpListener::bind("[::]:0") else { return };
    let port = listener.local_addr().unwrap().port();
    let mut ring = Uring::new(&small(), vec![listener.into()]).unwrap();
    ring.accept(0, token(Op::Accept, 1));
    ring.turn(std::iter::empty(), Wait::No).unwrap();
    let Ok(client) = TcpStream::connect(("127.0.0.1", port)) else { return };
    ring.turn(std::iter::empty(), Wait::Until(LONG_NS)).unwrap();
    ring.completion().expect("accepted");
    assert_eq!(ring.peer(1), Peer::Inet(client.local_addr().unwrap()));
}

#[test]
fn an_end_of_accepting_ends_only_that() {
    let mut bench = Bench::new(&small());
    let mut client = bench.connect(0);
    bench.ring.recv(token(Op::Recv, 0));
    (1..4).for_each(|slot| bench.ring.accept(0, token(Op::Accept, slot)));
    bench.turn(Wait::No);
    bench.ring.stop_accepting(0);
    for slot in 1..4 {
        assert_eq!(bench.until(Op::Accept, slot).result, Err(libc::ECANCELED));
    }
    assert!(TcpStream::connect(bench.address).is_err(), "the listener is closed");
    client.write_all(b"still here").unwrap();
    assert_eq!(bench.receive(0, 10), b"still here");
    bench.ring.stop_accepting(0);
    bench.assert_quiet();
}

/// Kills: an end of accepting from one listener that closes the others.
#[test]
fn accepting_ends_for_each_listener_by_itself() {
    let listeners = [0, 1].map(|_| TcpListener::bind("127.0.0.1:0").unwrap());
    let [first, second] = [0, 1].map(|number: usize| listeners[number].local_addr().unwrap());
    let mut ring = Uring::new(&small(), listeners.map(OwnedFd::from).into()).unwrap();
    ring.accept(0, token(Op::Accept, 1));
    ring.turn(std::iter::empty(), Wait::No).unwrap();
    ring.stop_accepting(0);
    ring.turn(std::iter::empty(), Wait::Until(LONG_NS)).unwrap();
    let ended = ring.completion().expect("cancelled");
    assert_eq!((ended.token.index(), ended.result), (1, Err(libc::ECANCELED)));
    assert!(TcpStream::connect(first).is_err(), "it is closed");
    ring.accept(1, token(Op::Accept, 2));
    let _client = TcpStream::connect(second).unwrap();
    ring.turn(std::iter::empty(), Wait::Until(2 * LONG_NS)).unwrap();
    let accepted = ring.completion().expect("accepted");
    assert_eq!((accepted.token.index(), accepted.result), (2, Ok(0)));
    ring.stop_accepting(0);
    ring.stop_accepting(1);
    assert!(TcpStream::connect(second).is_err(), "and this one now");
}

#[test]
fn slots_are_as_many_as_the_process_may_have_descriptors() {
    // Other tests of this process raise it, which must not fall in between.
    let (_, limit) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, limit, limit).unwrap();
    // More than the kernel gives to anybody.
    let options = Options { slots: 1 << 21, descriptors: Some(Descriptors::Direct), ..small() };
    let ring = Uring::new(&options, Vec::new()).unwrap();
    assert_eq!(u64::from(ring.slots()), limit.min(1 << 20));
}

// ---- receiving ----------------------------------------------------------------------------------------------------

#[test]
fn a_multishot_receive_brings_everything_while_buffers_are_recycled() {
    for options in [small(), small_plain()] {
        let mut bench = Bench::new(&options);
        let mut client = bench.connect(0);
        bench.ring.recv(token(Op::Recv, 0));
        // Many times what the buffers hold.
        let data: Vec<u8> = (0..2u32 << 20).map(|at| (at / 11) as u8).collect();
        let sent = data.clone();
        let writer = thread::spawn(move || {
            client.write_all(&sent).unwrap();
            client
        });
        assert!(bench.receive(0, data.len()) == data);
        // End of file has no buffer, and ends the receive.
        drop(writer.join().unwrap());
        let seen = bench.until(Op::Recv, 0);
        assert_eq!((seen.result, seen.filled, seen.more), (Ok(0), None, false));
    }
}

#[test]
fn small_messages_of_several_sockets_do_not_mix() {
    for options in [small(), small_plain()] {
        let mut bench = Bench::new(&options);
        let mut clients: Vec<TcpStream> = (0..8).map(|slot| bench.connect(slot)).collect();
        (0..8).for_each(|slot| bench.ring.recv(token(Op::Recv, slot)));
        for round in 0..50u8 {
            for (slot, client) in clients.iter_mut().enumerate() {
                client.write_all(&[slot as u8, round, 7]).unwrap();
            }
            for slot in 0..8 {
                assert_eq!(bench.receive(slot, 3), [slot as u8, round, 7]);
            }
        }
    }
}

#[test]
fn starved_receives_get_more_buffers() {
    // Memory of 1 MiB, of which 512 KiB are in circulation at first; nothing is given back.
    let memory = Options { buffers: 512, ..small() };
    for options in [memory.clone(), Options { incremental_bytes: 0, ..memory }] {
        let mut bench = Bench::new(&options);
        let mut client = bench.connect(0);
        bench.ring.recv(token(Op::Recv, 0));
        let data: Vec<u8> = (0..5u32 << 20).map(|at| (at / 13) as u8).collect();
        let sent = data.clone();
        let writer = thread::spawn(move || client.write_all(&sent).unwrap());
        let mut held = Vec::new();
        let mut held_at_want = Vec::new();
        while held_at_want.len() < 2 {
            let seen = bench.until(Op::Recv, 0);
            match seen.filled {
                Some(filled) => held.push(filled),
                None => {
                    assert_eq!((seen.result, seen.more), (Err(libc::ENOBUFS), false));
                    held_at_want.push(held.len());
                }
            }
            if !seen.more {
                bench.ring.recv(token(Op::Recv, 0));
            }
        }
        let bytes: usize = held.iter().map(|filled| filled.byte_count() as usize).sum();
        assert!(bytes > BUFFER_BYTES_AT_FIRST as usize || options.incremental_bytes == 0);
        assert!(held_at_want.windows(2).all(|pair| pair[0] < pair[1]), "{held_at_want:?}");
        // All are in circulation; give them back, and it goes on.
        let mut received = Vec::new();
        for filled in held {
            received.extend_from_slice(bench.ring.buffer(&filled));
            bench.ring.recycle(filled);
        }
        received.extend(bench.receive(0, data.len() - received.len()));
        assert!(received == data);
        writer.join().unwrap();
    }
}

#[test]
fn a_single_receive_fills_the_buffer_it_was_given() {
    let mut bench = Bench::new(&small());
    let mut client = bench.connect(0);
    let mut buffer = Vec::with_capacity(100);
    buffer.extend_from_slice(b"head ");
    bench.ring.recv_into(token(Op::RecvInto, 0), buffer, 4);
    bench.turn(Wait::No);
    client.write_all(b"bodyrest").unwrap();
    assert_eq!(bench.until(Op::RecvInto, 0).result, Ok(4));
    let buffer = bench.ring.take_received(token(Op::RecvInto, 0));
    assert_eq!(buffer, b"head body");
    bench.ring.recv(token(Op::Recv, 0));
    assert_eq!(bench.receive(0, 4), b"rest");
    // A failed one gives the buffer back as it was.
    let mut bench = Bench::new(&small());
    let _client = bench.connect(0);
    bench.ring.recv_into(token(Op::RecvInto, 0), buffer, 4);
    bench.turn(Wait::No);
    bench.ring.cancel(token(Op::Cancel, 0));
    assert_eq!(bench.until(Op::RecvInto, 0).result, Err(libc::ECANCELED));
    assert_eq!(bench.ring.take_received(token(Op::RecvInto, 0)), b"head body");
}

#[test]
fn a_receive_of_what_is_there_does_not_wait() {
    let mut bench = Bench::new(&small());
    let mut client = bench.connect(0);
    bench.ring.recv_into_now(token(Op::RecvInto, 0), Vec::with_capacity(100), 100);
    // Nothing is there, and nothing will be: the turn ends all the same.
    let sends: [(u32, &[u8]); 1] = [(0, b"before")];
    bench.turn_with(&sends, Wait::Forever);
    let seen = bench.until(Op::RecvInto, 0);
    assert_eq!((seen.result, seen.more), (Err(libc::EAGAIN), false));
    assert_eq!(bench.ring.take_received(token(Op::RecvInto, 0)), b"");
    assert_eq!(read_exactly(&mut client, 6), b"before");
    client.write_all(b"body").unwrap();
    bench.ring.recv_into_now(token(Op::RecvInto, 0), Vec::with_capacity(100), 3);
    assert_eq!(bench.until(Op::RecvInto, 0).result, Ok(3));
    assert_eq!(bench.ring.take_received(token(Op::RecvInto, 0)), b"bod");
}

#[test]
fn a_bounded_receive_ends_with_data() {
    for options in [small(), small_plain()] {
        let mut bench = Bench::new(&options);
        let mut client = bench.connect(0);
        if !bench.ring.bounds_receives() {
            eprintln!("this kernel has no bound on multishot receives: nothing is tested");
            return;
        }
        client.write_all(&[7; 5000]).unwrap();
        bench.ring.recv_at_most(token(Op::Recv, 0), 3000);
        let mut bytes = 0;
        loop {
            let seen = bench.until(Op::Recv, 0);
            bytes += seen.result.expect("data");
            bench.ring.recycle(seen.filled.expect("a buffer"));
            if !seen.more {
                break;
            }
        }
        assert!((3000..5000).contains(&bytes), "{bytes}");
        bench.assert_quiet();
        // The rest is still there for the next.
        bench.ring.recv(token(Op::Recv, 0));
        let left = 5000 - bytes as usize;
        assert_eq!(bench.receive(0, left), vec![7; left]);
    }
}

// ---- sending ------------------------------------------------------------------------------------------------------

#[test]
fn a_whole_send_completes_silently() {
    let mut bench = Bench::new(&small());
    let mut client = bench.connect(0);
    for _ in 0..10 {
        assert_eq!(bench.send_now(&[(0, b"hello")]), []);
    }
    assert_eq!(read_exactly(&mut client, 50), b"hello".repeat(10));
    bench.assert_quiet();
}

#[test]
fn a_short_send_tells_how_much_and_a_full_socket_says_again() {
    let mut bench = Bench::new(&small());
    let mut client = bench.connect_narrow(0);
    let data = vec![9; 4 << 20];
    let [(0, Ok(taken))] = bench.send_now(&[(0, &data)])[..] else { panic!("4 MiB fitted or failed") };
    assert!(taken > 0 && (taken as usize) < data.len());
    let filled = bench.fill(0);
    // What was counted has been sent, and nothing else.
    let received = read_exactly(&mut client, taken as usize + filled.len());
    assert!(received[taken as usize..] == filled);
    client.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    assert!(client.read(&mut [0]).is_err());
    assert_eq!(bench.send_now(&[(0, b"y")]), []);
    bench.assert_quiet();
}

#[test]
fn a_waiting_send_finishes_when_the_reader_reads() {
    let mut bench = Bench::new(&small());
    let mut client = bench.connect_narrow(0);
    let filled = bench.fill(0);
    let rest: Vec<u8> = (0..1u32 << 20).map(|at| (at / 5) as u8).collect();
    bench.ring.send(token(Op::Send, 0), Bytes::from(rest.clone()));
    bench.assert_quiet();
    let expected = [filled, rest.clone()].concat();
    let reader = thread::spawn(move || read_exactly(&mut client, expected.len()) == expected);
    assert_eq!(bench.until(Op::Send, 0).result, Ok(rest.len() as u32));
    assert!(reader.join().unwrap());
}

#[test]
fn a_waiting_send_that_is_cancelled_tells_what_it_sent() {
    let mut bench = Bench::new(&small());
    let mut client = bench.connect_narrow(0);
    let filled = bench.fill(0);
    let rest: Vec<u8> = (0..4u32 << 20).map(|at| (at / 5) as u8).collect();
    bench.ring.send(token(Op::Send, 0), Bytes::from(rest.clone()));
    bench.assert_quiet();
    assert_eq!(read_exactly(&mut client, filled.len()), filled);
    // Some of it goes into the room just made.
    bench.turn(Wait::Until(bench.ring.now() + 50_000_000));
    bench.ring.cancel(token(Op::Cancel, 0));
    bench.ring.close(token(Op::Close, 0));
    let sent = bench.until(Op::Send, 0).result.unwrap_or(0) as usize;
    assert_eq!(bench.until(Op::Close, 0).result, Ok(0));
    let mut received = Vec::new();
    client.read_to_end(&mut received).unwrap();
    assert!(received == rest[..sent], "{} bytes came of {sent} counted", received.len());
}

#[test]
fn a_batch_in_several_chunks_sends_each_once() {
    const CONNECTED: u32 = 600;
    const ALL: u32 = 700;
    let mut bench = Bench::new(&Options { slots: ALL, sq_entries: 512, cq_entries: 1024, ..small() });
    let mut clients: Vec<TcpStream> = (0..CONNECTED).map(|slot| bench.connect(slot)).collect();
    let payloads: Vec<[u8; 4]> = (0..ALL).map(u32::to_be_bytes).collect();
    // Those of the slots without a connection fail, here and there in the batch.
    let mut order: Vec<u32> = (0..ALL).collect();
    order.sort_by_key(|slot| slot * 389 % ALL);
    let sends: Vec<(u32, &[u8])> = order.iter().map(|slot| (*slot, &payloads[*slot as usize][..])).collect();
    for _ in 0..2 {
        let mut failed = bench.send_now(&sends);
        failed.sort_unstable();
        let expected: Vec<(u32, Result<u32, i32>)> = (CONNECTED..ALL).map(|slot| (slot, Err(libc::EBADF))).collect();
        assert_eq!(failed, expected);
    }
    for (slot, client) in clients.iter_mut().enumerate() {
        assert_eq!(read_exactly(client, 8), payloads[slot].repeat(2));
    }
    bench.assert_quiet();
}

#[test]
fn failures_beyond_the_completion_queue_are_told_within_the_turn() {
    const FAILING: u32 = 1500;
    let options = Options { sq_entries: 16, cq_entries: 16, slots: FAILING + 1, ..small() };
    let mut bench = Bench::new(&options);
    let mut client = bench.connect(FAILING);
    let sends: Vec<(u32, &[u8])> = (0..=FAILING).map(|slot| (slot, &b"x"[..])).collect();
    for _ in 0..3 {
        let failed = bench.send_now(&sends);
        let expected: Vec<(u32, Result<u32, i32>)> = (0..FAILING).map(|slot| (slot, Err(libc::EBADF))).collect();
        assert_eq!(failed, expected);
    }
    assert_eq!(read_exactly(&mut client, 3), b"xxx");
    // With other operations in the same turn, many more than the queue holds.
    (0..200).for_each(|slot| bench.ring.close(token(Op::Close, slot)));
    let expected: Vec<(u32, Result<u32, i32>)> = (0..10).map(|slot| (slot, Err(libc::EBADF))).collect();
    assert_eq!(bench.send_now(&sends[..10]), expected);
    bench.seen.clear();
    // Operations queued by the hundred, between two turns, are not lost either.
    (0..FAILING).for_each(|slot| bench.ring.close(token(Op::Close, slot)));
    for slot in 0..FAILING {
        assert_eq!(bench.until(Op::Close, slot).result, Err(libc::EBADF));
    }
    bench.assert_quiet();
}

#[test]
fn vectored_sends_keep_their_order() {
    const CONNECTIONS: u32 = 100;
    let mut bench = Bench::new(&Options { slots: CONNECTIONS, ..small() });
    let mut clients: Vec<TcpStream> = (0..CONNECTIONS).map(|slot| bench.connect(slot)).collect();
    // More vectored sends than there are message headers between two enters.
    let pieces: Vec<Vec<Bytes>> = (0..CONNECTIONS as u8)
        .map(|slot| (0..BATCH_PIECES_MAX as u8).map(|at| Bytes::from(vec![slot, at, 1])).collect())
        .collect();
    let batch = (0..CONNECTIONS)
        .map(|slot| BatchSend { token: token(Op::SendNow, slot), pieces: Pieces::Many(&pieces[slot as usize]) });
    bench.ring.turn(batch, Wait::No).unwrap();
    assert!(bench.ring.completion().is_none());
    for (client, pieces) in clients.iter_mut().zip(&pieces) {
        assert_eq!(read_exactly(client, 3 * BATCH_PIECES_MAX), pieces.concat());
    }
}

#[test]
fn a_short_vectored_send_counts_over_its_pieces() {
    let mut bench = Bench::new(&small());
    let mut client = bench.connect_narrow(0);
    let pieces: Vec<Bytes> = (0..64u8).map(|at| Bytes::from(vec![at; 50_001])).collect();
    let send = BatchSend { token: token(Op::SendNow, 0), pieces: Pieces::Many(&pieces) };
    bench.ring.turn(std::iter::once(send), Wait::No).unwrap();
    let seen = bench.ring.completion().expect("3 MiB do not fit");
    let taken = seen.result.expect("some do") as usize;
    assert!(taken > 0 && taken < 64 * 50_001);
    assert!(read_exactly(&mut client, taken) == pieces.concat()[..taken]);
}

#[test]
fn a_send_to_a_peer_that_reset_fails() {
    let mut bench = Bench::new(&small());
    let client = bench.connect(0);
    SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
    drop(client);
    thread::sleep(Duration::from_millis(20));
    let [(0, Err(error))] = bench.send_now(&[(0, b"x")])[..] else { panic!("it was sent") };
    assert!(matches!(error, libc::ECONNRESET | libc::EPIPE), "{error}");
}

// ---- closing ------------------------------------------------------------------------------------------------------

#[test]
fn cancel_and_close_in_one_turn_deliver_the_end() {
    let mut bench = Bench::new(&small());
    let mut client = bench.connect(0);
    bench.ring.recv(token(Op::Recv, 0));
    bench.turn(Wait::No);
    bench.ring.cancel(token(Op::Cancel, 0));
    bench.ring.close(token(Op::Close, 0));
    bench.turn_with(&[], Wait::No);
    let seen = bench.until(Op::Recv, 0);
    assert_eq!((seen.result, seen.filled, seen.more), (Err(libc::ECANCELED), None, false));
    assert_eq!(bench.until(Op::Close, 0).result, Ok(0));
    assert_eq!(client.read(&mut [0]).unwrap(), 0, "FIN");
    // The slot can be used again.
    let mut client = bench.connect(0);
    bench.ring.recv(token(Op::Recv, 0));
    client.write_all(b"next").unwrap();
    assert_eq!(bench.receive(0, 4), b"next");
    bench.assert_quiet();
}

/// Kills: direct descriptors where the kernel closes them late.
#[test]
fn a_closed_connection_ends_beside_one_that_is_silent() {
    let mut bench = Bench::new(&small());
    let _silent = bench.connect(0);
    bench.ring.recv(token(Op::Recv, 0));
    let mut client = bench.connect(1);
    bench.ring.recv(token(Op::Recv, 1));
    bench.turn(Wait::No);
    bench.ring.cancel(token(Op::Cancel, 1));
    bench.ring.close(token(Op::Close, 1));
    assert_eq!(bench.until(Op::Close, 1).result, Ok(0));
    assert_eq!(bench.until(Op::Recv, 1).result, Err(libc::ECANCELED));
    assert_eq!(client.read(&mut [0]).expect("its end, and in time"), 0);
}

#[test]
fn a_connection_that_is_made_is_like_one_that_is_accepted() {
    let mut bench = Bench::new(&small());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    bench.ring.connect(token(Op::Connect, 7), socket.into(), address.into()).unwrap();
    assert_eq!(bench.until(Op::Connect, 7).result, Ok(0));
    let (mut peer, _) = listener.accept().unwrap();
    peer.set_read_timeout(Some(LONG)).unwrap();
    bench.ring.recv(token(Op::Recv, 7));
    peer.write_all(b"hello").unwrap();
    assert_eq!(bench.receive(7, 5), b"hello");
    assert_eq!(bench.send_now(&[(7, b"well")]), []);
    assert_eq!(read_exactly(&mut peer, 4), b"well");
    bench.ring.cancel(token(Op::Cancel, 7));
    bench.ring.close(token(Op::Close, 7));
    assert_eq!(bench.until(Op::Close, 7).result, Ok(0));
    assert_eq!(peer.read(&mut [0]).unwrap(), 0);
    // Nobody listens any more: the slot has a descriptor all the same.
    drop(listener);
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    bench.ring.connect(token(Op::Connect, 7), socket.into(), address.into()).unwrap();
    assert_eq!(bench.until(Op::Connect, 7).result, Err(libc::ECONNREFUSED));
    bench.ring.close(token(Op::Close, 7));
    assert_eq!(bench.until(Op::Close, 7).result, Ok(0));
}

#[test]
fn what_was_sent_before_a_close_arrives() {
    let mut bench = Bench::new(&small());
    let mut client = bench.connect_narrow(0);
    let filled = bench.fill(0);
    bench.ring.close(token(Op::Close, 0));
    assert_eq!(bench.until(Op::Close, 0).result, Ok(0));
    let mut received = Vec::new();
    client.read_to_end(&mut received).unwrap();
    assert!(received == filled);
}

#[test]
fn a_ring_can_be_dropped_with_everything_in_flight() {
    for options in [small(), small_plain()] {
        let mut bench = Bench::new(&options);
        let mut clients = [bench.connect_narrow(0), bench.connect(1), bench.connect(2)];
        bench.fill(0);
        bench.ring.send(token(Op::Send, 0), Bytes::from(vec![1; 1 << 20]));
        bench.ring.recv(token(Op::Recv, 1));
        bench.ring.recv_into(token(Op::RecvInto, 2), Vec::with_capacity(4096), 4096);
        (10..20).for_each(|slot| bench.ring.accept(0, token(Op::Accept, slot)));
        bench.turn(Wait::No);
        // And one that was never submitted.
        bench.ring.recv(token(Op::Recv, 0));
        let address = bench.address;
        let began = Instant::now();
        drop(bench);
        assert!(began.elapsed() < Duration::from_secs(4), "it waited for what would never come");
        for client in &mut clients {
            if let Err(error) = client.read_to_end(&mut Vec::new()) {
                assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "the socket stays open");
            }
        }
        // The kernel takes a ring apart in the background.
        while TcpStream::connect(address).is_ok() {
            assert!(began.elapsed() < LONG, "the listener stays open");
            thread::sleep(Duration::from_millis(5));
        }
    }
}

#[path = "plain_tests.rs"]
mod plain;
