//! Plain data as bytes: what every message between nodes is made of. Reading never fails but by `None`.

use bytes::Bytes;

use crate::hub::ConnectionId;

/// Puts values behind each other.
#[derive(Default)]
pub(super) struct Writer(pub(super) Vec<u8>);

impl Writer {
    pub(super) fn u8(&mut self, value: u8) -> &mut Writer {
        self.0.push(value);
        self
    }

    /// Seven bits a byte, the lowest first.
    pub(super) fn number(&mut self, mut value: u64) -> &mut Writer {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.u8(value as u8)
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) -> &mut Writer {
        self.number(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
        self
    }

    pub(super) fn text(&mut self, text: &str) -> &mut Writer {
        self.bytes(text.as_bytes())
    }

    pub(super) fn id(&mut self, id: ConnectionId) -> &mut Writer {
        self.0.extend_from_slice(&id.to_bytes());
        self
    }

    pub(super) fn into_bytes(self) -> Bytes {
        self.0.into()
    }
}

/// Takes them off again; what it hands out is a part of the same memory.
pub(super) struct Reader(pub(super) Bytes);

impl Reader {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn take(&mut self, len: usize) -> Option<Bytes> {
        (len <= self.0.len()).then(|| self.0.split_to(len))
    }

    pub(super) fn u8(&mut self) -> Option<u8> {
        Some(self.take(1)?[0])
    }

    pub(super) fn number(&mut self) -> Option<u64> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            let bits = u64::from(byte & 0x7f);
            // Of the tenth byte one bit is left.
            if shift == 63 && bits > 1 {
                return None;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.number()?.try_into().ok()
    }

    pub(super) fn bytes(&mut self) -> Option<Bytes> {
        let len = usize::try_from(self.number()?).ok()?;
        self.take(len)
    }

    pub(super) fn text(&mut self) -> Option<String> {
        String::from_utf8(self.bytes()?.to_vec()).ok()
    }

    pub(super) fn id(&mut self) -> Option<ConnectionId> {
        Some(ConnectionId::from_bytes(self.array()?))
    }

    pub(super) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?[..].try_into().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_come_back_and_what_is_cut_does_not() {
        let mut writer = Writer::default();
        writer.u8(7).number(0).number(300).number(u64::MAX).text("hé").bytes(b"");
        let whole = writer.into_bytes();
        let read = |bytes: Bytes| {
            let mut reader = Reader(bytes);
            let values = (reader.u8()?, reader.number()?, reader.number()?, reader.number()?, reader.text()?);
            reader.bytes()?;
            reader.is_empty().then_some(values)
        };
        assert_eq!(read(whole.clone()), Some((7, 0, 300, u64::MAX, "hé".to_owned())));
        for len in 0..whole.len() {
            assert_eq!(read(whole.slice(..len)), None, "{len} bytes");
        }
        assert_eq!(Reader(Bytes::from_static(&[0xff; 12])).number(), None, "more than 64 bits");
    }
}
