//! The rules of this code base that no compiler checks: who may use whom, where `unsafe` may stand, how long a file may
//! be, who may look at the clock.
//!
//! The sources are read as tokens, so comments and strings never count. Which file uses which, what stands on which level
//! and what goes in a circle is printed by
//!
//! ```text
//! cargo test --test style -- --nocapture prints_levels
//! ```

mod graph;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use proc_macro2::{Delimiter, Ident, TokenStream, TokenTree};

use graph::{Graph, of_texts};

/// Longest file in `src/`, in lines; what is said of its items, examples and all, does not count.
const LINES_MAX: usize = 700;

/// The modules of the crate's root, from the ground up, each with those that it uses. A module uses what stands on lower
/// levels, and of that what is named here and nothing else. The head of each says the same (`Knows of this crate: ...`).
const LEVELS: &[&[(&str, &[&str])]] = &[
    &[
        ("admission", &[]),
        ("closed", &[]),
        ("error", &[]),
        ("guard", &[]),
        ("machine", &[]),
        ("marks", &[]),
        ("metrics", &[]),
        ("proto", &[]),
        ("quote", &[]),
        ("tables", &[]),
        ("wakers", &[]),
    ],
    &[
        ("config", &["error"]),
        ("engine", &["tables"]),
        ("message", &["proto", "quote"]),
        ("outbox", &["marks", "proto", "tables"]),
    ],
    &[("mail", &["engine", "marks"]), ("tls", &["config", "proto", "quote"])],
    &[
        ("check", &["config", "engine", "error", "machine", "tls"]),
        ("hub", &["config", "mail", "message", "metrics", "outbox", "proto", "tables"]),
    ],
    &[
        ("backplane", &["config", "engine", "error", "hub", "mail", "message", "outbox", "proto"]),
        ("runtime", &["guard", "hub", "mail"]),
        (
            "shard",
            &[
                "admission",
                "config",
                "engine",
                "guard",
                "hub",
                "mail",
                "marks",
                "metrics",
                "outbox",
                "proto",
                "quote",
                "tls",
            ],
        ),
    ],
    &[
        ("client", &["closed", "engine", "guard", "mail", "message", "proto", "quote", "runtime", "tls", "wakers"]),
        ("remote", &["admission", "backplane", "hub", "mail", "message", "metrics", "outbox", "proto", "runtime"]),
    ],
    &[(
        "app",
        &[
            "closed", "config", "guard", "hub", "mail", "message", "outbox", "proto", "quote", "remote", "runtime",
            "shard", "tls", "wakers",
        ],
    )],
    &[(
        "server",
        &[
            "admission",
            "app",
            "backplane",
            "config",
            "engine",
            "error",
            "guard",
            "hub",
            "machine",
            "mail",
            "metrics",
            "outbox",
            "proto",
            "remote",
            "runtime",
            "shard",
            "tls",
            "wakers",
        ],
    )],
    &[
        (
            "standalone",
            &["app", "backplane", "config", "error", "hub", "mail", "message", "metrics", "quote", "server"],
        ),
        (
            "testing",
            &[
                "admission",
                "app",
                "config",
                "engine",
                "hub",
                "mail",
                "message",
                "proto",
                "quote",
                "remote",
                "server",
                "shard",
            ],
        ),
    ],
    &[("bin", &[])],
];

struct Source {
    /// Relative to the crate's root, such as `src/shard/tick.rs`.
    path: String,
    text: String,
    tokens: TokenStream,
}

impl Source {
    fn parse(path: &str, text: &str) -> Source {
        let tokens = text.parse().unwrap_or_else(|error| panic!("{path}: {error}"));
        Source { path: String::from(path), text: String::from(text), tokens }
    }

    fn is_in(&self, places: &[&str]) -> bool {
        places.iter().any(|place| self.path.starts_with(place))
    }

    fn at(&self, ident: &Ident) -> String {
        format!("{}:{}: {ident}", self.path, ident.span().start().line)
    }
}

/// All of `src/`.
fn sources() -> Vec<Source> {
    sources_in("src")
}

