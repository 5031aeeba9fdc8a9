//! The figures as one HTML page without anything outside itself: tables, and plots as inline SVG. Colours follow the
//! reader's light or dark setting; printed, it is light.

use std::fmt::Write;

use serde_json::Value;

use crate::{
    agents,
    report::{deflate_text, target_text, tls_text},
    rows::{QUANTILES, TIMES},
    words::{bytes_text, grouped, time_text},
};

/// Plots as wide pages have them, and as phones do: one that is made smaller has texts that nobody can read.
const FRAMES: [Frame; 2] = [
    Frame { class: "broad", width: 860.0, height: 250.0, left: 74.0, right: 16.0 },
    Frame { class: "narrow", width: 350.0, height: 230.0, left: 56.0, right: 12.0 },
];
const TOP: f64 = 14.0;
const BOTTOM: f64 = 38.0;
/// About the width of a letter of a plot.
const LETTER: f64 = 6.5;

const STYLE: &str = "
:root{color-scheme:light dark;--ground:#fff;--card:#f6f7f9;--text:#1c2128;--dim:#5d6875;--line:#d8dde3;--a:#0b6bcb;--b:#c2410c;--c:#7c3aed;--good:#15803d;--bad:#b91c1c}
@media (prefers-color-scheme:dark){:root{--ground:#101418;--card:#181e25;--text:#e5e9ee;--dim:#9aa6b2;--line:#303943;--a:#58a6ff;--b:#f59e5b;--c:#b79cff;--good:#4ade80;--bad:#f87171}}
@media print{:root{color-scheme:light;--ground:#fff;--card:#fff;--text:#000;--dim:#444;--line:#bbb;--a:#0b6bcb;--b:#c2410c;--c:#7c3aed;--good:#15803d;--bad:#b91c1c}figure,table{break-inside:avoid}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:920px;padding:28px 20px 40px;background:var(--ground);color:var(--text);font:15px/1.5 system-ui,-apple-system,'Segoe UI',sans-serif;font-variant-numeric:tabular-nums}
h1{font-size:25px;margin:0 0 2px}h2{font-size:17px;margin:30px 0 8px}
p{margin:4px 0}.dim{color:var(--dim)}code{font:13px ui-monospace,monospace;overflow-wrap:anywhere}
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(126px,1fr));gap:10px;margin:18px 0 6px}
.card{background:var(--card);border:1px solid var(--line);border-radius:8px;padding:10px 14px}
.card b{display:block;font-size:20px;line-height:1.3;white-space:nowrap}.card span{color:var(--dim);font-size:13px}
.good{color:var(--good)}.bad{color:var(--bad)}
.warning{border-left:4px solid var(--b);background:var(--card);padding:8px 14px;margin:10px 0}
table{border-collapse:collapse;width:100%;font-size:14px}td,th{padding:5px 10px;border-bottom:1px solid var(--line);text-align:right}
th{color:var(--dim);font-weight:600}td:first-child,th:first-child{text-align:left}
h1,li,.warning,.card span,td:first-child{overflow-wrap:anywhere}
figure{margin:0;background:var(--card);border:1px solid var(--line);border-radius:8px;padding:8px 6px 4px}
svg{display:block;width:100%;height:auto}svg text{fill:var(--dim);font:12px system-ui,sans-serif}
.grid{stroke:var(--line);stroke-width:1}.axis{stroke:var(--dim);stroke-width:1}
.a{stroke:var(--a)}.b{stroke:var(--b)}.c{stroke:var(--c)}polyline{fill:none;stroke-width:2;stroke-linejoin:round;stroke-linecap:round}
.fill{fill:var(--a);opacity:.12;stroke:none}.window{fill:var(--a);opacity:.06}
.legend{display:flex;gap:18px;font-size:13px;color:var(--dim);padding:2px 14px 4px}.legend i{display:inline-block;width:18px;height:3px;vertical-align:middle;margin-right:6px}
ul{margin:6px 0;padding-left:22px}li.of{margin-left:18px}
.facts td:first-child{white-space:nowrap}.facts td:last-child{text-align:left;overflow-wrap:anywhere}
.wide{overflow-x:auto}.wide td:first-child{min-width:8em}.wide td:not(:first-child){white-space:nowrap}polyline.c{stroke-dasharray:6 5}
@media (max-width:560px){body{padding:16px 10px 30px}h1{font-size:21px}td,th{padding:5px 6px}.card{padding:8px 10px}.card b{font-size:18px}svg.broad{display:none}}
@media (min-width:561px){svg.narrow{display:none}}
";

/// The size of a plot, and its room for what is written beside it.
struct Frame {
    class: &'static str,
    width: f64,
    height: f64,
    left: f64,
    right: f64,
}

/// One line of a plot: its class, its name, its points, and how far two of them may be apart for there to be a line.
struct Line {
    class: &'static str,
    name: &'static str,
    points: Vec<(f64, f64)>,
    gap: f64,
}

impl Line {
    /// Its parts, between which nothing was measured.
    fn parts(&self) -> impl Iterator<Item = &[(f64, f64)]> {
        self.points.chunk_by(|from, to| to.0 - from.0 <= self.gap)
    }
}

/// An axis: where a value lies between 0 and 1, and the marks to write.
struct Axis {
    place: Box<dyn Fn(f64) -> f64>,
    marks: Vec<(f64, String)>,
    title: &'static str,
}

/// The page.
pub(crate) fn page(figures: &Value) -> String {
    let number = |pointer: &str| figures.pointer(pointer).and_then(Value::as_f64);
    let scenario = escape(figures["scenario"].as_str().unwrap_or_default());
    let is_connect = scenario == "connect";
    let mut html = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" \
         content=\"width=device-width,initial-scale=1\"><title>{scenario} – load test</title><style>{STYLE}</style></head><body>\n"
    );
    let passed = figures["passed"] == true;
    let _ = write!(
        html,
        "<h1>{scenario} <span class=\"{}\">{}</span></h1><p class=\"dim\"><code>{}</code></p>",
        if passed { "good" } else { "bad" },
        if passed { "passed" } else { "failed" },
        escape(figures["url"].as_str().unwrap_or_default()),
    );
    cards(&mut html, figures, is_connect);
    for warning in figures["warnings"].as_array().into_iter().flatten() {
        let _ = write!(html, "<div class=\"warning\">{}</div>", escape(warning.as_str().unwrap_or_default()));
    }
    objectives(&mut html, figures);
    latencies(&mut html, figures);
    plots(&mut html, figures, is_connect);
    checks(&mut html, figures);
    agent_table(&mut html, figures);
    html += "<h2>Run</h2><table class=\"facts\">";
    let machine = &figures["machine"];
    let mut row = |name: &str, text: &str| {
        let _ = write!(html, "<tr><td>{name}</td><td>{}</td></tr>", escape(text));
    };
    let command =
        figures["command"].as_array().into_iter().flatten().filter_map(Value::as_str).collect::<Vec<_>>().join(" ");
    row("Command", &format!("ringwire-loadtest {command}"));
    row(
        "Machine",
        &format!(
            "{} x {}, Linux {}",
            machine["processors"],
            machine["processor"].as_str().unwrap_or_default(),
            machine["kernel"].as_str().unwrap_or_default()
        ),
    );
    let count = |pointer: &str| grouped(number(pointer).unwrap_or_default() as u64);
    let connections = match figures["steps"].is_object() {
        // Where users come and go none is opened beforehand.
        true => format!("{} opened, {} at most at once", count("/opened"), count("/connections/wanted")),
        false => {
            let ramp_s = number("/connections/ramp_s").unwrap_or_default();
            format!("{} of {} in {ramp_s:.2} s", count("/connections/ready"), count("/connections/wanted"))
        }
    };
    row("Connections", &connections);
    for (name, key) in [("Server CPU", "server"), ("Client CPU", "client")] {
        if let Some(cpu) = number(&format!("/{key}/cpu_us_per_message")) {
            let share = number(&format!("/{key}/cpu_share")).unwrap_or_default();
            row(name, &format!("{cpu:.3} us per message, {share:.2} cores"));
        }
        if let Some(cpu) = number(&format!("/{key}/cpu_us_per_connection")) {
            row(&format!("{name} to connect"), &format!("{cpu:.1} us per connection"));
        }
    }
    if let Some(rss) = number("/server/rss_bytes") {
        row("Server memory", &format!("{} resident at the end", bytes_text(rss)));
    }
    for target in figures["targets"].as_array().into_iter().flatten() {
        row("Target", &target_text(target));
    }
    for (key, name, text) in
        [("tls", "TLS", tls_text as fn(&Value) -> String), ("deflate", "Compression", deflate_text)]
    {
        if figures[key].is_object() {
            row(name, &text(&figures[key]));
        }
    }
    if figures["rounds"].is_u64() {
        row(
            "Rounds",
            &format!("{}: counts are of all, times and rates are medians; plots are of the last", figures["rounds"]),
        );
    }
    row("Tool", figures["tool"].as_str().unwrap_or_default());
    html += "</table></body></html>\n";
    html
}

/// The agents that made the run together.
fn agent_table(html: &mut String, figures: &Value) {
    let agents = figures["agents"].as_array().map_or(&[][..], Vec::as_slice);
    if agents.is_empty() {
        return;
    }
    *html += "<h2>Agents</h2><div class=\"wide\"><table><tr><th></th>";
    for title in ["connections", "messages", "per second", "p50", "p99", "lag p99", "cores", "problems", ""] {
        let _ = write!(html, "<th>{title}</th>");
    }
    *html += "</tr>";
    for agent in agents {
        let name = escape(agent["agent"].as_str().unwrap_or_default());
        if agent["lost"].is_string() {
            let text = escape(&agents::text(agent));
            let _ = write!(html, "<tr><td>{name}</td><td colspan=\"9\" class=\"bad\">{text}</td></tr>");
            continue;
        }
        let number = |pointer: &str| agent.pointer(pointer).and_then(Value::as_f64);
        let count = |pointer: &str| grouped(number(pointer).unwrap_or_default() as u64);
        let time = |pointer: &str| number(pointer).map_or_else(|| "–".to_owned(), time_text);
        let cores = format!("{:.2}", number("/client/cpu_share").unwrap_or_default());
        let state = if agent["host"]["disturbed"] == true { "disturbed" } else { "" };
        let _ = write!(html, "<tr><td>{name}</td>");
        for cell in [
            count("/opened"),
            count("/messages"),
            count("/messages_per_s"),
            time("/latency_us/p50"),
            time("/latency_us/p99"),
            time("/lag_us/p99"),
            cores,
            count("/problem_count"),
        ] {
            let _ = write!(html, "<td>{cell}</td>");
        }
        let _ = write!(html, "<td class=\"bad\">{state}</td></tr>");
    }
    *html += "</table></div>";
}

fn cards(html: &mut String, figures: &Value, is_connect: bool) {
    let number = |pointer: &str| figures.pointer(pointer).and_then(Value::as_f64);
    *html += "<div class=\"cards\">";
    let mut card = |value: String, name: &str, class: &str| {
        let _ = write!(html, "<div class=\"card\"><b class=\"{class}\">{value}</b><span>{}</span></div>", escape(name));
    };
    let unit = figures["unit"].as_str().unwrap_or("messages");
    if is_connect {
        card(grouped(number("/connections/ready").unwrap_or_default() as u64), "connections held", "");
    }
    card(grouped(number("/messages_per_s").unwrap_or_default() as u64), &format!("{unit} per second"), "");
    let main = if is_connect { "handshake" } else { "latency" };
    for time in ["p50", "p99", "max"] {
        if let Some(us) = number(&format!("/{main}_us/{time}")) {
            card(time_text(us), &format!("{main} {time}"), "");
        }
    }
    if let Some(us) = number("/server/cpu_us_per_message") {
        card(format!("{us:.2} us"), "server CPU per message", "");
    }
    if let Some(bytes) = number("/server/rss_bytes_per_connection").filter(|_| is_connect) {
        card(bytes_text(bytes), "server memory per connection", "");
    }
    let problems = number("/problem_count").unwrap_or_default() as u64;
    card(grouped(problems), "problems", if problems == 0 { "good" } else { "bad" });
    *html += "</div>";
}

/// What was asked for, and whether it is so: the first thing to read.
fn objectives(html: &mut String, figures: &Value) {
    let rules = figures["slo"].as_array().map_or(&[][..], Vec::as_slice);
    if rules.is_empty() {
        return;
    }
    *html += "<h2>Objectives</h2><table>";
    for rule in rules {
        let (class, met) = if rule["met"] == true { ("good", "met") } else { ("bad", "missed") };
        let text = |key: &str| escape(rule[key].as_str().unwrap_or_default());
        let _ = write!(
            html,
            "<tr><td><code>{}</code></td><td>{}</td><td class=\"{class}\">{met}</td></tr>",
            text("rule"),
            text("value")
        );
    }
    *html += "</table>";
}

fn latencies(html: &mut String, figures: &Value) {
    *html += "<h2>Latency</h2><div class=\"wide\"><table><tr><th></th>";
    for quantile in QUANTILES.iter().map(|quantile| quantile.0).chain(["max", "count"]) {
        let _ = write!(html, "<th>{quantile}</th>");
    }
    *html += "</tr>";
    for (key, name) in TIMES {
        let times = &figures[key];
        let count = times["count"].as_u64().unwrap_or_default();
        if count == 0 || (figures["scenario"] == "connect" && key == "latency_us") {
            continue;
        }
        let name = match (key, figures["rate"].is_null()) {
            ("latency_us", false) => "from the intended send time",
            ("uncorrected_us", _) => "from the actual send time",
            _ => name,
        };
        let _ = write!(html, "<tr><td>{name}</td>");
        for time in QUANTILES.iter().map(|quantile| quantile.0).chain(["max"]) {
            let _ = write!(html, "<td>{}</td>", time_text(times[time].as_f64().unwrap_or_default()));
        }
        let _ = write!(html, "<td>{}</td></tr>", grouped(count));
    }
    for (name, times) in figures["steps"].as_object().into_iter().flatten() {
        let _ = write!(html, "<tr><td>step {}</td>", escape(name));
        for time in QUANTILES.iter().map(|quantile| quantile.0).chain(["max"]) {
            let _ = write!(html, "<td>{}</td>", time_text(times[time].as_f64().unwrap_or_default()));
        }
        let _ = write!(html, "<td>{}</td></tr>", grouped(times["count"].as_u64().unwrap_or_default()));
    }
    *html += "</table></div>";
}

fn plots(html: &mut String, figures: &Value, is_connect: bool) {
    let series = &figures["series"];
    let column = |name: &str| -> Vec<Option<f64>> {
        series[name].as_array().map(|values| values.iter().map(Value::as_f64).collect()).unwrap_or_default()
    };
    let at: Vec<f64> = column("at_s").into_iter().flatten().collect();
    let measured: Vec<bool> =
        series["measured"].as_array().map(|flags| flags.iter().map(|flag| *flag == true).collect()).unwrap_or_default();
    let points = |name: &str, wanted: &dyn Fn(usize) -> bool| -> Vec<(f64, f64)> {
        let values = column(name);
        at.iter()
            .zip(values)
            .enumerate()
            .filter(|(index, _)| wanted(*index))
            .filter_map(|(_, (at, value))| Some((*at, value?)))
            .collect()
    };
    let in_window = |index: usize| measured.get(index).copied().unwrap_or(false);
    let everywhere = |_: usize| true;
    let window = {
        let mut inside = at.iter().zip(&measured).enumerate().filter(|(_, (_, measured))| **measured);
        let first = inside.next().map(|(index, _)| if index == 0 { 0.0 } else { at[index - 1] });
        let last = inside.next_back().map(|(_, (at, _))| *at);
        first.zip(last)
    };
    let to = at.last().copied().unwrap_or(1.0);
    // In an interval without a message there is no latency.
    let gap = 2.5 * to / at.len().max(1) as f64;
    let whole = |class, name, points| Line { class, name, points, gap: f64::INFINITY };
    let unit = figures["unit"].as_str().unwrap_or("messages");
    if !is_connect {
        let _ = write!(
            html,
            "<h2>Throughput <span class=\"dim\">({} per second; the measured window is tinted)</span></h2>",
            escape(unit)
        );
        let line = whole("a", "", points("messages_per_s", &everywhere));
        let y = linear(peak(&[&line]), "", |value| grouped(value as u64));
        plot(html, &[line], &linear(to, "seconds", |value| format!("{value}")), &y, window, true);
    }
    let lines = [
        Line { class: "a", name: "p50", points: points("p50_us", &in_window), gap },
        Line { class: "b", name: "p99", points: points("p99_us", &in_window), gap },
        Line { class: "c", name: "max", points: points("max_us", &in_window), gap },
    ];
    if lines.iter().any(|line| line.points.len() > 1) {
        let what = if is_connect { "Ping to pong" } else { "Latency" };
        let _ = write!(html, "<h2>{what} over time</h2>");
        let y = logarithmic(&lines);
        plot(html, &lines, &linear(to, "seconds", |value| format!("{value}")), &y, window, false);
    }
    let curve = |key: &str| -> Vec<(f64, f64)> {
        let points = figures[key].as_array().into_iter().flatten();
        points.filter_map(|point| Some((point[0].as_f64()?, point[1].as_f64()?))).collect()
    };
    let corrected_name = if figures["rate"].is_null() { "" } else { "from the intended send time" };
    let mut lines = vec![whole("a", corrected_name, curve("percentiles"))];
    if figures["uncorrected_percentiles"].is_array() {
        lines.push(whole("b", "from the actual send time", curve("uncorrected_percentiles")));
    }
    if lines[0].points.len() > 1 {
        *html += "<h2>Latency by percentile</h2>";
        let y = logarithmic(&lines);
        let nines = lines.iter().flat_map(|line| &line.points).map(|point| beyond(point.0)).fold(1.0, f64::max);
        let place = move |percentile: f64| beyond(percentile) / nines;
        let marks = [0.0, 50.0, 90.0, 99.0, 99.9, 99.99, 99.999, 99.9999];
        let marks =
            marks.into_iter().filter(|mark| beyond(*mark) <= nines).map(|mark| (mark, format!("{mark} %"))).collect();
        plot(html, &lines, &Axis { place: Box::new(place), marks, title: "percentile" }, &y, None, false);
    }
    let open = whole("a", "", points("open", &everywhere));
    if open.points.len() > 1 {
        *html += "<h2>Open connections</h2>";
        let y = linear(peak(&[&open]), "", |value| grouped(value as u64));
        plot(html, &[open], &linear(to, "seconds", |value| format!("{value}")), &y, window, true);
    }
}

/// Nines: 0 for 0 %, 1 for 90 %, 2 for 99 %.
fn beyond(percentile: f64) -> f64 {
    -(1.0 - percentile / 100.0).max(1e-9).log10()
}

fn peak(lines: &[&Line]) -> f64 {
    lines.iter().flat_map(|line| &line.points).map(|point| point.1).fold(0.0, f64::max)
}

/// An axis from 0 to `to`, with round marks.
fn linear(to: f64, title: &'static str, text: impl Fn(f64) -> String) -> Axis {
    let to = if to > 0.0 { to } else { 1.0 };
    let rough = to / 5.0;
    let scale = 10f64.powf(rough.log10().floor());
    let step =
        [1.0, 2.0, 5.0, 10.0].into_iter().map(|factor| factor * scale).find(|step| *step >= rough).unwrap_or(rough);
    let end = if title.is_empty() { (to / step).ceil() * step } else { to };
    let marks = (0..).map(|index| f64::from(index) * step).take_while(|mark| *mark <= end * 1.0001);
    // Steps such as 0.2 add up to numbers with a long tail.
    let marks = marks.map(|mark| (mark, text((mark * 1e6).round() / 1e6))).collect();
    Axis { place: Box::new(move |value| value / end), marks, title }
}

/// A logarithmic axis of times in microseconds.
fn logarithmic(lines: &[Line]) -> Axis {
    let values = || lines.iter().flat_map(|line| &line.points).map(|point| point.1.max(0.1));
    let low = values().fold(f64::INFINITY, f64::min).log10();
    let high = values().fold(0.1, f64::max).log10();
    let (low, high) = if high - low < 0.3 { (low - 0.2, high + 0.2) } else { (low - 0.05, high + 0.05) };
    let factors: &[f64] = if high - low < 2.5 { &[1.0, 2.0, 5.0] } else { &[1.0] };
    let mut marks = Vec::new();
    for power in low.floor() as i32..=high.ceil() as i32 {
        for factor in factors {
            let value = factor * 10f64.powi(power);
            if (low..=high).contains(&value.log10()) {
                marks.push((value, short_time(value)));
            }
        }
    }
    Axis { place: Box::new(move |value: f64| (value.max(0.1).log10() - low) / (high - low)), marks, title: "" }
}

fn short_time(us: f64) -> String {
    let (value, unit) = if us < 1e3 {
        (us, "us")
    } else if us < 1e6 {
        (us / 1e3, "ms")
    } else {
        (us / 1e6, "s")
    };
    format!("{} {unit}", (value * 10.0).round() / 10.0)
}

fn draw(
    html: &mut String,
    frame: &Frame,
    lines: &[Line],
    [x, y]: [&Axis; 2],
    window: Option<(f64, f64)>,
    filled: bool,
) {
    let left = frame.left;
    let (width, height) = (frame.width - left - frame.right, frame.height - TOP - BOTTOM);
    let at_x = |value: f64| left + (x.place)(value).clamp(0.0, 1.0) * width;
    let at_y = |value: f64| TOP + height - (y.place)(value).clamp(0.0, 1.0) * height;
    let floor = TOP + height;
    let _ =
        write!(html, "<svg class=\"{}\" viewBox=\"0 0 {} {}\" role=\"img\">", frame.class, frame.width, frame.height);
    if let Some((from, to)) = window {
        let (from, to) = (at_x(from), at_x(to));
        let _ = write!(
            html,
            "<rect class=\"window\" x=\"{from:.1}\" y=\"{TOP}\" width=\"{:.1}\" height=\"{height}\"/>",
            to - from
        );
    }
    for (value, text) in &y.marks {
        let place = at_y(*value);
        let _ = write!(
            html,
            "<line class=\"grid\" x1=\"{left}\" x2=\"{:.1}\" y1=\"{place:.1}\" y2=\"{place:.1}\"/><text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{text}</text>",
            left + width,
            left - 8.0,
            place + 4.0
        );
    }
    let mut free_from = f64::NEG_INFINITY;
    for (value, text) in &x.marks {
        let place = at_x(*value);
        let half = text.len() as f64 * LETTER / 2.0;
        // Between two that would touch the second is left out, and the last must not stand out.
        if place - half < free_from || place + half > frame.width {
            continue;
        }
        free_from = place + half + LETTER;
        let _ = write!(
            html,
            "<line class=\"axis\" x1=\"{place:.1}\" x2=\"{place:.1}\" y1=\"{floor}\" y2=\"{:.1}\"/><text x=\"{place:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{text}</text>",
            floor + 4.0,
            floor + 18.0
        );
    }
    let _ = write!(
        html,
        "<line class=\"axis\" x1=\"{left}\" x2=\"{:.1}\" y1=\"{floor}\" y2=\"{floor}\"/><text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
        left + width,
        left + width,
        floor + 33.0,
        x.title
    );
    for (line, part) in lines.iter().flat_map(|line| line.parts().map(move |part| (line, part))) {
        let path: Vec<String> = part.iter().map(|point| format!("{:.1},{:.1}", at_x(point.0), at_y(point.1))).collect();
        if filled {
            let (first, last) = (at_x(part[0].0), at_x(part[part.len() - 1].0));
            let _ = write!(
                html,
                "<polygon class=\"fill\" points=\"{first:.1},{floor} {} {last:.1},{floor}\"/>",
                path.join(" ")
            );
        }
        // One point by itself is a line to where it is: a dot.
        let path = if let [point] = &path[..] { format!("{point} {point}") } else { path.join(" ") };
        let _ = write!(html, "<polyline class=\"{}\" points=\"{path}\"/>", line.class);
    }
    *html += "</svg>";
}

/// A plot, in every frame: the page shows the one that fits.
fn plot(html: &mut String, lines: &[Line], x: &Axis, y: &Axis, window: Option<(f64, f64)>, filled: bool) {
    *html += "<figure>";
    for frame in &FRAMES {
        draw(html, frame, lines, [x, y], window, filled);
    }
    if lines.iter().any(|line| !line.name.is_empty()) {
        *html += "<div class=\"legend\">";
        for line in lines.iter().filter(|line| !line.name.is_empty()) {
            let _ = write!(html, "<span><i style=\"background:var(--{})\"></i>{}</span>", line.class, line.name);
        }
        *html += "</div>";
    }
    *html += "</figure>";
}

fn checks(html: &mut String, figures: &Value) {
    *html += "<h2>Checks</h2><table>";
    for (name, count) in figures["checks"].as_object().into_iter().flatten() {
        let class = if count.as_u64() == Some(0) { "good" } else { "bad" };
        let _ = write!(html, "<tr><td>messages {}</td><td class=\"{class}\">{count}</td></tr>", escape(name));
    }
    let _ = write!(html, "<tr><td>connections failed</td><td>{}</td></tr>", figures["connections"]["failed"]);
    for (key, name) in
        [("close_codes", "Close"), ("errnos", "error"), ("http_statuses", "HTTP status"), ("ends", "ended")]
    {
        for (code, count) in figures[key].as_object().into_iter().flatten() {
            let _ = write!(html, "<tr><td>{name} {}</td><td>{count}</td></tr>", escape(&code.replace('_', " ")));
        }
    }
    *html += "</table>";
    let problems: Vec<&str> = figures["problems"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    if !problems.is_empty() {
        *html += "<ul>";
        for problem in problems {
            // What is known of some stands below the number of its kind.
            let class = if problem.starts_with(' ') { " class=\"of\"" } else { "" };
            let _ = write!(html, "<li{class}>{}</li>", escape(problem.trim_start()));
        }
        *html += "</ul>";
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_page_needs_nothing_from_outside_and_escapes_what_it_shows() {
        let figures = json!({
            "scenario": "echo", "url": "ws://x/?a=<b>&c", "unit": "replies", "passed": true, "rate": null,
            "latency_us": {"p50": 10.0, "p90": 12.0, "p99": 20.0, "p99.9": 30.0, "p99.99": 31.0, "max": 32.0, "count": 9},
            "percentiles": [[0.0, 9.0], [50.0, 10.0], [99.0, 20.0]],
            "series": {"at_s": [1.0, 2.0, 3.0], "measured": [false, true, true], "messages_per_s": [0.0, 10.0, 20.0],
                "open": [1, 2, 2], "p50_us": [null, 10.0, 11.0], "p99_us": [null, 20.0, 22.0], "max_us": [null, 30.0, 32.0]},
            "checks": {"lost": 0}, "connections": {"ready": 2, "wanted": 2, "failed": 0, "ramp_s": 0.1},
            "machine": {}, "messages_per_s": 12345.0, "problem_count": 0,
        });
        let page = page(&figures);
        assert!(page.contains("ws://x/?a=&lt;b&gt;&amp;c") && page.contains("12,345"), "{page}");
        for outside in ["http://", "https://", "src=", "@import", "url("] {
            assert!(!page.contains(outside), "{outside}");
        }
        // Each for wide pages and for phones.
        assert_eq!(page.matches("<svg class=\"broad\"").count(), 4);
        assert_eq!(page.matches("<svg class=\"narrow\"").count(), 4);
        assert!(!page.contains("NaN") && !page.contains("inf"), "{page}");
    }

    /// Kills: a line through a time in which nothing was measured; users who come and go as connections that never opened.
    #[test]
    fn what_was_not_measured_is_not_drawn() {
        let (quiet, busy): (Vec<f64>, Vec<f64>) = ((5..15).map(f64::from).collect(), vec![1.0, 2.0, 3.0, 4.0]);
        let at: Vec<f64> = busy.iter().copied().chain(quiet).chain([15.0, 17.0]).collect();
        let p50: Vec<Option<f64>> = (0..16).map(|place| (place < 4 || place == 14).then_some(10.0)).collect();
        let figures = json!({
            "scenario": "run", "steps": {}, "opened": 7, "connections": {"wanted": 5, "ready": 0},
            "series": {"at_s": at, "measured": vec![true; 16], "p50_us": p50},
        });
        let page = page(&figures);
        let lines: Vec<usize> = page
            .split("<polyline class=\"a\" points=\"")
            .skip(1)
            .filter_map(|rest| rest.split('"').next())
            .map(|points| points.split(' ').count())
            .collect();
        // Four points, and one that stands twice in its own line, in either plot.
        assert_eq!(lines, [4, 2, 4, 2], "{page}");
        assert!(page.contains("7 opened, 5 at most at once"), "{page}");
    }

    #[test]
    fn objectives_come_first_and_what_is_wide_scrolls() {
        let figures = json!({
            "scenario": "echo", "slo": [{"rule": "p99<5ms", "value": "9 ms", "met": false}],
            "latency_us": {"p50": 10.0, "count": 9}, "steps": {"join <1>": {"p50": 7.0, "count": 3}},
            "tls": {"full": 3, "resumed": 2, "agreed": {"TLSv1.3, X25519": 5}, "failures": {"alert": 1}}, "checks": {"lost": 0},
            "ends": {"never_opened": 3},
        });
        let page = page(&figures);
        let place = |text: &str| page.find(text).unwrap_or_else(|| panic!("{text} is not in {page}"));
        assert!(place("p99&lt;5ms") < place("<h2>Latency") && place("<div class=\"wide\">") < place("join &lt;1&gt;"));
        assert!(
            page.contains("3 full handshakes, 2 resumed, alert x 1; 5 connections: TLSv1.3, X25519")
                && page.contains("max-width:560px")
        );
        assert!(page.contains("ended never opened"));
        // Where others write the words, none may be so long that the page is wider than a phone.
        let rule = page.lines().find(|line| line.ends_with("{overflow-wrap:anywhere}")).unwrap_or_default();
        let breaks = rule.split('{').next().unwrap_or_default().split(',').collect::<Vec<_>>();
        assert!(["h1", "li", ".warning", "td:first-child"].iter().all(|place| breaks.contains(place)), "{rule}");
    }

    /// Kills: marks that are written over each other on a phone.
    #[test]
    fn marks_leave_each_other_room() {
        let line = || Line { class: "a", name: "", points: vec![(0.0, 1.0), (6.0, 2.0)], gap: f64::INFINITY };
        let axis = |text: &'static str| linear(6.0, "seconds", move |value| format!("{text}{value}"));
        let marks = |text| {
            let mut html = String::new();
            plot(&mut html, &[line()], &axis(text), &linear(2.0, "", |_| String::new()), None, true);
            html.split("<svg").skip(1).map(|plot| plot.matches("\"middle\"").count()).collect::<Vec<_>>()
        };
        assert_eq!(marks(""), [4, 4]);
        // The last would stand out.
        assert_eq!(marks("a very long word of "), [3, 2]);
    }

    #[test]
    fn marks_are_round() {
        let marks =
            |to| linear(to, "x", |value| format!("{value}")).marks.into_iter().map(|mark| mark.1).collect::<Vec<_>>();
        assert_eq!(marks(1.0), ["0", "0.2", "0.4", "0.6", "0.8", "1"]);
        assert_eq!(marks(47.0), ["0", "10", "20", "30", "40"]);
    }
}
