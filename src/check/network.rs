//! What to think of the addresses, and of the proxies that are trusted.

use std::io;

use super::ports::Port;
use super::report::{Finding, Verdict};
use crate::config::{Config, ListenAddress, ProxyProtocol, Setting};

fn value(config: &Config, variable: &str) -> String {
    Setting::named(variable).map(|setting| setting.value(config)).unwrap_or_default()
}

pub(super) fn findings(config: &Config, ports: &[Port]) -> Vec<Finding> {
    let ports = ports.iter().map(|port| listens(config, port));
    ports.chain([admin(config), proxies(config)]).collect()
}

fn listens(config: &Config, port: &Port) -> Finding {
    let Port { setting, address, result } = port;
    let wanted = match config.reuse_port {
        true => "free, or another server's of this user that shares it, as RINGWIRE_REUSEPORT=true says",
        false => "free",
    };
    let found = match result {
        Ok(()) => format!("{address} can be listened on"),
        Err(error) => format!("{address} cannot be listened on: {error}"),
    };
    let finding = Finding::good(setting, found, wanted);
    let Err(error) = result else { return finding };
    let is_inet = matches!(address.place(), ListenAddress::Inet { .. });
    let remedy = match error.kind() {
        io::ErrorKind::AddrInUse if config.reuse_port && is_inet => format!(
            "whoever listens there does not share it, or is another user's (`ss -ltnp` tells who): end it, start it with \
             RINGWIRE_REUSEPORT=true too, or change {setting}"
        ),
        io::ErrorKind::AddrInUse => format!(
            "end whoever listens there (`ss -ltnpx` tells who), or change {setting}; to take over from a running ringwire \
             without refusing anybody, set RINGWIRE_REUSEPORT=true for both"
        ),
        io::ErrorKind::PermissionDenied if is_inet => String::from(
            "use a port from 1024 on, or allow it: systemd: AmbientCapabilities=CAP_NET_BIND_SERVICE, or a socket unit; \
             Docker: --sysctl net.ipv4.ip_unprivileged_port_start=0",
        ),
        io::ErrorKind::AddrNotAvailable => {
            format!("use an address of this machine in {setting} (`ip address` shows them), or 0.0.0.0 for all")
        }
        io::ErrorKind::NotFound => format!("make the directory, or change {setting}"),
        _ => format!("change {setting}"),
    };
    finding.but(Verdict::Bad, remedy)
}

/// Where operators ask, and whether anybody is let in there.
fn admin(config: &Config) -> Finding {
    let found = match &config.admin_address {
        Some(address) => format!("{address}: /api, /metrics, /healthz and /readyz are there and nowhere else"),
        None => String::from("none: /api, /metrics, /healthz and /readyz are on RINGWIRE_ADDR"),
    };
    let finding = Finding::good("admin address", found, "one that only operators reach, or RINGWIRE_API_TOKEN");
    let is_local = |address: &ListenAddress| match address.place() {
        ListenAddress::Inet { host, .. } => {
            host.eq_ignore_ascii_case("localhost")
                || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback())
        }
        _ => true,
    };
    match &config.admin_address {
        Some(address) if config.api_token.is_none() && !is_local(address) => finding.but(
            Verdict::Advice,
            "set RINGWIRE_API_TOKEN: without it /api and /metrics answer this machine only, and this address is for others too",
        ),
        _ => finding,
    }
}

