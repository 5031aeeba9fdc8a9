//! How a value is written: one [`Value`] implementation for each type that a setting may have.

use std::time::Duration;

use super::nats::{NatsUrls, NodeName, SubjectPrefix};
use super::origin::Origins;
use super::proxies::{ProxyProtocol, TrustedProxies};
use super::types::{
    ApiToken, ClientAuth, CoreSet, Deflate, Files, ListenAddress, LogFormat, NONE, NatsHistory, SlowConsumer, TlsMin,
    UserAgents,
};

/// What a setting's text may be; the type of the field says what becomes of it.
///
/// ```
/// use ringwire::config::{Allowed, SETTINGS};
///
/// let switches = SETTINGS.iter().filter(|setting| matches!(setting.allowed, Allowed::Switch));
/// assert!(switches.map(|setting| setting.variable).any(|variable| variable == "RINGWIRE_PIN"));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Allowed {
    /// A plain number.
    Count(Range),
    /// A number of bytes: `512`, `64KiB`, `16MiB`, `1GiB`. The range is in bytes.
    Bytes(Range),
    /// A time: `50us`, `250ms`, `30s`, `5m`, `1h`, or `0`. The range is in nanoseconds.
    Time(Range),
    /// `true` or `false`.
    Switch,
    /// One of these words.
    Word(&'static [&'static str]),
    /// Text of a form of its own: what is said about it, and its name in the help.
    Text(&'static str, &'static str),
    /// As `Text`, and never printed.
    Secret(&'static str, &'static str),
}

/// The numbers that are allowed, all inclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// The smallest, 0 aside.
    pub min: u64,
    /// The largest.
    pub max: u64,
    /// What 0 means, where it is allowed.
    pub zero: Option<&'static str>,
    /// Whether only powers of two are allowed (and 0, where it means something).
    pub power_of_two: bool,
}

/// From `min` to `max`.
pub(super) const fn range(min: u64, max: u64) -> Range {
    Range { min, max, zero: None, power_of_two: false }
}

impl Range {
    /// The same, and 0, which means this.
    pub(super) const fn or_zero(self, meaning: &'static str) -> Range {
        Range { zero: Some(meaning), ..self }
    }

    /// Of these, the powers of two.
    pub(super) const fn power_of_two(self) -> Range {
        Range { power_of_two: true, ..self }
    }

    fn contains(&self, number: u64) -> bool {
        if number == 0 && self.zero.is_some() {
            return true;
        }
        (self.min..=self.max).contains(&number) && (!self.power_of_two || number.is_power_of_two())
    }
}

/// A unit's name, and how many of the smallest unit it is; the largest first.
type Units = &'static [(&'static str, u64)];

