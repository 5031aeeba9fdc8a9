//! Masking (RFC 6455 5.3): payload byte `i` is XORed with key byte `i mod 4`. The same function masks and unmasks.
//!
//! One kernel serves both entry points, in place and copying. Up to 128 bytes it uses what every CPU of the
//! architecture has and is inlined; above, AVX2 where the CPU has it. The scalar version in the tests is its oracle.
//!
//! Whoever unmasks text wants to know whether it is UTF-8, and most text is ASCII: each kernel tells that of what it has stored,
//! which costs it an instruction a vector and saves another look at all bytes.

/// Up to so many bytes are done inline, without asking which instructions the CPU has.
const SMALL_MAX: usize = 128;

/// The bit of each byte that no ASCII has.
const HIGH: u64 = 0x8080_8080_8080_8080;

/// XORs `data` with the key in place. `offset` is how many bytes of the payload came before `data`: the phase within the
/// key. Returns whether all of `data` is ASCII now.
#[inline]
pub fn apply(key: [u8; 4], offset: usize, data: &mut [u8]) -> bool {
    let (pointer, len) = (data.as_mut_ptr(), data.len());
    // SAFETY: `pointer` is valid for reads and writes of `len` bytes, as `data` is; source and destination are equal,
    // which `xor` allows.
    unsafe { xor(rotated(key, offset), pointer, pointer, len) }
}

/// Appends `src`, XORed with the key, to `dst` in one pass. `offset` and result as in [`apply`], of what was appended.
#[inline]
pub fn copy_into(key: [u8; 4], offset: usize, src: &[u8], dst: &mut Vec<u8>) -> bool {
    let (old_len, len) = (dst.len(), src.len());
    dst.reserve(len);
    // SAFETY: after `reserve` the capacity is at least `old_len + len`, so `old_len` is in bounds of the allocation and
    // `len` bytes from there are valid for writes. `src` is valid for reads of `len` bytes and does not overlap them:
    // `dst` is borrowed exclusively. `xor` initialises all `len` bytes, so the new length covers initialised bytes only.
    unsafe {
        let is_ascii = xor(rotated(key, offset), src.as_ptr(), dst.as_mut_ptr().add(old_len), len);
        dst.set_len(old_len + len);
        is_ascii
    }
}

/// The key as a word whose lowest byte is the one for the first byte of data.
#[inline(always)]
fn rotated(key: [u8; 4], offset: usize) -> u32 {
    turned(u32::from_le_bytes(key), offset)
}

/// The key for data that begins `by` bytes later.
#[inline(always)]
fn turned(key: u32, by: usize) -> u32 {
    key.rotate_right(8 * (by as u32 & 3))
}

/// XORs `len` bytes at `src` with the key and stores them at `dst`. Returns whether these are ASCII.
///
/// # Safety
/// `src` must be valid for reads and `dst` for writes of `len` bytes, and the two stretches must be the same or disjoint.
#[inline(always)]
unsafe fn xor(key: u32, src: *const u8, dst: *mut u8, len: usize) -> bool {
    // SAFETY: of all three calls: the caller's promise on `src`, `dst` and `len` is passed on unchanged; each function's bound on
    // `len` is the branch it stands in.
    unsafe {
        if len >= 16 {
            if len <= SMALL_MAX { xor_16(key, src, dst, len) } else { xor_large(key, src, dst, len) }
        } else {
            xor_tiny(key, src, dst, len)
        }
    }
}

