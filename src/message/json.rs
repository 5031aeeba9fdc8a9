//! JSON that is kept or passed on and not interpreted: it stays as it was written, so that no number loses a digit and no
//! object its order.
//!
//! What is passed on must be JSON (RFC 8259) that every reader takes: not nested deeper than most follow, and without half of
//! a surrogate pair, which the grammar allows and which stands for no character: [`check_passed_on`]. What is kept
//! is also read here as a [`Value`], so it must be what that can hold: [`RawJson::parse`]. Both cost in proportion to the
//! text's length, and what recurses stops at that depth.

use std::fmt;
use std::sync::Arc;

use serde::de::{DeserializeOwned, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;
use serde_json::value::RawValue;

use super::error::DecodeError;
use crate::quote::quoted;

/// How deep arrays and objects may be in each other. `serde_json`, as one reader among others, follows 127, and an event or
/// a listing puts up to three more around them.
pub(crate) const NESTING_MAX: usize = 100;

/// JSON text as it was written, such as a connection's data: numbers have all their digits, however large or small. Clones
/// share it.
///
/// ```
/// use ringwire::RawJson;
/// use serde_json::json;
///
/// let data = RawJson::parse(r#"{"n": 123456789012345678901}"#).unwrap();
/// assert_eq!(data.as_str(), r#"{"n": 123456789012345678901}"#);
/// assert_eq!(RawJson::from(json!({"x": 1})), json!({"x": 1}));
/// ```
#[derive(Clone)]
pub struct RawJson(Arc<RawValue>);

impl RawJson {
    /// Takes a text as it is, without white space around it.
    ///
    /// ```
    /// use ringwire::RawJson;
    ///
    /// assert_eq!(RawJson::parse(" [1.50, 2] ").unwrap().as_str(), "[1.50, 2]");
    /// assert!(RawJson::parse("[1, 2").is_err());
    /// assert!(RawJson::parse("1e999").is_err(), "no double is as large");
    /// ```
    ///
    /// # Errors
    /// If it is not JSON, is nested deeper than 100 arrays and objects, or has what no [`Value`] can hold: a number beyond
    /// the largest double, or half of a surrogate pair.
    pub fn parse(text: &str) -> Result<RawJson, DecodeError> {
        Ok(serde_json::from_str(text)?)
    }

    /// The text.
    ///
    /// ```
    /// use ringwire::RawJson;
    ///
    /// let balance = RawJson::parse("0.10000000000000000001").unwrap();
    /// assert_eq!(balance.as_str(), "0.10000000000000000001");
    /// ```
    pub fn as_str(&self) -> &str {
        self.0.get()
    }

    /// The value; large integers are the nearest double in it.
    ///
    /// ```
    /// use ringwire::RawJson;
    ///
    /// let data = RawJson::parse(r#"{"name": "ann", "level": 7}"#).unwrap();
    /// assert_eq!(data.to_value()["level"], 7);
    /// ```
    pub fn to_value(&self) -> Value {
        // `null` for what has been made of a `Value` that is nested too deeply to be read again.
        self.decode().unwrap_or_default()
    }

    /// Decodes it.
    ///
    /// ```
    /// use ringwire::RawJson;
    ///
    /// #[derive(serde::Deserialize)]
    /// struct Player<'d> {
    ///     name: &'d str,
    ///     level: u8,
    /// }
    ///
    /// let data = RawJson::parse(r#"{"name": "ann", "level": 7}"#).unwrap();
    /// let player: Player = data.decode().unwrap();
    /// assert_eq!((player.name, player.level), ("ann", 7));
    /// assert!(data.decode::<u8>().is_err());
    /// ```
    ///
    /// # Errors
    /// If it is not of that type.
    pub fn decode<'d, T: Deserialize<'d>>(&'d self) -> Result<T, DecodeError> {
        Ok(serde_json::from_str(self.as_str())?)
    }
}

impl Default for RawJson {
    /// `null`
    fn default() -> RawJson {
        Value::Null.into()
    }
}

impl From<&Value> for RawJson {
    fn from(value: &Value) -> RawJson {
        RawJson(serde_json::value::to_raw_value(value).expect("a value is JSON").into())
    }
}

impl From<Value> for RawJson {
    fn from(value: Value) -> RawJson {
        (&value).into()
    }
}

impl PartialEq for RawJson {
    /// Whether they are written the same.
    fn eq(&self, other: &RawJson) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for RawJson {}

impl PartialEq<Value> for RawJson {
    fn eq(&self, value: &Value) -> bool {
        self.to_value() == *value
    }
}

impl fmt::Debug for RawJson {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RawJson({})", quoted(self.as_str()))
    }
}

impl fmt::Display for RawJson {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for RawJson {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for RawJson {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<RawJson, D::Error> {
        let text = Box::<RawValue>::deserialize(deserializer)?;
        let Readable = serde_json::from_str(text.get()).map_err(serde::de::Error::custom)?;
        check_passed_on(&text).map_err(|error| serde::de::Error::custom(error.why()))?;
        Ok(RawJson(text.into()))
    }
}

/// Decodes a JSON object. Structs are also decoded from arrays of their fields, which no event and no body is.
pub(crate) fn object<'d, T: Deserialize<'d>>(json: &'d [u8]) -> Result<T, serde_json::Error> {
    // RFC 8259 2: white space may come first.
    match json.trim_ascii_start() {
        [b'{', ..] => serde_json::from_slice(json),
        _ => Err(serde::de::Error::custom("expected an object")),
    }
}

/// Decodes JSON whose structs are objects, and no arrays of their fields: `T` itself, where `is_struct` says that it is one.
pub(crate) fn decode<T: DeserializeOwned>(json: &[u8], is_struct: bool) -> Result<T, serde_json::Error> {
    match json.trim_ascii_start() {
        [b'[', ..] if is_struct => Err(serde::de::Error::custom("expected an object")),
        _ => serde_json::from_slice(json),
    }
}

/// Whether a type is a struct with named fields, or an `Option` or a wrapper of one: it is asked what it would be decoded from.
pub(crate) fn is_struct<T: DeserializeOwned>() -> bool {
    matches!(T::deserialize(Probe), Err(Probed { is_struct: true }))
}

/// Holds nothing, and hears what somebody wants of it.
struct Probe;

#[derive(Debug, thiserror::Error)]
#[error("nothing is here")]
struct Probed {
    is_struct: bool,
}

impl serde::de::Error for Probed {
    fn custom<M: fmt::Display>(_: M) -> Probed {
        Probed { is_struct: false }
    }
}

impl<'de> Deserializer<'de> for Probe {
    type Error = Probed;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Probed> {
        Err(Probed { is_struct: false })
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Probed> {
        Err(Probed { is_struct: true })
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Probed> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Probed> {
        visitor.visit_newtype_struct(self)
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map enum identifier ignored_any
    }
}

/// Reads everything that a [`Value`] would hold, and keeps nothing.
struct Readable;

impl<'de> Deserialize<'de> for Readable {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Readable, D::Error> {
        deserializer.deserialize_any(Readable)
    }
}

impl<'de> Visitor<'de> for Readable {
    type Value = Readable;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON")
    }

    fn visit_unit<E>(self) -> Result<Readable, E> {
        Ok(Readable)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Readable, E> {
        Ok(Readable)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Readable, E> {
        Ok(Readable)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Readable, E> {
        Ok(Readable)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Readable, E> {
        Ok(Readable)
    }

    fn visit_str<E>(self, _: &str) -> Result<Readable, E> {
        Ok(Readable)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Readable, A::Error> {
        while let Some(Readable) = elements.next_element()? {}
        Ok(Readable)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Readable, A::Error> {
        while let Some((Readable, Readable)) = entries.next_entry()? {}
        Ok(Readable)
    }
}

/// Checks that JSON which is passed on can be read by whoever gets it: it is not nested deeper than [`NESTING_MAX`], and
/// each escaped half of a surrogate pair has the other half behind it (RFC 8259 8.2).
///
/// # Errors
/// If it cannot.
pub(crate) fn check_passed_on(json: &RawValue) -> Result<(), DecodeError> {
    let refused = |why: String| Err(<serde_json::Error as serde::de::Error>::custom(why).into());
    // It is JSON, so outside of strings a bracket is a bracket, and within them an escape is whole.
    let mut rest = json.get().as_bytes();
    let (mut depth, mut in_string) = (0_usize, false);
    while let [byte, behind @ ..] = rest {
        rest = behind;
        match (in_string, byte) {
            (true, b'\\') if rest.starts_with(b"u") => {
                let (unit, behind) = code_unit(rest);
                rest = behind;
                match unit {
                    0xD800..=0xDBFF => {
                        match rest.strip_prefix(b"\\").filter(|rest| rest.starts_with(b"u")).map(code_unit) {
                            Some((0xDC00..=0xDFFF, behind)) => rest = behind,
                            _ => return refused(String::from("half of a surrogate pair")),
                        }
                    }
                    0xDC00..=0xDFFF => return refused(String::from("half of a surrogate pair")),
                    _ => {}
                }
            }
            (true, b'\\') => rest = rest.get(1..).unwrap_or_default(),
            (_, b'"') => in_string = !in_string,
            (false, b'[' | b'{') => {
                depth += 1;
                if depth > NESTING_MAX {
                    return refused(format!("nested deeper than {NESTING_MAX} arrays and objects"));
                }
            }
            (false, b']' | b'}') => depth -= 1,
            _ => {}
        }
    }
    Ok(())
}

/// What `uXXXX` stands for, and what follows it.
fn code_unit(bytes: &[u8]) -> (u32, &[u8]) {
    let (escape, rest) = bytes.split_at_checked(5).unwrap_or((bytes, &[]));
    let digits = std::str::from_utf8(escape).ok().and_then(|text| text.get(1..));
    // Nothing else can stand in JSON, and this is nobody's half.
    (digits.and_then(|digits| u32::from_str_radix(digits, 16).ok()).unwrap_or(0), rest)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn nested(depth: usize) -> String {
        format!("{}{}", "[".repeat(depth), "]".repeat(depth))
    }

    #[test]
    fn what_is_kept_stays_as_it_was_written() {
        for text in [
            "null",
            "0.9215686321258545",
            "123456789012345678901234567890",
            "-0",
            "-0.0",
            "1E+2",
            "1.0",
            "5e-324",
            "1.7976931348623157e308",
            r#"{"b": 1,"a":2 ,"b":3}"#,
            r#""\u0041\/\ud83e\udd80""#,
            "[1,\n\t2]",
        ] {
            let raw = RawJson::parse(&format!(" \n{text}\t")).expect("JSON");
            assert_eq!(raw.as_str(), text);
            assert_eq!(serde_json::to_string(&[&raw]).expect("JSON"), format!("[{text}]"));
            assert_eq!(serde_json::from_str::<RawJson>(text).expect("JSON"), raw);
            assert_eq!(raw.to_value(), serde_json::from_str::<Value>(text).expect("JSON"));
        }
        assert_eq!(RawJson::default().as_str(), "null");
        assert_eq!(RawJson::from(json!({"x": [1.5, u64::MAX]})).as_str(), r#"{"x":[1.5,18446744073709551615]}"#);
    }

    #[test]
    fn structs_are_objects_and_what_is_none_is_not_asked_to_be_one() {
        #[derive(Debug, PartialEq, Deserialize)]
        struct Named {
            a: u8,
            b: Option<u8>,
        }
        #[derive(Deserialize)]
        struct Pair(u8, u8);
        #[derive(Deserialize)]
        struct Wrapped(Named);
        let named =
            [is_struct::<Named>(), is_struct::<Option<Named>>(), is_struct::<Box<Named>>(), is_struct::<Wrapped>()];
        assert_eq!(named, [true; 4]);
        let others = [
            is_struct::<Pair>(),
            is_struct::<Vec<Named>>(),
            is_struct::<Value>(),
            is_struct::<RawJson>(),
            is_struct::<u8>(),
        ];
        assert_eq!(others, [false; 5]);
        assert_eq!(decode::<Named>(br#" {"a":1}"#, true).expect("an object"), Named { a: 1, b: None });
        assert!(decode::<Named>(b"\n[1,2]", true).is_err() && decode::<Named>(b"[1,2]", false).is_ok());
        assert!(decode::<Option<Named>>(b"null", true).expect("null").is_none());
        let Pair(one, other) = decode(b"[1,2]", is_struct::<Pair>()).expect("a pair");
        let Wrapped(inner) = decode(br#"{"a":3}"#, true).expect("an object");
        assert_eq!((one, other, inner.a), (1, 2, 3));
    }

    #[test]
    fn what_is_kept_can_be_read() {
        for wrong in ["", "{", "1 2", "01", "nan", "1e400", r#""\ud83e""#, r#"{"\udd80":1}"#, "\"\n\"", "{1:2}"] {
            assert!(RawJson::parse(wrong).is_err(), "{wrong}");
        }
        assert!(RawJson::parse(&nested(NESTING_MAX)).is_ok());
        let error = RawJson::parse(&nested(NESTING_MAX + 1)).expect_err("too deep");
        assert!(error.to_string().contains("nested deeper than 100"), "{error}");
        assert!(serde_json::from_str::<RawJson>(&nested(100_000)).is_err());
    }

    #[test]
    fn what_is_passed_on_is_not_nested_too_deeply() {
        let check = |text: &str| check_passed_on(&serde_json::from_str::<Box<RawValue>>(text).expect("JSON"));
        assert!(check(&nested(NESTING_MAX)).is_ok());
        let error = check(&nested(NESTING_MAX + 1)).expect_err("too deep").to_string();
        assert!(error.ends_with("nested deeper than 100 arrays and objects"), "{error}");
        let objects = |depth: usize| format!("{}1{}", r#"{"a":"#.repeat(depth), "}".repeat(depth));
        assert!(check(&objects(NESTING_MAX)).is_ok() && check(&objects(NESTING_MAX + 1)).is_err());
        for flat in [
            format!(r#"["{}"]"#, "[".repeat(1000)),
            format!(r#"["\"{}\\"]"#, "{".repeat(1000)),
            format!("[{}0]", "[],".repeat(1000)),
            // A number that no double is near to is JSON.
            "[1e400]".to_owned(),
            r#"["\ud83e\udd80\uD83E\uDD80\\ud83e \\\\ud83e"]"#.to_owned(),
        ] {
            assert!(check(&flat).is_ok(), "{flat}");
        }
    }

    /// Kills: passing on what no strict reader takes (RFC 8259 8.2).
    #[test]
    fn what_is_passed_on_has_whole_characters() {
        let check = |text: &str| check_passed_on(&serde_json::from_str::<Box<RawValue>>(text).expect("JSON"));
        for half in [
            r#""\ud83e""#,
            r#""\udd80""#,
            r#""\uD83E x\uDD80""#,
            r#""\ud83e\ud83e\udd80""#,
            r#""\ud83e\n""#,
            r#""\ud83e\u0041""#,
            r#""\\\ud83e""#,
            r#"{"\ud83e":1}"#,
            r#"[[{"a":["\udfff"]}]]"#,
        ] {
            assert!(check(half).is_err_and(|error| error.to_string().contains("surrogate")), "{half}");
            assert!(serde_json::from_str::<Value>(half).is_err(), "{half}");
        }
        for whole in [r#""\ud83e\udd80""#, r#""\ud7ff\ue000""#, r#""\\ud83e""#, r#"["ud83e",1]"#] {
            assert!(check(whole).is_ok() && serde_json::from_str::<Value>(whole).is_ok(), "{whole}");
        }
    }
}
