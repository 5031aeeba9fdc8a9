//! Text of others, as it may be shown to anybody: short, on one line, escaped once.
//!
//! A peer decides what its text says and how long it is. It must not decide how long our errors, events, close reasons and
//! log lines become, what they cost, or where a line of a log ends. Whatever quotes somebody goes through here: [`quoted`]
//! for a name or a text of his, [`excerpt`] for a library's words, which may quote him, and [`line()`] for those of a
//! handler. All of them cost as much as they show, however long the text is, and nothing else formats such text with
//! `Debug`.
//!
//! Knows of this crate: nothing.

use std::fmt::{self, Write as _};

/// Most characters that are shown of a text, escapes and the ellipsis counted.
pub const QUOTED_CHARS_MAX: usize = 64;
/// Most characters that are shown of a library's error at each of its ends.
const END_CHARS_MAX: usize = 48;
/// Most characters of a line.
const LINE_CHARS_MAX: usize = 1024;

/// A text in quotation marks: see [`quoted`].
#[derive(Clone, Copy)]
pub struct Quoted<'t>(&'t [u8]);

/// Quotes a text: at most [`QUOTED_CHARS_MAX`] characters of it, cut with an ellipsis. Whatever does not print is escaped,
/// bytes that are no UTF-8 among it, and so are quotation marks and backslashes: two texts that differ in what is shown
/// look different.
///
/// ```
/// use ringwire::quote::quoted;
///
/// assert_eq!(quoted("lobby").to_string(), r#""lobby""#);
/// assert_eq!(quoted("a\u{7f}\n").to_string(), r#""a\u{7f}\n""#);
/// assert_eq!(quoted(&"x".repeat(1 << 20)).to_string(), format!(r#""{}…""#, "x".repeat(63)));
/// ```
pub fn quoted<T: AsRef<[u8]> + ?Sized>(text: &T) -> Quoted<'_> {
    Quoted(text.as_ref())
}

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // No character has more than 4 bytes, so a character that is cut here is beyond those that are shown.
        let start = &self.0[..self.0.len().min(4 * QUOTED_CHARS_MAX)];
        f.write_char('"')?;
        let mut shown = 0;
        // What has been shown and would have to go if an ellipsis is needed: with what fits for certain, nothing.
        let mut last = Piece::default();
        for piece in pieces(start) {
            if shown + piece.len > QUOTED_CHARS_MAX {
                return f.write_str("…\"");
            }
            // The last place is the ellipsis's, unless this is the end.
            if shown + piece.len == QUOTED_CHARS_MAX {
                last = piece;
                shown += piece.len;
                continue;
            }
            piece.write(f)?;
            shown += piece.len;
        }
        if last.len > 0 && start.len() == self.0.len() {
            last.write(f)?;
        } else if start.len() < self.0.len() {
            f.write_char('…')?;
        }
        f.write_char('"')
    }
}

impl fmt::Debug for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A character, or a byte that belongs to none, as it is shown.
#[derive(Clone, Copy, Default)]
struct Piece {
    shown: Shown,
    /// In characters.
    len: usize,
}

#[derive(Clone, Copy, Default)]
enum Shown {
    #[default]
    Nothing,
    Plain(char),
    Escaped(char),
    Byte(u8),
}

impl Piece {
    fn of(character: char) -> Piece {
        match character {
            '\'' => Piece { shown: Shown::Plain(character), len: 1 },
            // Vowel signs and the like would be escaped where they stand alone.
            character if character.is_alphanumeric() => Piece { shown: Shown::Plain(character), len: 1 },
            character => Piece { shown: Shown::Escaped(character), len: character.escape_debug().count() },
        }
    }

    fn write(self, to: &mut impl fmt::Write) -> fmt::Result {
        match self.shown {
            Shown::Nothing => Ok(()),
            Shown::Plain(character) => to.write_char(character),
            Shown::Escaped(character) => write!(to, "{}", character.escape_debug()),
            Shown::Byte(byte) => write!(to, "\\x{byte:02x}"),
        }
    }
}

fn pieces(bytes: &[u8]) -> impl Iterator<Item = Piece> + '_ {
    bytes.utf8_chunks().flat_map(|chunk| {
        let bytes = chunk.invalid().iter().map(|byte| Piece { shown: Shown::Byte(*byte), len: 4 });
        chunk.valid().chars().map(Piece::of).chain(bytes)
    })
}

/// Escapes prose: what does not print, and nothing else, for what it quotes has been escaped already.
fn prose(character: char) -> Piece {
    match character {
        '"' | '\\' => Piece { shown: Shown::Plain(character), len: 1 },
        character => Piece::of(character),
    }
}

/// What a library says, such as a decoder of the text that it decodes: the beginning and the end of it, where it is long.
pub fn excerpt(error: &dyn fmt::Display) -> String {
    let mut ends = Ends::default();
    // It never fails, and a `Display` that fails has said what it could.
    let _ = write!(ends, "{error}");
    ends.finish()
}

/// Keeps the first characters and the last ones of what is written.
#[derive(Default)]
struct Ends {
    head: String,
    head_chars: usize,
    tail: String,
    is_cut: bool,
}

impl Ends {
    fn finish(self) -> String {
        let Ends { mut head, tail, is_cut, .. } = self;
        if is_cut {
            head.push('…');
        }
        for character in tail.chars() {
            // A `String` takes everything.
            let _ = prose(character).write(&mut head);
        }
        head
    }
}

