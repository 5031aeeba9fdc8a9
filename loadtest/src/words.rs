//! Numbers as people read them.

/// A number with its thousands set apart.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A time given in microseconds, in the unit that suits it.
pub(crate) fn time_text(microseconds: f64) -> String {
    match microseconds {
        us if us < 1e3 => format!("{us:.1} us"),
        us if us < 1e6 => format!("{:.2} ms", us / 1e3),
        us => format!("{:.2} s", us / 1e6),
    }
}

/// A number of bytes in the unit that suits it.
pub(crate) fn bytes_text(bytes: f64) -> String {
    match bytes.abs() {
        size if size < 1024.0 => format!("{bytes:.0} B"),
        size if size < 1024.0 * 1024.0 => format!("{:.1} KiB", bytes / 1024.0),
        size if size < f64::powi(1024.0, 3) => format!("{:.1} MiB", bytes / f64::powi(1024.0, 2)),
        _ => format!("{:.2} GiB", bytes / f64::powi(1024.0, 3)),
    }
}

/// What another machine has written, as one line that no terminal makes anything of.
pub(crate) fn one_line(text: &str) -> String {
    text.trim().chars().map(|char| if char.is_control() { ' ' } else { char }).take(500).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_told_with_their_units() {
        assert_eq!(
            (grouped(7).as_str(), grouped(1234).as_str(), grouped(1_234_567).as_str()),
            ("7", "1,234", "1,234,567")
        );
        assert_eq!(time_text(12.34), "12.3 us");
        assert_eq!(time_text(12_340.0), "12.34 ms");
        assert_eq!(time_text(2_500_000.0), "2.50 s");
        assert_eq!(bytes_text(1536.0), "1.5 KiB");
        assert_eq!(one_line(" a\u{1b}[31m\nb \n"), "a [31m b");
        assert_eq!(one_line(&"x".repeat(1000)).len(), 500);
    }
}
