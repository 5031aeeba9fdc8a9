//! The masking kernels against one byte at a time.
//!
//! Input: the key, the offset, where in its buffer the data begins, then the data.

use ringwire::proto::mask::{apply, copy_into};

use super::take;

pub fn run(mut data: &[u8]) {
    let key: [u8; 4] = std::array::from_fn(|_| take(&mut data));
    let offset = usize::from(take(&mut data));
    let start = usize::from(take(&mut data) & 63);
    let want: Vec<u8> = data.iter().enumerate().map(|(at, byte)| byte ^ key[(at + offset) % 4]).collect();

    // In place, at any alignment, and nothing around it touched.
    let mut buffer = vec![0xA5; start + data.len() + 64];
    buffer[start..start + data.len()].copy_from_slice(data);
    assert_eq!(apply(key, offset, &mut buffer[start..start + data.len()]), want.is_ascii());
    assert_eq!(&buffer[start..start + data.len()], want);
    assert!(buffer[..start].iter().chain(&buffer[start + data.len()..]).all(|&byte| byte == 0xA5));

    // Copying, behind what is there.
    let mut copy = vec![0x5A; start];
    assert_eq!(copy_into(key, offset, data, &mut copy), want.is_ascii());
    assert_eq!((&copy[..start], &copy[start..]), (&vec![0x5A; start][..], &want[..]));

    // In two parts, and back again.
    let (head, tail) = buffer[start..start + data.len()].split_at_mut(data.len().min(offset));
    apply(key, offset, head);
    apply(key, offset + head.len(), tail);
    assert_eq!(&buffer[start..start + data.len()], data);
}
