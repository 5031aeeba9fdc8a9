//! The command line: flags made from the table of settings, logging, subcommands.

use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Arg, ArgMatches, Command};
use ringwire::config::{Allowed, Config, SETTINGS, Setting};
use ringwire::error::{ConfigError, Error, Result, exit};
use ringwire::program::{check, standalone};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Task {
    Serve,
    Check,
    Config,
}

/// Does what the command line and the environment say; the whole program.
pub(crate) fn main() -> ExitCode {
    let (task, config) = match read_command_line() {
        Ok(read) => read,
        Err(Stop::Error(error)) => return fail(&error),
        Err(Stop::Clap(error)) => {
            let _ = error.print();
            return match error.kind() {
                ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => ExitCode::SUCCESS,
                _ => ExitCode::from(exit::USAGE),
            };
        }
    };
    let done = match task {
        Task::Serve => start_logging(&config).and_then(|()| serve(config)),
        Task::Check => {
            let report = check::check(&config);
            print(&report.to_string()).map(|()| ExitCode::from(report.exit_code()))
        }
        Task::Config => print(&config.to_lines()).map(|()| ExitCode::SUCCESS),
    };
    done.unwrap_or_else(|error| fail(&error))
}

fn fail(error: &Error) -> ExitCode {
    // Standard error may be gone, and there is nobody else to tell.
    let _ = writeln!(io::stderr(), "ringwire: {error}");
    ExitCode::from(error.exit_code())
}

fn print(text: &str) -> Result<()> {
    let mut output = io::stdout().lock();
    match output.write_all(text.as_bytes()).and_then(|()| output.flush()) {
        // `ringwire config | head -1` is no failure.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result.map_err(Error::io("standard output")),
    }
}

fn serve(config: Config) -> Result<ExitCode> {
    check::require(&config)?;
    standalone::run(config, crate::allocator::release)?;
    Ok(ExitCode::SUCCESS)
}

/// Why there is nothing to do.
#[derive(Debug)]
enum Stop {
    Clap(clap::Error),
    Error(Error),
}

impl From<clap::Error> for Stop {
    fn from(error: clap::Error) -> Stop {
        Stop::Clap(error)
    }
}

impl From<ConfigError> for Stop {
    fn from(error: ConfigError) -> Stop {
        Stop::Error(Error::Config(error))
    }
}

fn read_command_line() -> Result<(Task, Config), Stop> {
    let matches = command().try_get_matches()?;
    let task = match matches.subcommand_name() {
        Some("check") => Task::Check,
        Some("config") => Task::Config,
        _ => Task::Serve,
    };
    let flags = given_flags(&matches);
    let config =
        Config::from_sources(std::env::vars_os(), flags.iter().map(|(setting, value)| (*setting, value.as_str())))?;
    parse_filter(&config)?;
    Ok((task, config))
}

/// The flags of the command line. Flags before and after the subcommand count alike; the later one wins.
fn given_flags(matches: &ArgMatches) -> Vec<(&'static Setting, String)> {
    let levels = [Some(matches), matches.subcommand().map(|(_, matches)| matches)];
    let mut flags = Vec::new();
    for matches in levels.into_iter().flatten() {
        for setting in SETTINGS {
            let value = matches.get_one::<String>(setting.variable);
            flags.extend(value.map(|value| (setting, value.clone())));
        }
    }
    flags
}

fn command() -> Command {
    let with_settings = |command: Command| command.args(SETTINGS.iter().map(flag));
    let subcommands = [
        Command::new("serve").about("Serve (the default)"),
        Command::new("check")
            .about("Tell whether this machine can serve with these settings, and what to change where it cannot"),
        Command::new("config").about("Print the settings in effect as NAME=value lines that a shell can source"),
    ];
    with_settings(Command::new("ringwire"))
        .version(env!("CARGO_PKG_VERSION"))
        .about(
            "A thread-per-core WebSocket server on io_uring.\n\n\
             Every setting is an environment variable and a flag; the flag wins.",
        )
        .after_help(
            "Sizes are bytes or 64KiB, 16MiB, 1GiB; times are 50us, 250ms, 30s, 5m, 1h or 0.\n\
             Exit codes: 64 wrong usage, 69 address in use or no io_uring, 78 wrong setting.",
        )
        .subcommands(subcommands.map(with_settings))
}

