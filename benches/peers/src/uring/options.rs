//! How a loop receives and sends.

/// See the module.
#[derive(Clone, Debug)]
pub struct Options {
    /// Provided buffers; a power of two up to 32,768.
    pub buffers: u16,
    /// Bytes in each.
    pub buffer_size: u32,
    /// Let the kernel fill a buffer piece by piece.
    pub incremental: bool,
    /// Let one completion carry several buffers.
    pub bundle: bool,
    /// Keep one receive armed per connection instead of re-arming after each.
    pub multishot: bool,
    /// Pieces that together are at most this many bytes are copied into one plain send; above, the send is vectored.
    pub copy_bytes_max: usize,
    /// Operations submitted at once; after as many the loop enters the kernel before the tick has ended.
    pub submit_max: usize,
    /// Connections at once.
    pub slots: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            buffers: 128,
            buffer_size: 16 * 1024,
            incremental: false,
            bundle: false,
            multishot: true,
            copy_bytes_max: 16 * 1024,
            submit_max: 1024,
            slots: 16_384,
        }
    }
}
