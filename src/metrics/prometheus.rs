//! Metrics as text for Prometheus, format 0.0.4: every series with the label `core`, every family described once.

use std::collections::BTreeMap;
use std::fmt::{Display, Write as _};

use super::{
    Certificates, CloseCode, CoreMetrics, Counts, Expiry, Kind, Metrics, NodeMetrics, NodesMetrics, ReloadResult, Side,
};

/// The text's media type.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

impl Metrics {
    /// The text that a Prometheus server scrapes, of the media type [`CONTENT_TYPE`].
    ///
    /// ```
    /// use ringwire::testing::TestServer;
    /// use ringwire::{App, ws};
    ///
    /// let server = TestServer::new(|| App::new().ws("/echo", ws().on_message(|_, message| message.into_owned())));
    /// let client = server.connect("/echo");
    /// client.send("hello");
    /// let text = server.block_on(server.hub().metrics()).to_prometheus();
    /// assert!(text.contains("ringwire_messages_received_total{core=\"0\"} 1\n"));
    /// ```
    pub fn to_prometheus(&self) -> String {
        let mut text = Text { out: String::with_capacity(16 << 10), cores: &self.cores };
        process(&mut text, self);
        certificates(&mut text, &self.certificates);
        if let Some(nodes) = &self.nodes {
            others(&mut text, nodes);
            each_of_others(&mut text, nodes);
            one_history(&mut text, nodes);
        }
        connections(&mut text);
        messages(&mut text);
        histories(&mut text);
        memory(&mut text);
        mail(&mut text);
        ring(&mut text);
        text.out
    }
}

fn process(text: &mut Text<'_>, metrics: &Metrics) {
    text.family("ringwire_info", "gauge", "The program, by its version.");
    let version = env!("CARGO_PKG_VERSION");
    text.line("ringwire_info", format_args!("version=\"{version}\""), 1);
    text.single("ringwire_cores", "Cores of the server.", metrics.cores_all as u64);
    text.single("ringwire_draining", "Whether the server is shutting down.", u64::from(metrics.draining));
    let limit = "The budget for queued and partial messages of the whole process; 0 = none.";
    text.single("ringwire_memory_limit_bytes", limit, metrics.memory_bytes_max);
    let over = "Whether the budget was spent, and not enough of it is free again: upgrades are refused.";
    text.single("ringwire_memory_over_limit", over, u64::from(metrics.memory_over));
}

/// Nothing of it where there are none.
fn certificates(text: &mut Text<'_>, certificates: &Certificates) {
    if certificates.shown.is_empty() {
        return;
    }
    // Of several for one name, the one that needs to be renewed first.
    let mut earliest = BTreeMap::new();
    for Expiry { name, at_unix_s } in &certificates.shown {
        earliest.entry(name).and_modify(|at| *at = (*at_unix_s).min(*at)).or_insert(*at_unix_s);
    }
    let expiry = "ringwire_tls_certificate_expiry_seconds";
    text.family(
        expiry,
        "gauge",
        "When a certificate expires, in seconds of Unix time, by the first name that it is for.",
    );
    for (name, at_unix_s) in earliest {
        text.line(expiry, format_args!("name=\"{}\"", escaped(name)), at_unix_s);
    }
    let reloads = "ringwire_tls_certificate_reloads_total";
    text.family(reloads, "counter", "Times that the files of certificates were read anew, by what came of it.");
    for &result in ReloadResult::ALL {
        text.line(reloads, format_args!("result=\"{}\"", result.label()), certificates.reloads.of(result));
    }
}

/// As the value of a label is written.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

