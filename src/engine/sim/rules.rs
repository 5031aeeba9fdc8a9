//! One core's side of the fake kernel: what it queued, what it was told, and which rules bind it.
//!
//! An operation is in flight, in the sense of the rules checked here, from the call that queues it until its last
//! completion was taken: only then can the core know that it ended. `kernel.rs` holds what happens in between.

use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;

use bytes::Bytes;

use crate::engine::{
    BATCH_PIECES_MAX, BatchSend, Completion, Descriptors, Nanos, Op, Peer, Pieces, SEND_BYTES_MAX, Token, Wait,
};

use super::buffers::Buffers;
use super::faults::Fault;
use super::net::Net;
use super::ops::{Closed, ConnectOp, RecvIntoOp, RecvOp, SendOp};
use super::options::{Mutant, RingOptions};

/// A core that bounds what it handles in a turn has taken what it leaves for the next one; but not for ever.
pub(super) const RECYCLED_WITHIN_TURNS: u64 = 4096;

/// An operation as the core that queued it sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flight {
    No,
    Yes,
    /// A cancellation was queued after it.
    Cancelled,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Free,
    Accepting,
    Connecting,
    Open,
    Closing,
}

pub(super) struct Slot {
    pub(super) stage: Stage,
    pub(super) generation: u32,
    /// Every generation that ever had the slot.
    pub(super) used: BTreeSet<u32>,
    connect: Flight,
    recv: Flight,
    recv_into: Flight,
    send: Flight,
    send_now: bool,
    received_untaken: bool,
    peer_known: bool,
    batched_in_turn: u64,
    pub(super) peer: Peer,
    // The kernel's own view, ahead of what the core has been told.
    pub(super) socket: Option<usize>,
    pub(super) descriptor_open: bool,
    /// The last close's place among the ring's operations.
    pub(super) closed_number: u64,
    pub(super) connect_op: Option<ConnectOp>,
    pub(super) recv_op: Option<RecvOp>,
    pub(super) recv_into_op: Option<RecvIntoOp>,
    pub(super) send_op: Option<SendOp>,
    pub(super) received: Option<Vec<u8>>,
}

impl Slot {
    fn new() -> Slot {
        Slot {
            stage: Stage::Free,
            generation: 0,
            used: BTreeSet::new(),
            connect: Flight::No,
            recv: Flight::No,
            recv_into: Flight::No,
            send: Flight::No,
            send_now: false,
            received_untaken: false,
            peer_known: false,
            batched_in_turn: 0,
            peer: Peer::Unix,
            socket: None,
            descriptor_open: false,
            closed_number: 0,
            connect_op: None,
            recv_op: None,
            recv_into_op: None,
            send_op: None,
            received: None,
        }
    }

    /// What is in flight, for messages; `None` if nothing is.
    fn in_flight(&self) -> Option<String> {
        let mut what = Vec::new();
        let flights =
            [("connect", self.connect), ("recv", self.recv), ("recv_into", self.recv_into), ("send", self.send)];
        for (name, flight) in flights {
            if flight != Flight::No {
                what.push(format!("{name} ({flight:?})"));
            }
        }
        if self.send_now {
            what.push("the result of a batch send".to_owned());
        }
        (!what.is_empty()).then(|| what.join(", "))
    }
}

#[derive(Clone)]
pub(super) struct Listener {
    /// Whether it takes new connections.
    pub(super) open: bool,
    pub(super) closed: bool,
    /// The core was told, or will be, that nothing more is accepted of it.
    stopping: bool,
    /// Connections to accept, each with the time from which it shows; of a listener that is shared they are all cores'.
    pub(super) pending: VecDeque<(usize, Nanos)>,
    /// Accepts that take whoever is there; of a listener that is shared those that were woken.
    pub(super) armed: VecDeque<Token>,
}

pub(super) enum Queued {
    Accept { listener: u32, token: Token },
    StopAccepting { listener: u32 },
    Connect { token: Token, address: Option<SocketAddr> },
    Recv { token: Token, bytes_max: u32 },
    RecvInto { token: Token, buffer: Vec<u8>, len_max: usize, waits: bool },
    Send { token: Token, data: Bytes },
    Cancel(Token),
    CancelRecv(Token),
    Close(Token),
    Doorbell(usize),
}

