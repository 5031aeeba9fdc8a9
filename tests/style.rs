//! The rules of this code base that no compiler checks: who may use whom, where `unsafe` may stand, how long a file may
//! be, who may look at the clock.
//!
//! The sources are read as tokens, so comments and strings never count.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use proc_macro2::{Delimiter, Ident, TokenStream, TokenTree};

/// Longest file in `src/`, in lines.
const LINES_MAX: usize = 700;

/// The crate's modules from the ground up. A module may use those of lower layers and of its own, except as [`NEVER`]
/// and [`USERS`] say.
const LAYERS: &[&[&str]] = &[
    &["closed", "error"],
    &["admission", "chance", "config", "machine", "metrics", "wakers"],
    &["engine", "proto"],
    &["message"],
    &["outbox", "mail"],
    &["hub"],
    &["runtime"],
    &["remote", "shard"],
    &["app"],
    &["check", "client", "server"],
    &["standalone"],
    &["bin"],
];

/// Modules that only some of those above them may use.
const USERS: &[(&str, &[&str])] = &[("engine", &["shard", "server", "client", "mail", "check"])];

/// Module, and what it never uses although the layers would allow it.
const NEVER: &[(&str, &[&str])] = &[
    ("config", &["metrics"]),
    ("metrics", &["config"]),
    ("proto", &["config", "metrics", "engine"]),
    ("engine", &["config", "metrics", "proto"]),
    ("outbox", &["mail"]),
    ("mail", &["outbox"]),
    ("message", &["config", "metrics", "engine"]),
    ("shard", &["message", "remote", "runtime"]),
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

    /// The module of the crate's root that it belongs to: `shard` for `src/shard/tick.rs`.
    fn module(&self) -> &str {
        let inside = self.path.strip_prefix("src/").unwrap_or(&self.path);
        inside.split(['/', '.']).next().unwrap_or(inside)
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
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut paths: Vec<PathBuf> = Vec::new();
    let mut directories = vec![root.join("src")];
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
        let relative = path.strip_prefix(root).expect("below the root");
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

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&module))
}

/// Uses of `source` that the layers forbid. Names that are no modules are re-exports, which only the outermost layers
/// may go through.
fn wrong_uses(source: &Source) -> Vec<String> {
    let module = source.module();
    // What tests a part may drive it from above.
    let is_test = source.path.ends_with("/tests.rs") || source.path.ends_with("_tests.rs");
    if module == "lib" || is_test {
        return Vec::new();
    }
    let Some(own) = layer(module) else {
        return vec![format!("{}: give `{module}` a place in LAYERS", source.path)];
    };
    let never = NEVER.iter().find(|(name, _)| *name == module).map_or(&[][..], |(_, never)| never);
    let mut wrong = Vec::new();
    for used in used_from("crate", &source.tokens) {
        let name = used.to_string();
        let is_wrong = match layer(&name) {
            _ if name == module => false,
            None => true,
            Some(layer) => {
                let users = USERS.iter().find(|(used, _)| *used == name);
                let is_no_user = users.is_some_and(|(_, users)| !users.contains(&module));
                layer > own || never.contains(&name.as_str()) || is_no_user
            }
        };
        if is_wrong {
            wrong.push(source.at(&used));
        }
    }
    wrong.extend(out_of_module(source, &source.tokens, source_depth(source)));
    wrong
}

/// How many modules below the crate's root a file is.
fn source_depth(source: &Source) -> usize {
    let depth = source.path.matches('/').count();
    match source.path.ends_with("/mod.rs") {
        true => depth - 1,
        false => depth,
    }
}

/// `super::`s that lead out of the file's top module: such a path must start with `crate`, where the layers are seen.
fn out_of_module(source: &Source, tokens: &TokenStream, depth: usize) -> Vec<String> {
    let tokens: Vec<TokenTree> = tokens.clone().into_iter().collect();
    let mut wrong = Vec::new();
    let mut index = 0;
    while index < tokens.len() {
        match &tokens[index] {
            TokenTree::Ident(ident) if ident == "super" => {
                let mut ups = 0;
                while matches!(tokens.get(index), Some(TokenTree::Ident(next)) if next == "super") {
                    ups += 1;
                    index += 3;
                }
                if ups >= depth {
                    wrong.push(source.at(ident));
                }
                continue;
            }
            TokenTree::Group(group) => {
                let is_module = matches!(
                    (index.checked_sub(2).map(|at| &tokens[at]), index.checked_sub(1).map(|at| &tokens[at])),
                    (Some(TokenTree::Ident(keyword)), Some(TokenTree::Ident(_))) if keyword == "mod"
                );
                let inner = depth + usize::from(is_module);
                wrong.extend(out_of_module(source, &group.stream(), inner));
            }
            _ => {}
        }
        index += 1;
    }
    wrong
}