fn proxies(config: &Config) -> Finding {
    let found = format!(
        "trusted: {}; PROXY protocol: {}",
        value(config, "RINGWIRE_TRUSTED_PROXIES"),
        value(config, "RINGWIRE_PROXY_PROTOCOL")
    );
    let wanted = "the proxies that clients come through and nobody else, or none";
    let finding = Finding::good("proxies", found, wanted);
    let trusted = &config.trusted_proxies;
    let has_proxy_protocol = config.proxy_protocol != ProxyProtocol::Never;
    let has_unix = config.addresses.iter().any(|address| matches!(address.place(), ListenAddress::Unix(_)));
    let remedy = if trusted.are_everybody() {
        "name the proxies in RINGWIRE_TRUSTED_PROXIES: now every client is believed whatever address it claims"
    } else if has_proxy_protocol && trusted.is_empty() {
        "name the proxies in RINGWIRE_TRUSTED_PROXIES, unless nobody else can reach the address: whoever speaks the PROXY \
         protocol may claim any address"
    } else if trusted.trust(None) && !has_unix && std::env::var_os("LISTEN_FDS").is_none() {
        "take unix out of RINGWIRE_TRUSTED_PROXIES, or add a Unix socket to RINGWIRE_ADDR"
    } else if !(trusted.is_empty() || config.api_token.is_some() || config.admin_address.is_some()) {
        "set RINGWIRE_API_TOKEN or RINGWIRE_ADMIN_ADDR: not every request that a proxy of this machine passes on can be told \
         from one of this machine"
    } else {
        return finding;
    };
    finding.but(Verdict::Advice, remedy)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(settings: &[(&str, &str)]) -> Config {
        let mut config = Config::default();
        for (variable, value) in settings {
            Setting::named(variable).expect("a setting").apply(&mut config, variable, value).expect("a value");
        }
        config
    }

    #[test]
    fn ports() {
        let finding = |settings: &[(&str, &str)], errno: Option<i32>| {
            let result = errno.map_or(Ok(()), |errno| Err(io::Error::from_raw_os_error(errno)));
            let config = config(settings);
            let port = Port { setting: "RINGWIRE_ADDR", address: config.addresses[0].clone(), result };
            listens(&config, &port)
        };
        assert_eq!(finding(&[], None).verdict, Verdict::Good);
        for (settings, errno, remedy) in [
            (&[][..], libc::EADDRINUSE, "set RINGWIRE_REUSEPORT=true for both"),
            (&[("RINGWIRE_REUSEPORT", "true")], libc::EADDRINUSE, "start it with RINGWIRE_REUSEPORT=true too"),
            (&[("RINGWIRE_ADDR", "unix:/x")], libc::EADDRINUSE, "end whoever listens there"),
            (&[], libc::EACCES, "CAP_NET_BIND_SERVICE"),
            (&[("RINGWIRE_ADDR", "unix:/x/y")], libc::ENOENT, "make the directory"),
            (&[], libc::EADDRNOTAVAIL, "use an address of this machine"),
            (&[("RINGWIRE_ADDR", "unix:/x")], libc::EACCES, "change RINGWIRE_ADDR"),
        ] {
            let finding = finding(settings, Some(errno));
            assert_eq!(finding.verdict, Verdict::Bad);
            assert!(finding.remedy.as_deref().is_some_and(|text| text.contains(remedy)), "{remedy}: {finding:?}");
        }
    }

    #[test]
    fn operators_and_proxies() {
        for (settings, advice) in [
            (&[][..], None),
            (&[("RINGWIRE_ADMIN_ADDR", "127.0.0.1:9002")], None),
            (&[("RINGWIRE_ADMIN_ADDR", "localhost:9002")], None),
            (&[("RINGWIRE_ADMIN_ADDR", "unix:/x")], None),
            (&[("RINGWIRE_ADMIN_ADDR", "0.0.0.0:9002")], Some("set RINGWIRE_API_TOKEN: without it")),
            (&[("RINGWIRE_ADMIN_ADDR", "0.0.0.0:9002"), ("RINGWIRE_API_TOKEN", "x")], None),
            (&[("RINGWIRE_TRUSTED_PROXIES", "10.0.0.0/8")], Some("set RINGWIRE_API_TOKEN or")),
            (&[("RINGWIRE_TRUSTED_PROXIES", "10.0.0.0/8"), ("RINGWIRE_ADMIN_ADDR", "127.0.0.1:9002")], None),
            (&[("RINGWIRE_TRUSTED_PROXIES", "10.0.0.0/8,::/0")], Some("every client is believed")),
            (&[("RINGWIRE_TRUSTED_PROXIES", "unix"), ("RINGWIRE_API_TOKEN", "x")], Some("take unix out")),
            (&[("RINGWIRE_PROXY_PROTOCOL", "true")], Some("may claim any address")),
        ] {
            let found = findings(&config(settings), &[]);
            let remedies: Vec<&str> = found.iter().filter_map(|finding| finding.remedy.as_deref()).collect();
            match advice {
                None => assert!(remedies.is_empty(), "{settings:?}: {remedies:?}"),
                Some(advice) => {
                    assert!(remedies.len() == 1 && remedies[0].contains(advice), "{settings:?}: {remedies:?}")
                }
            }
        }
    }
}
