//! The ciphers of records, by whichever of two libraries is the faster on this processor.
//!
//! Handshakes are AWS-LC's alone. It has AES-GCM for AVX-512, where nothing is faster; but for processors that have the vector
//! instructions of AES without AVX-512 (AMD's Zen 3, Intel's since Alder Lake, many virtual machines) only code that is
//! as old as AES-NI. ring has that of BoringSSL for these: twice as fast with 16 KiB, and no slower with 64 bytes.
//!
//! Both take the same keys, nonces and additional data (RFC 5116) and give the same bytes: a connection cannot tell.

use std::sync::OnceLock;

use aws_lc_rs::aead as aws_lc;
use ring::aead as ring;

pub(super) const TAG_BYTES: usize = 16;

/// A cipher of records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cipher {
    Aes128Gcm,
    Aes256Gcm,
    Chacha20Poly1305,
}

/// Whose code it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum By {
    AwsLc,
    Ring,
}

/// A cipher with its key.
pub(super) enum Aead {
    AwsLc(aws_lc::LessSafeKey),
    Ring(Box<ring::LessSafeKey>),
}

/// The key does not fit, or what was to be opened was not sealed with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unusable;

impl By {
    /// The faster one here.
    fn fastest(cipher: Cipher) -> By {
        static AES_GCM: OnceLock<By> = OnceLock::new();
        match cipher {
            Cipher::Chacha20Poly1305 => By::AwsLc,
            Cipher::Aes128Gcm | Cipher::Aes256Gcm => *AES_GCM.get_or_init(|| match has_vector_aes_without_avx512() {
                true => By::Ring,
                false => By::AwsLc,
            }),
        }
    }
}

#[cfg(target_arch = "x86_64")]
fn has_vector_aes_without_avx512() -> bool {
    let has_vector_aes =
        is_x86_feature_detected!("avx2") && is_x86_feature_detected!("vaes") && is_x86_feature_detected!("vpclmulqdq");
    let has_avx512 = is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl");
    has_vector_aes && !has_avx512
}

#[cfg(not(target_arch = "x86_64"))]
fn has_vector_aes_without_avx512() -> bool {
    false
}

impl Aead {
    /// # Errors
    /// If the key has not the cipher's length.
    pub(super) fn new(cipher: Cipher, key: &[u8]) -> Result<Aead, Unusable> {
        Aead::by(By::fastest(cipher), cipher, key)
    }

    pub(super) fn by(by: By, cipher: Cipher, key: &[u8]) -> Result<Aead, Unusable> {
        match by {
            By::AwsLc => {
                let algorithm = match cipher {
                    Cipher::Aes128Gcm => &aws_lc::AES_128_GCM,
                    Cipher::Aes256Gcm => &aws_lc::AES_256_GCM,
                    Cipher::Chacha20Poly1305 => &aws_lc::CHACHA20_POLY1305,
                };
                let key = aws_lc::UnboundKey::new(algorithm, key).map_err(|_| Unusable)?;
                Ok(Aead::AwsLc(aws_lc::LessSafeKey::new(key)))
            }
            By::Ring => {
                let algorithm = match cipher {
                    Cipher::Aes128Gcm => &ring::AES_128_GCM,
                    Cipher::Aes256Gcm => &ring::AES_256_GCM,
                    Cipher::Chacha20Poly1305 => &ring::CHACHA20_POLY1305,
                };
                let key = ring::UnboundKey::new(algorithm, key).map_err(|_| Unusable)?;
                Ok(Aead::Ring(Box::new(ring::LessSafeKey::new(key))))
            }
        }
    }

    /// Opens in place what ends with its tag; tells the length of what was sealed.
    ///
    /// # Errors
    /// If it was not sealed so. What `sealed` holds then is nobody's business.
    pub(super) fn open(&self, nonce: [u8; 12], aad: &[u8], sealed: &mut [u8]) -> Result<usize, Unusable> {
        let len = sealed.len().checked_sub(TAG_BYTES).ok_or(Unusable)?;
        let is_open = match self {
            Aead::AwsLc(key) => {
                let nonce = aws_lc::Nonce::assume_unique_for_key(nonce);
                key.open_in_place(nonce, aws_lc::Aad::from(aad), sealed).is_ok()
            }
            Aead::Ring(key) => {
                let nonce = ring::Nonce::assume_unique_for_key(nonce);
                key.open_in_place(nonce, ring::Aad::from(aad), sealed).is_ok()
            }
        };
        is_open.then_some(len).ok_or(Unusable)
    }