fn sources_in(directory: &str) -> Vec<Source> {
    let root = root_file("");
    let mut paths: Vec<PathBuf> = Vec::new();
    let mut directories = vec![root.join(directory)];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).expect("a directory") {
            let path = entry.expect("an entry").path();
            match path.is_dir() {
                true => directories.push(path),
                false => paths.push(path),
            }
        }
    }
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "rs"));
    paths.sort();
    assert!(paths.len() > 5, "this is not the crate's root");
    let read = |path: &PathBuf| {
        let relative = path.strip_prefix(&root).expect("below the root");
        Source::parse(&relative.to_string_lossy(), &fs::read_to_string(path).expect("UTF-8"))
    };
    paths.iter().map(read).collect()
}

/// Every identifier, those in groups included, in order.
fn idents(tokens: &TokenStream) -> Vec<Ident> {
    let mut found = Vec::new();
    for token in tokens.clone() {
        match token {
            TokenTree::Ident(ident) => found.push(ident),
            TokenTree::Group(group) => found.extend(idents(&group.stream())),
            TokenTree::Punct(_) | TokenTree::Literal(_) => {}
        }
    }
    found
}

/// The first segments after `root::`, in paths and in `use root::{a, b::c}` alike.
fn used_from(root: &str, tokens: &TokenStream) -> Vec<Ident> {
    let tokens: Vec<TokenTree> = tokens.clone().into_iter().collect();
    let mut found = Vec::new();
    for (index, token) in tokens.iter().enumerate() {
        if let TokenTree::Group(group) = token {
            found.extend(used_from(root, &group.stream()));
        }
        let is_root = matches!(token, TokenTree::Ident(ident) if ident == root);
        if !is_root || !is_path_separator(&tokens[index + 1..]) {
            continue;
        }
        match tokens.get(index + 3) {
            Some(TokenTree::Ident(ident)) => found.push(ident.clone()),
            Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Brace => {
                let mut is_first = true;
                for token in group.stream() {
                    if let (true, TokenTree::Ident(ident)) = (is_first, &token) {
                        found.push(ident.clone());
                    }
                    is_first = matches!(&token, TokenTree::Punct(punct) if punct.as_char() == ',');
                }
            }
            _ => {}
        }
    }
    found
}

fn is_path_separator(tokens: &[TokenTree]) -> bool {
    let is_colon = |token: Option<&TokenTree>| matches!(token, Some(TokenTree::Punct(punct)) if punct.as_char() == ':');
    is_colon(tokens.first()) && is_colon(tokens.get(1))
}

fn misplaced_unsafe(source: &Source) -> Vec<String> {
    if source.is_in(&["src/engine/", "src/proto/mask.rs", "src/bin/ringwire/allocator.rs"]) {
        return Vec::new();
    }
    idents(&source.tokens).iter().filter(|ident| *ident == "unsafe").map(|ident| source.at(ident)).collect()
}

fn misplaced_io_uring(source: &Source) -> Vec<String> {
    if source.is_in(&["src/engine/", "src/check/"]) {
        return Vec::new();
    }
    used_names(source).into_iter().filter(|ident| ident == "io_uring").map(|ident| source.at(&ident)).collect()
}

/// Identifiers that are followed by `::`, which is how a crate is named.
fn used_names(source: &Source) -> Vec<Ident> {
    fn walk(tokens: &TokenStream, found: &mut Vec<Ident>) {
        let tokens: Vec<TokenTree> = tokens.clone().into_iter().collect();
        for (index, token) in tokens.iter().enumerate() {
            match token {
                TokenTree::Ident(ident) if is_path_separator(&tokens[index + 1..]) => {
                    found.push(ident.clone());
                }
                TokenTree::Group(group) => walk(&group.stream(), found),
                _ => {}
            }
        }
    }
    let mut found = Vec::new();
    walk(&source.tokens, &mut found);
    found
}

/// The bridge to other machines has a runtime of its own, on a thread that serves no connection.
const BRIDGE: &str = "src/backplane/nats.rs";

