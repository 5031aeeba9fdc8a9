//! Figures of several turns as cells of a table: the middle one, and from the lowest to the highest where they differ.

use serde_json::Value;

/// The values that are there, sorted.
pub(crate) fn values(figures: &[Value], pointer: &str) -> Vec<f64> {
    let mut values: Vec<f64> = figures.iter().filter_map(|figures| figures.pointer(pointer)?.as_f64()).collect();
    values.sort_by(f64::total_cmp);
    values
}

/// The middle value of those that are there.
pub(crate) fn median(figures: &[Value], pointer: &str) -> Option<f64> {
    let values = values(figures, pointer);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        len if len % 2 == 1 => Some(values[middle]),
        _ => Some((values[middle - 1] + values[middle]) / 2.0),
    }
}

/// One cell: the middle value.
pub(crate) fn cell(value: Option<f64>, text: impl Fn(f64) -> String) -> String {
    value.map_or_else(|| "-".to_owned(), text)
}

/// One cell: the middle value, and the range behind it.
pub(crate) fn ranged(figures: &[Value], pointer: &str, text: impl Fn(f64) -> String) -> String {
    let values = values(figures, pointer);
    let (Some(low), Some(high)) = (values.first().map(|low| text(*low)), values.last().map(|high| text(*high))) else {
        return "-".to_owned();
    };
    let middle = cell(median(figures, pointer), text);
    if low == high { middle } else { format!("{middle} ({low} .. {high})") }
}

pub(crate) fn time(us: f64) -> String {
    if us < 1000.0 { format!("{us:.0} us") } else { format!("{:.1} ms", us / 1000.0) }
}

pub(crate) fn rate(each_second: f64) -> String {
    match each_second {
        rate if rate >= 1e6 => format!("{:.2} M", rate / 1e6),
        rate if rate >= 1e4 => format!("{:.0} k", rate / 1e3),
        rate => format!("{rate:.0}"),
    }
}

/// CPU time, with as many digits as say something.
pub(crate) fn cpu(us: f64) -> String {
    match us {
        us if us < 10.0 => format!("{us:.2}"),
        us if us < 100.0 => format!("{us:.1}"),
        us => format!("{us:.0}"),
    }
}

/// A row of a table in Markdown.
pub(crate) fn line(cells: impl IntoIterator<Item = String>) -> String {
    format!("| {} |", cells.into_iter().collect::<Vec<_>>().join(" | "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_middle_of_what_is_there() {
        let figures = [json!({"a": 3.0}), json!({"a": 1.0}), json!({}), json!({"a": 2.0})];
        assert_eq!((median(&figures, "/a"), median(&figures, "/b")), (Some(2.0), None));
        assert_eq!(ranged(&figures, "/a", |value| format!("{value:.0}")), "2 (1 .. 3)");
        assert_eq!(ranged(&figures[..1], "/a", |value| format!("{value:.0}")), "3");
        assert_eq!(ranged(&figures, "/b", cpu), "-");
        assert_eq!([0.123, 9.996, 12.34, 345.6].map(cpu), ["0.12", "10.00", "12.3", "346"]);
    }
}
