//! Random bytes for masking keys and handshakes.
//!
//! RFC 6455 5.3: masking keys must not be predictable, and so come from the kernel's generator; a block at a time, so that
//! a system call serves a hundred frames. No byte is used twice.

use std::cell::RefCell;

use super::error::ClientError;

/// Bytes drawn at once.
const BLOCK_BYTES: usize = 512;

struct Block {
    bytes: [u8; BLOCK_BYTES],
    used: usize,
}

thread_local! {
    static BLOCK: RefCell<Block> = const { RefCell::new(Block { bytes: [0; BLOCK_BYTES], used: BLOCK_BYTES }) };
}

/// Fresh random bytes.
pub(super) fn random<const N: usize>() -> Result<[u8; N], getrandom::Error> {
    const { assert!(N <= BLOCK_BYTES) };
    BLOCK.with_borrow_mut(|block| {
        if block.used + N > BLOCK_BYTES {
            getrandom::fill(&mut block.bytes)?;
            block.used = 0;
        }
        let mut taken = [0; N];
        taken.copy_from_slice(&block.bytes[block.used..block.used + N]);
        block.used += N;
        Ok(taken)
    })
}

/// What to tell a user where there are none.
pub(super) fn no_random(error: getrandom::Error) -> ClientError {
    ClientError::Unavailable(format!("the system has no random bytes: {error}"))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn keys_do_not_repeat() {
        let keys: HashSet<[u8; 16]> = (0..1000).map(|_| random().unwrap()).collect();
        assert_eq!(keys.len(), 1000);
    }

    #[test]
    fn every_byte_of_a_block_is_used_at_most_once() {
        let drawn: Vec<[u8; 4]> = (0..BLOCK_BYTES / 4 * 2).map(|_| random().unwrap()).collect();
        let different: HashSet<[u8; 4]> = drawn.iter().copied().collect();
        // 256 draws out of 2^32: two equal ones are next to impossible, and three are not chance.
        assert!(different.len() >= drawn.len() - 1);
    }
}
