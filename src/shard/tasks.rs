//! What runs beside handlers: the hub is lent to it for that long, and what it has asked of the shard is done afterwards.

use super::Shard;
use crate::engine::Ring;
use crate::hub::CoreHub;
use crate::shard::service::{Answer, Service};

/// Requests of one connection that are handled in one tick: each that waits for the one before it is handed in as soon as
/// that is answered, and what they are answered leaves in one send.
const REQUESTS_PER_TICK: usize = 64;
/// No further ones when the tick has taken so long: those of many connections would keep everybody else waiting.
const REQUESTS_NS_PER_TICK: u64 = 1_000_000;

/// What it takes to lend the hub, and what comes of it.
pub(super) struct Tasks {
    /// Stands in for the hub while that is lent.
    stand_in: Option<Box<CoreHub>>,
    /// Answers to requests, each with the slot and generation of its request.
    answers: Vec<(u32, u32, Answer)>,
}

impl Tasks {
    /// Of a core with that number.
    pub(super) fn new(core: usize) -> Tasks {
        Tasks { stand_in: Some(Box::new(CoreHub::stand_in(core))), answers: Vec::new() }
    }
}

impl<R: Ring, S: Service> Shard<R, S> {
    /// When a task is to run next, if nothing else happens.
    pub(super) fn next_task_ms(&self) -> Option<u64> {
        self.service.next_due_ns().map(|due_ns| due_ns.div_ceil(1_000_000))
    }

    /// Runs the service's tasks, and does what they ask of the shard; again, as long as what they have answered has let in
    /// more requests.
    pub(super) fn run_tasks(&mut self) {
        let until_ns = self.clock.now_ns + REQUESTS_NS_PER_TICK;
        for _ in 0..REQUESTS_PER_TICK {
            if !self.run_tasks_once() || self.ring.now() >= until_ns {
                break;
            }
        }
        self.resume_released();
    }

    /// Whether anything was answered.
    fn run_tasks_once(&mut self) -> bool {
        let is_due = self.service.next_due_ns().is_some_and(|due_ns| due_ns <= self.clock.now_ns);
        if is_due || self.service.is_ready() {
            let stand_in = self.tasks.stand_in.take().expect("it is here while the hub is");
            let mut lent = Some(std::mem::replace(&mut self.hub, stand_in));
            self.service.run_tasks(&mut lent);
            let hub = lent.expect("the hub is given back");
            self.tasks.stand_in = Some(std::mem::replace(&mut self.hub, hub));
        }
        let mut answers = std::mem::take(&mut self.tasks.answers);
        self.service.take_answers(&mut answers);
        let is_answered = !answers.is_empty();
        for (slot, generation, answer) in answers.drain(..) {
            self.answer(slot, generation, answer);
        }
        self.tasks.answers = answers;
        is_answered
    }
}
