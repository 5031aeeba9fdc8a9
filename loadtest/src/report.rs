//! What a run found: the figures as JSON, and the same as text.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{
    agents, host,
    host::BUSY,
    outcome::{Cpu, Outcome},
    problems::Problem,
    rows::{QUANTILES, TIMES, percentiles, rows_of},
    settings,
    tally::{Packed, Tally},
    usage,
    words::{bytes_text, grouped, time_text},
};

/// What a run was, beside its outcome.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct About {
    pub(crate) scenario: String,
    /// What one message is: replies, deliveries, sessions.
    pub(crate) unit: String,
    pub(crate) urls: Vec<String>,
    /// What users expect, where they follow a script.
    pub(crate) steps: Vec<String>,
    /// What is to be known of what was run.
    pub(crate) warnings: Vec<String>,
    pub(crate) connections: usize,
    pub(crate) rate: Option<f64>,
    pub(crate) started_unix_s: u64,
}

fn each_us(cpu: Duration, count: u64) -> Option<f64> {
    (count > 0).then(|| cpu.as_secs_f64() * 1e6 / count as f64)
}

/// Which side set the pace: the server where it has used up all processors that it may run on, or one of its threads was always
/// busy. Where one of so many is busy and others are not, more of them do not help what that one does.
fn bottleneck(cpu: &Cpu, server_cores: Option<usize>, elapsed: f64) -> &'static str {
    let is_busy = |used: Duration, cores: usize| used.as_secs_f64() / elapsed >= BUSY * cores as f64;
    let client = is_busy(cpu.busiest, 1);
    let one = cpu.server_busiest.map(|busiest| is_busy(busiest, 1));
    let all = cpu.server.zip(server_cores).map(|(used, cores)| is_busy(used, cores));
    match (client, one.zip(all).map(|(one, all)| one || all).or(one).or(all)) {
        (true, Some(true)) => "both",
        (true, _) => "client",
        (false, Some(true)) => "server",
        (false, Some(false)) => "neither",
        (false, None) => "unknown",
    }
}

fn packed(packed: Packed) -> Value {
    let ratio = (packed.bytes_on_wire > 0).then(|| packed.bytes as f64 / packed.bytes_on_wire as f64);
    json!({
        "messages": packed.messages,
        "bytes": packed.bytes,
        "bytes_on_wire": packed.bytes_on_wire,
        "ratio": ratio,
    })
}

/// Where connections went, if to several targets.
fn targets(about: &About, tally: &Tally) -> Value {
    let each = about.urls.iter().zip(&tally.targets).map(|(url, target)| {
        json!({
            "url": url,
            "ready": target.opened,
            "failed": target.failed,
            "messages": target.latencies.len(),
            "latency_us": percentiles(&target.latencies),
            "handshake_us": percentiles(&target.handshakes),
        })
    });
    each.collect()
}