pub(super) struct Core {
    pub(super) number: usize,
    pub(super) options: RingOptions,
    pub(super) slots: Vec<Slot>,
    /// Slots with an operation in the kernel's hands.
    pub(super) live: BTreeSet<u32>,
    pub(super) listeners: Vec<Listener>,
    pub(super) queue: VecDeque<Queued>,
    pub(super) buffers: Buffers,
    /// Operations on slots submitted so far.
    pub(super) submitted: u64,
    /// Sockets that nothing but the kernel's lateness keeps open, and the number of their close.
    pub(super) kept: Vec<(usize, u64)>,
    /// What was closed and may not have ended, by age.
    pub(super) closed: VecDeque<Closed>,
    /// Doorbells on their way to this core, by arrival.
    pub(super) doorbells: VecDeque<Nanos>,
    /// Cores whose doorbell this one rang since it was last asked.
    pub(super) rung: Vec<usize>,
    pub(super) completions: VecDeque<Completion>,
    /// How many of `completions` the core may see.
    visible: usize,
    /// Turns for which an overflow hides what is not visible.
    hidden_turns: u32,
    /// Completions of batch sends not taken.
    pub(super) short_sends: usize,
    pub(super) parked_until: Option<Nanos>,
    turn: u64,
    pub(super) gone: bool,
}

fn generation(token: Token) -> u32 {
    (token.user_data() >> 32) as u32 & 0x00ff_ffff
}

impl Core {
    pub(super) fn new(number: usize, options: RingOptions) -> Core {
        let (pending, armed) = (VecDeque::new(), VecDeque::new());
        let listener = Listener { open: true, closed: false, stopping: false, pending, armed };
        Core {
            number,
            slots: (0..options.slots).map(|_| Slot::new()).collect(),
            live: BTreeSet::new(),
            listeners: vec![listener; options.listeners as usize],
            queue: VecDeque::new(),
            buffers: Buffers::new(options.buffers, options.buffer_bytes, options.incremental),
            submitted: 0,
            kept: Vec::new(),
            closed: VecDeque::new(),
            doorbells: VecDeque::new(),
            rung: Vec::new(),
            completions: VecDeque::new(),
            visible: 0,
            hidden_turns: 0,
            short_sends: 0,
            parked_until: None,
            turn: 1,
            gone: false,
            options,
        }
    }

    /// Whether closed sockets are kept open by older operations: where the kernel is late and descriptors are direct.
    pub(super) fn keeps_closed(&self) -> bool {
        let is_blind = self.options.mutant == Some(Mutant::DirectThoughLate);
        let is_late = self.options.closes_late || is_blind;
        let descriptors = if is_blind { Descriptors::Direct } else { Descriptors::suiting(is_late) };
        is_late && descriptors == Descriptors::Direct
    }

    // Queueing: each call is checked where the core makes it, so that a failure points there.

    pub(super) fn queue_accept(&mut self, listener: u32, token: Token) {
        self.expect_op(token, Op::Accept);
        assert!((listener as usize) < self.listeners.len(), "accept from listener {listener}, which does not exist");
        assert!(!self.listeners[listener as usize].stopping, "accept after stop_accepting");
        let slot = self.slot(token);
        assert!(slot.stage == Stage::Free, "{token:?}: accept into a slot that is {:?}", slot.stage);
        if let Some(what) = slot.in_flight() {
            panic!("{token:?}: accept into a slot with operations in flight: {what}");
        }
        assert!(
            !slot.used.contains(&generation(token)),
            "{token:?}: accept with a generation that the slot had before"
        );
        slot.stage = Stage::Accepting;
        slot.generation = generation(token);
        self.queue.push_back(Queued::Accept { listener, token });
    }

