//! Extensions in the opening handshake (RFC 6455 9.1), and what permessage-deflate agrees on there (RFC 7692 5 and 7.1).
//!
//! A server holds each offer against its [`Terms`] and takes the first that it can keep; a client makes an [`Offer`] and
//! takes only an answer to that. What comes of it is [`Agreed`], the same on both sides.

use std::borrow::Cow;
use std::fmt::Write as _;

use thiserror::Error;

use super::deflate::{WINDOW_BITS_MAX, WINDOW_BITS_MIN};
use super::event::Role;
use super::http::is_token;

/// The extension's name (RFC 7692 10.1).
const NAME: &str = "permessage-deflate";

const SERVER_NO_CONTEXT: &str = "server_no_context_takeover";
const CLIENT_NO_CONTEXT: &str = "client_no_context_takeover";
const SERVER_WINDOW: &str = "server_max_window_bits";
const CLIENT_WINDOW: &str = "client_max_window_bits";

/// A Sec-WebSocket-Extensions field that is no list of extensions (RFC 6455 9.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("malformed Sec-WebSocket-Extensions")]
pub struct Malformed;

/// What both ends of a connection have agreed on (RFC 7692 7.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Agreed {
    /// A message of the server's may refer to those before it.
    pub server_context: bool,
    /// A message of the client's may refer to those before it.
    pub client_context: bool,
    /// How far the server's messages may refer back, in bits: 10 to 15.
    pub server_window_bits: u8,
    /// How far the client's messages may refer back, in bits: 8 to 15.
    pub client_window_bits: u8,
}

impl Agreed {
    /// The window of the context that the peer of `role` sends with, in bits, if it has one.
    pub fn received_context(self, role: Role) -> Option<u8> {
        match role {
            Role::Server => self.client_context.then_some(self.client_window_bits),
            Role::Client => self.server_context.then_some(self.server_window_bits),
        }
    }

    /// Whether `role` may send with a context.
    pub fn sends_context(self, role: Role) -> bool {
        match role {
            Role::Server => self.server_context,
            Role::Client => self.client_context,
        }
    }

    /// How far messages of `role` may refer back, in bits. Where that is less than 15, a message without a context must be no
    /// longer than that.
    pub fn sent_window_bits(self, role: Role) -> u8 {
        match role {
            Role::Server => self.server_window_bits,
            Role::Client => self.client_window_bits,
        }
    }
}

/// What a server agrees to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Its messages may refer to those before.
    pub server_context: bool,
    /// The client's may, and it keeps what they refer to.
    pub client_context: bool,
    /// The window of contexts, in bits: 10 to 15.
    pub window_bits: u8,
}

/// What a client asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offer {
    /// Messages may refer to those before, both ways.
    pub context: bool,
}

impl Offer {
    /// The value of the field that says so.
    pub fn value(self) -> &'static str {
        if self.context {
            "permessage-deflate; client_max_window_bits"
        } else {
            "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
        }
    }
}

/// Takes the first offer that keeps the terms, out of the values of a request's fields: what is agreed, and the value of
/// the response's field. `None`: nothing is, and no field may be in the response.
///
/// # Errors
/// [`Malformed`]: RFC 6455 9.1 has the handshake fail.
pub fn accept<'v>(
    values: impl IntoIterator<Item = &'v str>,
    terms: Terms,
) -> Result<Option<(Agreed, String)>, Malformed> {
    let mut accepted = None;
    for value in values {
        // To the end: what is malformed behind it is so as well.
        read_list(value, |name, params| {
            // RFC 7692 5.1: a server declines an offer that it does not understand, and goes on with the next.
            if accepted.is_none() && name.eq_ignore_ascii_case(NAME) {
                accepted = Parameters::read(params, true).and_then(|offered| offered.accept(terms));
            }
        })?;
    }
    Ok(accepted)
}

/// Holds a server's answer, the values of its response's fields, against what was offered.
///
/// `None`: it is no answer to that, and the connection must be failed (RFC 7692 5.1, 7.1).
pub fn check_answer<'v>(values: impl IntoIterator<Item = &'v str>, offer: Option<Offer>) -> Option<Option<Agreed>> {
    let mut agreed = None;
    let mut is_wrong = false;
    for value in values {
        let read = read_list(value, |name, params| {
            let answer = if name.eq_ignore_ascii_case(NAME) && agreed.is_none() {
                offer.and_then(|offer| Parameters::read(params, false)?.answers(offer))
            } else {
                None
            };
            is_wrong |= answer.is_none();
            agreed = answer;
        });
        is_wrong |= read.is_err();
    }
    if is_wrong { None } else { Some(agreed) }
}