const BYTES: Units = &[("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("", 1)];
const TIME: Units = &[
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
];
const COUNT: Units = &[("", 1)];

impl Allowed {
    fn numbers(&self) -> Option<(Range, Units)> {
        match *self {
            Allowed::Count(range) => Some((range, COUNT)),
            Allowed::Bytes(range) => Some((range, BYTES)),
            Allowed::Time(range) => Some((range, TIME)),
            Allowed::Switch | Allowed::Word(_) | Allowed::Text(..) | Allowed::Secret(..) => None,
        }
    }

    /// The number that `text` says, in the smallest unit.
    pub(super) fn parse_number(&self, text: &str) -> Option<u64> {
        let (range, units) = self.numbers()?;
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let number: u64 = text[..digits].parse().ok()?;
        let suffix = text[digits..].trim_start();
        let unit = units.iter().find(|(name, _)| name.eq_ignore_ascii_case(suffix));
        let value = match unit {
            Some((_, size)) => number.checked_mul(*size)?,
            // Nothing is nothing in every unit.
            None if suffix.is_empty() && number == 0 => 0,
            None => return None,
        };
        range.contains(value).then_some(value)
    }

    /// The number in the largest unit that says it exactly; minutes aside, since 120s is what people write.
    pub(super) fn show_number(&self, number: u64) -> String {
        let (_, units) = self.numbers().unwrap_or((range(0, u64::MAX), COUNT));
        let unit = units.iter().find(|(name, size)| number != 0 && number.is_multiple_of(*size) && *name != "m");
        match unit {
            Some((name, size)) => format!("{}{name}", number / size),
            None => number.to_string(),
        }
    }

    /// What may be written, as a phrase that follows "must be".
    ///
    /// ```
    /// use ringwire::config::Setting;
    ///
    /// let allowed = |variable| Setting::named(variable).unwrap().allowed;
    /// assert_eq!(allowed("RINGWIRE_PIN").describe(), "true or false");
    /// assert_eq!(allowed("RINGWIRE_LOG_FORMAT").describe(), "text or json");
    /// ```
    pub fn describe(&self) -> String {
        match *self {
            Allowed::Switch => String::from("true or false"),
            Allowed::Word(words) => match words.split_last() {
                Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
                _ => words.concat(),
            },
            Allowed::Text(says, _) | Allowed::Secret(says, _) => String::from(says),
            Allowed::Count(range) | Allowed::Bytes(range) | Allowed::Time(range) => {
                let zero = range.zero.map(|meaning| format!("0 ({meaning}) or "));
                let form = match (self, range.power_of_two) {
                    (_, true) => "a power of two from ",
                    (Allowed::Bytes(_), _) => "a size from ",
                    (Allowed::Time(_), _) => "a time from ",
                    _ => "a number from ",
                };
                format!(
                    "{}{form}{} to {}",
                    zero.unwrap_or_default(),
                    self.show_number(range.min),
                    self.show_number(range.max)
                )
            }
        }
    }

    /// Which units there are, for a number that has none of them; a phrase that follows [`Allowed::describe`].
    pub(super) fn hint(&self, text: &str) -> Option<String> {
        let (units, default) = match self {
            Allowed::Bytes(_) => ("KiB, MiB and GiB", ""),
            Allowed::Time(_) => ("us, ms, s, m and h", "s"),
            _ => return None,
        };
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, suffix) = text.split_at(digits);
        let suffix = suffix.trim_start().to_ascii_lowercase();
        let (_, known) = self.numbers()?;
        let is_nothing = suffix.is_empty() && number.bytes().all(|digit| digit == b'0');
        if is_nothing || known.iter().any(|(name, _)| name.eq_ignore_ascii_case(&suffix)) {
            return None;
        }
        let meant = match (self, suffix.as_str()) {
            (Allowed::Bytes(_), "k" | "kb" | "ki") => "KiB",
            (Allowed::Bytes(_), "m" | "mb" | "mi") => "MiB",
            (Allowed::Bytes(_), "g" | "gb" | "gi") => "GiB",
            (Allowed::Time(_), "sec" | "secs" | "second" | "seconds") => "s",
            (Allowed::Time(_), "min" | "mins" | "minute" | "minutes") => "m",
            (_, "") => default,
            _ => "",
        };
        let meant = format!("{number}{meant}");
        let question = self.parse_number(&meant).map(|_| format!(": did you mean {meant}?"));
        Some(format!("; its units are {units}{}", question.unwrap_or_default()))
    }

    /// The value's name in `--help`.
    ///
    /// ```
    /// use ringwire::config::Setting;
    ///
    /// let allowed = |variable| Setting::named(variable).unwrap().allowed;
    /// assert_eq!(allowed("RINGWIRE_MAX_MESSAGE").placeholder(), "SIZE");
    /// assert_eq!(allowed("RINGWIRE_KEEP_ALIVE").placeholder(), "TIME");
    /// ```
    pub fn placeholder(&self) -> &'static str {
        match *self {
            Allowed::Count(_) => "N",
            Allowed::Bytes(_) => "SIZE",
            Allowed::Time(_) => "TIME",
            Allowed::Switch => "BOOL",
            Allowed::Word(_) => "WORD",
            Allowed::Text(_, name) | Allowed::Secret(_, name) => name,
        }
    }

    /// What 0 means, where it means something.
    ///
    /// ```
    /// use ringwire::config::Setting;
    ///
    /// let allowed = |variable| Setting::named(variable).unwrap().allowed;
    /// assert_eq!(allowed("RINGWIRE_IDLE_TIMEOUT").zero(), Some("never"));
    /// assert_eq!(allowed("RINGWIRE_BACKLOG").zero(), None);
    /// ```
    pub fn zero(&self) -> Option<&'static str> {
        self.numbers().and_then(|(range, _)| range.zero)
    }
}