impl fmt::Write for Ends {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut rest = text.chars();
        while self.head_chars < END_CHARS_MAX {
            let Some(character) = rest.next() else { return Ok(()) };
            let piece = prose(character);
            self.head_chars += piece.len;
            piece.write(&mut self.head)?;
        }
        let rest = rest.as_str();
        let start = rest.char_indices().rev().take(END_CHARS_MAX).last().map_or(rest.len(), |(at, _)| at);
        self.is_cut |= start > 0;
        self.tail.push_str(&rest[start..]);
        let over = self.tail.char_indices().rev().nth(END_CHARS_MAX).map(|(at, character)| at + character.len_utf8());
        if let Some(over) = over {
            self.is_cut = true;
            self.tail.drain(..over);
        }
        Ok(())
    }
}

/// What a handler says of its failure, on one line: see [`line()`].
#[derive(Clone, Copy)]
pub struct Line<'t>(&'t dyn fmt::Display);

/// A handler's error for the log: at most 1024 characters, and those that do not print are escaped, line breaks among them.
/// Formatting stops there.
pub fn line(text: &dyn fmt::Display) -> Line<'_> {
    Line(text)
}

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = Bounded { to: f, left: LINE_CHARS_MAX, failed: Ok(()) };
        let written = write!(out, "{}", self.0);
        let Bounded { left, failed, .. } = out;
        failed?;
        // It stops the formatting by an error of its own.
        if written.is_err() && left == 0 { f.write_char('…') } else { Ok(()) }
    }
}

struct Bounded<'f, 'b> {
    to: &'f mut fmt::Formatter<'b>,
    left: usize,
    failed: fmt::Result,
}

impl fmt::Write for Bounded<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for character in text.chars() {
            let piece = prose(character);
            if piece.len > self.left {
                self.left = 0;
                return Err(fmt::Error);
            }
            self.left -= piece.len;
            self.failed = piece.write(self.to);
            self.failed?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn texts_are_quoted_short_and_escaped_once() {
        let x = |count: usize| "x".repeat(count);
        for (text, shown) in [
            (String::new(), String::new()),
            (String::from("it's ключ हिंदी 🦀"), String::from("it's ключ हिंदी 🦀")),
            (String::from(r#"a"b\c"#), String::from(r#"a\"b\\c"#)),
            (String::from("\r\n\u{1b}[31m\u{7f}\u{202e}\u{0}"), String::from(r"\r\n\u{1b}[31m\u{7f}\u{202e}\0")),
            (x(64), x(64)),
            (x(65), x(63) + "…"),
            ("🦀".repeat(64), "🦀".repeat(64)),
            ("🦀".repeat(65), "🦀".repeat(63) + "…"),
            // An escape is whole or not there.
            (x(59) + "\u{7f}", x(59) + "…"),
            (x(58) + "\u{7f}", x(58) + r"\u{7f}"),
            (x(58) + "\u{7f}x", x(58) + "…"),
            (x(62) + "\n", x(62) + r"\n"),
            (x(63) + "\n", x(63) + "…"),
            ("\u{7f}".repeat(1 << 20), r"\u{7f}".repeat(10) + "…"),
        ] {
            assert_eq!(quoted(&text).to_string(), format!("\"{shown}\""));
            assert!(shown.chars().count() <= QUOTED_CHARS_MAX);
        }
        assert_eq!(quoted(b"a\xff\xfeb\xf0\x9f").to_string(), r#""a\xff\xfeb\xf0\x9f""#);
        assert_eq!(quoted(&[0xff; 1000]).to_string(), format!("\"{}…\"", r"\xff".repeat(15)));
        assert_eq!(format!("{:?}", quoted("\n")), r#""\n""#);
    }

    #[test]
    fn excerpts_have_both_ends() {
        assert_eq!(excerpt(&"missing field `room`"), "missing field `room`");
        let short = "ä".repeat(2 * END_CHARS_MAX);
        assert_eq!(excerpt(&short), short);
        let long = format!("unknown variant `{}`, expected one of `a`, `b`", "\u{7f}".repeat(1 << 20));
        let short = excerpt(&long);
        assert!(short.starts_with(r"unknown variant `\u{7f}\u{7f}") && short.ends_with("`, expected one of `a`, `b`"));
        assert!(short.chars().count() <= 8 * END_CHARS_MAX, "{short}");
        assert_eq!(short.matches('…').count(), 1, "{short}");
        // What was escaped stays as it is.
        assert_eq!(excerpt(&r#"string "a\"b\u{7f}""#), r#"string "a\"b\u{7f}""#);
        // However it is cut into pieces.
        let error = serde_json::from_str::<u32>(r#""seven""#).expect_err("a string");
        assert_eq!(excerpt(&error), error.to_string());
    }

    #[test]
    fn lines_end_where_they_are_long_enough() {
        assert_eq!(line(&"it failed: \"x\"\nforged\u{7f}").to_string(), r#"it failed: "x"\nforged\u{7f}"#);
        assert_eq!(line(&"y".repeat(1024)).to_string(), "y".repeat(1024));
        assert_eq!(line(&"y".repeat(1025)).to_string(), "y".repeat(1024) + "…");

        struct Endless(Cell<usize>);
        impl fmt::Display for Endless {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                loop {
                    self.0.set(self.0.get() + 1);
                    f.write_str("0123456789")?;
                }
            }
        }
        let endless = Endless(Cell::new(0));
        assert_eq!(line(&endless).to_string().chars().count(), 1025);
        assert_eq!(endless.0.get(), 103);
    }
}
