//! See [`peers::raw_echo`].

use std::process::ExitCode;

fn main() -> ExitCode {
    peers::runner::end(peers::raw_echo::serve(std::env::args()))
}
