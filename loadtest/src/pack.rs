//! Histograms on their way from an agent: HdrHistogram's V2 encoding, in Base64. What arrives has the same counts in the same
//! places, so that what is added up of several is what one alone would have counted.

use std::{borrow::Cow, ops::Range};

use data_encoding::BASE64;
use hdrhistogram::{
    Histogram,
    serialization::{Deserializer, Serializer as _, V2Serializer},
};
use serde::{Deserialize, Serialize, de, ser};

use crate::times::{LATENCY_MAX, Timed};

/// Bytes before the counts, and where the counts' length stands.
const HEADER_BYTES: usize = 40;
const LENGTH_AT: Range<usize> = 4..8;

/// A histogram as text.
///
/// # Errors
/// If it is too large to be encoded.
pub(crate) fn text(histogram: &Histogram<u64>) -> Result<String, String> {
    let mut bytes = Vec::new();
    V2Serializer::new().serialize(histogram, &mut bytes).map_err(|error| format!("a histogram: {error}"))?;
    Ok(BASE64.encode(&bytes))
}

/// A histogram from text that another program may have written.
///
/// # Errors
/// If it is none, or not one of latencies.
pub(crate) fn histogram(text: &str, digits: Digits) -> Result<Histogram<u64>, String> {
    let bytes = BASE64.decode(text.as_bytes()).map_err(|error| format!("a histogram: {error}"))?;
    // The decoder makes room for as much as the header says before it looks whether it is there.
    let says = bytes.get(LENGTH_AT).and_then(|length| length.try_into().ok()).map(u32::from_be_bytes);
    if says.map(|says| says as usize + HEADER_BYTES) != Some(bytes.len()) {
        return Err("a histogram: cut short".to_owned());
    }
    let histogram: Histogram<u64> =
        Deserializer::new().deserialize(&mut &bytes[..]).map_err(|error| format!("a histogram: {error}"))?;
    let fits = match digits {
        Digits::Three => histogram.sigfig() == 3 && histogram.high() == LATENCY_MAX,
        Digits::Two => histogram.sigfig() == 2 && histogram.high() <= 4 * LATENCY_MAX,
    };
    if fits && histogram.low() == 1 { Ok(histogram) } else { Err("a histogram: not one of latencies".to_owned()) }
}

/// How exact it is: all of a run, or what is kept of an interval, which grows as it needs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Digits {
    Two,
    Three,
}

struct Text<'a>(&'a Histogram<u64>);

impl Serialize for Text<'_> {
    fn serialize<S: ser::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&text(self.0).map_err(ser::Error::custom)?)
    }
}

/// One of three digits, and one of two.
struct Read(Histogram<u64>);
struct ReadSmall(Histogram<u64>);

fn read<'de, D: de::Deserializer<'de>>(from: D, digits: Digits) -> Result<Histogram<u64>, D::Error> {
    let text = Cow::<str>::deserialize(from)?;
    histogram(&text, digits).map_err(de::Error::custom)
}

impl<'de> Deserialize<'de> for Read {
    fn deserialize<D: de::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        read(from, Digits::Three).map(Read)
    }
}

impl<'de> Deserialize<'de> for ReadSmall {
    fn deserialize<D: de::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        read(from, Digits::Two).map(ReadSmall)
    }
}

/// A field that is one.
pub(crate) mod one {
    use super::*;

    pub(crate) fn serialize<S: ser::Serializer>(one: &Histogram<u64>, serializer: S) -> Result<S::Ok, S::Error> {
        Text(one).serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: de::Deserializer<'de>>(from: D) -> Result<Histogram<u64>, D::Error> {
        Read::deserialize(from).map(|read| read.0)
    }
}

/// A field that may be one of an interval.
pub(crate) mod option {
    use super::*;

    pub(crate) fn serialize<S: ser::Serializer>(
        one: &Option<Histogram<u64>>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        one.as_ref().map(Text).serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: de::Deserializer<'de>>(from: D) -> Result<Option<Histogram<u64>>, D::Error> {
        Ok(Option::<ReadSmall>::deserialize(from)?.map(|read| read.0))
    }
}

/// A field that is a list of what may be one.
pub(crate) mod some {
    use super::*;

    pub(crate) fn serialize<S: ser::Serializer>(
        list: &[Option<Histogram<u64>>],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(list.iter().map(|one| one.as_ref().map(Text)))
    }

    pub(crate) fn deserialize<'de, D: de::Deserializer<'de>>(from: D) -> Result<Vec<Option<Histogram<u64>>>, D::Error> {
        let list = Vec::<Option<Read>>::deserialize(from)?;
        Ok(list.into_iter().map(|one| one.map(|read| read.0)).collect())
    }
}

/// A field that is a list of what was measured in time.
pub(crate) mod timed {
    use super::*;

    pub(crate) fn serialize<S: ser::Serializer>(
        list: &[(Timed, Histogram<u64>)],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(list.iter().map(|(what, one)| (what, Text(one))))
    }

    pub(crate) fn deserialize<'de, D: de::Deserializer<'de>>(
        from: D,
    ) -> Result<Vec<(Timed, Histogram<u64>)>, D::Error> {
        let list = Vec::<(Timed, Read)>::deserialize(from)?;
        Ok(list.into_iter().map(|(what, read)| (what, read.0)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::times::latencies;

    /// Kills: a histogram whose counts are rounded on the way, or are added to other places.
    #[test]
    fn what_is_added_up_is_what_one_would_have_counted() {
        let (mut union, mut parts) = (latencies(), [latencies(), latencies(), latencies()]);
        let mut bits = 7u64;
        for number in 0..200_000 {
            bits = bits.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let value = 1 + (bits >> (20 + bits % 40));
            union.saturating_record(value);
            parts[number % 3].saturating_record(value);
        }
        parts[1].saturating_record(u64::MAX);
        union.saturating_record(u64::MAX);
        let mut merged = latencies();
        for part in &parts {
            let travelled = histogram(&text(part).expect("small"), Digits::Three).expect("ours");
            assert!(travelled == *part && travelled.max() == part.max());
            merged.add(&travelled).expect("the same bounds");
        }
        assert_eq!(merged.len(), union.len());
        for quantile in [0.0, 0.1, 0.5, 0.9, 0.99, 0.999, 0.9999, 1.0] {
            assert_eq!(merged.value_at_quantile(quantile), union.value_at_quantile(quantile), "{quantile}");
        }
        assert!((merged.mean() - union.mean()).abs() < 1e-3);
    }

    #[test]
    fn what_is_no_histogram_of_latencies_is_refused() {
        let good = text(&latencies()).expect("small");
        assert!(histogram(&good, Digits::Three).is_ok() && histogram(&good, Digits::Two).is_err());
        let mut long = BASE64.decode(good.as_bytes()).expect("ours");
        // It says that 4 GiB follow.
        long[LENGTH_AT].copy_from_slice(&[0xFF; 4]);
        let mut wide: Histogram<u64> = Histogram::new_with_bounds(1, u64::MAX / 2, 3).expect("bounds");
        wide.record(u64::MAX / 4).expect("within");
        let fine: Histogram<u64> = Histogram::new_with_bounds(1, 1000, 5).expect("bounds");
        for wrong in [
            String::new(),
            "====".to_owned(),
            "AAAA".to_owned(),
            good[..good.len() / 2 / 4 * 4].to_owned(),
            BASE64.encode(&long),
            text(&wide).expect("small"),
            text(&fine).expect("small"),
        ] {
            assert!(histogram(&wrong, Digits::Three).is_err_and(|error| error.starts_with("a histogram")), "{wrong}");
        }
    }
}