/// As [`xor`], for less than 16 bytes: two words that may overlap, both read before either is written.
///
/// # Safety
/// As [`xor`], and `len < 16`.
#[inline(always)]
unsafe fn xor_tiny(key: u32, src: *const u8, dst: *mut u8, len: usize) -> bool {
    debug_assert!(len < 16);
    // SAFETY: with len >= 8, the words at 0 and at len - 8 are within the stretch; with len >= 4, those at 0 and at
    // len - 4; below, bytes 0..len are touched one by one. Unaligned accesses are used throughout. Where the stretches
    // are the same, every source byte of a word pair is read before any of its bytes is written.
    unsafe {
        if len >= 8 {
            let last = len - 8;
            let head = src.cast::<u64>().read_unaligned() ^ twice(key);
            let tail = src.add(last).cast::<u64>().read_unaligned() ^ twice(turned(key, last));
            dst.cast::<u64>().write_unaligned(head);
            dst.add(last).cast::<u64>().write_unaligned(tail);
            (head | tail) & HIGH == 0
        } else if len >= 4 {
            let last = len - 4;
            let head = src.cast::<u32>().read_unaligned() ^ key.to_le();
            let tail = src.add(last).cast::<u32>().read_unaligned() ^ turned(key, last).to_le();
            dst.cast::<u32>().write_unaligned(head);
            dst.add(last).cast::<u32>().write_unaligned(tail);
            u64::from(head | tail) & HIGH == 0
        } else {
            let key = key.to_le_bytes();
            let mut seen = 0;
            for (i, key) in key.into_iter().enumerate().take(len) {
                let byte = *src.add(i) ^ key;
                *dst.add(i) = byte;
                seen |= byte;
            }
            seen.is_ascii()
        }
    }
}

/// The key twice, as it lies in memory.
#[inline(always)]
fn twice(key: u32) -> u64 {
    (u64::from(key) << 32 | u64::from(key)).to_le()
}

#[cfg(target_arch = "x86_64")]
use xor_sse2 as xor_16;

#[cfg(not(target_arch = "x86_64"))]
use xor_words as xor_16;

/// As [`xor`], in vectors of 16 bytes.
///
/// # Safety
/// As [`xor`], and `len >= 16`.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn xor_sse2(key: u32, src: *const u8, dst: *mut u8, len: usize) -> bool {
    use core::arch::x86_64::{
        _mm_loadu_si128, _mm_movemask_epi8, _mm_or_si128, _mm_set1_epi32, _mm_storeu_si128, _mm_xor_si128,
    };
    debug_assert!(len >= 16);
    // SAFETY: SSE2 is part of x86_64. The caller gives len >= 16, so the last vector, at len - 16, is within the stretch,
    // and so is every vector of the loop, which stops where fewer than 16 bytes remain (at + 16 <= len). The last vector
    // is read before the loop writes any of its bytes and written after it, so an overlap with the loop's last store is
    // XORed once. Loads and stores are the unaligned ones.
    unsafe {
        let last = len - 16;
        let key_tail = _mm_set1_epi32(turned(key, last) as i32);
        let key = _mm_set1_epi32(key as i32);
        let tail = _mm_xor_si128(_mm_loadu_si128(src.add(last).cast()), key_tail);
        let (mut at, mut seen) = (0, tail);
        while at + 16 <= len {
            let block = _mm_xor_si128(_mm_loadu_si128(src.add(at).cast()), key);
            _mm_storeu_si128(dst.add(at).cast(), block);
            seen = _mm_or_si128(seen, block);
            at += 16;
        }
        _mm_storeu_si128(dst.add(last).cast(), tail);
        _mm_movemask_epi8(seen) == 0
    }
}

/// As [`xor`], in words of 8 bytes.
///
/// # Safety
/// As [`xor`], and `len >= 16`.
#[cfg(any(test, not(target_arch = "x86_64")))]
#[inline(always)]
unsafe fn xor_words(key: u32, src: *const u8, dst: *mut u8, len: usize) -> bool {
    debug_assert!(len >= 16);
    // SAFETY: the caller gives len >= 16, so the last word, at len - 8, is within the stretch, and so is every word of the
    // loop (at + 8 <= len). The last word is read before the loop writes any of its bytes and written after it, so an
    // overlap with the loop's last store is XORed once. Accesses are unaligned.
    unsafe {
        let last = len - 8;
        let tail = src.add(last).cast::<u64>().read_unaligned() ^ twice(turned(key, last));
        let key = twice(key);
        let (mut at, mut seen) = (0, tail);
        while at + 8 <= len {
            let word = src.add(at).cast::<u64>().read_unaligned() ^ key;
            dst.add(at).cast::<u64>().write_unaligned(word);
            seen |= word;
            at += 8;
        }
        dst.add(last).cast::<u64>().write_unaligned(tail);
        seen & HIGH == 0
    }
}