    pub(super) fn queue_stop_accepting(&mut self, listener: u32) {
        if !std::mem::replace(&mut self.listeners[listener as usize].stopping, true) {
            self.queue.push_back(Queued::StopAccepting { listener });
        }
    }

    pub(super) fn queue_connect(&mut self, token: Token, address: Option<SocketAddr>) {
        self.expect_op(token, Op::Connect);
        let slot = self.slot(token);
        assert!(slot.stage == Stage::Free, "{token:?}: connect in a slot that is {:?}", slot.stage);
        if let Some(what) = slot.in_flight() {
            panic!("{token:?}: connect in a slot with operations in flight: {what}");
        }
        // A connection that goes on to its next address keeps its generation.
        assert!(
            !slot.used.contains(&generation(token)) || token.is_of_generation(slot.generation),
            "{token:?}: connect with a generation that the slot had before"
        );
        slot.stage = Stage::Connecting;
        slot.generation = generation(token);
        slot.connect = Flight::Yes;
        self.queue.push_back(Queued::Connect { token, address });
    }

    pub(super) fn queue_recv(&mut self, token: Token, bytes_max: u32) {
        self.expect_op(token, Op::Recv);
        let slot = self.open_slot(token, "recv");
        assert!(slot.recv == Flight::No, "{token:?}: recv armed twice");
        assert!(slot.recv_into == Flight::No, "{token:?}: recv while a recv_into is in flight");
        slot.recv = Flight::Yes;
        let bytes_max = if self.options.bounds_receives { bytes_max } else { 0 };
        self.queue.push_back(Queued::Recv { token, bytes_max });
    }

    pub(super) fn queue_recv_into(&mut self, token: Token, buffer: Vec<u8>, len_max: usize, waits: bool) {
        self.expect_op(token, Op::RecvInto);
        assert!(buffer.capacity() > buffer.len(), "{token:?}: recv_into a buffer without spare capacity");
        assert!(len_max > 0, "{token:?}: recv_into of no bytes");
        let slot = self.open_slot(token, "recv_into");
        assert!(slot.recv_into == Flight::No, "{token:?}: recv_into armed twice");
        assert!(slot.recv == Flight::No, "{token:?}: recv_into while a recv is in flight");
        slot.recv_into = Flight::Yes;
        self.queue.push_back(Queued::RecvInto { token, buffer, len_max, waits });
    }

    pub(super) fn queue_send(&mut self, token: Token, data: Bytes) {
        self.expect_op(token, Op::Send);
        assert!(!data.is_empty(), "{token:?}: send of no bytes");
        assert!(data.len() <= SEND_BYTES_MAX, "{token:?}: send of more bytes than one operation moves");
        let slot = self.open_slot(token, "send");
        assert!(slot.send == Flight::No, "{token:?}: two sends in flight for one slot");
        assert!(!slot.send_now, "{token:?}: send before the result of a batch send was taken");
        slot.send = Flight::Yes;
        self.queue.push_back(Queued::Send { token, data });
    }

    pub(super) fn queue_cancel(&mut self, token: Token) {
        self.expect_op(token, Op::Cancel);
        let slot = self.own_slot(token, "cancel");
        for flight in [&mut slot.connect, &mut slot.recv, &mut slot.recv_into, &mut slot.send] {
            if *flight == Flight::Yes {
                *flight = Flight::Cancelled;
            }
        }
        self.queue.push_back(Queued::Cancel(token));
    }

    pub(super) fn queue_cancel_recv(&mut self, token: Token) {
        self.expect_op(token, Op::Recv);
        let slot = self.open_slot(token, "cancel_recv");
        if slot.recv == Flight::Yes {
            slot.recv = Flight::Cancelled;
        }
        self.queue.push_back(Queued::CancelRecv(token));
    }

    pub(super) fn queue_close(&mut self, token: Token) {
        self.expect_op(token, Op::Close);
        let slot = self.slot(token);
        assert!(slot.stage != Stage::Closing, "{token:?}: close twice");
        let slot = self.own_slot(token, "close");
        for flight in [slot.connect, slot.recv, slot.recv_into, slot.send] {
            assert!(
                flight != Flight::Yes,
                "{token:?}: close under an operation that was not cancelled, which holds the socket open: {:?}",
                slot.in_flight()
            );
        }
        slot.stage = Stage::Closing;
        self.queue.push_back(Queued::Close(token));
    }