fn others(text: &mut Text<'_>, nodes: &NodesMetrics) {
    text.family("ringwire_node_info", "gauge", "This machine among those that are joined, by its name and number.");
    text.line("ringwire_node_info", format_args!("node=\"{}\",number=\"{:06x}\"", nodes.name, nodes.number), 1);
    text.single("ringwire_nats_joined", "Whether NATS is there and this machine joined.", u64::from(nodes.is_joined));
    text.single("ringwire_nodes", "Other machines that have been heard of lately.", nodes.others);
    text.single("ringwire_nodes_connections", "Their WebSockets, as they have told.", nodes.connections);
    text.single("ringwire_nodes_rooms", "Rooms that each of them has members of, summed.", nodes.rooms);
    text.total("ringwire_nats_sent_total", "Messages of cores that were sent to other machines.", nodes.sent);
    let received = "Messages of other machines and programs that were delivered here.";
    text.total("ringwire_nats_received_total", received, nodes.received);
    let dropped = "ringwire_nats_dropped_total";
    text.family(dropped, "counter", "Messages to and from other machines that were dropped.");
    for (reason, count) in [
        ("away", nodes.dropped_away),
        ("congested", nodes.dropped_congested),
        ("mailbox", nodes.dropped_mailbox),
        ("slow", nodes.dropped_slow),
        ("malformed", nodes.malformed),
        ("twice", nodes.twice),
    ] {
        text.line(dropped, format_args!("reason=\"{reason}\""), count);
    }
    let unreachable = "Questions to other machines that were not answered in time.";
    text.total("ringwire_nats_unreachable_total", unreachable, nodes.unreachable);
    text.total("ringwire_nats_reconnects_total", "Times that NATS was there again.", nodes.reconnects);
    let round_trip = "ringwire_nats_round_trip_seconds";
    text.family(round_trip, "gauge", "The last time to NATS and back.");
    let _ = writeln!(text.out, "{round_trip} {}", seconds(nodes.round_trip_ns));
}

/// Machines that are told of each by itself: the first ones, by name.
const NODES_MAX: usize = 64;

fn each_of_others(text: &mut Text<'_>, nodes: &NodesMetrics) {
    type Of = fn(&NodeMetrics) -> u64;
    let families: [(&str, &str, Of); 2] = [
        ("ringwire_nats_node_connections", "WebSockets of another machine, as it has told.", |node| node.connections),
        ("ringwire_nats_node_rooms", "Rooms that another machine has members of.", |node| node.rooms),
    ];
    for (name, help, of) in families {
        text.family(name, "gauge", help);
        for node in nodes.each.iter().take(NODES_MAX) {
            text.line(name, format_args!("node=\"{}\"", escaped(&node.name)), of(node));
        }
    }
    let heard = "ringwire_nats_node_heard_seconds";
    text.family(heard, "gauge", "How long ago another machine was heard last.");
    for node in nodes.each.iter().take(NODES_MAX) {
        let label = escaped(&node.name);
        let _ = writeln!(text.out, "{heard}{{node=\"{label}\"}} {}", seconds(node.heard_ms * 1_000_000));
    }
}

fn one_history(text: &mut Text<'_>, nodes: &NodesMetrics) {
    let shared = "Whether rooms have one history on all machines, by JetStream, and it can be reached.";
    text.single("ringwire_nats_history_shared", shared, u64::from(nodes.history_shared));
    text.total(
        "ringwire_nats_history_sent_total",
        "Messages of rooms that were sent to JetStream.",
        nodes.history_sent,
    );
    let received = "Messages of rooms that came of JetStream, with their numbers.";
    text.total("ringwire_nats_history_received_total", received, nodes.history_received);
    let apart = "Messages of rooms that went on without a number, for JetStream was away or they were too long for it.";
    text.total("ringwire_nats_history_unnumbered_total", apart, nodes.history_apart);
    let refused = "Messages of rooms that were refused, for too many were on their way to JetStream.";
    text.total("ringwire_nats_history_refused_total", refused, nodes.history_refused);
    let gaps = "Times that messages of a room had not come, and were fetched.";
    text.total("ringwire_nats_history_gaps_total", gaps, nodes.history_gaps);
    let asked = "Questions for more of a room's history than this machine had.";
    text.total("ringwire_nats_history_questions_total", asked, nodes.history_asked);
    let unanswered = "Those that were not answered in time.";
    text.total("ringwire_nats_history_unanswered_total", unanswered, nodes.history_unanswered);
}