fn flag(setting: &'static Setting) -> Arg {
    let zero = setting.allowed.zero().map(|meaning| format!("0 = {meaning}; "));
    // Numbers, sizes and times are known by the name that their value has.
    let allowed = match &setting.allowed {
        allowed @ (Allowed::Word(_) | Allowed::Text(..)) => Some(format!("allowed: {}; ", allowed.describe())),
        _ => None,
    };
    let help = format!(
        "{} [default: {}; {}{}]",
        sentence(setting.doc),
        setting.default,
        zero.or(allowed).unwrap_or_default(),
        setting.variable
    );
    Arg::new(setting.variable)
        .long(setting.flag())
        .value_name(setting.allowed.placeholder())
        .overrides_with(setting.variable)
        .help_heading("Settings")
        .help(help)
}

/// With a capital letter.
fn sentence(text: &str) -> String {
    let mut characters = text.chars();
    let first = characters.next().map(|first| first.to_ascii_uppercase());
    first.into_iter().chain(characters).collect()
}

fn parse_filter(config: &Config) -> Result<EnvFilter, ConfigError> {
    let setting = Setting::named("RINGWIRE_LOG").expect("a setting of the table");
    EnvFilter::builder()
        .parse(setting.value(config))
        .map_err(|error| setting.conflict(config, format!("it is no filter: {error}")))
}

/// The first part of a filter that is meant as a level, it seems, and is none: such a word is a module's name, of which
/// everything is logged, and nothing of this program.
fn no_level(filter: &str) -> Option<&str> {
    let is_bare = |part: &&str| !part.is_empty() && !part.contains(['=', '[', ':']);
    let is_ours = |part: &&str| part.starts_with("ringwire");
    filter.split(',').map(str::trim).filter(is_bare).find(|part| !is_ours(part) && part.parse::<LevelFilter>().is_err())
}

fn start_logging(config: &Config) -> Result<()> {
    let value = |name| Setting::named(name).map(|setting| setting.value(config)).unwrap_or_default();
    let filter = value("RINGWIRE_LOG");
    if let Some(word) = no_level(&filter) {
        // Not by the log, which may be silent now.
        let _ = writeln!(
            io::stderr(),
            "ringwire: RINGWIRE_LOG={filter}: {word} is taken for the name of a module, for it is no level: those are error, \
             warn, info, debug, trace and off"
        );
    }
    let lines = tracing_subscriber::fmt().with_env_filter(parse_filter(config)?).with_writer(io::stderr);
    match value("RINGWIRE_LOG_FORMAT").as_str() {
        "json" => lines.json().init(),
        _ => {
            let is_terminal = io::IsTerminal::is_terminal(&io::stderr());
            lines.with_ansi(is_terminal).init();
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_is_well_formed() {
        command().debug_assert();
    }

    #[test]
    fn flags_may_stand_on_both_sides_of_the_subcommand() {
        let matches = command()
            .try_get_matches_from(["ringwire", "--cores", "4", "--cores", "2", "config", "--cores=3", "--pin=false"])
            .expect("legal");
        let flags: Vec<(String, String)> =
            given_flags(&matches).into_iter().map(|(setting, value)| (setting.flag(), value)).collect();
        let pair = |name: &str, value: &str| (String::from(name), String::from(value));
        assert_eq!(flags, [pair("cores", "2"), pair("cores", "3"), pair("pin", "false")]);
    }

    #[test]
    fn filters() {
        let with = |log: &str| Config::default().log(String::from(log));
        assert!(parse_filter(&with("warn,ringwire=debug")).is_ok());
        assert_eq!(no_level("bogus"), Some("bogus"));
        assert_eq!(no_level("info, verbose"), Some("verbose"));
        for fine in ["info", "WARN", "off", "warn,ringwire=debug", "ringwire", "my_app::db", "my_app=info", ""] {
            assert_eq!(no_level(fine), None, "{fine}");
        }
        let message = parse_filter(&with("ringwire=loud")).expect_err("no level").to_string();
        assert!(message.starts_with("RINGWIRE_LOG=ringwire=loud cannot be: it is no filter"));
    }
}
