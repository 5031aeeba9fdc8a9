//! The client without its thread, for simulations, which run its driver themselves.

use std::sync::Arc;

use super::connect::Connect;
use super::reconnect::Reconnecting;

pub use super::driver::Driver;
pub use super::letter::{Courier, Letters};
pub use super::resolve::{Found, Resolve};

/// Has a connection driven by another driver than that of the process's client thread.
pub fn through(connect: Connect, courier: &Arc<Courier>) -> Connect {
    connect.through(courier)
}

/// The same, with its waiting on that driver's clock.
pub fn reconnecting_through(reconnecting: Reconnecting, courier: &Arc<Courier>) -> Reconnecting {
    reconnecting.through(courier)
}
