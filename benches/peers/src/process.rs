//! Listener, resource limits and signals of a comparison program.

use std::{
    io::{self, Write},
    net::{SocketAddr, TcpListener},
};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use socket2::{Domain, Socket, Type};

/// Raises the soft limit on open files to the hard limit and returns it.
pub fn raise_nofile() -> io::Result<u64> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    Ok(hard)
}

/// Binds and listens with TCP_NODELAY, which accepted sockets inherit.
pub fn listen(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_tcp_nodelay(true)?;
    socket.bind(&addr.into())?;
    socket.listen(4096)?;
    Ok(socket.into())
}

/// Prints the ready line that runners wait for.
pub fn announce(listener: &TcpListener) -> io::Result<()> {
    println!("listening on {}", listener.local_addr()?);
    io::stdout().flush()
}

/// Makes SIGTERM and SIGINT end the process with exit code 0.
pub fn exit_on_signals() {
    extern "C" fn exit(_signal: libc::c_int) {
        // SAFETY: `_exit` is on the list of async-signal-safe functions (signal-safety(7)) and takes no pointer.
        unsafe { libc::_exit(0) }
    }
    let handler: extern "C" fn(libc::c_int) = exit;
    for signal in [libc::SIGTERM, libc::SIGINT] {
        // SAFETY: `handler` has the signature `signal` asks for, lives for the whole process, and calls only `_exit`.
        unsafe { libc::signal(signal, handler as libc::sighandler_t) };
    }
}
