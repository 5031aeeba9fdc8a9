//! The routes of a core's connections, by what they are called on every core.

use std::panic::Location;
use std::sync::Arc;

use smallvec::SmallVec;

use super::CoreHub;

/// What a route is called in the whole process. Its number is a core's own: cores may meet routes that HTTP handlers
/// upgrade to in any order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RouteName {
    /// Its path, or that of the HTTP route whose handler upgrades to it.
    pub path: Arc<str>,
    /// Where such a handler's route was made, which tells apart several at one path.
    pub made_at: Option<&'static Location<'static>>,
}

/// Which names are meant, by their index.
pub(super) type Wanted = SmallVec<[bool; 32]>;

/// The names of a core's routes. Each is kept for good: there are no more than paths and places in the source.
#[derive(Default)]
pub(super) struct RouteNames {
    names: Vec<RouteName>,
    /// The index of each number's name.
    indices: Vec<Option<u32>>,
    /// How many connections each number has.
    open: Vec<u32>,
}

impl RouteNames {
    pub(super) fn set(&mut self, route: u16, name: RouteName) {
        let known = self.names.iter().position(|known| *known == name);
        let index = known.unwrap_or_else(|| {
            self.names.push(name);
            self.names.len() - 1
        });
        let route = usize::from(route);
        if self.indices.len() <= route {
            self.indices.resize(route + 1, None);
        }
        self.indices[route] = Some(index as u32);
    }

    /// One more connection has come by this number.
    pub(super) fn open(&mut self, route: u16) {
        let route = usize::from(route);
        if self.open.len() <= route {
            self.open.resize(route + 1, 0);
        }
        self.open[route] += 1;
    }

    /// One of them has ended.
    pub(super) fn close(&mut self, route: u16) {
        self.open[usize::from(route)] -= 1;
    }

    /// Connections of all numbers.
    pub(super) fn count(&self) -> usize {
        self.open.iter().map(|count| *count as usize).sum()
    }

    fn index(&self, route: u16) -> Option<usize> {
        self.indices.get(usize::from(route)).copied().flatten().map(|index| index as usize)
    }

    pub(super) fn name(&self, route: u16) -> Option<&RouteName> {
        Some(&self.names[self.index(route)?])
    }

    /// The names for which `is_meant` holds; `None` if there are none.
    pub(super) fn wanted(&self, is_meant: impl Fn(&RouteName) -> bool) -> Option<Wanted> {
        let wanted: Wanted = self.names.iter().map(is_meant).collect();
        wanted.contains(&true).then_some(wanted)
    }

    #[inline]
    pub(super) fn is_wanted(&self, route: u16, wanted: &Wanted) -> bool {
        self.index(route).is_some_and(|index| wanted[index])
    }
}

impl CoreHub {
    /// The paths of the routes, by number.
    pub(crate) fn set_route_paths(&mut self, paths: impl Iterator<Item = Arc<str>>) {
        for (route, path) in paths.enumerate() {
            self.name_route(route as u16, RouteName { path, made_at: None });
        }
    }

    /// How many connections of this core have come by each path that any has come by.
    pub(crate) fn counts_by_path(&self) -> Vec<(Arc<str>, usize)> {
        let counted = self.routes.open.iter().enumerate().filter(|(_, count)| **count > 0);
        let name = |route: usize| self.routes.name(route as u16).cloned().unwrap_or_default();
        counted.map(|(route, count)| (name(route).path, *count as usize)).collect()
    }

    /// What a number stands for from now on: no connection has it by an earlier name.
    pub(crate) fn name_route(&mut self, route: u16, name: RouteName) {
        self.routes.set(route, name);
    }

    /// What a connection's route is called; the default if the service does not name its routes.
    pub(crate) fn route_name(&self, slot: u32) -> RouteName {
        self.routes.name(self.route(slot)).cloned().unwrap_or_default()
    }

    /// The path of a connection's route; empty if the service does not name its routes.
    pub fn route_path(&self, slot: u32) -> Arc<str> {
        self.route_name(slot).path
    }
}
