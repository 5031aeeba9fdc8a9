//! Comparison of WebSocket servers: `peers compare` runs each of them and ringwire in turn and prints one table;
//! `peers serve NAME` is one of them.

mod compare;
mod foreign;
mod servers;
mod table;

use std::{net::SocketAddr, process::ExitCode};

use clap::{Parser, Subcommand, builder::PossibleValuesParser};
use peers::{
    raw_echo, raw_fanout, raw_session,
    runner::{Outcome, end},
};

use crate::servers::Mode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Measures WebSocket servers side by side.
#[derive(Parser)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs all servers in turn and prints one table.
    Compare(compare::Args),
    /// Serves until it is stopped, with one of the libraries.
    Serve {
        /// Which.
        #[arg(value_parser = PossibleValuesParser::new(servers::ALL.map(|server| server.0)))]
        name: String,
        /// Where.
        #[arg(long, default_value = "127.0.0.1:9100")]
        addr: SocketAddr,
        /// What is done with a message, whatever the path.
        #[arg(long, value_enum, default_value = "echo")]
        mode: Mode,
    },
    /// The bare echo server.
    #[command(disable_help_flag = true)]
    RawEcho {
        /// Its own options.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// The bare broadcast server.
    #[command(disable_help_flag = true)]
    RawFanout {
        /// Its own options.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// The bare server of whole sessions.
    #[command(disable_help_flag = true)]
    RawSession {
        /// Its own options.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
}

fn main() -> ExitCode {
    end(run())
}

fn run() -> Outcome<ExitCode> {
    let named = |name: &str, args: Vec<String>| std::iter::once(name.to_owned()).chain(args);
    match Args::parse().command {
        Command::Compare(args) => return compare::run(&args),
        Command::RawEcho { args } => raw_echo::serve(named("raw-echo", args))?,
        Command::RawFanout { args } => raw_fanout::serve(named("raw-fanout", args))?,
        Command::RawSession { args } => raw_session::serve(named("raw-session", args))?,
        Command::Serve { name, addr, mode } => {
            let (_, serve) =
                servers::ALL.iter().find(|server| server.0 == name).expect("the command line allows no other");
            serve(addr, mode)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
