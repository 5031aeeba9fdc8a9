//! What an app was given to hand out, by type: one value of each.

use std::any::{Any, TypeId, type_name};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use crate::guard::Guarded;

/// Values that all cores share: an `Arc` of each type.
#[derive(Clone, Default)]
pub(crate) struct SharedValues(HashMap<TypeId, Arc<dyn Any + Send + Sync>>);

impl SharedValues {
    pub(crate) fn insert<T: Send + Sync + 'static>(&mut self, value: Arc<T>) {
        let former = self.0.insert(TypeId::of::<T>(), Arc::new(Guarded::new(value)));
        assert!(former.is_none(), "the app has a state of the type {} already", type_name::<T>());
    }

    /// Takes in what a nested app has; where both have a value of one type, this one's stays.
    pub(crate) fn merge(&mut self, inner: SharedValues) {
        for (key, value) in inner.0 {
            self.0.entry(key).or_insert(value);
        }
    }

    /// # Panics
    /// If there is none of the type.
    #[track_caller]
    pub(crate) fn get<T: Send + Sync + 'static>(&self) -> &Arc<T> {
        let found = self.0.get(&TypeId::of::<T>()).and_then(|value| value.downcast_ref::<Guarded<Arc<T>>>());
        let name = type_name::<T>();
        found.unwrap_or_else(|| panic!("no state of the type {name}: Server::run_with or App::with_state gives one"))
    }
}

/// A core's own values.
#[derive(Default)]
pub(crate) struct CoreValues(HashMap<TypeId, Box<dyn Any>>);

impl CoreValues {
    pub(crate) fn insert<T: 'static>(&mut self, value: T) {
        let former = self.0.insert(TypeId::of::<T>(), Box::new(Guarded::new(Rc::new(value))));
        assert!(former.is_none(), "the app has a core's state of the type {} already", type_name::<T>());
    }

    /// Takes in what a nested app has; where both have a value of one type, this one's stays.
    pub(crate) fn merge(&mut self, inner: CoreValues) {
        for (key, value) in inner.0 {
            self.0.entry(key).or_insert(value);
        }
    }

    /// # Panics
    /// If there is none of the type.
    #[track_caller]
    pub(crate) fn get<T: 'static>(&self) -> &Rc<T> {
        let found = self.0.get(&TypeId::of::<T>()).and_then(|value| value.downcast_ref::<Guarded<Rc<T>>>());
        let name = type_name::<T>();
        found.unwrap_or_else(|| panic!("no state of a core of the type {name}: App::with_core_state gives one"))
    }
}
