//! A server on simulated rings and clients that a test leads by the hand.

use std::time::Duration;

use ringwire::engine::sim::{Client, Faults, Rng, World};
use ringwire::metrics::Counters;
use ringwire::shard::service::Ended;

use crate::host::{Cores, Setup};
use crate::wire::{self, BINARY, CLOSE, Event, Reader, TEXT};

pub struct Rig {
    pub world: World,
    pub cores: Cores,
    pub transport: Transport,
}

/// How clients speak to the server.
#[derive(Clone, Copy, Debug, Default)]
pub struct Transport {
    /// What puts TLS between a client and its connection.
    pub secure: Option<fn(Client) -> Box<dyn Layer>>,
    /// What they offer of compression.
    pub offer: Option<&'static str>,
}

/// What stands between a client and its connection.
pub trait Layer {
    /// All that has come.
    fn receive(&mut self) -> Vec<u8>;
    fn send(&mut self, bytes: &[u8]);
}

impl Layer for Client {
    fn receive(&mut self) -> Vec<u8> {
        self.received()
    }

    fn send(&mut self, bytes: &[u8]) {
        Client::send(self, bytes);
    }
}

impl Rig {
    pub fn new(setup: &Setup) -> Rig {
        Rig::faulty(setup, 1, Faults::none())
    }

    pub fn faulty(setup: &Setup, seed: u64, faults: Faults) -> Rig {
        let world = World::new(seed, faults);
        let cores = Cores::new(&world, setup);
        Rig::of(world, cores)
    }

    pub fn of(world: World, cores: Cores) -> Rig {
        Rig { world, cores, transport: Transport::default() }
    }

    /// Ticks all cores until they sleep. The clock stands still.
    pub fn settle(&mut self) {
        for _ in 0..100_000 {
            if !self.cores.is_any_runnable() {
                return;
            }
            self.cores.all.iter_mut().filter(|core| core.is_runnable()).for_each(|core| core.tick());
        }
        panic!("the cores do not come to rest at {} ns", self.world.now());
    }

    /// Lets time pass.
    pub fn pass(&mut self, time: Duration) {
        pass(&self.world.clone(), time, || self.settle());
    }

    pub fn pass_ms(&mut self, ms: u64) {
        self.pass(Duration::from_millis(ms));
    }

    /// A TCP connection on which nothing was sent.
    pub fn connect(&self, core: usize) -> Client {
        self.world.connect(core, 0)
    }

    /// A client that has asked for a WebSocket, and maybe has it by now.
    pub fn open(&mut self, core: usize, path: &str) -> Socket {
        let mut socket = self.open_early(core, path);
        self.settle();
        // A handshake of TLS goes back and forth.
        for _ in 0..if self.transport.secure.is_some() { 3 } else { 0 } {
            socket.look();
            self.settle();
        }
        if self.transport.offer.is_some() {
            socket.look();
            socket.agree();
        }
        socket
    }

    /// A client that has just asked for a WebSocket.
    pub fn open_early(&mut self, core: usize, path: &str) -> Socket {
        let key = "dGhlIHNhbXBsZSBub25jZQ==";
        let Transport { secure, offer } = self.transport;
        let client = self.connect(core);
        let mut layer =
            secure.map_or_else(|| Box::new(client.clone()) as Box<dyn Layer>, |secure| secure(client.clone()));
        layer.send(&wire::request_with(path, key, offer));
        let reader = Reader::offering(key, offer);
        Socket { client, layer, reader, come: Vec::new(), rng: Rng::new(7) }
    }

    /// A client on `/direct`, and its id.
    pub fn open_direct(&mut self, core: usize) -> (Socket, String) {
        let mut socket = self.open(core, "/direct");
        let texts = socket.texts();
        let id = texts[0].strip_prefix("id ").expect("first it is told its id").to_owned();
        (socket, id)
    }

    pub fn counters(&mut self, core: usize) -> Counters {
        self.cores.all[core].shard.hub().metrics().counters
    }

    /// How connections of a core have ended.
    pub fn ended(&mut self, core: usize) -> Vec<Ended> {
        self.cores.all[core].shard.service().ended.iter().map(|(_, ended)| ended.clone()).collect()
    }

    pub fn connections(&self) -> usize {
        self.cores.all.iter().map(|core| core.shard.connections()).sum()
    }

