//! What a connection's input may have to wait for, whatever it is and however it comes to its turn: for each of them that
//! nothing is handled before it may be, everything once and in order after that, and that the wait is not the peer's time.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use ringwire::engine::sim::{Client, RingOptions, Rng};
use ringwire::hub::{CoreHub, Letter};
use ringwire::metrics::TimeoutKind;
use ringwire::outbox::Queued;
use ringwire::proto::frame::Opcode;
use ringwire::{App, Connection, Message, Request, Socket as Peer, sleep, ws};

use crate::host::Setup;
use crate::rig::{Rig, Socket};
use crate::wire::{self, BINARY, TEXT};

const PAUSE_BYTES: usize = 1_000;
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

/// What handlers were called with.
type Seen = Rc<RefCell<Vec<String>>>;

/// An app that takes down whatever reaches a handler.
fn app(seen: &Seen) -> App {
    let note = |seen: &Seen| {
        let seen = Rc::clone(seen);
        move |what: String| seen.borrow_mut().push(what)
    };
    let (opened, message, asked, posted, late) = (note(seen), note(seen), note(seen), note(seen), note(seen));
    let ms = |request: &Request| Duration::from_millis(request.query("ms").and_then(|ms| ms.parse().ok()).unwrap_or(0));
    let query = |request: &Request| request.query("n").unwrap_or_default().into_owned();
    App::new()
        .ws("/shout", |socket: &mut Peer<'_>, message: Message<'_>| {
            let _ = socket.to_all().except_self().send(message);
        })
        .ws(
            "/ws",
            ws().forget_request().on_message(move |_: &mut Peer<'_>, given: Message<'_>| {
                message(format!("message {}", given.as_bytes().len()))
            }),
        )
        .ws("/open", ws().on_connect(move |_| opened("open".into())).on_message(|_: &mut Peer<'_>, _: Message<'_>| {}))
        .group("/hooked", |group| {
            let wait = async move |request: &mut Request| {
                sleep(ms(request)).await;
                Ok(())
            };
            group.before_async(wait).ws("/in", ws().on_connect(move |_| late("open".into())))
        })
        .get("/ask", move |request: Request| {
            asked(format!("request {}", query(&request)));
            async move {
                sleep(ms(&request)).await;
                "answered"
            }
        })
        .post("/ask", move |request: Request| {
            posted(format!("body {}", request.body().len()));
            async { "answered" }
        })
}

/// An input: what a client sends, and what a handler sees of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Input {
    Request,
    Body,
    Upgrade,
    HookedUpgrade,
    Frame,
    Large,
}

impl Input {
    const ALL: [Input; 6] =
        [Input::Request, Input::Body, Input::Upgrade, Input::HookedUpgrade, Input::Frame, Input::Large];

    fn is_http(self) -> bool {
        !matches!(self, Input::Frame | Input::Large)
    }

    fn bytes(self) -> Vec<u8> {
        let mut bytes = Vec::new();
        match self {
            Input::Request => bytes.extend(b"GET /ask?n=1 HTTP/1.1\r\nHost: a\r\n\r\n"),
            Input::Body => bytes.extend(b"POST /ask HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody"),
            Input::Upgrade => bytes = wire::request("/open", KEY),
            Input::HookedUpgrade => bytes = wire::request("/hooked/in", KEY),
            Input::Frame => wire::frame(&mut bytes, true, TEXT, b"frame", &mut Rng::new(1)),
            Input::Large => wire::frame(&mut bytes, true, BINARY, &[b'l'; 200_000], &mut Rng::new(1)),
        }
        bytes
    }

