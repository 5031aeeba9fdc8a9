//! What the log tells of a start.

use crate::config::{Config, NatsHistory, SETTINGS};
use crate::server::BoundAddress;

pub(super) fn say_started(config: &Config, cores: usize, addresses: &[BoundAddress], admin: &[BoundAddress]) {
    let all = |addresses: &[BoundAddress]| addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    let admin = (!admin.is_empty()).then(|| all(admin));
    let version = env!("CARGO_PKG_VERSION");
    tracing::info!(target: "ringwire::server", version, cores, addresses = %all(addresses), admin, "started");
    let default = Config::default();
    for setting in SETTINGS {
        let value = setting.value(config);
        if value != setting.value(&default) {
            tracing::info!(target: "ringwire::server", name = setting.variable, value = %value, "setting");
        }
    }
    let is_off = config.nats_history == NatsHistory::Off;
    if config.nats_url.is_some() && config.history != default.history && is_off {
        tracing::info!(target: "ringwire::server", "the history of rooms is this machine's own: nobody resumes from another's");
    }
}

pub(super) fn warn_of_little_room(config: &Config, room: u64) {
    let wanted = config.connections_max;
    // Hardly a machine has room for as many as the default says: that is no news to somebody who has not set it.
    if room < u64::from(wanted) && wanted != Config::default().connections_max {
        tracing::warn!(
            room,
            wanted,
            "there is room for fewer connections than RINGWIRE_MAX_CONNECTIONS: raise the hard limit of open files \
             (ulimit -Hn, LimitNOFILE=), or lower the setting; `ringwire check` tells more"
        );
    }
}
