//! What a service manager hears of the program where it asks for that, as sd_notify(3) says: that it accepts connections, that it
//! drains, and how long that may take.
//!
//! One datagram each, to the socket that `NOTIFY_SOCKET` names: a path, or `@` and an abstract name.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// After all of its time a server waits so long for cores that do not end.
const END_GRACE: Duration = Duration::from_secs(10);

/// The service manager, if it wants to be told.
#[derive(Clone, Debug)]
pub(super) struct ServiceManager {
    socket: Option<OsString>,
}

impl ServiceManager {
    pub(super) fn of_this_process() -> ServiceManager {
        ServiceManager { socket: std::env::var_os("NOTIFY_SOCKET").filter(|socket| !socket.is_empty()) }
    }

    pub(super) fn wants_to_know(&self) -> bool {
        self.socket.is_some()
    }

    /// It accepts connections; `status` is for people, one line.
    pub(super) fn ready(&self, status: &str) {
        let status: String = status.chars().map(|it| if it.is_control() { ' ' } else { it }).collect();
        self.tell(&format!("READY=1\nSTATUS={status}"));
    }

    /// It ends, and has so much time for that, whatever the manager grants by itself. Never waits.
    pub(super) fn stopping(&self, time: Duration) {
        let time_us = time.saturating_add(END_GRACE).as_micros();
        self.tell(&format!("STOPPING=1\nSTATUS=draining\nEXTEND_TIMEOUT_USEC={time_us}"));
    }

    fn tell(&self, state: &str) {
        let Some(socket) = &self.socket else { return };
        if let Err(error) = send(socket, state) {
            tracing::warn!(%error, "the service manager could not be told");
        }
    }
}

fn send(socket: &OsStr, state: &str) -> io::Result<()> {
    let address = match socket.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(socket)?,
    };
    let sender = UnixDatagram::unbound()?;
    // A core says it is stopping: it must not stand still until a manager that is behind has read what came before.
    sender.set_nonblocking(true)?;
    sender.send_to_addr(state.as_bytes(), &address)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn received(socket: &UnixDatagram) -> String {
        let mut buffer = [0; 4096];
        let len = socket.recv(&mut buffer).expect("a datagram");
        String::from_utf8(buffer[..len].to_vec()).expect("UTF-8")
    }

    #[test]
    fn states_go_to_the_socket_that_is_named() {
        let name = format!("ringwire-notify-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).expect("a name");
        let socket = UnixDatagram::bind_addr(&address).expect("a socket");
        let manager = ServiceManager { socket: Some(format!("@{name}").into()) };
        assert!(manager.wants_to_know());
        manager.ready("on unix:/a\nMAINPID=1");
        assert_eq!(received(&socket), "READY=1\nSTATUS=on unix:/a MAINPID=1");
        manager.stopping(Duration::from_secs(12));
        assert_eq!(received(&socket), "STOPPING=1\nSTATUS=draining\nEXTEND_TIMEOUT_USEC=22000000");
    }

    #[test]
    fn a_manager_that_is_gone_is_no_failure() {
        let manager = ServiceManager { socket: Some("/nowhere/at/all".into()) };
        manager.ready("here");
        assert!(send(OsStr::new("/nowhere/at/all"), "READY=1").is_err());
        ServiceManager { socket: None }.ready("to nobody");
    }
}