/// As [`xor`], for more than [`SMALL_MAX`] bytes.
///
/// # Safety
/// As [`xor`], and `len > SMALL_MAX`.
#[inline(never)]
unsafe fn xor_large(key: u32, src: *const u8, dst: *mut u8, len: usize) -> bool {
    debug_assert!(len > SMALL_MAX);
    #[cfg(target_arch = "x86_64")]
    if std::is_x86_feature_detected!("avx2") {
        // SAFETY: the CPU has AVX2, just asked (the answer is cached by std); the rest is the caller's promise, and
        // len > 128 >= 32.
        return unsafe { xor_avx2(key, src, dst, len) };
    }
    // SAFETY: the caller's promise, and len > 128 >= 16.
    unsafe { xor_16(key, src, dst, len) }
}

/// As [`xor`], with AVX2.
///
/// # Safety
/// As [`xor`], `len >= 32`, and the CPU has AVX2.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
unsafe fn xor_avx2(key: u32, src: *const u8, dst: *mut u8, len: usize) -> bool {
    use core::arch::x86_64::{
        __m256i, _mm256_loadu_si256, _mm256_movemask_epi8, _mm256_or_si256, _mm256_set1_epi32, _mm256_storeu_si256,
        _mm256_xor_si256,
    };
    const V: usize = 32;
    debug_assert!(len >= V);
    // SAFETY: the caller gives len >= 32 and a CPU with AVX2. The last vector, at len - 32, is within the stretch; so are
    // the four vectors of each round of the first loop (at + 128 <= len) and the one of the second (at + 32 <= len). The
    // last vector is read before any loop writes and written after both, so bytes it shares with a loop's last store are
    // XORed once. Each round reads only bytes that no earlier round wrote, which makes it right in place. Loads and
    // stores are the unaligned ones.
    unsafe {
        let last = len - V;
        let key_tail = _mm256_set1_epi32(turned(key, last) as i32);
        let key = _mm256_set1_epi32(key as i32);
        let load = |at: usize| -> __m256i { _mm256_loadu_si256(src.add(at).cast()) };
        let tail = _mm256_xor_si256(load(last), key_tail);
        let (mut at, mut seen) = (0, tail);
        while at + 4 * V <= len {
            let a = _mm256_xor_si256(load(at), key);
            let b = _mm256_xor_si256(load(at + V), key);
            let c = _mm256_xor_si256(load(at + 2 * V), key);
            let d = _mm256_xor_si256(load(at + 3 * V), key);
            _mm256_storeu_si256(dst.add(at).cast(), a);
            _mm256_storeu_si256(dst.add(at + V).cast(), b);
            _mm256_storeu_si256(dst.add(at + 2 * V).cast(), c);
            _mm256_storeu_si256(dst.add(at + 3 * V).cast(), d);
            let (ab, cd) = (_mm256_or_si256(a, b), _mm256_or_si256(c, d));
            seen = _mm256_or_si256(seen, _mm256_or_si256(ab, cd));
            at += 4 * V;
        }
        while at + V <= len {
            let block = _mm256_xor_si256(load(at), key);
            _mm256_storeu_si256(dst.add(at).cast(), block);
            seen = _mm256_or_si256(seen, block);
            at += V;
        }
        _mm256_storeu_si256(dst.add(last).cast(), tail);
        _mm256_movemask_epi8(seen) == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: [u8; 4] = [0x37, 0xFA, 0x21, 0x3D];

    fn scalar(key: [u8; 4], offset: usize, data: &[u8]) -> Vec<u8> {
        data.iter().enumerate().map(|(i, byte)| byte ^ key[(i + offset) & 3]).collect()
    }

    fn bytes(len: usize) -> Vec<u8> {
        (0..len).map(|i| (i * 131 + i / 7) as u8).collect()
    }

    fn check(data: &[u8], start: usize, len: usize, phase: usize) {
        let want = scalar(KEY, phase, &data[start..start + len]);
        let mut copy = data.to_vec();
        apply(KEY, phase, &mut copy[start..start + len]);
        assert_eq!(copy[start..start + len], want, "in place: start {start} len {len} phase {phase}");
        assert_eq!(copy[..start], data[..start], "before");
        assert_eq!(copy[start + len..], data[start + len..], "behind");
        let mut out = data[..start].to_vec();
        copy_into(KEY, phase, &data[start..start + len], &mut out);
        assert_eq!(out[..start], data[..start]);
        assert_eq!(out[start..], want, "copy: start {start} len {len} phase {phase}");
    }

    #[test]
    fn every_length_alignment_and_phase() {
        let data = bytes(600);
        for len in 0..=270 {
            for start in 0..33 {
                for phase in 0..4 {
                    check(&data, start, len, phase);
                }
            }
        }
    }

    #[test]
    fn large() {
        let data = bytes(70_000);
        for len in [1023, 1024, 1025, 4095, 4096, 65_535, 65_536, 69_000] {
            for start in [0, 1, 31, 63] {
                for phase in 0..4 {
                    check(&data, start, len, phase);
                }
            }
        }
    }

    #[test]
    fn the_paths_of_other_cpus() {
        let data = bytes(1000);
        for len in 16..=600 {
            for phase in 0..4 {
                let want = scalar(KEY, phase, &data[..len]);
                let key = rotated(KEY, phase);
                let (mut by_16, mut by_words) = (data.clone(), data.clone());
                let (p, q) = (by_16.as_mut_ptr(), by_words.as_mut_ptr());
                // SAFETY: 16 <= len <= 600, and each stretch is 1000 bytes long; in place.
                unsafe {
                    xor_16(key, p, p, len);
                    xor_words(key, q, q, len);
                }
                assert_eq!((&by_16[..len], &by_words[..len]), (&want[..], &want[..]));
                assert_eq!((&by_16[len..], &by_words[len..]), (&data[len..], &data[len..]));
            }
        }
    }

    /// Kills: a byte whose high bit no kernel has seen, wherever it stands; one that is seen where there is none, as in the masked
    /// bytes or around them.
    #[test]
    fn what_is_ascii_is_told_and_one_byte_that_is_not() {
        for len in (0..=300_usize).chain([1023, 4096, 4097]) {
            let plain: Vec<u8> = (0..len).map(|i| (i * 7 % 128) as u8).collect();
            let places = (0..len).step_by(if len > 300 { 61 } else { 1 }).chain(len.checked_sub(1));
            for other in std::iter::once(None).chain(places.map(Some)) {
                let mut text = plain.clone();
                if let Some(at) = other {
                    text[at] |= 0x80;
                }
                let (masked, is_ascii) = (scalar(KEY, 1, &text), other.is_none());
                let mut around = [&[0xFF; 3][..], &masked, &[0xFF; 40]].concat();
                assert_eq!(apply(KEY, 1, &mut around[3..3 + len]), is_ascii, "in place: {len}, {other:?}");
                assert_eq!(copy_into(KEY, 1, &masked, &mut vec![0xFF; 5]), is_ascii, "copy: {len}, {other:?}");
                if len >= 16 {
                    let (key, mut others) = (rotated(KEY, 1), [masked.clone(), masked]);
                    let [p, q] = others.each_mut().map(Vec::as_mut_ptr);
                    // SAFETY: each stretch has `len` bytes, and 16 <= len; in place.
                    let told = unsafe { [xor_16(key, p, p, len), xor_words(key, q, q, len)] };
                    assert_eq!(told, [is_ascii; 2], "{len}, {other:?}");
                }
            }
        }
    }

    #[test]
    fn offsets_wrap() {
        let mut data = bytes(77);
        let want = scalar(KEY, 3, &data);
        apply(KEY, usize::MAX, &mut data);
        assert_eq!(data, want);
    }
}