    /// Seals `content` in place. The tag belongs behind it.
    ///
    /// # Errors
    /// If there is more of it than the cipher takes.
    pub(super) fn seal(&self, nonce: [u8; 12], aad: &[u8], content: &mut [u8]) -> Result<[u8; TAG_BYTES], Unusable> {
        let mut tag = [0; TAG_BYTES];
        match self {
            Aead::AwsLc(key) => {
                let nonce = aws_lc::Nonce::assume_unique_for_key(nonce);
                let sealed = key.seal_in_place_separate_tag(nonce, aws_lc::Aad::from(aad), content);
                tag.copy_from_slice(sealed.map_err(|_| Unusable)?.as_ref());
            }
            Aead::Ring(key) => {
                let nonce = ring::Nonce::assume_unique_for_key(nonce);
                let sealed = key.seal_in_place_separate_tag(nonce, ring::Aad::from(aad), content);
                tag.copy_from_slice(sealed.map_err(|_| Unusable)?.as_ref());
            }
        }
        Ok(tag)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CIPHERS: [(Cipher, usize); 3] =
        [(Cipher::Aes128Gcm, 16), (Cipher::Aes256Gcm, 32), (Cipher::Chacha20Poly1305, 32)];

    /// Kills: additional data left out, a tag that is not checked, a nonce that is not passed on; by either library.
    #[test]
    fn what_one_library_seals_the_other_opens() {
        for (cipher, key_len) in CIPHERS {
            let key: Vec<u8> = (0..key_len as u8).collect();
            for (by, other) in [(By::AwsLc, By::Ring), (By::Ring, By::AwsLc)] {
                let (sealing, opening) = (Aead::by(by, cipher, &key).unwrap(), Aead::by(other, cipher, &key).unwrap());
                for len in [0, 1, 15, 16, 17, 300, 4_000, 16_385] {
                    let content: Vec<u8> = (0..len).map(|at| (at * 7) as u8).collect();
                    let (nonce, aad) = ([len as u8; 12], [23, 3, 3, 1, 2]);
                    let mut sealed = content.clone();
                    let tag = sealing.seal(nonce, &aad, &mut sealed).unwrap();
                    sealed.extend_from_slice(&tag);
                    assert!(len < 16 || sealed[..len] != content[..]);

                    let opens = |nonce, aad: &[u8], sealed: &[u8]| {
                        let mut opened = sealed.to_vec();
                        opening.open(nonce, aad, &mut opened).map(|len| opened[..len].to_vec())
                    };
                    assert_eq!(opens(nonce, &aad, &sealed), Ok(content), "{cipher:?} by {by:?}, {len} bytes");
                    assert_eq!(opens([0xff; 12], &aad, &sealed), Err(Unusable));
                    assert_eq!(opens(nonce, &aad[..4], &sealed), Err(Unusable));
                    for at in [0, sealed.len() / 2, sealed.len() - 1] {
                        let mut touched = sealed.clone();
                        touched[at] ^= 1;
                        assert_eq!(opens(nonce, &aad, &touched), Err(Unusable), "{cipher:?} by {by:?}, byte {at}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_key_of_another_length_is_refused() {
        for (cipher, key_len) in CIPHERS {
            for by in [By::AwsLc, By::Ring] {
                for len in (0..=40).filter(|len| *len != key_len) {
                    assert!(Aead::by(by, cipher, &vec![1; len]).is_err(), "{cipher:?} by {by:?}, {len} bytes");
                }
            }
        }
    }

    #[test]
    fn what_is_shorter_than_a_tag_does_not_open() {
        for (by, len) in [(By::AwsLc, 0), (By::Ring, 0), (By::AwsLc, TAG_BYTES - 1), (By::Ring, TAG_BYTES - 1)] {
            let aead = Aead::by(by, Cipher::Aes128Gcm, &[3; 16]).unwrap();
            assert_eq!(aead.open([0; 12], &[], &mut vec![0; len]), Err(Unusable));
        }
    }
}
