//! See [`peers::raw_session`].

use std::process::ExitCode;

fn main() -> ExitCode {
    peers::runner::end(peers::raw_session::serve(std::env::args()))
}
