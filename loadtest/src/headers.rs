//! Header fields that users give to the opening handshake, on the command line or in a scenario file. Those that the handshake
//! itself is made of are refused; Host stands in place of the URL's.

use ringwire::quote::quoted;

/// A field's name and value.
pub(crate) type Field = (String, String);

/// What the handshake says itself, in lower case, and what to do instead.
const OWN: [(&str, &str); 6] = [
    ("connection", "the handshake has its own"),
    ("upgrade", "the handshake has its own"),
    ("sec-websocket-protocol", "--subprotocol offers one"),
    ("sec-websocket-extensions", "--deflate offers compression"),
    ("content-length", "a handshake has no body"),
    ("transfer-encoding", "a handshake has no body"),
];
/// All others of these are the handshake's, too.
const OWN_PREFIX: &str = "sec-websocket-";

/// Reads `Name: value`.
pub(crate) fn parse(text: &str) -> Result<Field, String> {
    let (name, value) = text.split_once(':').ok_or("a header is NAME: VALUE")?;
    let (name, value) = (name.trim(), value.trim());
    // Where a colon is missing, the value stands there.
    if !is_name(name) {
        return Err("what stands before the colon is no name of a header field".to_owned());
    }
    check_name(name)?;
    check_value(value).map_err(|why| format!("{name}: {why}"))?;
    Ok((name.to_owned(), value.to_owned()))
}

/// Whether a field of this name may be given.
///
/// # Errors
/// If it is no name (RFC 9110 5.6.2), or the handshake's own.
pub(crate) fn check_name(name: &str) -> Result<(), String> {
    if !is_name(name) {
        return Err(format!("{} is no name of a header field", quoted(name)));
    }
    let lower = name.to_ascii_lowercase();
    match OWN.iter().find(|(own, _)| *own == lower) {
        Some((_, instead)) => Err(format!("{name} cannot be given: {instead}")),
        None if lower.starts_with(OWN_PREFIX) => Err(format!("{name} cannot be given: the handshake has its own")),
        None => Ok(()),
    }
}

fn is_name(name: &str) -> bool {
    let is_of_it = |char: char| char.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(char);
    !name.is_empty() && name.chars().all(is_of_it)
}

/// Whether a field may have this value (RFC 9110 5.5).
///
/// # Errors
/// If it may not.
pub(crate) fn check_value(value: &str) -> Result<(), String> {
    match value.bytes().all(|byte| byte == b'\t' || (byte >= b' ' && byte != 0x7f)) {
        true => Ok(()),
        // The value may be secret.
        false => Err("its value has characters that a header cannot have".to_owned()),
    }
}

/// Whether fields can stand together.
///
/// # Errors
/// If there are several of Host, which servers refuse (RFC 9112 3.2).
pub(crate) fn check_together<'a>(names: impl Iterator<Item = &'a String>) -> Result<(), String> {
    if names.filter(|name| is_host(name)).count() > 1 { Err("Host is given twice".to_owned()) } else { Ok(()) }
}

/// The fields of the command line, and of the others those that it does not have; without Host, which comes first.
pub(crate) fn host_and_others<'a>(
    host: &'a str,
    given: &'a [Field],
    others: &'a [Field],
) -> (&'a str, Vec<(&'a str, &'a str)>) {
    let is_given = |name: &str| given.iter().any(|field| field.0.eq_ignore_ascii_case(name));
    let all = given.iter().chain(others.iter().filter(|(name, _)| !is_given(name)));
    let (hosts, fields): (Vec<_>, Vec<_>) =
        all.map(|(name, value)| (name.as_str(), value.as_str())).partition(|(name, _)| is_host(name));
    (hosts.first().map_or(host, |(_, value)| value), fields)
}

fn is_host(name: &str) -> bool {
    name.eq_ignore_ascii_case("host")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(text: &str) -> Vec<Field> {
        text.split(',').filter(|field| !field.is_empty()).map(|field| parse(field).expect(field)).collect()
    }

    /// Kills: a field of the handshake's own that is sent beside it.
    #[test]
    fn what_would_break_the_handshake_is_refused_with_the_way_to_have_it() {
        for (text, why) in [
            ("Upgrade: h2c", "Upgrade cannot be given: the handshake has its own"),
            ("connection: close", "connection cannot be given"),
            ("Sec-WebSocket-Key: x", "the handshake has its own"),
            ("sec-websocket-version: 8", "the handshake has its own"),
            ("Sec-WebSocket-Protocol: a", "--subprotocol"),
            ("Sec-WebSocket-Extensions: a", "--deflate"),
            ("Content-Length: 5", "no body"),
            ("Transfer-Encoding: chunked", "no body"),
            ("X-User", "a header is NAME: VALUE"),
            (": x", "what stands before the colon is no name"),
            ("X User: x", "what stands before the colon is no name"),
            ("Ü: x", "is no name"),
            ("X: a\u{1}b", "characters that a header cannot have"),
            ("X: a\r\nY: b", "characters that a header cannot have"),
        ] {
            let error = parse(text).expect_err(text);
            assert!(error.contains(why), "{text}: {error}");
        }
        let two = fields("Host: a,host: b");
        assert!(check_together(two.iter().map(|field| &field.0)).is_err_and(|error| error.contains("twice")));
    }

    /// Kills: two Host fields, which servers answer with 400.
    #[test]
    fn host_stands_in_place_of_the_urls_and_the_command_line_goes_before() {
        type Row = (&'static str, &'static str, &'static str, &'static [(&'static str, &'static str)]);
        let rows: [Row; 6] = [
            ("", "", "url", &[]),
            ("hOST: a", "", "a", &[]),
            ("", "Host: b,X: 1", "b", &[("X", "1")]),
            ("Host: a,X: 0", "host: b,x: 1,Y: 2", "a", &[("X", "0"), ("Y", "2")]),
            ("Cookie: a,Cookie: b", "", "url", &[("Cookie", "a"), ("Cookie", "b")]),
            ("Origin: https://x,User-Agent: y", "", "url", &[("Origin", "https://x"), ("User-Agent", "y")]),
        ];
        for (given, others, host, expected) in rows {
            let (given, others) = (fields(given), fields(others));
            assert_eq!(host_and_others("url", &given, &others), (host, expected.to_vec()), "{given:?} {others:?}");
        }
    }
}