/// A type that a setting may have.
pub(super) trait Value: Sized {
    /// The value that `text` says, or `None` where it is not allowed.
    fn parse(text: &str, allowed: &Allowed) -> Option<Self>;

    /// The text that [`Value::parse`] makes this value of.
    fn show(&self, allowed: &Allowed) -> String;
}

macro_rules! number {
    ($($type:ty),*) => { $(
        impl Value for $type {
            fn parse(text: &str, allowed: &Allowed) -> Option<Self> {
                allowed.parse_number(text)?.try_into().ok()
            }

            fn show(&self, allowed: &Allowed) -> String {
                allowed.show_number(*self as u64)
            }
        }
    )* };
}

number!(u8, u16, u32, usize);

impl Value for Duration {
    fn parse(text: &str, allowed: &Allowed) -> Option<Self> {
        allowed.parse_number(text).map(Duration::from_nanos)
    }

    fn show(&self, allowed: &Allowed) -> String {
        allowed.show_number(u64::try_from(self.as_nanos()).unwrap_or(u64::MAX))
    }
}

impl Value for bool {
    fn parse(text: &str, _: &Allowed) -> Option<Self> {
        match text.to_ascii_lowercase().as_str() {
            "true" | "yes" | "on" | "1" => Some(true),
            "false" | "no" | "off" | "0" => Some(false),
            _ => None,
        }
    }

    fn show(&self, _: &Allowed) -> String {
        self.to_string()
    }
}

impl Value for String {
    fn parse(text: &str, _: &Allowed) -> Option<Self> {
        (!text.is_empty()).then(|| String::from(text))
    }

    fn show(&self, _: &Allowed) -> String {
        self.clone()
    }
}

impl Value for Vec<ListenAddress> {
    fn parse(text: &str, _: &Allowed) -> Option<Self> {
        text.split(',').map(|part| part.trim().parse().ok()).collect()
    }

    fn show(&self, _: &Allowed) -> String {
        let parts: Vec<String> = self.iter().map(ToString::to_string).collect();
        parts.join(",")
    }
}

impl Value for Option<ListenAddress> {
    fn parse(text: &str, _: &Allowed) -> Option<Self> {
        if text == NONE { Some(None) } else { text.parse().ok().map(Some) }
    }

    fn show(&self, _: &Allowed) -> String {
        self.as_ref().map_or_else(|| String::from(NONE), ToString::to_string)
    }
}

impl Value for Option<ApiToken> {
    fn parse(text: &str, _: &Allowed) -> Option<Self> {
        if text == NONE { Some(None) } else { text.parse().ok().map(Some) }
    }

    fn show(&self, _: &Allowed) -> String {
        String::from(self.as_ref().map_or(NONE, ApiToken::reveal))
    }
}

impl Value for Option<NatsUrls> {
    fn parse(text: &str, _: &Allowed) -> Option<Self> {
        if text == NONE { Some(None) } else { text.parse().ok().map(Some) }
    }

    fn show(&self, _: &Allowed) -> String {
        String::from(self.as_ref().map_or(NONE, NatsUrls::reveal))
    }
}

impl Value for Option<Origins> {
    fn parse(text: &str, _: &Allowed) -> Option<Self> {
        if text == NONE { Some(None) } else { text.parse().ok().map(Some) }
    }

    fn show(&self, _: &Allowed) -> String {
        self.as_ref().map_or_else(|| String::from(NONE), Origins::to_string)
    }
}

macro_rules! from_str {
    ($($type:ty),*) => { $(
        impl Value for $type {
            fn parse(text: &str, _: &Allowed) -> Option<Self> {
                text.parse().ok()
            }

            fn show(&self, _: &Allowed) -> String {
                self.to_string()
            }
        }
    )* };
}

from_str!(
    ClientAuth,
    CoreSet,
    Files,
    TlsMin,
    NodeName,
    Origins,
    SlowConsumer,
    Deflate,
    UserAgents,
    LogFormat,
    SubjectPrefix,
    NatsHistory,
    TrustedProxies,
    ProxyProtocol
);

#[cfg(test)]
mod tests {
    use super::*;