    /// Checks a send of the batch and gathers its bytes.
    pub(super) fn check_batch(&mut self, send: &BatchSend<'_>) -> Vec<u8> {
        let token = send.token;
        self.expect_op(token, Op::SendNow);
        let turn = self.turn;
        let slot = self.open_slot(token, "batch send");
        assert!(slot.send == Flight::No, "{token:?}: two sends in flight for one slot: batch send beside a send");
        assert!(slot.batched_in_turn != turn, "{token:?}: two sends for one slot in one batch");
        assert!(!slot.send_now, "{token:?}: batch send before the result of the one before was taken");
        slot.batched_in_turn = turn;
        let bytes = match send.pieces {
            Pieces::One(bytes) => bytes.to_vec(),
            Pieces::Many(pieces) => {
                let most = BATCH_PIECES_MAX;
                assert!(pieces.len() <= most, "{token:?}: batch send of {} pieces, more than {most}", pieces.len());
                pieces.concat()
            }
        };
        assert!(!bytes.is_empty(), "{token:?}: empty batch send");
        bytes
    }

    fn expect_op(&self, token: Token, op: Op) {
        assert!(token.op() == op, "{token:?} is no token for {op:?}");
        let slots = self.slots.len();
        assert!((token.index() as usize) < slots, "{token:?}: slot out of range, there are {slots}");
    }

    pub(super) fn slot(&mut self, token: Token) -> &mut Slot {
        &mut self.slots[token.index() as usize]
    }

    fn open_slot(&mut self, token: Token, what: &str) -> &mut Slot {
        let slot = self.own_slot(token, what);
        assert!(slot.stage == Stage::Open, "{token:?}: {what} before the connection is made");
        slot
    }

    /// A slot with a descriptor, be it that its connection is still being made.
    fn own_slot(&mut self, token: Token, what: &str) -> &mut Slot {
        let slot = self.slot(token);
        assert!(
            matches!(slot.stage, Stage::Open | Stage::Connecting),
            "{token:?}: {what} on a closed slot ({:?})",
            slot.stage
        );
        assert!(
            token.is_of_generation(slot.generation),
            "{token:?}: {what} with a generation that is not the slot's own, {}",
            slot.generation
        );
        slot
    }

    // A turn, and what comes of it.

    /// The rules that bind the core at the start of each turn.
    pub(super) fn begin_turn(&mut self) {
        if let Some(extent) = self.buffers.lent_before((self.turn + 1).saturating_sub(RECYCLED_WITHIN_TURNS)) {
            panic!("{extent:?} was not recycled within {RECYCLED_WITHIN_TURNS} turns");
        }
        for (index, slot) in self.slots.iter_mut().enumerate() {
            assert!(!slot.received_untaken, "slot {index}: the buffer of a completed recv_into was not taken");
            slot.peer_known = false;
        }
        self.parked_until = None;
        self.turn += 1;
    }

    pub(super) fn post(&mut self, token: Token, result: Result<u32, i32>) {
        self.post_completion(Completion { token, result, filled: None, more: false });
    }

    pub(super) fn post_completion(&mut self, completion: Completion) {
        self.short_sends += usize::from(completion.token.op() == Op::SendNow);
        self.completions.push_back(completion);
    }

    /// Lets the core see what was posted, unless the queue overflows.
    pub(super) fn publish(&mut self, net: &mut Net) {
        if self.hidden_turns > 0 {
            self.hidden_turns -= 1;
        } else if self.completions.len() > self.visible && net.hit(Fault::CqOverflow) {
            self.hidden_turns = 1 + net.rng.below(4) as u32;
        }
        if self.short_sends > 0 {
            // The ring promises these with the turn, so it must have fetched what came before them too.
            self.hidden_turns = 0;
            self.visible = self.completions.len();
        } else if self.hidden_turns == 0 {
            self.visible = self.completions.len().min(self.options.cq_entries as usize);
        }
    }