/// All figures. Durations are in the unit that their name ends with.
pub(crate) fn figures(about: &About, outcome: &Outcome) -> Value {
    let elapsed = outcome.elapsed.as_secs_f64().max(1e-9);
    let ramp = outcome.ramp.as_secs_f64().max(1e-9);
    let is_connect = about.scenario == "connect";
    let messages = if is_connect { outcome.ready } else { outcome.done };
    let bottleneck = bottleneck(&outcome.cpu, outcome.server_cores, elapsed);
    let tally = &outcome.tally;
    let (host, disturbances) = match outcome.agents.is_empty() {
        true => host::judge(outcome),
        false => agents::host(&outcome.agents),
    };
    let bottleneck = match bottleneck {
        "neither" | "unknown" if !disturbances.is_empty() => "host",
        side => side,
    };
    let (kernel, processor, processors) = usage::machine();
    let rss_each = outcome.rss_before.zip(outcome.rss_open).filter(|_| outcome.ready > 0);
    let rss_each = rss_each.map(|(before, open)| (open as f64 - before as f64) / outcome.ready as f64);
    let by_message = |cpu: Duration| each_us(cpu, outcome.done);
    let by_connection = |cpu: Duration| each_us(cpu, outcome.ready);

    let mut warnings = about.warnings.clone();
    if bottleneck == "client" && !is_connect {
        warnings.push(format!(
            "the client was the bottleneck: its busiest thread used {:.0} % of a core{}. Compare CPU per message, not \
             messages per second; or give it more --threads and processors",
            outcome.cpu.busiest.as_secs_f64() / elapsed * 100.0,
            outcome.cpu.server.map_or(String::new(), |server| {
                let used = server.as_secs_f64() / elapsed;
                format!(", the server only {}", cores_text(used, outcome.server_cores))
            }),
        ));
    }
    if tally.unsent > 0 {
        warnings
            .push(format!("{} scheduled messages were never sent: the rate is more than was possible", tally.unsent));
    }
    if tally.unconnected > 0 {
        warnings.push(format!(
            "{} scheduled messages were never sent: there was no connection for them",
            tally.unconnected
        ));
    }
    if !disturbances.is_empty() {
        warnings.push(format!("disturbed: {}; repeat it on a quiet machine", disturbances.join(", ")));
    }
    let ended: u64 = tally.ends.values().sum();
    if ended != tally.asked {
        warnings.push(format!("of {} connections only {ended} are accounted for: a bug of this program", tally.asked));
    }
    if outcome.server_gone {
        warnings.push("the server's process ended before the measured window did".to_owned());
    }
    if outcome.lost_agents > 0 {
        warnings.push(format!(
            "{} of {} agents are lost: figures are of what the others measured until then",
            outcome.lost_agents,
            outcome.agents.len()
        ));
    }
    if outcome.interrupted {
        warnings.push("the run was interrupted: figures are of what was measured until then".to_owned());
    }

    let mut figures = json!({
        "tool": concat!("ringwire-loadtest ", env!("CARGO_PKG_VERSION")),
        "command": settings::shown(std::env::args().skip(1)),
        "started_unix_s": about.started_unix_s,
        "machine": {"kernel": kernel, "processor": processor, "processors": processors},
        "scenario": about.scenario,
        "unit": about.unit,
        "url": about.urls.join(", "),
        "rate": about.rate,
        "connections": {
            "wanted": about.connections,
            "ready": outcome.ready,
            "failed": tally.problems.count(Problem::Failed),
            "ramp_s": ramp,
            "per_s": outcome.ready as f64 / ramp,
        },
        "elapsed_s": elapsed,
        "messages": messages,
        "messages_per_s": messages as f64 / if is_connect { ramp } else { elapsed },
        "published": outcome.published,
        "unsent": tally.unsent + tally.unconnected,
        "unsent_unconnected": tally.unconnected,
        "opened": tally.opened,
        "bytes_in": tally.bytes_in,
        "bytes_out": tally.bytes_out,
        "latency_us": percentiles(&outcome.latencies),
    });
    for (what, histogram) in &outcome.timed {
        figures[format!("{}_us", what.key())] = percentiles(histogram);
    }
    tally.problems.fill(&mut figures);
    figures["close_codes"] = tally.closes.iter().map(|(code, count)| (code.to_string(), json!(count))).collect();
    figures["errnos"] = tally.errnos.iter().map(|(errno, count)| (errno_name(*errno), json!(count))).collect();
    figures["http_statuses"] =
        tally.statuses.iter().map(|(status, count)| (status.to_string(), json!(count))).collect();
    figures["ends"] = tally.ends.iter().map(|(end, count)| (end.key().to_owned(), json!(count))).collect();
    figures["targets"] = targets(about, tally);
    if !about.steps.is_empty() {
        let each = about.steps.iter().zip(&tally.steps).filter_map(|(name, times)| Some((name, times.as_ref()?)));
        figures["steps"] = each.map(|(name, times)| (name.clone(), percentiles(times))).collect();
        figures["sessions"] = json!(tally.sessions);
        figures["unasked"] = json!(tally.unasked);
    }
    let secured = &tally.secured;
    if about.urls.iter().any(|url| url.starts_with("wss")) {
        figures["tls"] = json!({
            "full": secured.full,
            "resumed": secured.resumed,
            "agreed": secured.agreed,
            "failures": secured.failures,
        });
    }
    let deflated = &tally.deflated;
    if deflated.declined > 0 || !deflated.agreed.is_empty() {
        figures["deflate"] = json!({
            "agreed": deflated.agreed,
            "declined": deflated.declined,
            "sent": packed(deflated.sent),
            "received": packed(deflated.received),
        });
    }
    figures["server"] = match outcome.cpu.server {
        None => Value::Null,
        Some(server) => json!({
            "cpu_us_per_message": by_message(server),
            "cpu_share": server.as_secs_f64() / elapsed,
            "busiest_thread_share": outcome.cpu.server_busiest.map(|busiest| busiest.as_secs_f64() / elapsed),
            "cores": outcome.server_cores,
            "cpu_us_per_connection": outcome.ramp_cpu.server.and_then(by_connection),
            "rss_bytes_before": outcome.rss_before,
            "rss_bytes_open": outcome.rss_open,
            "rss_bytes": outcome.rss_after,
            "rss_bytes_per_connection": rss_each,
        }),
    };
    figures["client"] = json!({
        "cpu_us_per_message": by_message(outcome.cpu.client),
        "cpu_share": outcome.cpu.client.as_secs_f64() / elapsed,
        "busiest_thread_share": outcome.cpu.busiest.as_secs_f64() / elapsed,
        "threads": outcome.workers,
        "cpu_us_per_connection": by_connection(outcome.ramp_cpu.client),
    });
    figures["bottleneck"] = json!(bottleneck);
    if !outcome.agents.is_empty() {
        figures["agents"] = agents::rows(&outcome.agents, is_connect);
    }
    figures["host"] = host;
    figures["warnings"] = json!(warnings);
    figures["series"] = series(outcome);
    figures["percentiles"] = curve(&outcome.latencies);
    if let Some((_, uncorrected)) = outcome.timed.iter().find(|(what, _)| what.key() == "uncorrected") {
        figures["uncorrected_percentiles"] = curve(uncorrected);
    }
    figures
}

