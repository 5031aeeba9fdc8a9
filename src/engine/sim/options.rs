//! What a simulated ring is like.

/// Bytes that a socket holds in each direction, until told otherwise.
pub(super) const WINDOW_BYTES: usize = 64 * 1024;

/// A bug planted in the fake: whoever checks what clients receive must notice each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// One send in ten loses a byte.
    LoseByte,
    /// One send in ten delivers a byte twice.
    DuplicateByte,
    /// One send in ten arrives after the next one of its connection.
    ReorderSends,
    /// A closed connection sends no FIN.
    ForgetFin,
    /// Direct descriptors on a kernel that closes them late.
    DirectThoughLate,
}

impl Mutant {
    /// Every mutant.
    pub const ALL: [Mutant; 5] =
        [Mutant::LoseByte, Mutant::DuplicateByte, Mutant::ReorderSends, Mutant::ForgetFin, Mutant::DirectThoughLate];
}

/// How a simulated ring is set up.
#[derive(Clone, Debug)]
pub struct RingOptions {
    /// Slots in the table of direct descriptors.
    pub slots: u32,
    /// Provided buffers.
    pub buffers: u16,
    /// Bytes in each provided buffer.
    pub buffer_bytes: u32,
    /// Whether the kernel fills a buffer in several stretches.
    pub incremental: bool,
    /// Whether multishot receives may be bounded.
    pub bounds_receives: bool,
    /// Whether the kernel keeps a closed direct descriptor's socket open until all older operations on any direct
    /// descriptor of the ring have ended (Linux before 6.13). The ring then has none, unless it is a [`Mutant`].
    pub closes_late: bool,
    /// Operations that can be queued before they are submitted unasked.
    pub sq_entries: u32,
    /// Completions shown at a time.
    pub cq_entries: u32,
    /// Listeners, numbered from 0.
    pub listeners: u32,
    /// How many of them, the first ones, are those of the other cores too.
    pub shared_listeners: u32,
    /// The bug that this ring has.
    pub mutant: Option<Mutant>,
}

impl Default for RingOptions {
    /// A small ring: 64 slots, 32 buffers of 512 bytes, one listener.
    fn default() -> RingOptions {
        RingOptions {
            slots: 64,
            buffers: 32,
            buffer_bytes: 512,
            incremental: false,
            bounds_receives: true,
            closes_late: false,
            sq_entries: 256,
            cq_entries: 1024,
            listeners: 1,
            shared_listeners: 0,
            mutant: None,
        }
    }
}