    const TIMES: Allowed = Allowed::Time(range(1_000_000, 3_600_000_000_000).or_zero("never"));
    const SIZES: Allowed = Allowed::Bytes(range(64, 1 << 30));
    const POWERS: Allowed = Allowed::Count(range(1, 32_768).power_of_two());

    #[test]
    fn sizes() {
        let cases: &[(&str, Option<usize>)] = &[
            ("64", Some(64)),
            ("2KiB", Some(2048)),
            ("2kib", Some(2048)),
            ("64 KiB", Some(65_536)),
            ("16MiB", Some(16 << 20)),
            ("1GiB", Some(1 << 30)),
            ("2GiB", None),
            ("63", None),
            ("0", None),
            ("2KB", None),
            ("2k", None),
            ("KiB", None),
            ("", None),
            ("-1", None),
            ("1.5MiB", None),
            ("99999999999999999999", None),
            ("18446744073709551615GiB", None),
        ];
        for (text, expected) in cases {
            assert_eq!(usize::parse(text, &SIZES), *expected, "{text:?}");
        }
    }

    #[test]
    fn times() {
        let cases: &[(&str, Option<Duration>)] = &[
            ("30s", Some(Duration::from_secs(30))),
            ("250ms", Some(Duration::from_millis(250))),
            ("2000us", Some(Duration::from_millis(2))),
            ("5m", Some(Duration::from_secs(300))),
            ("1h", Some(Duration::from_secs(3600))),
            ("0", Some(Duration::ZERO)),
            ("0us", Some(Duration::ZERO)),
            ("0s", Some(Duration::ZERO)),
            ("30", None),
            ("999us", None),
            ("2h", None),
            ("s", None),
            ("1e3s", None),
        ];
        for (text, expected) in cases {
            assert_eq!(Duration::parse(text, &TIMES), *expected, "{text:?}");
        }
    }

    #[test]
    fn a_number_without_its_unit_is_told_the_units() {
        let hint = |allowed: &Allowed, text| allowed.hint(text).unwrap_or_default();
        assert_eq!(hint(&TIMES, "120"), "; its units are us, ms, s, m and h: did you mean 120s?");
        assert_eq!(hint(&TIMES, "99999"), "; its units are us, ms, s, m and h");
        assert_eq!(hint(&TIMES, "2 min"), "; its units are us, ms, s, m and h: did you mean 2m?");
        assert_eq!(hint(&SIZES, "16MB"), "; its units are KiB, MiB and GiB: did you mean 16MiB?");
        assert_eq!(hint(&TIMES, "long"), "; its units are us, ms, s, m and h");
        assert_eq!(hint(&SIZES, "16 parsecs"), "; its units are KiB, MiB and GiB");
        for text in ["2h", "999us", "0", "00", ""] {
            assert_eq!(hint(&TIMES, text), "", "{text:?}");
        }
        assert_eq!(hint(&SIZES, "2GiB") + &hint(&POWERS, "1000"), "");
    }

    #[test]
    fn powers_of_two() {
        assert_eq!(u16::parse("32768", &POWERS), Some(32_768));
        assert_eq!(u16::parse("4095", &POWERS), None);
        assert_eq!(u16::parse("65536", &POWERS), None);
    }

    #[test]
    fn what_is_shown_is_read_back() {
        for number in [64, 65, 1000, 1024, 1536, 1 << 20, (1 << 20) + 1] {
            let text = SIZES.show_number(number);
            assert_eq!(SIZES.parse_number(&text), Some(number), "{text}");
        }
        for nanos in [0, 1_000_000, 1_000_001, 90_000_000_000, 60_000_000_000] {
            let text = TIMES.show_number(nanos);
            assert_eq!(TIMES.parse_number(&text), Some(nanos), "{text}");
        }
        assert_eq!(TIMES.show_number(90_000_000_000), "90s");
        assert_eq!(SIZES.show_number(1536), "1536");
    }

    #[test]
    fn descriptions() {
        assert_eq!(TIMES.describe(), "0 (never) or a time from 1ms to 1h");
        assert_eq!(SIZES.describe(), "a size from 64 to 1GiB");
        assert_eq!(POWERS.describe(), "a power of two from 1 to 32768");
        assert_eq!(Allowed::Word(&["a", "b", "c"]).describe(), "a, b or c");
    }
}