fn misplaced_unsafe(source: &Source) -> Vec<String> {
    if source.is_in(&["src/engine/", "src/proto/mask.rs"]) {
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

fn other_event_loops(source: &Source) -> Vec<String> {
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
    const CLOCKS: &[&str] = &["src/shard/", "src/server/", "src/engine/", "src/standalone/", "src/client/", "src/bin/"];
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

#[track_caller]
fn none(rule: &str, check: impl Fn(&Source) -> Vec<String>) {
    let wrong: Vec<String> = sources().iter().flat_map(check).collect();
    assert!(wrong.is_empty(), "{rule}:\n{}", wrong.join("\n"));
}

#[test]
fn dependencies_point_down() {
    none("modules use only lower ones", wrong_uses);
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
fn files_are_short() {
    none("split the file", |source| {
        let lines = source.text.lines().count();
        match lines > LINES_MAX {
            true => vec![format!("{}: {lines} lines", source.path)],
            false => Vec::new(),
        }
    });
}

#[test]
fn the_layers_name_every_module_once() {
    let modules: Vec<&str> = LAYERS.iter().flat_map(|layer| layer.iter().copied()).collect();
    let different: BTreeSet<&str> = modules.iter().copied().collect();
    assert_eq!(modules.len(), different.len());
    for (module, never) in NEVER {
        assert!(layer(module).is_some());
        assert!(never.iter().all(|other| layer(other).is_some()));
    }
}

/// Each rule must find what it is for.
#[test]
fn the_rules_are_awake() {
    let wrong = |path: &str, text: &str| wrong_uses(&Source::parse(path, text)).len();
    assert_eq!(wrong("src/proto/frame.rs", "use crate::error::Error;"), 0);
    assert_eq!(wrong("src/proto/frame.rs", "use crate::proto::utf8;"), 0);
    assert_eq!(wrong("src/proto/frame.rs", "use crate::engine::Ring;"), 1);
    assert_eq!(wrong("src/proto/frame.rs", "fn f() { crate::hub::x(); crate::shard::y() }"), 2);
    assert_eq!(wrong("src/engine/ring.rs", "use crate::{config::Config, error::{proto, X}, proto};"), 2);
    assert_eq!(wrong("src/hub/mod.rs", "use crate::engine::Token;"), 1);
    assert_eq!(wrong("src/hub/mod.rs", "use crate::{mail, outbox};"), 0);
    assert_eq!(wrong("src/hub/mod.rs", "use crate::Result;"), 1);
    assert_eq!(wrong("src/shard/tick.rs", "use crate::{engine, hub, mail};"), 0);
    assert_eq!(wrong("src/shard/tick.rs", "use crate::{remote, message};"), 2);
    assert_eq!(wrong("src/app/serve.rs", "use crate::{hub, server, shard};"), 1);
    assert_eq!(wrong("src/novelty.rs", ""), 1);
    assert_eq!(wrong("src/hub/mod.rs", "use super::shard;"), 1);
    assert_eq!(wrong("src/hub/mod.rs", "mod tests { use super::*; }"), 0);
    assert_eq!(wrong("src/hub/mod.rs", "mod tests { use super::super::shard; }"), 1);
    assert_eq!(wrong("src/proto/frame.rs", "use super::utf8;"), 0);
    assert_eq!(wrong("src/proto/frame.rs", "use super::super::engine;"), 1);
    assert_eq!(wrong("src/proto/mod.rs", "use super::engine;"), 1);
    assert_eq!(wrong("src/proto/mod.rs", "// use crate::engine;\nconst X: &str = \"crate::hub\";"), 0);

    let source = |text: &str| Source::parse("src/hub/mod.rs", text);
    assert_eq!(misplaced_unsafe(&source("fn f() { unsafe { g() } }")), ["src/hub/mod.rs:1: unsafe"]);
    assert!(misplaced_unsafe(&source("#![forbid(unsafe_code)] // unsafe")).is_empty());
    assert_eq!(misplaced_io_uring(&source("use io_uring::IoUring;")).len(), 1);
    assert_eq!(other_event_loops(&source("use nix::sys::epoll; use mio::Poll;")).len(), 2);
    assert_eq!(misplaced_clocks(&source("fn f() { std::time::Instant::now(); }")).len(), 1);
    assert!(misplaced_clocks(&source("fn f(now: Instant) {}")).is_empty());
}