    fn seen(self) -> &'static str {
        match self {
            Input::Request => "request 1",
            Input::Body => "body 4",
            Input::Upgrade | Input::HookedUpgrade => "open",
            Input::Frame => "message 5",
            Input::Large => "message 200000",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wait {
    Outbox,
    Mail,
    Answer,
}

/// A server of two cores, of which the second one runs only when it is told to, and a connection of the first.
struct Bench {
    rig: Rig,
    shouter: Socket,
    client: Client,
    slot: u32,
    seen: Seen,
}

impl Bench {
    fn new(input: Input, change: impl Fn(&mut Setup)) -> Bench {
        let seen = Seen::default();
        let in_app = Rc::clone(&seen);
        let mut setup = Setup { cores: 2, mail_depth: 1, app: Rc::new(move || app(&in_app)), ..Setup::default() };
        setup.settings.pause_bytes = PAUSE_BYTES;
        setup.settings.ping_interval = Duration::ZERO;
        setup.ring = RingOptions { slots: 8, ..setup.ring };
        change(&mut setup);
        let mut rig = Rig::new(&setup);
        let shouter = rig.open(0, "/shout");
        let before: Vec<u32> = open_slots(&mut rig);
        let client = if input.is_http() { rig.connect(0) } else { rig.open(0, "/ws").client };
        rig.settle();
        client.received();
        let slot = open_slots(&mut rig).into_iter().find(|slot| !before.contains(slot)).expect("it was accepted");
        Bench { rig, shouter, client, slot, seen }
    }

    fn settle(&mut self) {
        while self.rig.cores.all[0].is_runnable() {
            self.rig.cores.all[0].tick();
        }
    }

    /// Lets time pass for the first core alone.
    fn pass(&mut self, time: Duration) {
        let until = self.rig.world.now() + time.as_nanos() as u64;
        while self.rig.world.now() < until {
            self.settle();
            self.rig.world.advance(5_000_000);
        }
        self.settle();
    }

    fn send(&mut self, bytes: &[u8]) {
        self.client.send(bytes);
        self.settle();
    }

    fn close(&mut self, wait: Wait) {
        match wait {
            Wait::Outbox => {
                self.client.set_window(10);
                self.queue(20 * PAUSE_BYTES);
            }
            Wait::Mail => {
                while self.rig.cores.courier.send(1, Letter::run(|_: &mut ringwire::hub::CoreHub| {})).is_ok() {}
                self.shouter.text("to all");
                self.settle();
                assert!(self.rig.cores.all[0].shard.hub().is_congested());
            }
            Wait::Answer => self.client.send(b"GET /ask?n=0&ms=50 HTTP/1.1\r\nHost: a\r\n\r\n"),
        }
        self.settle();
    }

    /// Queues so many bytes to the client, as a handler does: in the middle of a tick.
    fn queue(&mut self, bytes: usize) {
        let slot = self.slot;
        let queue = move |hub: &mut CoreHub| {
            let queued = if hub.is_open(slot) {
                hub.send(slot, Opcode::Binary, &vec![b'z'; bytes]) == Queued::Yes
            } else {
                let put = |out: &mut Vec<u8>| {
                    out.resize(out.len() + bytes, b'z');
                    Ok::<(), ()>(())
                };
                hub.outbox.queue_raw(slot, put) == Ok(true)
            };
            assert!(queued, "it takes them");
        };
        assert!(self.rig.cores.courier.send(0, Letter::run(queue)).is_ok());
        self.settle();
    }

    fn open(&mut self, wait: Wait) {
        match wait {
            Wait::Outbox => {
                self.client.set_window(1 << 20);
                self.client.received();
                self.settle();
            }
            // It is tried again after a millisecond.
            Wait::Mail => self.rig.pass_ms(2),
            Wait::Answer => self.pass(Duration::from_millis(60)),
        }
    }

    /// What handlers have seen of the connection since the last call, but for what was there to be waited for.
    fn seen(&mut self) -> Vec<String> {
        let mut seen = self.seen.take();
        seen.retain(|what| what != "request 0");
        seen
    }

    fn finish(self) {
        self.client.reset();
        self.rig.finish();
    }
}

fn open_slots(rig: &mut Rig) -> Vec<u32> {
    let hub = rig.cores.all[0].shard.hub();
    (0..8).filter(|slot| hub.outbox.is_open(*slot)).collect()
}

/// Each input behind each wait, and behind each two of which the second begins before the first is over; twice, so that
/// something stands behind it; whole and in two pieces.
///
/// Kills: a resume after one wait that does not ask for the others; inputs of some kind that ask for nothing, or only when
/// they were held back before.
#[test]
fn no_input_is_handled_before_its_turn_and_each_one_once_in_its_turn() {
    let waits: [&[Wait]; 7] = [
        &[Wait::Outbox],
        &[Wait::Mail],
        &[Wait::Answer],
        &[Wait::Outbox, Wait::Mail],
        &[Wait::Mail, Wait::Outbox],
        &[Wait::Answer, Wait::Outbox],
        &[Wait::Answer, Wait::Mail],
    ];
    for input in Input::ALL {
        for waits in waits.iter().filter(|waits| input.is_http() || !waits.contains(&Wait::Answer)) {
            for pieces in [1, 2] {
                let what = format!("{input:?} in {pieces} pieces behind {waits:?}");
                let mut bench = Bench::new(input, |_| {});
                bench.close(waits[0]);
                for piece in input.bytes().chunks(input.bytes().len().div_ceil(pieces)) {
                    bench.send(piece);
                }
                if input == Input::Request || input == Input::Body || !input.is_http() {
                    bench.send(&input.bytes());
                }
                assert_eq!(bench.seen(), [""; 0], "{what}");
                for (nth, wait) in waits.iter().enumerate() {
                    if let Some(next) = waits.get(nth + 1) {
                        bench.close(*next);
                    }
                    assert_eq!(bench.seen(), [""; 0], "{what}, at {wait:?}");
                    bench.open(*wait);
                }
                for _ in 0..5 {
                    bench.client.received();
                    bench.rig.pass_ms(10);
                }
                let count = if matches!(input, Input::Upgrade | Input::HookedUpgrade) { 1 } else { 2 };
                assert_eq!(bench.seen(), vec![input.seen(); count], "{what}");
                bench.finish();
            }
        }
    }
}

/// The decision came while nothing had to wait; what is to be done then is input all the same.
/// Kills: WebSockets that open, and `on_connect` that emits, behind an answer that comes late.
#[test]
fn a_websocket_that_was_let_in_late_waits_to_be_opened() {
    for wait in [Wait::Mail, Wait::Outbox] {
        let mut bench = Bench::new(Input::HookedUpgrade, |_| {});
        bench.send(&wire::request("/hooked/in?ms=20", KEY));
        bench.close(wait);
        bench.pass(Duration::from_millis(200));
        assert_eq!(bench.seen(), [""; 0], "{wait:?}");
        assert_eq!(bench.rig.cores.all[0].shard.hub().count(), 1, "the other one");
        bench.open(wait);
        assert_eq!(bench.seen(), ["open"], "{wait:?}");
        bench.finish();
    }
}

/// The budget holds nothing back: it refuses, and sheds. Kills: inputs that are let past it because they have waited.
#[test]
fn whatever_has_waited_finds_the_memory_budget_as_it_is() {
    for input in Input::ALL {
        for waits in [&[][..], &[Wait::Outbox]] {
            let mut bench = Bench::new(input, |setup| {
                setup.memory_bytes_max = 100_000_000;
                // The other core is asked to shed, and does not run.
                setup.mail_depth = 64;
            });
            waits.iter().for_each(|wait| bench.close(*wait));
            if !waits.is_empty() {
                bench.send(&input.bytes());
                assert!(bench.rig.cores.all[0].shard.hub().metrics().partial_bytes > 0, "what waits is counted");
            }
            // The other core's: there is nobody here to shed.
            bench.rig.cores.admission.memory().publish(1, 1 << 30);
            waits.iter().for_each(|wait| bench.open(*wait));
            if waits.is_empty() {
                bench.send(&input.bytes());
            }
            bench.settle();
            let (seen, answer) = (bench.seen(), String::from_utf8_lossy(&bench.client.received()).into_owned());
            if matches!(input, Input::Upgrade | Input::HookedUpgrade) {
                assert_eq!(seen, [""; 0], "{input:?} behind {waits:?}");
                assert!(answer.contains("HTTP/1.1 503 "), "{input:?} behind {waits:?}: {answer}");
            } else {
                assert_eq!(seen, [input.seen()], "{input:?} behind {waits:?}");
            }
            bench.rig.cores.admission.memory().publish(1, 0);
            bench.finish();
        }
    }
}

/// Answers that nobody reads, to requests that come one by one, in one go, or in pieces: one more than `pause_bytes`.
#[test]
fn answers_that_nobody_reads_do_not_pile_up() {
    const COUNT: usize = 300;
    for (path, ms) in [("/ask", 0), ("/ask", 1), ("/nowhere", 0)] {
        for bytes_at_once in [1 << 20, 64, 7] {
            let mut bench = Bench::new(Input::Request, |setup| setup.cores = 1);
            bench.client.set_window(10);
            let request = format!("GET {path}?n=1&ms={ms} HTTP/1.1\r\nHost: a\r\n\r\n").repeat(COUNT);
            let mut most = 0;
            for piece in request.as_bytes().chunks(bytes_at_once) {
                bench.send(piece);
                if ms > 0 {
                    bench.pass(Duration::from_millis(5));
                }
                most = most.max(bench.rig.cores.all[0].shard.hub().outbox.queued_bytes(bench.slot));
            }
            bench.pass(Duration::from_millis(500));
            most = most.max(bench.rig.cores.all[0].shard.hub().outbox.queued_bytes(bench.slot));
            assert!((PAUSE_BYTES..PAUSE_BYTES + 300).contains(&most), "{path} {bytes_at_once}: {most} bytes");
            bench.client.set_window(1 << 20);
            let mut answers = Vec::new();
            for _ in 0..400 {
                answers.extend(bench.client.received());
                bench.pass(Duration::from_millis(5));
            }
            let heads = memchr::memmem::find_iter(&answers, b"HTTP/1.1 ").count();
            assert_eq!(heads, COUNT, "{path} {bytes_at_once}");
            bench.finish();
        }
    }
}

// ---- time -----------------------------------------------------------------------------------------------------------

/// Kills: timeouts of silence, of a head and of an answer that run while the core itself reads nothing; and waits after
/// which none of them runs any more.
#[test]
fn time_that_the_core_takes_is_not_the_peers() {
    let second = Duration::from_secs(1);
    for input in Input::ALL {
        let mut bench = Bench::new(input, |setup| {
            setup.settings.idle_timeout = second;
            setup.settings.handshake_timeout = second;
            setup.settings.keep_alive = second;
            setup.settings.answer_timeout = second;
        });
        // The other one is looked after elsewhere.
        bench.shouter.client.set_window(1 << 20);
        bench.close(Wait::Mail);
        bench.send(&input.bytes());
        // Half of another one is behind it.
        bench.send(&input.bytes()[..3]);
        bench.pass(5 * second);
        let said = bench.client.received();
        assert!(!bench.client.saw_fin() && !said.starts_with(b"HTTP"), "{input:?}: {said:?}");
        bench.open(Wait::Mail);
        bench.pass(second / 2);
        assert_eq!(bench.seen(), [input.seen()], "{input:?}");
        assert!(!bench.client.saw_fin(), "{input:?}: it has a second from now on");
        bench.pass(2 * second);
        bench.client.received();
        assert!(bench.client.saw_fin(), "{input:?}: and no more than that");
        bench.finish();
    }
}

/// A WebSocket that is not read from because its answers wait lives as long as it goes on reading them.
#[test]
fn who_reads_slowly_is_not_idle() {
    for reads in [true, false] {
        let mut bench = Bench::new(Input::Frame, |setup| {
            setup.settings.idle_timeout = Duration::from_millis(1_500);
            setup.settings.write_timeout = Duration::ZERO;
            // A send that waits owns a quarter of it at most.
            setup.outbox_bytes_max = 8_000;
        });
        bench.client.set_window(200);
        for _ in 0..7 {
            bench.queue(1_000);
        }
        bench.send(&Input::Frame.bytes());
        for _ in 0..30 {
            bench.pass(Duration::from_millis(100));
            if reads {
                bench.client.read(200);
            }
        }
        assert_eq!(
            bench.rig.ended(0).iter().filter(|ended| ended.reason == "idle timeout").count(),
            usize::from(!reads) + 1
        );
        assert_eq!(bench.seen(), [""; 0]);
        bench.finish();
    }
}

/// A task that takes no more holds its connection's input back for as long as it likes.
#[test]
fn who_waits_for_a_task_is_not_idle() {
    let app = || {
        let task = async |mut connection: Connection| {
            while let Some(message) = connection.recv().await {
                sleep(Duration::from_secs(3)).await;
                let _ = connection.send(message);
            }
        };
        App::new().ws("/slow", ws().inbox_depth(1).task(task))
    };
    let mut setup = Setup { app: Rc::new(app), ..Setup::default() };
    setup.settings.idle_timeout = Duration::from_secs(4);
    setup.settings.ping_interval = Duration::ZERO;
    let mut rig = Rig::new(&setup);
    let mut socket = rig.open(0, "/slow");
    (0..4).for_each(|n| socket.text(&n.to_string()));
    rig.pass_ms(10_500);
    assert_eq!(socket.texts(), ["0", "1", "2"]);
    rig.pass_ms(5_000);
    assert_eq!(socket.texts(), ["3"]);
    rig.pass_ms(5_000);
    assert_eq!(rig.counters(0).timeouts.of(TimeoutKind::Idle), 1, "and then it is");
    rig.finish();
}