fn other_event_loops(source: &Source) -> Vec<String> {
    if source.path == BRIDGE {
        return Vec::new();
    }
    idents(&source.tokens)
        .iter()
        .filter(|ident| {
            let name = ident.to_string().to_ascii_lowercase();
            name.contains("epoll") || name.contains("tokio") || name == "mio"
        })
        .map(|ident| source.at(ident))
        .collect()
}

fn misplaced_clocks(source: &Source) -> Vec<String> {
    const CLOCKS: &[&str] = &[
        "src/check/facts.rs",
        "src/shard/",
        "src/server/",
        "src/engine/",
        "src/standalone/",
        "src/client/",
        "src/bin/",
        BRIDGE,
    ];
    if source.is_in(CLOCKS) {
        return Vec::new();
    }
    ["Instant", "SystemTime"]
        .iter()
        .flat_map(|clock| used_from(clock, &source.tokens))
        .filter(|ident| ident == "now")
        .map(|ident| source.at(&ident))
        .collect()
}

/// What formats with `Debug` outside tests: texts of others come back seven times as long from that, and whole. They are
/// shown by `quote`, and everything else by its `Display`. Assertions are about our own bugs, and the engine sees no text.
fn debug_formats(source: &Source) -> Vec<String> {
    if source.is_in(&["src/engine/", "src/quote.rs"]) || source.path.ends_with("tests.rs") {
        return Vec::new();
    }
    let mut found = Vec::new();
    find_debug_formats(source, &source.tokens, &mut found);
    found
}

fn find_debug_formats(source: &Source, tokens: &TokenStream, found: &mut Vec<String>) {
    let tokens: Vec<TokenTree> = tokens.clone().into_iter().collect();
    let punct = |index: usize| match tokens.get(index) {
        Some(TokenTree::Punct(punct)) => Some(punct.as_char()),
        _ => None,
    };
    let ident = |index: usize| match tokens.get(index) {
        Some(TokenTree::Ident(ident)) => Some(ident.to_string()),
        _ => None,
    };
    for (index, token) in tokens.iter().enumerate() {
        let before = |places: usize| index.checked_sub(places);
        match token {
            // `mod tests { .. }`
            TokenTree::Group(_)
                if before(2).and_then(ident).is_some_and(|word| word == "mod")
                    && before(1).and_then(ident).is_some_and(|name| name.ends_with("tests")) => {}
            // `assert!(..)` and its like
            TokenTree::Group(_)
                if before(1).and_then(punct) == Some('!')
                    && before(2).and_then(ident).is_some_and(|name| name.contains("assert")) => {}
            // `#[doc = ".."]`, and whatever else is an attribute but `#[error("..")]`.
            TokenTree::Group(group)
                if before(1).and_then(punct).is_some_and(|sign| sign == '#' || sign == '!')
                    && group.delimiter() == Delimiter::Bracket
                    && !group.stream().to_string().starts_with("error") => {}
            TokenTree::Group(group) => find_debug_formats(source, &group.stream(), found),
            TokenTree::Literal(literal) => {
                let text = literal.to_string();
                if text.contains(":?}") || text.contains(":#?}") {
                    found.push(format!("{}:{}: {text}", source.path, literal.span().start().line));
                }
            }
            // `error = ?error` and `, ?error` of a log line; behind an expression it is the operator.
            TokenTree::Punct(sign) if sign.as_char() == '?' => {
                let is_sigil = before(1).is_none_or(|before| matches!(punct(before), Some('=' | ',')));
                let is_bound = ident(index + 1).is_some_and(|next| next == "Sized");
                if is_sigil && !is_bound {
                    found.push(format!("{}:{}: ?", source.path, sign.span().start().line));
                }
            }
            TokenTree::Ident(_) | TokenTree::Punct(_) => {}
        }
    }
}

#[track_caller]
fn none(rule: &str, check: impl Fn(&Source) -> Vec<String>) {
    let wrong: Vec<String> = sources().iter().flat_map(check).collect();
    assert!(wrong.is_empty(), "{rule}:\n{}", wrong.join("\n"));
}

