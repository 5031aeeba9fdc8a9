//! The stand-alone program: arguments to settings, settings to a server.

#![deny(unsafe_code)]

mod allocator;
mod cli;

fn main() -> std::process::ExitCode {
    allocator::refuse_huge_pages();
    cli::main()
}