type Parameter<'v> = (&'v str, Option<Cow<'v, str>>);

/// The parameters of permessage-deflate (RFC 7692 7.1), each at most once and with a value that it may have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Parameters {
    server_no_context: bool,
    client_no_context: bool,
    server_window_bits: Option<u8>,
    /// Without a value (`Some(None)`) in offers only.
    client_window_bits: Option<Option<u8>>,
}

impl Parameters {
    /// `None` where one is unknown, repeated or has no value that it may have.
    fn read(params: &[Parameter<'_>], is_offer: bool) -> Option<Parameters> {
        let mut read = Parameters::default();
        for (name, value) in params {
            let is_repeated = match (name.to_ascii_lowercase().as_str(), value.as_deref()) {
                (SERVER_NO_CONTEXT, None) => std::mem::replace(&mut read.server_no_context, true),
                (CLIENT_NO_CONTEXT, None) => std::mem::replace(&mut read.client_no_context, true),
                (SERVER_WINDOW, Some(bits)) => read.server_window_bits.replace(window_bits(bits)?).is_some(),
                (CLIENT_WINDOW, Some(bits)) => read.client_window_bits.replace(Some(window_bits(bits)?)).is_some(),
                (CLIENT_WINDOW, None) if is_offer => read.client_window_bits.replace(None).is_some(),
                _ => return None,
            };
            if is_repeated {
                return None;
            }
        }
        Some(read)
    }

    /// What a server makes of an offer.
    fn accept(self, terms: Terms) -> Option<(Agreed, String)> {
        let mut agreed = Agreed {
            server_context: terms.server_context && !self.server_no_context,
            client_context: terms.client_context && !self.client_no_context,
            server_window_bits: WINDOW_BITS_MAX,
            client_window_bits: WINDOW_BITS_MAX,
        };
        let mut answer = String::from(NAME);
        if !agreed.server_context {
            answer += "; server_no_context_takeover";
        }
        if !agreed.client_context {
            answer += "; client_no_context_takeover";
        }
        // RFC 7692 7.1.2.1: accepted with the same value or a smaller one; declined where the server cannot.
        if let Some(bits) = self.server_window_bits {
            if bits < WINDOW_BITS_MIN {
                return None;
            }
            let bits = if agreed.server_context { bits.min(terms.window_bits) } else { bits };
            agreed.server_window_bits = bits;
            let _ = write!(answer, "; {SERVER_WINDOW}={bits}");
        }
        // RFC 7692 7.1.2.2: not unless the client has said that it can.
        if let (Some(bits), true) = (self.client_window_bits, agreed.client_context) {
            let bits = bits.unwrap_or(WINDOW_BITS_MAX).min(terms.window_bits);
            agreed.client_window_bits = bits;
            let _ = write!(answer, "; {CLIENT_WINDOW}={bits}");
        }
        Some((agreed, answer))
    }

    /// What a client makes of an answer.
    fn answers(self, offer: Offer) -> Option<Agreed> {
        // RFC 7692 7.1.1.1: a server accepts server_no_context_takeover by saying it. 7.1.2.2: client_max_window_bits only
        // where it was offered. What else it may say unasked.
        let is_answer = match offer.context {
            true => true,
            false => self.server_no_context && self.client_window_bits.is_none(),
        };
        is_answer.then(|| Agreed {
            server_context: !self.server_no_context,
            client_context: offer.context && !self.client_no_context,
            server_window_bits: self.server_window_bits.unwrap_or(WINDOW_BITS_MAX),
            client_window_bits: self.client_window_bits.flatten().unwrap_or(WINDOW_BITS_MAX),
        })
    }
}

/// RFC 7692 7.1.2: a decimal number from 8 to 15 without leading zeros.
fn window_bits(value: &str) -> Option<u8> {
    let bits = value.parse().ok().filter(|bits| (8..=WINDOW_BITS_MAX).contains(bits))?;
    let is_plain = value.bytes().all(|byte| byte.is_ascii_digit()) && !value.starts_with('0');
    is_plain.then_some(bits)
}

/// Reads a list of extensions (RFC 6455 9.1; RFC 9110 5.6.1: empty elements are no elements).
fn read_list<'v>(value: &'v str, mut each: impl FnMut(&'v str, &[Parameter<'v>])) -> Result<(), Malformed> {
    let mut rest = Rest(value);
    let mut params = Vec::new();
    loop {
        while rest.takes(',') {}
        if rest.is_empty() {
            return Ok(());
        }
        let name = rest.token()?;
        params.clear();
        while rest.takes(';') {
            let param = rest.token()?;
            let value = if rest.takes('=') { Some(rest.value()?) } else { None };
            params.push((param, value));
        }
        if !rest.is_empty() && !rest.takes(',') {
            return Err(Malformed);
        }
        each(name, &params);
    }
}