fn connections(text: &mut Text<'_>) {
    text.gauge("ringwire_connections", "Open sockets, those that only speak HTTP included.", |core| {
        core.counters.accepted - core.counters.released
    });
    text.gauge("ringwire_websockets", "Open WebSockets.", |core| core.counters.opened - core.counters.closed);
    text.gauge("ringwire_rooms", "Rooms that the core knows of.", |core| core.rooms);
    text.counter("ringwire_connections_accepted_total", "Sockets accepted.", |core| core.counters.accepted);
    text.counter("ringwire_accept_errors_total", "Accepts that failed.", |core| core.counters.accept_errors);
    text.counter("ringwire_websockets_opened_total", "WebSockets opened.", |core| core.counters.opened);
    let closed = "ringwire_websockets_closed_total";
    text.family(closed, "counter", "WebSockets that ended, by close code and by who began to close.");
    for core in text.cores {
        for &by in Side::ALL {
            // Nobody's code is 1006, and 1006 is nobody's.
            for &code in CloseCode::ALL.iter().filter(|code| (by == Side::Nobody) == (**code == CloseCode::Broken)) {
                let labels = format!("core=\"{}\",code=\"{}\",by=\"{}\"", core.core, code.label(), by.label());
                line(&mut text.out, closed, labels, core.counters.closes.of(code, by));
            }
        }
    }
    let refused = "Requests and upgrades answered with an error status.";
    text.kinds("ringwire_refused_total", refused, "reason", |core| &core.counters.refused);
    let handshakes = "TLS handshakes that have ended, by how.";
    text.kinds("ringwire_tls_handshakes_total", handshakes, "result", |core| &core.counters.tls_handshakes);
    text.kinds("ringwire_timeouts_total", "Connections ended because a time limit was reached.", "kind", |core| {
        &core.counters.timeouts
    });
    let shed = "Connections closed with 1013 because they held too much.";
    text.kinds("ringwire_shed_total", shed, "reason", |core| &core.counters.shed);
    let errors = "Connections that broke the WebSocket protocol.";
    text.counter("ringwire_protocol_errors_total", errors, |core| core.counters.protocol_errors);
}

fn messages(text: &mut Text<'_>) {
    text.counter("ringwire_messages_received_total", "Messages received.", |core| core.counters.messages_in);
    let sent = "Messages queued to be sent, once per receiver.";
    text.counter("ringwire_messages_sent_total", sent, |core| core.counters.messages_out);
    let received = "Bytes received, HTTP and framing included.";
    text.counter("ringwire_received_bytes_total", received, |core| core.counters.bytes_in);
    let sent = "Bytes that sockets have taken, HTTP and framing included.";
    text.counter("ringwire_sent_bytes_total", sent, |core| core.counters.bytes_out);
    let inflated = "Messages received compressed, and decompressed.";
    text.counter("ringwire_inflated_messages_total", inflated, |core| core.counters.inflated.messages);
    let wire = "Payload bytes of the messages that were decompressed, as they came.";
    text.counter("ringwire_inflated_wire_bytes_total", wire, |core| core.counters.inflated.wire_bytes);
    let payload = "Payload bytes of the messages that were decompressed, as handlers see them.";
    text.counter("ringwire_inflated_payload_bytes_total", payload, |core| core.counters.inflated.payload_bytes);
    let took = "Nanoseconds spent decompressing.";
    text.counter("ringwire_inflate_nanoseconds_total", took, |core| core.counters.inflated.took_ns);
    let deflated = "Messages compressed, once for all receivers of the same bytes.";
    text.counter("ringwire_deflated_messages_total", deflated, |core| core.counters.deflated.messages);
    let payload = "Payload bytes of the messages that were compressed, as handlers see them.";
    text.counter("ringwire_deflated_payload_bytes_total", payload, |core| core.counters.deflated.payload_bytes);
    let wire = "Payload bytes of the messages that were compressed, as they are sent.";
    text.counter("ringwire_deflated_wire_bytes_total", wire, |core| core.counters.deflated.wire_bytes);
    let took = "Nanoseconds spent compressing.";
    text.counter("ringwire_deflate_nanoseconds_total", took, |core| core.counters.deflated.took_ns);
    let saved = "Deliveries that took what had been compressed for another receiver.";
    text.counter("ringwire_deflate_saved_total", saved, |core| core.counters.deflate_saved);
    let resets = "Times that a stream of compressed messages was begun anew.";
    text.counter("ringwire_stream_resets_total", resets, |core| core.counters.stream_resets);
    let waiting = "Connections that wait for their streams of compressed messages to be begun anew.";
    text.gauge("ringwire_out_of_step", waiting, |core| core.out_of_step);
    let dropped = "Messages not sent because a receiver's queue was full.";
    text.kinds("ringwire_messages_dropped_total", dropped, "reason", |core| &core.counters.drops);
    let discarded = "Messages received on routes that do nothing with them, or whose task has ended.";
    text.counter("ringwire_messages_discarded_total", discarded, |core| core.counters.messages_discarded);
}