fn series(outcome: &Outcome) -> Value {
    let us = |histogram: &Option<Histogram<u64>>, quantile| {
        histogram.as_ref().map(|histogram| histogram.value_at_quantile(quantile) as f64 / 1e3)
    };
    let samples = || outcome.intervals.iter();
    json!({
        "at_s": samples().map(|sample| sample.at_s).collect::<Vec<_>>(),
        "measured": samples().map(|sample| sample.measured).collect::<Vec<_>>(),
        "messages_per_s": samples().map(|sample| sample.done as f64 / sample.seconds.max(1e-9)).collect::<Vec<_>>(),
        "open": samples().map(|sample| sample.open).collect::<Vec<_>>(),
        "p50_us": samples().map(|sample| us(&sample.latencies, 0.5)).collect::<Vec<_>>(),
        "p99_us": samples().map(|sample| us(&sample.latencies, 0.99)).collect::<Vec<_>>(),
        "max_us": samples().map(|sample| us(&sample.latencies, 1.0)).collect::<Vec<_>>(),
    })
}

/// Points of the percentile curve: percentile and microseconds.
fn curve(histogram: &Histogram<u64>) -> Value {
    if histogram.is_empty() {
        return json!([]);
    }
    let mut points = Vec::new();
    let mut beyond = 1.0f64;
    while beyond * histogram.len() as f64 >= 1.0 && points.len() < 60 {
        let quantile = 1.0 - beyond;
        points.push(json!([quantile * 100.0, histogram.value_at_quantile(quantile) as f64 / 1e3]));
        beyond /= 10f64.powf(0.125);
    }
    points.push(json!([100.0 * (1.0 - 1.0 / histogram.len() as f64), histogram.max() as f64 / 1e3]));
    Value::Array(points)
}