/// What of a field's value is still to be read.
struct Rest<'v>(&'v str);

impl<'v> Rest<'v> {
    fn skip_space(&mut self) {
        self.0 = self.0.trim_start_matches([' ', '\t']);
    }

    fn is_empty(&mut self) -> bool {
        self.skip_space();
        self.0.is_empty()
    }

    fn takes(&mut self, sign: char) -> bool {
        self.skip_space();
        match self.0.strip_prefix(sign) {
            Some(rest) => {
                self.0 = rest;
                true
            }
            None => false,
        }
    }

    /// A token (RFC 9110 5.6.2).
    fn token(&mut self) -> Result<&'v str, Malformed> {
        self.skip_space();
        let len = self.0.bytes().take_while(|byte| is_token(*byte)).count();
        if len == 0 {
            return Err(Malformed);
        }
        let (token, rest) = self.0.split_at(len);
        self.0 = rest;
        Ok(token)
    }

    /// A parameter's value: a token, or one in quotes (RFC 6455 9.1: what is in them MUST be a token).
    fn value(&mut self) -> Result<Cow<'v, str>, Malformed> {
        if !self.takes('"') {
            return self.token().map(Cow::Borrowed);
        }
        let mut value = String::new();
        let mut signs = self.0.char_indices();
        while let Some((at, sign)) = signs.next() {
            match sign {
                '"' if value.is_empty() => return Err(Malformed),
                '"' => {
                    self.0 = &self.0[at + 1..];
                    return Ok(Cow::Owned(value));
                }
                _ => {
                    let sign = if sign == '\\' { signs.next().ok_or(Malformed)?.1 } else { sign };
                    if !u8::try_from(sign).is_ok_and(is_token) {
                        return Err(Malformed);
                    }
                    value.push(sign);
                }
            }
        }
        Err(Malformed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATELESS: Terms = Terms { server_context: false, client_context: false, window_bits: 12 };
    const SHARED: Terms = Terms { server_context: true, client_context: false, window_bits: 12 };
    const DEDICATED: Terms = Terms { server_context: true, client_context: true, window_bits: 12 };

    /// What is answered, or why not; and that the client that has offered it takes that for an answer.
    fn answered(values: &[&str], terms: Terms) -> String {
        match accept(values.iter().copied(), terms) {
            Err(Malformed) => "malformed".to_owned(),
            Ok(None) => "-".to_owned(),
            Ok(Some((_, answer))) => answer.strip_prefix(NAME).expect("its name").trim_start_matches("; ").to_owned(),
        }
    }

    #[test]
    fn offers_and_answers() {
        const SN: &str = "server_no_context_takeover";
        const BOTH: &str = "server_no_context_takeover; client_no_context_takeover";
        const CN: &str = "client_no_context_takeover";
        #[rustfmt::skip]
        let rows: &[(&[&str], Terms, &str)] = &[
            // Nothing, and others' extensions.
            (&[], DEDICATED, "-"),
            (&[""], DEDICATED, "-"),
            (&[" , ,"], DEDICATED, "-"),
            (&["x-webkit-deflate-frame"], DEDICATED, "-"),
            (&["permessage-deflat", "permessage-deflatee"], DEDICATED, "-"),
            (&["mux; max-channels=4; flow-control, permessage-deflate"], DEDICATED, ""),
            // What each mode answers.
            (&["permessage-deflate"], STATELESS, BOTH),
            (&["permessage-deflate"], SHARED, CN),
            (&["permessage-deflate"], DEDICATED, ""),
            (&["Permessage-Deflate; Server_No_Context_Takeover"], DEDICATED, SN),
            (&["permessage-deflate; client_no_context_takeover"], DEDICATED, CN),
            (&["permessage-deflate; client_no_context_takeover;server_no_context_takeover"], DEDICATED, BOTH),
            // Chromium, Firefox, Safari.
            (&["permessage-deflate; client_max_window_bits"], STATELESS, BOTH),
            (&["permessage-deflate; client_max_window_bits"], SHARED, CN),
            (&["permessage-deflate; client_max_window_bits"], DEDICATED, "client_max_window_bits=12"),
            // Windows of the client: at most what it says, and not unless it says so.
            (&["permessage-deflate; client_max_window_bits=15"], DEDICATED, "client_max_window_bits=12"),
            (&["permessage-deflate; client_max_window_bits=11"], DEDICATED, "client_max_window_bits=11"),
            (&["permessage-deflate; client_max_window_bits=8"], DEDICATED, "client_max_window_bits=8"),
            // Windows of the server.
            (&["permessage-deflate; server_max_window_bits=15"], DEDICATED, "server_max_window_bits=12"),
            (&["permessage-deflate; server_max_window_bits=11"], DEDICATED, "server_max_window_bits=11"),
            (&["permessage-deflate; server_max_window_bits=10"], STATELESS, "server_no_context_takeover; client_no_context_takeover; server_max_window_bits=10"),
            (&["permessage-deflate; server_max_window_bits=9"], DEDICATED, "-"),
            (&["permessage-deflate; server_max_window_bits=8"], STATELESS, "-"),
            // The first acceptable wins, in one field or several.
            (&["permessage-deflate; server_max_window_bits=9, permessage-deflate; server_max_window_bits=10, permessage-deflate"], DEDICATED, "server_max_window_bits=10"),
            (&["permessage-deflate; server_max_window_bits=8", "permessage-deflate"], DEDICATED, ""),
            (&["permessage-deflate; unknown", "a, permessage-deflate; client_no_context_takeover"], DEDICATED, CN),
            (&["permessage-deflate, permessage-deflate; unknown"], DEDICATED, ""),
            // Quoted values.
            (&[r#"permessage-deflate; server_max_window_bits="11""#], DEDICATED, "server_max_window_bits=11"),
            (&[r#"permessage-deflate; server_max_window_bits="1\1" ; client_no_context_takeover"#], DEDICATED, "client_no_context_takeover; server_max_window_bits=11"),
            (&[r#"other; x="a"; y="\b" , permessage-deflate"#], DEDICATED, ""),
            // Unknown parameters, repeated ones, and values that they cannot have: declined.
            (&["permessage-deflate; unknown"], DEDICATED, "-"),
            (&["permessage-deflate; unknown=1"], DEDICATED, "-"),
            (&["permessage-deflate; server_no_context_takeover; server_no_context_takeover"], DEDICATED, "-"),
            (&["permessage-deflate; client_no_context_takeover; CLIENT_no_context_takeover"], DEDICATED, "-"),
            (&["permessage-deflate; client_max_window_bits; client_max_window_bits"], DEDICATED, "-"),
            (&["permessage-deflate; client_max_window_bits=12; client_max_window_bits"], DEDICATED, "-"),
            (&["permessage-deflate; server_max_window_bits=12; server_max_window_bits=12"], DEDICATED, "-"),
            (&["permessage-deflate; server_no_context_takeover=true"], DEDICATED, "-"),
            (&["permessage-deflate; client_no_context_takeover=1"], DEDICATED, "-"),
            (&["permessage-deflate; server_max_window_bits"], DEDICATED, "-"),
            (&["permessage-deflate; server_max_window_bits=7"], DEDICATED, "-"),
            (&["permessage-deflate; server_max_window_bits=16"], DEDICATED, "-"),
            (&["permessage-deflate; server_max_window_bits=012"], DEDICATED, "-"),
            (&["permessage-deflate; server_max_window_bits=+12"], DEDICATED, "-"),
            (&["permessage-deflate; server_max_window_bits=12.0"], DEDICATED, "-"),
            (&["permessage-deflate; server_max_window_bits=268"], DEDICATED, "-"),
            (&["permessage-deflate; server_max_window_bits=99999999999999999999"], DEDICATED, "-"),
            (&["permessage-deflate; client_max_window_bits=16"], DEDICATED, "-"),
            (&["permessage-deflate; client_max_window_bits=7"], DEDICATED, "-"),
            (&["permessage-deflate; client_max_window_bits=x"], DEDICATED, "-"),
            // No list of extensions at all.
            (&["permessage-deflate;"], DEDICATED, "malformed"),
            (&["permessage-deflate; ;"], DEDICATED, "malformed"),
            (&[";"], DEDICATED, "malformed"),
            (&["permessage-deflate server_no_context_takeover"], DEDICATED, "malformed"),
            (&["permessage-deflate; server_max_window_bits="], DEDICATED, "malformed"),
            (&[r#"permessage-deflate; server_max_window_bits="""#], DEDICATED, "malformed"),
            (&[r#"permessage-deflate; server_max_window_bits="12"#], DEDICATED, "malformed"),
            (&[r#"permessage-deflate; server_max_window_bits="12\"#], DEDICATED, "malformed"),
            (&[r#"permessage-deflate; server_max_window_bits="1 2""#], DEDICATED, "malformed"),
            (&[r#"permessage-deflate; server_max_window_bits="12"3"#], DEDICATED, "malformed"),
            (&["permessage-deflate", "{}"], DEDICATED, "malformed"),
            (&["permessage-deflate; \u{e9}"], DEDICATED, "malformed"),
            (&["permessage-deflate/1"], DEDICATED, "malformed"),
        ];
        for (values, terms, expected) in rows {
            assert_eq!(answered(values, *terms), *expected, "{values:?}");
        }
    }

    /// What is agreed is the same on both sides, whatever the server's terms.
    #[test]
    fn both_sides_agree() {
        for offer in [Offer { context: true }, Offer { context: false }] {
            for terms in [STATELESS, SHARED, DEDICATED, Terms { window_bits: 15, ..DEDICATED }] {
                let (agreed, answer) = accept([offer.value()], terms).unwrap().expect("it is acceptable");
                assert_eq!(check_answer([answer.as_str()], Some(offer)), Some(Some(agreed)), "{offer:?} {answer}");
                assert_eq!(agreed.server_context, terms.server_context && offer.context);
                assert_eq!(agreed.client_context, terms.client_context && offer.context);
            }
        }
    }

    #[test]
    fn answers_are_held_against_the_offer() {
        let (context, none) = (Some(Offer { context: true }), Some(Offer { context: false }));
        let agreed = |server_context, client_context, server_window_bits, client_window_bits| {
            Some(Some(Agreed { server_context, client_context, server_window_bits, client_window_bits }))
        };
        #[rustfmt::skip]
        type Row<'r> = (&'r [&'r str], Option<Offer>, Option<Option<Agreed>>);
        let rows: &[Row<'_>] = &[
            (&[], None, Some(None)),
            (&[], context, Some(None)),
            (&[""], none, Some(None)),
            (&["permessage-deflate"], None, None),
            (&["x"], context, None),
            (&["permessage-deflate, x"], context, None),
            (&["permessage-deflate"], context, agreed(true, true, 15, 15)),
            (&["permessage-deflate; server_no_context_takeover"], context, agreed(false, true, 15, 15)),
            (&["permessage-deflate; client_no_context_takeover"], context, agreed(true, false, 15, 15)),
            (&["permessage-deflate; server_max_window_bits=10; client_max_window_bits=9"], context, agreed(true, true, 10, 9)),
            (&["permessage-deflate; server_max_window_bits=8"], context, agreed(true, true, 8, 15)),
            // 7.1.2.2: its answer has a value.
            (&["permessage-deflate; client_max_window_bits"], context, None),
            // Unknown, repeated, ill-valued, twice, malformed.
            (&["permessage-deflate; x"], context, None),
            (&["permessage-deflate; server_max_window_bits"], context, None),
            (&["permessage-deflate; server_max_window_bits=16"], context, None),
            (&["permessage-deflate; server_no_context_takeover; server_no_context_takeover"], context, None),
            (&["permessage-deflate, permessage-deflate"], context, None),
            (&["permessage-deflate", "permessage-deflate"], context, None),
            (&["permessage-deflate;"], context, None),
            // 7.1.1.1: what was offered is accepted by saying it; 7.1.2.2: what was not must not be.
            (&["permessage-deflate"], none, None),
            (&["permessage-deflate; server_no_context_takeover"], none, agreed(false, false, 15, 15)),
            (&["permessage-deflate; server_no_context_takeover; client_max_window_bits=12"], none, None),
            (&["permessage-deflate; client_no_context_takeover; server_no_context_takeover; server_max_window_bits=12"], none, agreed(false, false, 12, 15)),
        ];
        for (values, offer, expected) in rows {
            assert_eq!(check_answer(values.iter().copied(), *offer), *expected, "{values:?} to {offer:?}");
        }
    }
}
