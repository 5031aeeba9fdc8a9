//! What runs beside handlers: the hub is lent to it for that long, and what it has asked of the shard is done afterwards.

use super::Shard;
use crate::engine::Ring;
use crate::hub::CoreHub;
use crate::shard::service::{Answer, Service};

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

    /// Runs the service's tasks, and does what they ask of the shard.
    pub(super) fn run_tasks(&mut self) {
        let is_due = self.service.next_due_ns().is_some_and(|due_ns| due_ns <= self.clock.now_ns);
        if is_due || self.service.is_ready() {
            let stand_in = self.tasks.stand_in.take().expect("it is here while the hub is");
            let mut lent = Some(std::mem::replace(&mut self.hub, stand_in));
            self.service.run_tasks(&mut lent);
            let hub = lent.expect("the hub is given back");
            self.tasks.stand_in = Some(std::mem::replace(&mut self.hub, hub));
        }
        self.service.take_answers(&mut self.tasks.answers);
        for (slot, generation, answer) in std::mem::take(&mut self.tasks.answers) {
            self.answer(slot, generation, answer);
        }
        self.resume_released();
    }
}
