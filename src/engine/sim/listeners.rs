//! Listeners: who waits in their queues, and which accept takes whom.
//!
//! A listener is one core's own, or of all cores whose rings share it. Of a shared one, as of the kernel's, each connection that
//! comes wakes one accept, that which has waited longest, and no other, whatever its core does meanwhile. An accept that is
//! submitted while somebody is in the queue takes them at once, be it that others were woken for them: an accept that was woken
//! and finds nobody waits again. And one that is cancelled after it was woken wakes nobody in its stead.

use std::collections::VecDeque;

use crate::engine::{Nanos, Token};

use super::faults::Fault;
use super::net::{Net, Shared};
use super::rules::{Core, Listener};
use super::world::Inner;

impl Shared {
    /// Whether it takes new connections.
    pub(super) fn is_open(&self) -> bool {
        self.holders > 0 && !self.turns_away
    }
}

/// Puts a connection into a queue in order of arrival, however late each shows.
pub(super) fn enqueue(pending: &mut VecDeque<(usize, Nanos)>, socket: usize, at: Nanos) {
    let at = pending.back().map_or(at, |&(_, before)| at.max(before));
    pending.push_back((socket, at));
}

impl Inner {
    /// Wakes an accept for each connection that shows by now.
    pub(super) fn wake_accepts(&mut self) {
        let now = self.net.now;
        for (number, shared) in self.net.shared.iter_mut().enumerate() {
            while shared.pending.get(shared.shown).is_some_and(|&(_, at)| at <= now) {
                shared.shown += 1;
                if let Some((core, token)) = shared.waiters.pop_front() {
                    let core = self.cores[core].as_mut().expect("a core that accepts");
                    core.listeners[number].armed.push_back(token);
                }
            }
        }
    }
}

impl Core {
    fn is_shared(&self, listener: usize) -> bool {
        listener < self.options.shared_listeners as usize
    }

    /// Opens the listeners that it shares.
    pub(super) fn share_listeners(&self, net: &mut Net) {
        let count = self.options.shared_listeners as usize;
        assert!(count <= self.listeners.len(), "{count} of {} listeners are shared", self.listeners.len());
        if net.shared.len() < count {
            net.shared.resize_with(count, Shared::default);
        }
        net.shared[..count].iter_mut().for_each(|shared| shared.holders += 1);
    }

    pub(super) fn turn_away(&mut self, net: &mut Net) {
        self.listeners.iter_mut().for_each(|listener| listener.open = false);
        net.shared[..self.options.shared_listeners as usize].iter_mut().for_each(|shared| shared.turns_away = true);
    }

    pub(super) fn execute_accept(&mut self, listener: usize, token: Token, net: &mut Net) {
        self.listeners[listener].armed.push_back(token);
        if self.is_shared(listener) {
            self.accept_pending(net);
        }
    }

    pub(super) fn execute_stop_accepting(&mut self, number: usize, net: &mut Net) {
        let mut ended: Vec<Token> = Vec::new();
        if self.is_shared(number) {
            ended.extend(self.listeners[number].armed.drain(..));
            let waiters = net.shared[number].waiters.iter();
            ended.extend(waiters.filter(|(core, _)| *core == self.number).map(|(_, token)| *token));
        }
        // What came first is still accepted.
        self.accept_pending(net);
        self.close_listener(number, net);
        ended.extend(self.listeners[number].armed.drain(..));
        for token in ended {
            self.post(token, Err(libc::ECANCELED));
        }
    }

    pub(super) fn close_listeners(&mut self, net: &mut Net) {
        (0..self.listeners.len()).for_each(|number| self.close_listener(number, net));
    }

    /// Whoever is not accepted sees a reset, unless others accept of the same listener.
    fn close_listener(&mut self, number: usize, net: &mut Net) {
        let is_shared = self.is_shared(number);
        let listener = &mut self.listeners[number];
        listener.open = false;
        if std::mem::replace(&mut listener.closed, true) {
            return;
        }
        let mut left = std::mem::take(&mut listener.pending);
        if is_shared {
            listener.armed.clear();
            let shared = &mut net.shared[number];
            shared.waiters.retain(|(core, _)| *core != self.number);
            shared.holders -= 1;
            if shared.holders == 0 {
                shared.shown = 0;
                left = std::mem::take(&mut shared.pending);
            }
        }
        for (socket, _) in left {
            net.sockets[socket].break_both();
            net.sockets[socket].released = true;
        }
    }

    pub(super) fn accept_pending(&mut self, net: &mut Net) {
        for number in 0..self.listeners.len() {
            while let Some(token) = self.next_accept(number, net) {
                if net.hit(Fault::AcceptError) {
                    let errno = net.rng.pick(&[libc::EMFILE, libc::ENFILE, libc::ENOMEM]);
                    self.post(token, Err(errno));
                    continue;
                }
                let socket = self.next_pending(number, net);
                if net.hit(Fault::AcceptAborted) {
                    net.sockets[socket].break_both();
                    net.sockets[socket].released = true;
                    self.post(token, Err(libc::ECONNABORTED));
                    continue;
                }
                net.sockets[socket].accepted = true;
                net.sockets[socket].accepted_by = Some(self.number);
                self.install(token, socket, net);
                self.post(token, Ok(0));
            }
        }
    }

    /// An accept for whom somebody is there. Where nobody is, those that were woken wait again.
    fn next_accept(&mut self, number: usize, net: &mut Net) -> Option<Token> {
        let is_shared = self.is_shared(number);
        let Listener { pending, armed, .. } = &mut self.listeners[number];
        let pending = if is_shared { &net.shared[number].pending } else { &*pending };
        if pending.front().is_none_or(|&(_, at)| at > net.now) {
            if is_shared {
                let core = self.number;
                net.shared[number].waiters.extend(armed.drain(..).map(|token| (core, token)));
            }
            return None;
        }
        if armed.is_empty() {
            return None;
        }
        let i = if net.hit(Fault::Reordered) { net.rng.between(0, armed.len() - 1) } else { 0 };
        armed.remove(i)
    }

    /// Takes who is first in the queue.
    fn next_pending(&mut self, number: usize, net: &mut Net) -> usize {
        let next = if self.is_shared(number) {
            let shared = &mut net.shared[number];
            shared.shown -= 1;
            shared.pending.pop_front()
        } else {
            self.listeners[number].pending.pop_front()
        };
        next.expect("a pending connection").0
    }

    /// When an accept takes somebody next, as far as is known now.
    pub(super) fn next_accepted(&self, net: &Net) -> Option<Nanos> {
        let armed = self.listeners.iter().enumerate().filter(|(_, listener)| !listener.armed.is_empty());
        let at = |(number, listener): (usize, &Listener)| match self.is_shared(number) {
            true => Some(net.now),
            false => listener.pending.front().map(|&(_, at)| at),
        };
        armed.filter_map(at).min()
    }
}