fn histories(text: &mut Text<'_>) {
    text.gauge("ringwire_history_rooms", "Rooms whose messages the core keeps.", |core| core.history_rooms);
    text.gauge("ringwire_history_messages", "Messages that the core keeps of rooms.", |core| core.history_messages);
    text.gauge("ringwire_history_bytes", "Bytes that these take.", |core| core.history_bytes);
    let recoveries = "Connections that asked for what came behind their position in a room.";
    text.counter("ringwire_history_recoveries_total", recoveries, |core| core.counters.history_recoveries);
    let incomplete = "Those of them that could not be given all of it.";
    text.counter("ringwire_history_incomplete_total", incomplete, |core| core.counters.history_incomplete);
    let forgotten = "Rooms whose histories were given up, for others' or with the machine's ear for them.";
    text.counter("ringwire_history_forgotten_total", forgotten, |core| core.counters.history_forgotten);
    let refused = "Messages of threads and other machines that a room's owner was too far behind to take.";
    text.counter("ringwire_history_refused_total", refused, |core| core.counters.history_refused);
}

fn memory(text: &mut Text<'_>) {
    let outbox = "Bytes queued or in flight that sockets have not taken, summed over connections.";
    text.gauge("ringwire_outbox_bytes", outbox, |core| core.outbox_bytes);
    let largest = "The most such bytes of one connection.";
    text.gauge("ringwire_outbox_largest_bytes", largest, |core| core.outbox_largest_bytes);
    let partial = "Bytes held of messages and requests that are incomplete or held back.";
    text.gauge("ringwire_partial_bytes", partial, |core| core.partial_bytes);
    let inbox = "Bytes of messages that tasks have not taken.";
    text.gauge("ringwire_inbox_bytes", inbox, |core| core.inbox_bytes);
    let freed = "Bytes given up with connections that were closed because the memory budget was spent.";
    text.counter("ringwire_memory_shed_bytes_total", freed, |core| core.counters.shed_bytes);
}

fn mail(text: &mut Text<'_>) {
    text.counter("ringwire_letters_total", "Letters read, from other cores and threads.", |core| core.counters.letters);
    let bells = "Other cores that slept and were woken, for letters or for what has become ready.";
    text.counter("ringwire_bells_total", bells, |core| core.counters.bells);
    text.gauge("ringwire_mail_depth", "Letters waiting in the core's mailbox.", |core| core.mail_depth);
    let parked = "Letters of this core that wait for room in other cores' mailboxes.";
    text.gauge("ringwire_mail_parked", parked, |core| core.mail_parked);
    let refused = "Letters that threads outside could not send because the core's mailbox was full.";
    text.counter("ringwire_mail_refused_total", refused, |core| core.mail_refused);
}

