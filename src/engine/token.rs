//! What every operation carries through the kernel and back: `user_data` = op | generation | index.
//!
//! A slot (a connection's place in its core's table) is reused as soon as it is free, while completions of its former
//! owner may still be on their way. The generation is the guard: it is compared on every completion, and a completion
//! whose generation is not the slot's own is late and concerns nobody.

/// The kind of operation that a completion answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Op {
    /// A connection was accepted into a slot.
    Accept = 1,
    /// Multishot receive into the core's provided buffers.
    Recv = 2,
    /// Single-shot receive into a buffer that the operation owns.
    RecvInto = 3,
    /// A send of this tick's batch: it never waits, and posts a completion only when it was not sent whole.
    SendNow = 4,
    /// A send that owns its bytes and waits for room.
    Send = 5,
    /// Cancellation of whatever is in flight on a slot.
    Cancel = 6,
    /// A slot's descriptor was closed.
    Close = 7,
    /// An outgoing connection was made (or not).
    Connect = 8,
    /// Another thread asks this core to look at its mail.
    Doorbell = 9,
}

impl Op {
    const fn from_bits(bits: u8) -> Option<Op> {
        Some(match bits {
            1 => Op::Accept,
            2 => Op::Recv,
            3 => Op::RecvInto,
            4 => Op::SendNow,
            5 => Op::Send,
            6 => Op::Cancel,
            7 => Op::Close,
            8 => Op::Connect,
            9 => Op::Doorbell,
            _ => return None,
        })
    }
}

/// `user_data` of one operation: 8 bits of [`Op`], 24 bits of generation, 32 bits of slot index.
///
/// 24 bits suffice: a slot is not freed while an operation of it is in flight, so a token can be at most one generation
/// old; the width only has to tell neighbours apart.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Token(u64);

impl Token {
    const GENERATION_BITS: u32 = 24;
    const GENERATION_MASK: u32 = (1 << Self::GENERATION_BITS) - 1;

    /// Packs the three parts; only the low 24 bits of `generation` are kept.
    #[inline]
    pub const fn new(op: Op, generation: u32, index: u32) -> Token {
        Token(((op as u64) << 56) | (((generation & Self::GENERATION_MASK) as u64) << 32) | index as u64)
    }

    /// The token in a completion's `user_data`, or `None` where no operation of ours has that form.
    #[inline]
    pub const fn from_user_data(user_data: u64) -> Option<Token> {
        match Op::from_bits((user_data >> 56) as u8) {
            Some(_) => Some(Token(user_data)),
            None => None,
        }
    }

    /// The value to put into `user_data`.
    #[inline]
    pub const fn user_data(self) -> u64 {
        self.0
    }

    /// The operation's kind.
    #[inline]
    pub const fn op(self) -> Op {
        match Op::from_bits((self.0 >> 56) as u8) {
            Some(op) => op,
            None => unreachable!(),
        }
    }

    /// The slot's index.
    #[inline]
    pub const fn index(self) -> u32 {
        self.0 as u32
    }

    /// Whether this token was made for `generation` (compared in the token's 24 bits).
    #[inline]
    pub const fn is_of_generation(self, generation: u32) -> bool {
        ((self.0 >> 32) as u32 & Self::GENERATION_MASK) == (generation & Self::GENERATION_MASK)
    }
}

/// Which owner each slot of a core has, by number: the first has 0.
#[derive(Debug, Default)]
pub struct Generations(Vec<u32>);

impl Generations {
    /// With room for so many slots.
    pub fn with_capacity(slots: usize) -> Generations {
        Generations(Vec::with_capacity(slots))
    }

    /// A slot has its first owner, unless it had one before.
    pub fn begin(&mut self, slot: u32) {
        if self.0.len() <= slot as usize {
            self.0.resize(slot as usize + 1, 0);
        }
    }

    /// A slot is free, with nothing of it in flight: the next owner is another one.
    pub fn end(&mut self, slot: u32) {
        let generation = &mut self.0[slot as usize];
        *generation = generation.wrapping_add(1);
    }

    /// The slot's generation.
    ///
    /// # Panics
    /// If the slot never had an owner.
    #[inline]
    pub fn of(&self, slot: u32) -> u32 {
        self.0[slot as usize]
    }

    /// The token of an operation for the slot's owner.
    ///
    /// # Panics
    /// As [`Generations::of`].
    #[inline]
    pub fn token(&self, op: Op, slot: u32) -> Token {
        Token::new(op, self.of(slot), slot)
    }

    /// Whether a token was made for its slot's owner, or the next one if that has gone.
    #[inline]
    pub fn is_current(&self, token: Token) -> bool {
        self.0.get(token.index() as usize).is_some_and(|generation| token.is_of_generation(*generation))
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let generation = (self.0 >> 32) as u32 & Self::GENERATION_MASK;
        write!(f, "{:?}#{}@{}", self.op(), self.index(), generation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_survive_the_round_trip() {
        for op in [Op::Accept, Op::Recv, Op::SendNow, Op::Close, Op::Doorbell] {
            let token = Token::new(op, 0x00ab_cdef, 0xffff_fff0);
            let back = Token::from_user_data(token.user_data()).expect("a token of ours");
            assert_eq!((back.op(), back.index()), (op, 0xffff_fff0));
            assert!(back.is_of_generation(0x00ab_cdef));
            assert!(!back.is_of_generation(0x00ab_cdee));
        }
    }

    #[test]
    fn generation_is_compared_in_24_bits() {
        let token = Token::new(Op::Recv, 0x0100_0001, 7);
        assert!(token.is_of_generation(0x0000_0001));
        assert_eq!(token.index(), 7);
    }

    #[test]
    fn a_token_is_its_owners_only() {
        let mut generations = Generations::default();
        assert!(!generations.is_current(Token::new(Op::Recv, 0, 2)));
        generations.begin(2);
        let token = generations.token(Op::Recv, 2);
        assert!(generations.is_current(token));
        generations.end(2);
        generations.begin(2);
        assert!(!generations.is_current(token) && generations.of(2) == 1);
    }

    #[test]
    fn foreign_user_data_is_refused() {
        assert_eq!(Token::from_user_data(0), None);
        assert_eq!(Token::from_user_data(u64::MAX), None);
    }
}