fn errno_name(errno: i32) -> String {
    format!("{:?}", nix::errno::Errno::from_raw(errno))
}

/// The figures as text.
pub(crate) fn text(figures: &Value) -> String {
    let number = |pointer: &str| figures.pointer(pointer).and_then(Value::as_f64);
    let count = |pointer: &str| number(pointer).unwrap_or_default() as u64;
    let mut lines: Vec<(String, String)> = Vec::new();
    let mut line = |name: &str, text: String| lines.push((name.to_owned(), text));
    let unit = figures["unit"].as_str().unwrap_or("messages");
    let is_connect = figures["scenario"] == "connect";

    line(
        "scenario",
        format!("{} {}", figures["scenario"].as_str().unwrap_or_default(), figures["url"].as_str().unwrap_or_default()),
    );
    // Where users come and go none is opened beforehand.
    if figures["steps"].is_object() {
        line(
            "connections",
            format!("{} opened, {} at most at once", grouped(count("/opened")), grouped(count("/connections/wanted"))),
        );
        line("sessions", format!("{} ended as they should", grouped(count("/sessions"))));
    } else if figures["scenario"] != "churn" {
        line(
            "connections",
            format!(
                "{} of {} in {:.2} s = {} /s",
                grouped(count("/connections/ready")),
                grouped(count("/connections/wanted")),
                number("/connections/ramp_s").unwrap_or_default(),
                grouped(count("/connections/per_s")),
            ),
        );
    }
    if is_connect {
        line("held", format!("{:.2} s", number("/elapsed_s").unwrap_or_default()));
    } else {
        line(
            unit,
            format!(
                "{} in {:.2} s = {} /s",
                grouped(count("/messages")),
                number("/elapsed_s").unwrap_or_default(),
                grouped(count("/messages_per_s"))
            ),
        );
    }
    if count("/published") > 0 {
        line("published", grouped(count("/published")));
    }
    line(
        "bytes",
        format!(
            "{} in, {} out",
            bytes_text(number("/bytes_in").unwrap_or_default()),
            bytes_text(number("/bytes_out").unwrap_or_default())
        ),
    );
    for (key, name) in TIMES {
        let times = &figures[key];
        if times["count"].as_u64().unwrap_or_default() == 0 || (is_connect && key == "latency_us") {
            continue;
        }
        line(name, times_text(times));
    }
    for (name, times) in figures["steps"].as_object().into_iter().flatten() {
        line(&format!("  {name}"), times_text(times));
    }
    if count("/unasked") > 0 {
        line("not waited for", format!("{} messages", grouped(count("/unasked"))));
    }
    let mut usage = |name: &str, key: &str| {
        let mut parts = Vec::new();
        if let Some(cpu) = number(&format!("/{key}/cpu_us_per_message")) {
            let share = number(&format!("/{key}/cpu_share")).unwrap_or_default();
            parts.push(format!("{cpu:.3} us per message, {share:.2} cores"));
        }
        if let Some(cpu) = number(&format!("/{key}/cpu_us_per_connection")) {
            parts.push(format!("{cpu:.1} us per connection"));
        }
        if !parts.is_empty() {
            lines.push((name.to_owned(), parts.join("; ")));
        }
    };
    usage("server CPU", "server");
    usage("client CPU", "client");
    let mut line = |name: &str, text: String| lines.push((name.to_owned(), text));
    if let Some(rounds) = figures["rounds"].as_u64() {
        line(
            "rounds",
            format!(
                "{rounds}: counts are of all of them, times and rates are medians; from the lowest to the highest:"
            ),
        );
        for row in rows_of(figures).iter().filter(|row| !row.name.ends_with(" p99.99") && !row.name.ends_with(" p90")) {
            if let Some((low, high)) = row.range(figures) {
                line("", format!("{}  {} .. {}", row.name, (row.unit)(low), (row.unit)(high)));
            }
        }
    }
    if let (Some(each), Some(open)) = (number("/server/rss_bytes_per_connection"), number("/server/rss_bytes_open")) {
        let now = number("/server/rss_bytes").unwrap_or(open);
        line(
            "server memory",
            format!(
                "{} per connection, {} with all open, {} at the end",
                bytes_text(each),
                bytes_text(open),
                bytes_text(now)
            ),
        );
    }
    if let Some(bottleneck) = figures["bottleneck"].as_str().filter(|name| *name != "unknown" && !is_connect) {
        let share = number("/server/cpu_share").filter(|_| matches!(bottleneck, "server" | "both"));
        let why = share.map(|share| {
            let busiest = number("/server/busiest_thread_share").unwrap_or_default();
            let cores = count("/server/cores") as usize;
            let cores = cores_text(share, (cores > 0).then_some(cores));
            format!(": the server used {cores}, its busiest thread {busiest:.2}")
        });
        line("bottleneck", format!("{bottleneck}{}", why.unwrap_or_default()));
    }
    let checks = figures["checks"].as_object().into_iter().flatten();
    let checks: Vec<String> = checks.map(|(name, count)| format!("{count} {name}")).collect();
    line("checks", format!("{}, {} connections failed", checks.join(", "), grouped(count("/connections/failed"))));
    for target in figures["targets"].as_array().into_iter().flatten() {
        line("target", target_text(target));
    }
    for agent in figures["agents"].as_array().into_iter().flatten() {
        line("agent", agents::text(agent));
    }
    if figures["tls"].is_object() {
        line("TLS", tls_text(&figures["tls"]));
    }
    if figures["deflate"].is_object() {
        line("deflate", deflate_text(&figures["deflate"]));
    }
    let tables =
        [("close_codes", "close codes"), ("errnos", "errors"), ("http_statuses", "HTTP statuses"), ("ends", "ended")];
    for (key, name) in tables {
        let entries = figures[key].as_object().into_iter().flatten();
        let entries: Vec<String> =
            entries.map(|(name, count)| format!("{} x {count}", name.replace('_', " "))).collect();
        if !entries.is_empty() {
            line(name, entries.join(", "));
        }
    }
    for rule in figures["slo"].as_array().into_iter().flatten() {
        let met = if rule["met"] == true { "met" } else { "MISSED" };
        line(
            "objective",
            format!(
                "{}: {met} ({})",
                rule["rule"].as_str().unwrap_or_default(),
                rule["value"].as_str().unwrap_or_default()
            ),
        );
    }
    for warning in figures["warnings"].as_array().into_iter().flatten() {
        line("warning", warning.as_str().unwrap_or_default().to_owned());
    }
    line("problems", grouped(count("/problem_count")));
    let mut text: String = lines.iter().map(|(name, text)| format!("{name:<14} {text}\n")).collect();
    for problem in figures["problems"].as_array().into_iter().flatten() {
        text += &format!("  {}\n", problem.as_str().unwrap_or_default());
    }
    text
}