    pub fn drain(&mut self) {
        (0..self.cores.all.len()).for_each(|core| assert!(self.cores.drain(core), "room for the letter"));
    }

    /// Ends the server without faults and without a hurry; nothing may be left of anybody.
    pub fn finish(mut self) {
        self.world.set_faults(Faults::none());
        self.settle();
        self.drain();
        for _ in 0..200 {
            self.pass_ms(100);
            if self.cores.is_drained() {
                break;
            }
        }
        self.cores.all.iter_mut().try_for_each(|core| core.check_over()).expect("nothing is left");
        assert_eq!(self.cores.admission.connections(), 0);
        assert_eq!(self.world.unended(), None);
    }
}

/// Lets time pass; `settle` has everybody act until all sleep.
pub fn pass(world: &World, time: Duration, mut settle: impl FnMut()) {
    let end = world.now() + time.as_nanos() as u64;
    loop {
        settle();
        let now = world.now();
        if now >= end {
            return;
        }
        // A core that has stopped may leave completions behind that nobody takes; they must not stop the clock.
        let next = world.next_wakeup().map_or(end, |at| at.max(now + 10_000).min(end));
        world.advance(next - now);
    }
}

/// A WebSocket client that does only what it is told to.
pub struct Socket {
    pub client: Client,
    layer: Box<dyn Layer>,
    reader: Reader,
    /// What has come and was not read.
    come: Vec<u8>,
    rng: Rng,
}

impl Socket {
    pub fn text(&mut self, text: &str) {
        self.frame(TEXT, text.as_bytes());
    }

    /// A frame: of a message, compressed where that was agreed and is shorter.
    pub fn frame(&mut self, opcode: u8, payload: &[u8]) {
        let mut bytes = Vec::new();
        let compression = self.reader.compression.as_mut().filter(|_| matches!(opcode, TEXT | BINARY));
        match compression.and_then(|compression| compression.deflate(payload)) {
            // RFC 7692 6: the bit RSV1.
            Some(payload) => wire::frame(&mut bytes, true, opcode | 0x40, &payload, &mut self.rng),
            None => wire::frame(&mut bytes, true, opcode, payload, &mut self.rng),
        }
        self.layer.send(&bytes);
    }

    pub fn close(&mut self, code: u16) {
        self.frame(CLOSE, &code.to_be_bytes());
    }

    fn look(&mut self) {
        let bytes = self.layer.receive();
        self.come.extend(bytes);
    }

    /// Reads what was agreed on, if the server has agreed to anything.
    fn agree(&mut self) {
        if self.come.starts_with(b"HTTP/1.1 101 ") {
            self.reader.push(&std::mem::take(&mut self.come));
            let is_open = self.reader.open().expect("the server keeps to the protocol");
            assert!(!is_open || self.reader.compression.is_some(), "compression was not agreed on");
        }
    }

    /// The bytes that have arrived.
    pub fn received(&mut self) -> Vec<u8> {
        self.look();
        std::mem::take(&mut self.come)
    }

    /// Everything that has arrived.
    pub fn events(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.next_event().expect("the server keeps to the protocol")).collect()
    }

    /// What has arrived next. `Err`: the server broke the protocol.
    pub fn next_event(&mut self) -> Result<Option<Event>, String> {
        let bytes = self.received();
        self.reader.push(&bytes);
        self.reader.next()
    }

    /// Whether the message that has arrived last was compressed.
    pub fn was_compressed(&self) -> bool {
        self.reader.was_compressed()
    }

    /// The messages that have arrived, each with whether it was compressed.
    pub fn messages(&mut self) -> Vec<(Vec<u8>, bool)> {
        let mut messages = Vec::new();
        while let Some(event) = self.next_event().expect("the server keeps to the protocol") {
            let Event::Message(message) = event else { panic!("{event:?} where a message was due") };
            messages.push((message.payload, self.was_compressed()));
        }
        messages
    }

    /// Everything that has arrived, which must be text messages.
    pub fn texts(&mut self) -> Vec<String> {
        let text = |event| match event {
            Event::Message(message) => String::from_utf8(message.payload).expect("text"),
            event => panic!("{event:?} where text was due"),
        };
        self.events().into_iter().map(text).collect()
    }

    /// The Close frame that must have arrived last.
    pub fn close_code(&mut self) -> Option<u16> {
        match self.events().pop() {
            Some(Event::Close(code)) => code,
            event => panic!("{event:?} where a Close was due"),
        }
    }
}
