//! Where agents are: HOST:PORT, or HOST alone.

use ringwire::quote::quoted;

/// Where an agent listens if nobody says otherwise.
pub(crate) const PORT: u16 = 9009;

/// The address with its port.
///
/// # Errors
/// If it is none.
pub(crate) fn parse(text: &str) -> Result<String, String> {
    let wrong = || format!("{} is not HOST or HOST:PORT", quoted(text));
    let is_host = |host: &str| {
        !host.is_empty() && !host.contains(['/', '@', '?', '#', ',']) && !host.contains(char::is_whitespace)
    };
    let (host, port) = match text.rsplit_once(':') {
        // An IPv6 address, with brackets or without.
        Some((before, _)) if text.starts_with('[') && text.ends_with(']') && before.contains(':') => {
            (text.to_owned(), None)
        }
        Some((before, _)) if before.contains(':') && !text.starts_with('[') => (format!("[{text}]"), None),
        Some((host, port)) => (host.to_owned(), Some(port)),
        None => (text.to_owned(), None),
    };
    let port = port.map_or(Some(PORT), |port| port.parse().ok()).ok_or_else(wrong)?;
    if is_host(&host) { Ok(format!("{host}:{port}")) } else { Err(wrong()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Command};
    use clap::Parser;

    /// Kills: an agent that is looked for where web servers are.
    #[test]
    fn a_port_that_is_not_given_is_the_agents_own() {
        for (text, address) in [
            ("host-a", "host-a:9009"),
            ("host-a:80", "host-a:80"),
            ("127.0.0.1", "127.0.0.1:9009"),
            ("127.0.0.1:0", "127.0.0.1:0"),
            ("::1", "[::1]:9009"),
            ("[::1]", "[::1]:9009"),
            ("[::1]:7", "[::1]:7"),
        ] {
            assert_eq!(parse(text).as_deref(), Ok(address), "{text}");
        }
        for wrong in ["", ":9009", "a:", "a:x", "a:99999", "ws://a", "ws://a:1", "a:1/x", "a b", "a b:1", "u@a:1"] {
            assert!(parse(wrong).is_err_and(|error| error.contains("is not HOST or HOST:PORT")), "{wrong}");
        }
    }

    #[test]
    fn leaders_and_agents_read_it_alike() {
        let read = |line: &str| Cli::try_parse_from(line.split(' ')).map(|cli| cli.command);
        for (line, address) in
            [("x agent", "127.0.0.1:9009"), ("x agent --listen ::1", "[::1]:9009"), ("x agent --listen a:1", "a:1")]
        {
            let Ok(Command::Agent(agent)) = read(line) else { panic!("{line}") };
            assert_eq!(agent.listen, address, "{line}");
        }
        let echo = read("x echo ws://127.0.0.1:1/ --agents a,b:1").expect("a command line");
        assert_eq!(echo.common().opening.agents, ["a:9009", "b:1"]);
        let wrong = read("x echo ws://127.0.0.1:1/ --agents ws://a").expect_err("no address").to_string();
        assert!(wrong.contains("\"ws://a\" is not HOST or HOST:PORT"), "{wrong}");
    }
}