/// How many cores were used, of those that there are for it.
fn cores_text(used: f64, cores: Option<usize>) -> String {
    match cores {
        Some(1) => format!("{used:.2} of 1 core"),
        Some(cores) => format!("{used:.2} of {cores} cores"),
        None => format!("{used:.2} cores, of how many is not known"),
    }
}

/// Percentiles, in words.
pub(crate) fn times_text(times: &Value) -> String {
    let time = |quantile: &str| time_text(times[quantile].as_f64().unwrap_or_default());
    let each: Vec<String> = QUANTILES
        .iter()
        .map(|quantile| quantile.0)
        .chain(["max"])
        .map(|quantile| format!("{quantile} {}", time(quantile)))
        .collect();
    each.join("   ")
}

/// What came of one target, in words.
pub(crate) fn target_text(target: &Value) -> String {
    let time = |pointer: &str| time_text(target.pointer(pointer).and_then(Value::as_f64).unwrap_or_default());
    format!(
        "{}: {} connections, {} failed, {} messages, p50 {}, p99 {}",
        target["url"].as_str().unwrap_or_default(),
        grouped(target["ready"].as_u64().unwrap_or_default()),
        grouped(target["failed"].as_u64().unwrap_or_default()),
        grouped(target["messages"].as_u64().unwrap_or_default()),
        time("/latency_us/p50"),
        time("/latency_us/p99"),
    )
}