fn ring(text: &mut Text<'_>) {
    text.counter("ringwire_ticks_total", "Turns of the core's loop.", |core| core.counters.ticks);
    text.counter("ringwire_ring_enters_total", "Calls of io_uring_enter.", |core| core.counters.enters);
    let completions = "Completions reaped; over the enters, how many one call brought.";
    text.counter("ringwire_ring_completions_total", completions, |core| core.counters.completions);
    let missing = "Receives that found no provided buffer (ENOBUFS).";
    text.counter("ringwire_ring_buffers_missing_total", missing, |core| core.counters.buffers_missing);
    let overflows = "Times that the completion queue overflowed; nothing is lost by it.";
    text.counter("ringwire_ring_overflows_total", overflows, |core| core.counters.overflows);

    let cpu = "ringwire_cpu_seconds_total";
    let help = "Processor time of the core's thread, the kernel's work for it included: a second of each is a core that is full.";
    text.family(cpu, "counter", help);
    for core in text.cores {
        line(&mut text.out, cpu, format_args!("core=\"{}\"", core.core), seconds(core.cpu_ns));
    }

    let handling = "ringwire_handler_seconds";
    let help = "Time from the end of a wait to the next one: mail, parser, handlers, tasks, timers of one tick.";
    text.family(handling, "histogram", help);
    for core in text.cores {
        let times = &core.counters.handling;
        let mut bucket = |bound: &dyn Display, count| {
            let labels = format!("core=\"{}\",le=\"{bound}\"", core.core);
            line(&mut text.out, "ringwire_handler_seconds_bucket", labels, count);
        };
        for (bound_ns, count) in times.cumulative() {
            bucket(&seconds(bound_ns), count);
        }
        bucket(&"+Inf", times.count());
        let labels = format!("core=\"{}\"", core.core);
        line(&mut text.out, "ringwire_handler_seconds_sum", &labels, seconds(times.sum_ns()));
        line(&mut text.out, "ringwire_handler_seconds_count", &labels, times.count());
    }
    let longest = "ringwire_handler_longest_seconds";
    text.family(longest, "gauge", "The longest such time since the start.");
    for core in text.cores {
        let labels = format!("core=\"{}\"", core.core);
        line(&mut text.out, longest, labels, seconds(core.counters.handling.max_ns()));
    }
}

fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}

struct Text<'m> {
    out: String,
    cores: &'m [CoreMetrics],
}

impl Text<'_> {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.out, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn line(&mut self, name: &str, labels: impl Display, value: impl Display) {
        line(&mut self.out, name, labels, value);
    }

    /// Of the whole process.
    fn single(&mut self, name: &str, help: &str, value: u64) {
        self.family(name, "gauge", help);
        let _ = writeln!(self.out, "{name} {value}");
    }

    fn total(&mut self, name: &str, help: &str, value: u64) {
        self.family(name, "counter", help);
        let _ = writeln!(self.out, "{name} {value}");
    }

    fn gauge(&mut self, name: &str, help: &str, value: impl Fn(&CoreMetrics) -> u64) {
        self.per_core(name, "gauge", help, value);
    }

    fn counter(&mut self, name: &str, help: &str, value: impl Fn(&CoreMetrics) -> u64) {
        self.per_core(name, "counter", help, value);
    }

    fn per_core(&mut self, name: &str, kind: &str, help: &str, value: impl Fn(&CoreMetrics) -> u64) {
        self.family(name, kind, help);
        for core in self.cores {
            self.line(name, format_args!("core=\"{}\"", core.core), value(core));
        }
    }

    fn kinds<K: Kind>(&mut self, name: &str, help: &str, label: &str, of: impl Fn(&CoreMetrics) -> &Counts<K>) {
        self.family(name, "counter", help);
        for core in self.cores {
            for &kind in K::ALL {
                let labels = format!("core=\"{}\",{label}=\"{}\"", core.core, kind.label());
                self.line(name, labels, of(core).of(kind));
            }
        }
    }
}

fn line(out: &mut String, name: &str, labels: impl Display, value: impl Display) {
    let _ = writeln!(out, "{name}{{{labels}}} {value}");
}
