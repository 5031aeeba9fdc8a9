//! What a task has the core do with a connection's [`Socket`], behind whatever else the tasks of its tick do: as a handler
//! does it, by the rules of the connection's route.

use crate::app::context::CoreContext;
use crate::app::reply::BoxError;
use crate::app::socket::Socket;
use crate::hub::ConnectionId;

/// What is called; an error or a panic of it does what those of a handler do.
type OnSocket = Box<dyn FnOnce(&mut Socket<'_>) -> Result<(), BoxError>>;

/// A call, as the core's context holds it without knowing what it is.
pub(crate) struct Call(pub(crate) OnSocket);

/// Has a connection's core call this, unless the connection has ended by then.
pub(crate) fn call(
    core: &CoreContext,
    id: ConnectionId,
    call: impl FnOnce(&mut Socket<'_>) -> Result<(), BoxError> + 'static,
) {
    core.calls.borrow_mut().push((id, Box::new(Call(Box::new(call)))));
}