/// Handshakes of TLS, in words.
pub(crate) fn tls_text(tls: &Value) -> String {
    let count = |key: &str| grouped(tls[key].as_u64().unwrap_or_default());
    let mut text = format!("{} full handshakes, {} resumed", count("full"), count("resumed"));
    for (why, count) in tls["failures"].as_object().into_iter().flatten() {
        text += &format!(", {why} x {count}");
    }
    for (what, count) in tls["agreed"].as_object().into_iter().flatten() {
        text += &format!("; {count} connections: {what}");
    }
    text
}

/// What came of compression, in words.
pub(crate) fn deflate_text(deflate: &Value) -> String {
    let mut parts: Vec<String> = Vec::new();
    for (what, count) in deflate["agreed"].as_object().into_iter().flatten() {
        parts.push(format!("{count} connections: {what}"));
    }
    if deflate["declined"] != 0 {
        parts.push(format!("{} declined", deflate["declined"]));
    }
    for way in ["sent", "received"] {
        let bytes = |key: &str| bytes_text(deflate[way][key].as_f64().unwrap_or_default());
        if let Some(ratio) = deflate[way]["ratio"].as_f64() {
            parts.push(format!("{way} {} as {} ({ratio:.2} to 1)", bytes("bytes"), bytes("bytes_on_wire")));
        }
    }
    parts.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Kills: a server that is called full at one core, however many it has; one whose only thread is full and that is not.
    #[test]
    fn the_side_that_is_busy_is_the_bottleneck() {
        // What the server's threads use together and the busiest of them, of so many cores; what our busiest thread uses; in ms of 1 s.
        for (server, cores, client, expected) in [
            (Some((500, 500)), Some(1), 990, "client"),
            (Some((990, 990)), Some(1), 500, "server"),
            (Some((990, 990)), Some(1), 990, "both"),
            (Some((100, 100)), Some(1), 100, "neither"),
            // Two threads share one core.
            (Some((950, 500)), Some(1), 100, "server"),
            // Far from full, and full.
            (Some((950, 480)), Some(2), 100, "neither"),
            (Some((950, 480)), Some(2), 990, "client"),
            (Some((1900, 950)), Some(2), 100, "server"),
            (Some((1850, 300)), Some(2), 100, "server"),
            (Some((3000, 800)), Some(4), 100, "neither"),
            // It has one thread, or one that does all.
            (Some((950, 950)), Some(8), 100, "server"),
            (Some((1200, 990)), Some(8), 100, "server"),
            // Of how many is not known: a thread is never more than one.
            (Some((950, 480)), None, 100, "neither"),
            (Some((950, 950)), None, 100, "server"),
            (None, None, 990, "client"),
            (None, None, 100, "unknown"),
        ] {
            let ms = Duration::from_millis;
            let cpu = Cpu {
                server: server.map(|(all, _)| ms(all)),
                server_busiest: server.map(|(_, busiest)| ms(busiest)),
                client: ms(client),
                busiest: ms(client),
            };
            assert_eq!(bottleneck(&cpu, cores, 1.0), expected, "{server:?} of {cores:?}, {client}");
        }
        assert_eq!(cores_text(0.904, Some(2)), "0.90 of 2 cores");
    }
}