/// Uses that the levels do not have, and those that they have and nobody needs.
fn wrong_uses(rooms: &Graph) -> Vec<String> {
    let mut wrong = Vec::new();
    for (room, used) in rooms.used().into_iter().filter(|(room, _)| *room != "lib") {
        match uses_of(room) {
            None => wrong.push(format!("give `{room}` a place in LEVELS")),
            Some(uses) => {
                let surplus = used.iter().filter(|other| !uses.contains(other));
                wrong.extend(surplus.map(|other| rooms.describe_circle(&[room, other])));
                let unused = uses.iter().filter(|other| !used.contains(*other));
                wrong.extend(unused.map(|other| format!("`{room}` does not use `{other}` any more")));
            }
        }
    }
    wrong
}

fn uses_of(room: &str) -> Option<&'static [&'static str]> {
    LEVELS.iter().copied().flatten().find(|(name, _)| *name == room).map(|(_, uses)| *uses)
}

#[test]
fn modules_use_what_the_levels_say() {
    let wrong = wrong_uses(&Graph::read(&root_file("src/lib.rs")).grouped(room));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_levels_name_every_module_once_and_point_down() {
    let mut below = BTreeSet::new();
    for level in LEVELS {
        for (room, uses) in *level {
            for used in *uses {
                assert!(below.contains(used), "`{room}` uses `{used}`, which is on no lower level");
            }
        }
        for (room, _) in *level {
            assert!(below.insert(*room), "`{room}` stands twice in LEVELS");
            let is_there = ["", "/mod"].iter().any(|end| root_file(&format!("src/{room}{end}.rs")).exists());
            assert!(is_there || *room == "bin", "there is no module `{room}`");
        }
    }
}

/// What a module's head says that it uses.
fn said_uses(text: &str) -> Option<BTreeSet<String>> {
    let docs: Vec<&str> = text.lines().map_while(|line| line.strip_prefix("//!")).map(str::trim).collect();
    let start = docs.iter().position(|line| line.starts_with("Knows of this crate:"))?;
    let said = docs[start..].iter().take_while(|line| !line.is_empty()).copied().collect::<Vec<_>>().join(" ");
    Some(said.split('`').skip(1).step_by(2).map(String::from).collect())
}

#[test]
fn the_head_of_each_module_says_what_it_uses() {
    let mut wrong = Vec::new();
    for (room, uses) in LEVELS.iter().copied().flatten().filter(|(room, _)| *room != "bin") {
        let files = ["", "/mod"].map(|end| root_file(&format!("src/{room}{end}.rs")));
        let text = files.iter().find_map(|file| fs::read_to_string(file).ok()).expect("a module");
        let said = said_uses(&text);
        if said != Some(uses.iter().copied().map(String::from).collect()) {
            let uses: Vec<String> = uses.iter().map(|used| format!("`{used}`")).collect();
            let uses = if uses.is_empty() { String::from("nothing") } else { uses.join(", ") };
            wrong.push(format!("{room}: //! Knows of this crate: {uses}."));
        }
    }
    assert!(wrong.is_empty(), "these heads should say:\n{}", wrong.join("\n"));
}

#[test]
fn unsafe_stands_only_in_the_engine_and_in_masking() {
    none("no unsafe here", misplaced_unsafe);
}

#[test]
fn only_the_engine_knows_io_uring() {
    none("no io_uring here", misplaced_io_uring);
}

#[test]
fn there_is_no_other_event_loop() {
    none("no epoll, mio or tokio", other_event_loops);
}

#[test]
fn time_is_an_argument() {
    none("take the time as an argument", misplaced_clocks);
}

#[test]
fn texts_of_others_are_not_shown_with_debug() {
    none("show it by Display, or by quote::quoted if a peer may have written it", debug_formats);
    // What the load generator sees of a server.
    let wrong: Vec<String> = sources_in("loadtest/src")
        .iter()
        .filter(|source| !source.is_in(&["loadtest/src/usage.rs", "loadtest/src/report.rs", "loadtest/src/output.rs"]))
        .flat_map(debug_formats)
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn files_are_short() {
    none("split the file", |source| {
        let lines = source.text.lines().filter(|line| !line.trim_start().starts_with("///")).count();
        match lines > LINES_MAX {
            true => vec![format!("{}: {lines} lines", source.path)],
            false => Vec::new(),
        }
    });
}

/// Each rule must find what it is for.
#[test]
fn the_rules_are_awake() {
    let wrong = |file: &str, text: &str| {
        let files = ["config.rs", "engine.rs", "error.rs", "hub.rs", "proto.rs"];
        let mut texts =
            vec![("lib.rs", "mod config; mod engine; mod error; mod hub; mod proto; pub use error::E as Result;")];
        texts.extend(files.map(|name| (name, if name == file { text } else { "pub struct E; pub fn e() {}" })));
        wrong_uses(&of_texts(&texts).grouped(room)).into_iter().filter(|why| why.starts_with("    ")).count()
    };
    assert_eq!(wrong("config.rs", "use crate::error::E;"), 0);
    assert_eq!(wrong("config.rs", "use crate::Result;"), 0);
    assert_eq!(wrong("config.rs", "use super::error::E;"), 0);
    assert_eq!(wrong("config.rs", "use crate::hub::E;"), 1);
    assert_eq!(wrong("config.rs", "use super::hub::E;"), 1);
    assert_eq!(wrong("proto.rs", "fn f() { crate::hub::e(); crate::engine::e() }"), 2);
    assert_eq!(wrong("proto.rs", "use crate::{engine::E, error};"), 1);
    assert_eq!(wrong("proto.rs", "#[cfg(test)] mod tests { use crate::hub::E; }"), 0);
    assert_eq!(wrong("proto.rs", "// use crate::hub::E;\nconst X: &str = \"crate::hub::E\";"), 0);
    assert_eq!(wrong_uses(&of_texts(&[("lib.rs", "mod novelty;"), ("novelty.rs", "")]).grouped(room)).len(), 1);
    let said = |text| said_uses(text).map(|said| said.into_iter().collect::<Vec<_>>().join(" "));
    assert_eq!(said("//! A.\n//!\n//! Knows of this crate: `a`,\n//! `b`.\n//!\n//! `c`").as_deref(), Some("a b"));
    assert_eq!(said("//! A."), None);

    let source = |text: &str| Source::parse("src/hub/mod.rs", text);
    assert_eq!(misplaced_unsafe(&source("fn f() { unsafe { g() } }")), ["src/hub/mod.rs:1: unsafe"]);
    assert!(misplaced_unsafe(&source("#![forbid(unsafe_code)] // unsafe")).is_empty());
    assert_eq!(misplaced_io_uring(&source("use io_uring::IoUring;")).len(), 1);
    assert_eq!(other_event_loops(&source("use nix::sys::epoll; use mio::Poll;")).len(), 2);
    assert_eq!(misplaced_clocks(&source("fn f() { std::time::Instant::now(); }")).len(), 1);
    assert!(misplaced_clocks(&source("fn f(now: Instant) {}")).is_empty());
    for wrong in [
        "fn f() { format!(\"{name:?}\") }",
        "fn f() { g(|| panic!(\"{:#?}\", name)) }",
        "fn f() { tracing::debug!(?name, \"x\") }",
        "fn f() { tracing::debug!(id = %id, name = ?name) }",
        "#[error(\"{0:?} is wrong\")] struct E(String);",
    ] {
        assert_eq!(debug_formats(&source(wrong)).len(), 1, "{wrong}");
    }
    for fine in [
        "/// `{:?}`\nfn f<T: ?Sized>() -> Option<u8> { let a = b?; f(a?, c?) }",
        "fn f() { assert!(a, \"{b:?}\"); debug_assert_eq!(a, b, \"{b:?}\") }",
        "mod tests { fn f() { panic!(\"{b:?}\") } }",
    ] {
        assert_eq!(debug_formats(&source(fine)), [""; 0], "{fine}");
    }
}

/// The crates whose files are looked at, by their root files.
const CRATES: &[&str] = &["src/lib.rs", "src/bin/ringwire/main.rs", "loadtest/src/main.rs", "benches/peers/src/lib.rs"];

/// Circles that are still there, by the names of their files. One that is opened goes out of this list.
const KNOWN_CIRCLES: &[&[&str]] = &[];

fn crates() -> impl Iterator<Item = (&'static str, Graph)> {
    CRATES.iter().map(|root| (*root, Graph::read(&root_file(root))))
}

/// A file by its name from the crate's root.
fn root_file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// A file's name without its directory and ending; of a `mod.rs`, its directory's.
fn stem(file: &str) -> &str {
    file.trim_end_matches(".rs").trim_end_matches("/mod").rsplit('/').next().unwrap_or(file)
}

#[test]
fn files_use_each_other_in_no_circle() {
    let graphs: Vec<(&str, Graph)> = crates().collect();
    let found: Vec<(&str, &Graph, Vec<&str>)> = graphs
        .iter()
        .flat_map(|(root, graph)| graph.circles().into_iter().map(move |circle| (*root, graph, circle)))
        .collect();
    let is_of = |circle: &[&str], known: &[&str]| circle.iter().all(|file| known.contains(&stem(file)));
    for (root, graph, circle) in &found {
        let is_known = KNOWN_CIRCLES.iter().any(|known| is_of(circle, known));
        assert!(is_known, "files of {root} use each other in a circle:\n{}", graph.describe_circle(circle));
    }
    for known in KNOWN_CIRCLES {
        let is_there = found.iter().any(|(_, _, circle)| is_of(circle, known));
        assert!(is_there, "this is no circle any more, take it out of KNOWN_CIRCLES: {known:?}");
    }
}

/// Not a rule: what to read before moving a file.
#[test]
fn prints_levels() {
    for (root, graph) in crates() {
        println!("{root}, rooms: {}", graph.grouped(room).describe());
        println!("{root}, files: {}", graph.describe());
    }
}

/// The module of the crate's root that a file belongs to.
fn room(file: &str) -> String {
    String::from(file.split(['/', '.']).next().unwrap_or(file))
}

/// One place decides whether a connection's next input may be handled: nothing else in the shard calls those handlers.
#[test]
fn input_reaches_handlers_through_the_gate_alone() {
    let callers = |call: &str| {
        let shard = sources().into_iter().filter(|source| source.is_in(&["src/shard"]));
        shard.filter(|source| source.text.contains(call)).map(|source| source.path).collect::<Vec<String>>()
    };
    for call in ["service.message(", "service.request(", "service.open("] {
        assert_eq!(callers(call), ["src/shard/gate.rs"], "{call}");
    }
}

/// A mutant whose text is not in the source any more would never be planted.
#[test]
fn mutants_find_their_text() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join(".ci/mutants");
    match Command::new("python3").arg(script).arg("--check").output() {
        Ok(told) => assert!(told.status.success(), "{}", String::from_utf8_lossy(&[told.stdout, told.stderr].concat())),
        Err(error) => eprintln!("skipped: python3 cannot be run: {error}"),
    }
}

/// A trait and the one that stands in for it in a signature are explained alike by the compiler.
#[test]
fn one_mistake_has_one_explanation() {
    let mut explained: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for source in sources() {
        for rest in source.text.split("#[diagnostic::on_unimplemented(").skip(1) {
            let text = rest.split(")]\n").next().unwrap_or_default();
            let message = text.split("\",").next().unwrap_or_default();
            explained.entry(String::from(message)).or_default().push(String::from(text));
        }
    }
    let shared: Vec<&Vec<String>> = explained.values().filter(|texts| texts.len() > 1).collect();
    assert!(shared.len() >= 2, "{explained:?}");
    for texts in shared {
        assert!(texts.windows(2).all(|pair| pair[0] == pair[1]), "{texts:#?}");
    }
}
