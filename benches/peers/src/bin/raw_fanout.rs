//! See [`peers::raw_fanout`].

use std::process::ExitCode;

fn main() -> ExitCode {
    peers::runner::end(peers::raw_fanout::serve(std::env::args()))
}
