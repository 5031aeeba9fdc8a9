//! The parts of a core as the configuration wants them: its ring, its hub, what its shard goes by, and the limits of the process.

use crate::admission::{Admission, Memory};
use crate::config::Config;
use crate::engine::uring::Options;
use crate::hub::{CoreHub, DeflateSettings, IdKey, Letter, SLOTS_MAX};
use crate::mail::Post;
use crate::outbox::Outbox;
use crate::proto::{Limits, Spares};
use crate::shard::{Handover, Settings};

/// Slots beyond the allowed WebSockets, so that those over the limit can be told so; of a small table an eighth.
const SPARE_SLOTS: u32 = 256;
/// Memory that a core keeps for assembling messages.
const POOL_BYTES: usize = 16 << 20;
/// Bytes that one arming of a receive brings: a quarter of what stays in the cache.
const RECV_BYTES_MAX: u32 = 256 << 10;
/// Received bytes after which a tick handles no further connection's: what is received, opened, sealed and sent of so much
/// stays in a cache of the second level. Measured with 64 connections of 16 KiB: a twentieth to a tenth less over TLS, no
/// difference without.
const TICK_BYTES_MAX: usize = 256 << 10;
/// Time that a tick takes to decompress before other input goes first. A few bytes can become a thousand times as many, and
/// a core has other connections.
const INFLATE_NS_PER_TICK: u64 = 500_000;
/// Less than this becomes at most 4 MiB (RFC 1951: 1,032 times as much), in a fraction of that time.
const INFLATE_BYTES_MIN: usize = 4 << 10;
/// Payload bytes to come from which it pays to receive straight into a message's own buffer.
const DIRECT_BYTES_MIN: usize = 128 << 10;
/// Buffers of this size are large: where a receive cannot be bounded, to cancel it costs more than it saves.
const LARGE_BUFFER_BYTES: u32 = 16 << 10;
/// With incremental consumption buffers are this large at least: a 16 KiB message then comes in one piece.
const INCREMENTAL_BUFFER_BYTES: u32 = 64 << 10;

/// A core's ring.
pub(super) fn ring_options(config: &Config, rings: u32) -> Options {
    Options {
        sq_entries: config.ring_entries,
        cq_entries: config.cq_entries,
        slots: config.connections_max.saturating_add(SPARE_SLOTS).min(SLOTS_MAX),
        descriptors: None,
        rings,
        buffers: config.recv_buffers,
        buffer_bytes: config.recv_buffer_bytes,
        incremental_bytes: INCREMENTAL_BUFFER_BYTES,
        spin: config.spin,
        ..Options::default()
    }
}

/// The limits of the whole process.
pub fn admission(config: &Config, cores: usize) -> Admission {
    Admission::new(config.connections_max, config.connections_per_ip_max, config.accept_rate_per_second)
        .with_memory(Memory::new(config.memory_bytes_max as u64, cores))
        .with_tls_handshakes(config.tls_handshakes)
}

/// The hub of one core.
pub fn core_hub(config: &Config, ids: IdKey, post: Post<Letter>) -> CoreHub {
    let outbox = Outbox::new(config.outbox_bytes_max);
    let cores = post.cores().max(1);
    let mut hub = CoreHub::new(ids, post, outbox, Spares::new(POOL_BYTES), config.slow_consumer);
    hub.set_deflate(DeflateSettings {
        mode: config.deflate,
        bytes_min: config.deflate_bytes_min,
        window_bits: config.deflate_window_bits,
        level: config.deflate_level,
    });
    hub.set_rooms_max(config.rooms_max);
    hub.set_history(config.history.clone(), config.history_bytes_max / cores);
    hub
}

/// WebSockets that a core with a table of so many slots takes.
pub(crate) fn websockets_max(slots: u32) -> u32 {
    slots - SPARE_SLOTS.min(slots / 8)
}

/// What a shard goes by.
pub fn settings(config: &Config, listeners: u8, buffer_bytes: u32, bounds_receives: bool) -> Settings {
    Settings {
        limits: Limits { message_bytes_max: config.message_bytes_max, fragments_max: config.fragments_max },
        head_bytes_max: config.head_bytes_max,
        body_bytes_max: config.body_bytes_max,
        handshake_timeout: config.handshake_timeout,
        keep_alive: config.keep_alive,
        crowded_slots: SPARE_SLOTS / 4,
        idle_timeout: config.idle_timeout,
        ping_interval: config.ping_interval,
        write_timeout: config.write_timeout,
        answer_timeout: config.answer_timeout,
        close_timeout: config.close_timeout,
        message_rate_per_second: config.message_rate_per_second,
        pause_bytes: (config.outbox_bytes_max / 2).min(256 << 10),
        recv_bytes_max: RECV_BYTES_MAX,
        tick_bytes_max: TICK_BYTES_MAX,
        inflate_ns_per_tick: INFLATE_NS_PER_TICK,
        inflate_bytes_min: INFLATE_BYTES_MIN,
        direct_bytes_min: DIRECT_BYTES_MIN,
        direct_interrupts: !bounds_receives && buffer_bytes < LARGE_BUFFER_BYTES,
        deflate_skip: config.deflate_skip.clone(),
        origins: config.origins.clone(),
        websockets_max: u32::MAX,
        drain_notice: config.drain_notice,
        drain_timeout: config.drain_timeout,
        drain_spread: config.drain_spread,
        listeners,
        entrances: Vec::new(),
        acceptors: Vec::new(),
        trusted_proxies: config.trusted_proxies.clone(),
        handover: Handover::default(),
        admin_stays: false,
    }
}
