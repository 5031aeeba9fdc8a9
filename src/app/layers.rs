//! What sees every response on its way out: hooks of users, and the fields that let pages of other origins read it.
//!
//! A layer belongs to a path and what is below it. It sees the responses of routes, and those that no route has given: 404,
//! 405, 500, and what the server refuses by itself, for its limits, a handshake, or a head that it does not understand.

use percent_encoding::percent_decode_str;

use crate::app::answered::Answered;
use crate::app::cors::Cors;
use crate::app::path;
use crate::guard::{Guarded, guarded};

type OnResponse = Box<dyn Fn(&mut Answered<'_>)>;

pub(crate) enum Layer {
    Hook(OnResponse),
    Cors(Cors),
}

impl Layer {
    pub(crate) fn hook(hook: impl Fn(&mut Answered<'_>) + 'static) -> Layer {
        let hook = Guarded::new(hook);
        Layer::Hook(Box::new(move |answered| hook(answered)))
    }

    fn apply(&self, answered: &mut Answered<'_>) {
        match self {
            Layer::Hook(hook) => drop(guarded("a response hook", || hook(answered))),
            Layer::Cors(cors) => cors.apply(answered),
        }
    }
}

/// A path and all below it; parameters stand for any segment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Below(Vec<Segment>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Segment {
    Is(String),
    Any,
}

impl Below {
    pub(crate) fn of(path: &str) -> Below {
        let segments = path.split('/').filter(|segment| !segment.is_empty());
        Below(
            segments
                .map(|segment| if segment.starts_with('{') { Segment::Any } else { Segment::Is(segment.into()) })
                .collect(),
        )
    }

    pub(crate) fn depth(&self) -> usize {
        self.0.len()
    }

    /// Whether a request's path is this or below it. What has no path is below the root alone.
    pub(crate) fn has(&self, path: Option<&str>) -> bool {
        if self.0.is_empty() {
            return true;
        }
        let Some(path) = path else { return false };
        let (path, _) = path::for_routes(path);
        let mut segments = path.split('/').filter(|segment| !segment.is_empty());
        self.0.iter().all(|wanted| match (wanted, segments.next()) {
            (Segment::Any, Some(_)) => true,
            (Segment::Is(wanted), Some(segment)) => {
                wanted == segment || percent_decode_str(segment).decode_utf8().is_ok_and(|segment| segment == *wanted)
            }
            (_, None) => false,
        })
    }
}

/// The layers of an app, the innermost first.
#[derive(Default)]
pub(crate) struct Layers(Vec<(Below, Layer)>);

impl Layers {
    pub(crate) fn new(mut layers: Vec<(String, Layer)>) -> Layers {
        // What is further in is passed first; of those of one path, what was added last.
        layers.reverse();
        let mut layers: Vec<_> = layers.into_iter().map(|(path, layer)| (Below::of(&path), layer)).collect();
        layers.sort_by_key(|(below, _)| std::cmp::Reverse(below.depth()));
        Layers(layers)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Lets all that are for its path see a response.
    pub(crate) fn apply(&self, answered: &mut Answered<'_>) {
        let path = answered.path().map(str::to_owned);
        for (below, layer) in &self.0 {
            if below.has(path.as_deref()) {
                layer.apply(answered);
            }
        }
    }

    /// What says which pages may ask for a path: the innermost one.
    pub(crate) fn cors(&self, path: &str) -> Option<&Cors> {
        self.0.iter().find_map(|(below, layer)| match layer {
            Layer::Cors(cors) if below.has(Some(path)) => Some(cors),
            _ => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_below_a_path() {
        let has = |path: &str, of: &str| Below::of(path).has(Some(of));
        for (path, of) in [
            ("", "/"),
            ("/", "/a/b"),
            ("/a", "/a"),
            ("/a", "/a/"),
            ("/a/", "/a/b"),
            ("/a", "/%61/b"),
            ("/r/{x}", "/r/1/b"),
            ("", "*"),
        ] {
            assert!(has(path, of), "{path} {of}");
        }
        for (path, of) in
            [("/a", "/"), ("/a", "/ab"), ("/a/b", "/a"), ("/r/{x}", "/r"), ("/r/{x}/y", "/r/1/z"), ("/a", "/b/a")]
        {
            assert!(!has(path, of), "{path} {of}");
        }
        assert!(Below::of("/").has(None) && !Below::of("/a").has(None));
    }
}
