//! The WebSocket routes of a core by number: those of the router, and those that HTTP handlers have upgraded to.
//!
//! A handler may make a new route for each upgrade, so the number of one lasts only as long as a request or a connection
//! holds it. What it is called on all cores is its [`RouteName`](crate::hub::RouteName).

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use crate::app::definition::Hooks;
use crate::app::ws::Route;

type Entry = (Rc<Route>, Rc<Hooks>);

pub(super) struct Routes {
    list: Vec<Option<Entry>>,
    /// How many hold each; the router's own are never let go.
    holders: Vec<u32>,
    /// Those that are held, by the addresses of route and hooks.
    numbers: HashMap<(usize, usize), u16>,
    free: Vec<u16>,
}

/// Keeps a route's number.
pub(super) struct HeldRoute {
    routes: Rc<RefCell<Routes>>,
    number: u16,
    path: Arc<str>,
}

impl Routes {
    /// Those of the router.
    pub(super) fn new(own: impl Iterator<Item = Entry>) -> Routes {
        let list: Vec<Option<Entry>> = own.map(Some).collect();
        Routes { holders: vec![1; list.len()], list, numbers: HashMap::new(), free: Vec::new() }
    }

    pub(super) fn at(&self, number: u16) -> &Entry {
        self.list[usize::from(number)].as_ref().expect("the route is held as long as it is used")
    }

    /// Holds a route that a handler upgrades to; `None` if there are too many.
    pub(super) fn hold(
        routes: &Rc<RefCell<Routes>>,
        route: &Rc<Route>,
        hooks: &Rc<Hooks>,
        path: Arc<str>,
    ) -> Option<HeldRoute> {
        let mut this = routes.borrow_mut();
        let key = key(route, hooks);
        let known = this.numbers.get(&key).copied();
        let number = known.or_else(|| this.free.pop()).or_else(|| u16::try_from(this.list.len()).ok())?;
        let index = usize::from(number);
        if index == this.list.len() {
            this.list.push(None);
            this.holders.push(0);
        }
        if known.is_none() {
            this.list[index] = Some((Rc::clone(route), Rc::clone(hooks)));
            this.numbers.insert(key, number);
        }
        this.holders[index] += 1;
        Some(HeldRoute { routes: Rc::clone(routes), number, path })
    }

    fn release(&mut self, number: u16) -> Option<Entry> {
        let index = usize::from(number);
        self.holders[index] -= 1;
        if self.holders[index] > 0 {
            return None;
        }
        let entry = self.list[index].take()?;
        self.numbers.remove(&key(&entry.0, &entry.1));
        self.free.push(number);
        Some(entry)
    }
}

fn key(route: &Rc<Route>, hooks: &Rc<Hooks>) -> (usize, usize) {
    (Rc::as_ptr(route).addr(), Rc::as_ptr(hooks).addr())
}

impl HeldRoute {
    pub(super) fn number(&self) -> u16 {
        self.number
    }

    /// The path of the HTTP route whose handler upgrades to it.
    pub(super) fn path(&self) -> Arc<str> {
        Arc::clone(&self.path)
    }
}

impl Drop for HeldRoute {
    fn drop(&mut self) {
        let entry = self.routes.borrow_mut().release(self.number);
        // With the borrow over: handlers own what users gave them.
        drop(entry);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::ws::ws;

    #[test]
    fn numbers_are_used_again_and_never_while_held() {
        let hooks = Rc::<Hooks>::default();
        let own = ws().0;
        let routes = Rc::new(RefCell::new(Routes::new([(own, Rc::clone(&hooks))].into_iter())));
        let shared = ws().0;
        let first = Routes::hold(&routes, &shared, &hooks, Arc::default()).unwrap();
        let second = Routes::hold(&routes, &shared, &hooks, Arc::default()).unwrap();
        assert_eq!((first.number(), second.number()), (1, 1));
        drop(first);
        for _ in 0..100_000 {
            let other = Routes::hold(&routes, &ws().0, &hooks, Arc::default()).unwrap();
            assert_eq!(other.number(), 2);
        }
        assert!(Rc::ptr_eq(&routes.borrow().at(1).0, &shared));
        drop(second);
        assert_eq!(routes.borrow().list.len(), 3);
        let held: Vec<HeldRoute> =
            std::iter::from_fn(|| Routes::hold(&routes, &ws().0, &hooks, Arc::default())).collect();
        assert_eq!(held.len(), usize::from(u16::MAX));
    }
}
