//! What the documents of five other WebSocket servers show, done with this one: each of their examples in about as many
//! lines, and a test that it does what its document says.
//!
//! A port is one function, or a few items, named in the table of [`lines`], which counts them: none has more than one and a
//! half times the lines of its original. Servers run on the test kit; what connects as a client does so to a real server. What
//! the documents leave to their readers is in [`given`], and what is printed can be asked for there.

#![forbid(unsafe_code)]

/// Ports print as their originals do; [`given::printed`] has it.
macro_rules! println {
    ($($text:tt)*) => { $crate::given::print(format!($($text)*)) };
}

mod arcade;
mod dart;
mod finch;
mod given;
mod lines;
mod revali;
mod spry;
