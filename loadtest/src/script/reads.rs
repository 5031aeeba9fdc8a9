//! Values that scenario files have in many places: times, spans of them, and texts with variables.

use super::{Span, stages::nanos, template::Template, tree::Node};
use crate::net::Nanos;

/// A time, as text or as a number of seconds.
pub(super) fn time(node: &Node<'_>) -> Result<Nanos, String> {
    nanos(&node.plain()?).map_err(|why| node.wrong(why))
}

/// A time, or from one to another.
pub(super) fn span(node: &Node<'_>) -> Result<Span, String> {
    Span::parse(&node.plain()?).map_err(|why| node.wrong(why))
}

/// A text that may have these variables in it.
pub(super) fn template(node: &Node<'_>, known: &[String]) -> Result<Template, String> {
    node.read(|text| Template::parse(text, known))
}