    pub(super) fn park(&mut self, wait: Wait, net: &mut Net) {
        self.parked_until = match wait {
            _ if !self.completions.is_empty() => None,
            Wait::No => None,
            Wait::Forever => Some(Nanos::MAX),
            Wait::Until(deadline) => (deadline > net.now).then_some(deadline),
        };
        if self.parked_until.is_some() && net.hit(Fault::SpuriousWake) {
            self.parked_until = None;
        }
    }

    pub(super) fn take_completion(&mut self, net: &mut Net) -> Option<Completion> {
        if self.visible == 0 {
            return None;
        }
        self.visible -= 1;
        let completion = self.completions.pop_front()?;
        let Completion { token, result, filled, more } = &completion;
        let (token, result, more) = (*token, *result, *more);
        net.record(token.user_data());
        net.record(result.map_or_else(|errno| 1 << 32 | errno as u64, u64::from) << 2 | u64::from(more));
        if let Some(filled) = filled {
            let extent = filled.0;
            net.record(u64::from(extent.buffer) << 48 | u64::from(extent.offset) << 24 | u64::from(extent.len));
            self.buffers.lend(filled, self.turn);
        }
        if token.op() != Op::Doorbell {
            self.reaped(token, result.is_ok(), more);
        }
        Some(completion)
    }

    /// The core knows now that an operation ended.
    fn reaped(&mut self, token: Token, ok: bool, more: bool) {
        let short_sends = &mut self.short_sends;
        let slot = &mut self.slots[token.index() as usize];
        match token.op() {
            Op::Accept => {
                slot.stage = if ok { Stage::Open } else { Stage::Free };
                slot.peer_known = ok;
            }
            Op::Connect => {
                slot.connect = Flight::No;
                if slot.stage == Stage::Connecting {
                    slot.stage = Stage::Open;
                }
            }
            Op::Recv if more => {}
            Op::Recv => slot.recv = Flight::No,
            Op::RecvInto => {
                slot.recv_into = Flight::No;
                slot.received_untaken = true;
            }
            Op::Send => slot.send = Flight::No,
            Op::SendNow => {
                slot.send_now = false;
                *short_sends -= 1;
            }
            Op::Close => slot.stage = Stage::Free,
            Op::Cancel | Op::Doorbell => unreachable!("no completion of a slot"),
        }
    }

    pub(super) fn await_batch_result(&mut self, token: Token) {
        self.slot(token).send_now = true;
    }

    pub(super) fn take_received(&mut self, token: Token) -> Vec<u8> {
        self.expect_op(token, Op::RecvInto);
        let slot = self.slot(token);
        assert!(slot.received_untaken, "{token:?}: take_received twice, or before its completion");
        slot.received_untaken = false;
        slot.received.take().expect("a completed recv_into left its buffer")
    }

    pub(super) fn peer(&self, index: u32) -> Peer {
        let slot = &self.slots[index as usize];
        assert!(slot.peer_known, "slot {index}: peer asked for outside the tick of the accept's completion");
        slot.peer
    }

    /// What keeps the core from being at rest; `None` if nothing does.
    pub(super) fn unrest(&self) -> Option<String> {
        let mut what = Vec::new();
        if !self.queue.is_empty() {
            what.push(format!("{} operations queued and not submitted", self.queue.len()));
        }
        if !self.completions.is_empty() {
            what.push(format!("completions not taken: {:?}", self.completions));
        }
        if let Some(extent) = self.buffers.any_out() {
            what.push(format!("a buffer that was not given back: {extent:?}"));
        }
        for (index, slot) in self.slots.iter().enumerate() {
            if slot.stage != Stage::Free || slot.socket.is_some() {
                what.push(format!("slot {index} is {:?}", slot.stage));
            }
            if let Some(flying) = slot.in_flight() {
                what.push(format!("slot {index} has in flight: {flying}"));
            }
        }
        (!what.is_empty()).then(|| what.join("; "))
    }
}
