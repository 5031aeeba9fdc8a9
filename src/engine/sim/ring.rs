//! The ring of one core.

use std::io;
use std::os::fd::OwnedFd;

use bytes::Bytes;
use socket2::SockAddr;

use super::faults::Fault;
use super::net::Net;
use super::options::RingOptions;
use super::rules::{Core, Queued};
use super::world::World;
use crate::engine::{self, BatchSend, Completion, Filled, Nanos, Peer, RingStats, Token, Wait};

/// What the bytes of a buffer read as while they are nobody's.
pub(super) const POISON: u8 = 0xdd;

/// A core's ring in a simulated [`World`].
#[derive(Debug)]
pub struct Ring {
    world: World,
    core: usize,
    /// The provided buffers, one after the other.
    memory: Vec<u8>,
    stats: RingStats,
}

impl World {
    /// The ring of core number `core`.
    ///
    /// # Panics
    /// If that core has a ring.
    pub fn ring(&self, core: usize, options: RingOptions) -> Ring {
        let mut inner = self.inner.borrow_mut();
        if inner.cores.len() <= core {
            inner.cores.resize_with(core + 1, || None);
        }
        assert!(inner.cores[core].is_none(), "core {core} has a ring");
        let memory = vec![POISON; options.buffers as usize * options.buffer_bytes as usize];
        let made = Core::new(core, options);
        made.share_listeners(&mut inner.net);
        inner.cores[core] = Some(made);
        Ring::new(self.clone(), core, memory)
    }
}

impl Ring {
    pub(super) fn new(world: World, core: usize, memory: Vec<u8>) -> Ring {
        Ring { world, core, memory, stats: RingStats::default() }
    }

    /// The world that the ring is in.
    pub fn world(&self) -> &World {
        &self.world
    }

    /// [`World::parked_until`] of this core.
    pub fn parked_until(&self) -> Option<Nanos> {
        self.world.parked_until(self.core)
    }

    fn with<T>(&self, f: impl FnOnce(&mut Core, &mut Net) -> T) -> T {
        let mut inner = self.world.inner.borrow_mut();
        let (core, net) = inner.core(self.core);
        f(core, net)
    }

    /// Queues an operation, and submits where the queue is full or chance has it so.
    fn queue(&mut self, f: impl FnOnce(&mut Core)) {
        let submit = self.with(|core, net| {
            f(core);
            core.queue.len() >= core.options.sq_entries as usize || net.hit(Fault::EarlySubmit)
        });
        if submit {
            self.submit();
            self.with(|core, net| core.publish(net));
        }
    }

    fn submit(&mut self) {
        let mut inner = self.world.inner.borrow_mut();
        let (core, net) = inner.core(self.core);
        core.execute(net);
        core.progress(net, &mut self.memory);
        inner.deliver_doorbells(self.core);
    }
}

impl engine::Ring for Ring {
    fn now(&self) -> Nanos {
        self.world.now()
    }

    /// The world begins at the moment that RFC 9110 5.6.7 gives as an example.
    fn unix_ns(&self) -> u64 {
        784_111_777_000_000_000 + self.world.now()
    }

    fn stats(&self) -> RingStats {
        self.stats
    }

    fn slots(&self) -> u32 {
        self.with(|core, _| core.options.slots)
    }

    fn accept(&mut self, listener: u32, token: Token) {
        self.queue(|core| core.queue_accept(listener, token));
    }

    fn turn_away(&mut self) {
        self.with(Core::turn_away);
    }

    fn stop_accepting(&mut self, listener: u32) {
        self.queue(|core| core.queue_stop_accepting(listener));
    }

    fn peer(&self, slot: u32) -> Peer {
        self.with(|core, _| core.peer(slot))
    }

    fn recv_at_most(&mut self, token: Token, bytes_max: u32) {
        self.queue(|core| core.queue_recv(token, bytes_max));
    }

    fn bounds_receives(&self) -> bool {
        self.with(|core, _| core.options.bounds_receives)
    }

    /// The descriptor only shows that its maker has one: it is closed at once.
    fn connect(&mut self, token: Token, _socket: OwnedFd, address: SockAddr) -> io::Result<()> {
        if self.with(|_, net| net.hit(Fault::NoDescriptor)) {
            return Err(io::Error::from_raw_os_error(libc::EMFILE));
        }
        self.queue(|core| core.queue_connect(token, address.as_socket()));
        Ok(())
    }

    fn recv_into(&mut self, token: Token, buffer: Vec<u8>, len_max: usize) {
        self.queue(|core| core.queue_recv_into(token, buffer, len_max, true));
    }

    fn recv_into_now(&mut self, token: Token, buffer: Vec<u8>, len_max: usize) {
        self.queue(|core| core.queue_recv_into(token, buffer, len_max, false));
    }

    fn take_received(&mut self, token: Token) -> Vec<u8> {
        self.with(|core, _| core.take_received(token))
    }

    fn send(&mut self, token: Token, data: Bytes) {
        self.queue(|core| core.queue_send(token, data));
    }

    fn cancel_recv(&mut self, token: Token) {
        self.queue(|core| core.queue_cancel_recv(token));
    }

    fn cancel(&mut self, token: Token) {
        self.queue(|core| core.queue_cancel(token));
    }

    fn close(&mut self, token: Token) {
        self.queue(|core| core.queue_close(token));
    }

    fn ring_doorbell(&mut self, core: usize) {
        self.queue(|ringer| ringer.queue.push_back(Queued::Doorbell(core)));
    }

    fn turn<'a>(&mut self, batch: impl Iterator<Item = BatchSend<'a>>, wait: Wait) -> std::io::Result<()> {
        self.stats.enters += 1;
        self.with(|core, net| {
            core.begin_turn();
            core.execute(net);
        });
        for send in batch {
            self.with(|core, net| core.send_now(&send, net));
        }
        self.submit();
        self.with(|core, net| {
            core.publish(net);
            core.park(wait, net);
        });
        Ok(())
    }

    fn completion(&mut self) -> Option<Completion> {
        let completion = self.with(|core, net| core.take_completion(net));
        self.stats.completions += u64::from(completion.is_some());
        completion
    }

    fn buffer(&mut self, filled: &Filled) -> &mut [u8] {
        let range = self.with(|core, _| {
            core.buffers.assert_lent(filled);
            core.buffers.range(filled)
        });
        &mut self.memory[range]
    }

    fn recycle(&mut self, filled: Filled) {
        let range = self.with(|core, _| {
            core.buffers.recycle(&filled);
            core.buffers.range(&filled)
        });
        self.memory[range].fill(POISON);
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // After a panic inside the world it stays borrowed: then there is nothing worth tidying.
        if let Ok(mut inner) = self.world.inner.try_borrow_mut() {
            let (core, net) = inner.core(self.core);
            core.tear_down(net);
        }
    }
}
