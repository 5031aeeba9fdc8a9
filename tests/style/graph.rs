//! Which file uses which: the graph of a crate's files, as far as the tokens tell it.
//!
//! A file uses another where it names what the other defines, by whatever road: `crate::`, `super::`, a module that is in
//! scope, an alias, a glob, a re-export. A re-export alone is no use, and neither is `mod child;`: a parent may lay out its
//! children and still not know them. Methods are not seen: their names do not tell whose they are.
//!
//! Tests are left out: they may drive a part from above.
//!
//! A file with an `impl` of a type that a module above it defines is a part of that module, set apart because files are
//! short: what it uses there is its own, and no use.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use proc_macro2::{Delimiter, Group, TokenStream, TokenTree};

/// The files of one crate, and who uses whom.
pub(crate) struct Graph {
    /// Relative to the directory of the crate's root file, such as `hub/room.rs`.
    pub(crate) files: Vec<String>,
    /// By file: the files that it uses, and the names for which it does.
    pub(crate) uses: Vec<BTreeMap<usize, BTreeSet<String>>>,
}

impl Graph {
    /// Reads a crate from its root file on, every `mod` of it.
    pub(crate) fn read(root: &Path) -> Graph {
        let directory = root.parent().expect("a directory");
        Self::of(root.file_name().and_then(|name| name.to_str()).expect("UTF-8"), &|path| {
            fs::read_to_string(directory.join(path)).ok()
        })
    }

    fn of(root: &str, text_of: &dyn Fn(&str) -> Option<String>) -> Graph {
        let mut reader = Reader { text_of, files: Vec::new(), modules: Vec::new() };
        reader.file(root, None, PathBuf::new());
        let names = Names { modules: &reader.modules };
        let mut uses: Vec<BTreeMap<usize, BTreeSet<String>>> = vec![BTreeMap::new(); reader.files.len()];
        for (index, module) in reader.modules.iter().enumerate() {
            for (used, name) in names.used_by(index).into_iter().filter(|(used, _)| *used != module.file) {
                uses[module.file].entry(used).or_default().insert(name);
            }
        }
        Graph { files: reader.files, uses }
    }

    /// The sets of files that use each other, each sorted.
    pub(crate) fn circles(&self) -> Vec<Vec<&str>> {
        let reached: Vec<BTreeSet<usize>> = (0..self.files.len()).map(|file| self.reached_from(file)).collect();
        let mut circles = BTreeSet::new();
        for (file, others) in reached.iter().enumerate() {
            if others.contains(&file) {
                let circle = others.iter().filter(|&&other| reached[other].contains(&file));
                circles.insert(circle.map(|&other| self.files[other].as_str()).collect::<BTreeSet<_>>());
            }
        }
        circles.into_iter().map(|circle| circle.into_iter().collect()).collect()
    }

    fn reached_from(&self, file: usize) -> BTreeSet<usize> {
        let mut reached = BTreeSet::new();
        let mut open: Vec<usize> = self.uses[file].keys().copied().collect();
        while let Some(next) = open.pop() {
            if reached.insert(next) {
                open.extend(self.uses[next].keys());
            }
        }
        reached
    }

    /// The same graph of the rooms that `room` puts the files into.
    pub(crate) fn grouped(&self, room: impl Fn(&str) -> String) -> Graph {
        let room_of: Vec<String> = self.files.iter().map(|file| room(file)).collect();
        let rooms: Vec<String> = room_of.iter().cloned().collect::<BTreeSet<_>>().into_iter().collect();
        let place = |file: usize| rooms.binary_search(&room_of[file]).expect("a room");
        let mut uses: Vec<BTreeMap<usize, BTreeSet<String>>> = vec![BTreeMap::new(); rooms.len()];
        for (file, used) in self.uses.iter().enumerate() {
            for (&other, names) in used.iter().filter(|&(&other, _)| place(other) != place(file)) {
                uses[place(file)].entry(place(other)).or_default().extend(names.iter().cloned());
            }
        }
        Graph { files: rooms, uses }
    }

    /// From the ground up: what stands on each level, one above the highest that it uses. Those of a circle share one.
    pub(crate) fn levels(&self) -> Vec<Vec<&str>> {
        let reached: Vec<BTreeSet<usize>> = (0..self.files.len()).map(|file| self.reached_from(file)).collect();
        let mut level = vec![0; self.files.len()];
        // Every round settles at least one more level.
        for _ in 0..self.files.len() {
            for file in 0..self.files.len() {
                let below = self.uses[file].keys().map(|&used| match reached[used].contains(&file) {
                    true => level[used],
                    false => level[used] + 1,
                });
                level[file] = below.max().unwrap_or(0).max(level[file]);
            }
        }
        let count = level.iter().max().map_or(0, |highest| highest + 1);
        (0..count)
            .map(|at| (0..level.len()).filter(|&file| level[file] == at).map(|file| &*self.files[file]).collect())
            .collect()
    }

    /// Who uses whom in a circle, and which names.
    pub(crate) fn describe_circle(&self, circle: &[&str]) -> String {
        let mut text = String::new();
        for (file, used) in self.files.iter().zip(&self.uses).filter(|(file, _)| circle.contains(&file.as_str())) {
            for (&other, names) in used.iter().filter(|&(&other, _)| circle.contains(&&*self.files[other])) {
                let names: Vec<&str> = names.iter().map(String::as_str).collect();
                let _ = writeln!(text, "    {file} -> {}: {}", self.files[other], names.join(", "));
            }
        }
        text
    }

    /// Circles and levels, for reading.
    pub(crate) fn describe(&self) -> String {
        let mut text = String::new();
        let circles = self.circles();
        let edges: usize = self.uses.iter().map(BTreeMap::len).sum();
        let (files, levels) = (self.files.len(), self.levels());
        let _ = writeln!(text, "{files} on {} levels, {edges} uses, {} circles", levels.len(), circles.len());
        for circle in &circles {
            let _ = write!(text, "  circle: {}\n{}", circle.join(", "), self.describe_circle(circle));
        }
        for (level, files) in levels.iter().enumerate() {
            let _ = writeln!(text, "  {level:>2}: {}", files.join(" "));
        }
        text
    }

    /// What each uses, by name.
    pub(crate) fn used(&self) -> BTreeMap<&str, BTreeSet<&str>> {
        let names = |used: &BTreeMap<usize, _>| used.keys().map(|&other| &*self.files[other]).collect();
        self.files.iter().map(String::as_str).zip(self.uses.iter().map(names)).collect()
    }
}

/// Words that stand where a name could, but are none.
const KEYWORDS: &[&str] = &[
    "as", "async", "await", "break", "const", "continue", "dyn", "else", "enum", "extern", "fn", "for", "if", "impl",
    "in", "let", "loop", "match", "mod", "move", "mut", "pub", "ref", "return", "static", "struct", "trait", "type",
    "unsafe", "use", "where", "while", "Self",
];

/// Words before the name of an item.
const ITEMS: &[&str] = &["const", "enum", "fn", "static", "struct", "trait", "type", "union", "macro_rules"];

#[derive(Default)]
struct Module {
    file: usize,
    parent: Option<usize>,
    children: BTreeMap<String, usize>,
    /// What is defined here itself.
    items: BTreeSet<String>,
    /// `use` of one name: the path that it stands for.
    aliases: BTreeMap<String, Vec<String>>,
    /// `use` of everything in a module.
    globs: Vec<Vec<String>>,
    /// Paths used here, `use` declarations that are no re-exports included.
    paths: Vec<Vec<String>>,
    /// The types that have an `impl` here.
    impls: Vec<Vec<String>>,
}

struct Reader<'t> {
    text_of: &'t dyn Fn(&str) -> Option<String>,
    files: Vec<String>,
    modules: Vec<Module>,
}

impl Reader<'_> {
    /// Reads a file as a module, whose children lie in `directory`. The module's index.
    fn file(&mut self, path: &str, parent: Option<usize>, directory: PathBuf) -> usize {
        let text = (self.text_of)(path).unwrap_or_else(|| panic!("{path} is not there"));
        let tokens: TokenStream = text.parse().unwrap_or_else(|error| panic!("{path}: {error}"));
        self.files.push(String::from(path));
        self.module(self.files.len() - 1, parent, tokens, &directory)
    }

    fn module(&mut self, file: usize, parent: Option<usize>, tokens: TokenStream, directory: &Path) -> usize {
        let index = self.modules.len();
        self.modules.push(Module { file, parent, ..Module::default() });
        self.tokens(index, &tokens.into_iter().collect::<Vec<_>>(), Some(directory));
        index
    }

    /// Takes tokens of a module: those of its own items when there is a `directory`, else those within an item.
    fn tokens(&mut self, module: usize, tokens: &[TokenTree], directory: Option<&Path>) {
        let mut at = 0;
        let mut is_reexport = false;
        let mut path_attribute = None;
        let mut is_test = false;
        while at < tokens.len() {
            match &tokens[at] {
                TokenTree::Punct(punct) if punct.as_char() == '#' => {
                    at += 1 + usize::from(
                        matches!(tokens.get(at + 1), Some(TokenTree::Punct(bang)) if bang.as_char() == '!'),
                    );
                    if let Some(TokenTree::Group(attribute)) = tokens.get(at) {
                        path_attribute = path_of(attribute).or(path_attribute);
                        is_test |= attribute.stream().to_string().replace(' ', "") == "cfg(test)";
                    }
                }
                TokenTree::Punct(punct) if punct.as_char() == '\'' => at += 1,
                TokenTree::Punct(_) | TokenTree::Literal(_) => {}
                TokenTree::Group(group) => {
                    let inside: Vec<TokenTree> = group.stream().into_iter().collect();
                    // A macro that is given modules declares them here.
                    let declares = at > 0
                        && is_punct(tokens.get(at - 1), '!')
                        && matches!(inside.first(), Some(TokenTree::Ident(first)) if first == "mod");
                    self.tokens(module, &inside, directory.filter(|_| declares));
                    is_reexport = false;
                }
                TokenTree::Ident(ident) if ident == "pub" => {
                    is_reexport = true;
                    let parenthesis = matches!(tokens.get(at + 1), Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Parenthesis);
                    at += usize::from(parenthesis && directory.is_some());
                }
                TokenTree::Ident(ident) if ident == "use" => {
                    let len = tokens[at..].iter().take_while(|token| !is_punct(Some(token), ';')).count();
                    self.use_tree(module, &tokens[at + 1..at + len], &mut Vec::new(), is_reexport);
                    at += len;
                    is_reexport = false;
                }
                TokenTree::Ident(ident) if ident == "mod" && directory.is_some() => {
                    let Some(TokenTree::Ident(name)) = tokens.get(at + 1) else { panic!("mod without a name") };
                    let (name, directory) = (name.to_string(), directory.expect("asked above"));
                    at += 2;
                    if std::mem::take(&mut is_test) {
                        at += 1;
                        continue;
                    }
                    let child = match tokens.get(at) {
                        Some(TokenTree::Group(body)) => {
                            self.module(self.modules[module].file, Some(module), body.stream(), &directory.join(&name))
                        }
                        _ => self.child(module, &name, directory, path_attribute.take()),
                    };
                    self.modules[module].children.insert(name, child);
                    is_reexport = false;
                }
                TokenTree::Ident(ident) => {
                    if ident == "impl" && directory.is_some() {
                        self.modules[module].impls.extend(implemented(&tokens[at + 1..]));
                    }
                    let word = ident.to_string();
                    let bang = usize::from(word == "macro_rules");
                    if let (true, Some(TokenTree::Ident(name))) = (ITEMS.contains(&&*word), tokens.get(at + 1 + bang)) {
                        let name = name.to_string();
                        if !KEYWORDS.contains(&&*name) {
                            if directory.is_some() {
                                self.modules[module].items.insert(name);
                            }
                            at += 1 + bang;
                        }
                    } else if !KEYWORDS.contains(&&*word) {
                        let (path, len) = path_at(&tokens[at..]);
                        let is_member = at > 0
                            && is_punct(tokens.get(at - 1), '.')
                            && !is_punct(tokens.get(at.wrapping_sub(2)), '.');
                        // A lower-case word by itself is a variable or a field, unless it is called.
                        let is_called = matches!(tokens.get(at + len), Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Parenthesis);
                        let is_type = word.starts_with(char::is_uppercase);
                        if !is_member && (path.len() > 1 || is_type || is_called) {
                            self.modules[module].paths.push(path);
                        }
                        at += len - 1;
                    }
                    is_reexport = false;
                }
            }
            is_test &= !is_end(&tokens[at.min(tokens.len() - 1)]);
            at += 1;
        }
    }

    /// Reads the file of `mod name;`.
    fn child(&mut self, module: usize, name: &str, directory: &Path, path_attribute: Option<String>) -> usize {
        let below = directory.join(name);
        if let Some(path) = path_attribute {
            let beside = Path::new(&self.files[self.modules[module].file]).parent().unwrap_or(Path::new("")).join(path);
            return self.file(beside.to_str().expect("UTF-8"), Some(module), beside.with_extension(""));
        }
        let flat = directory.join(format!("{name}.rs"));
        let flat = flat.to_str().expect("UTF-8");
        match (self.text_of)(flat) {
            Some(_) => self.file(flat, Some(module), below),
            None => self.file(below.join("mod.rs").to_str().expect("UTF-8"), Some(module), below),
        }
    }

    /// Takes `a::{b, c::*, d as e}`, `prefix` being what stands before it.
    fn use_tree(&mut self, module: usize, tokens: &[TokenTree], prefix: &mut Vec<String>, is_reexport: bool) {
        for tree in tokens.split(|token| is_punct(Some(token), ',')) {
            let depth = prefix.len();
            let mut alias = None;
            let mut rest = tree.iter().peekable();
            while let Some(token) = rest.next() {
                match token {
                    TokenTree::Ident(ident) if ident == "as" => alias = rest.next().map(ToString::to_string),
                    TokenTree::Ident(ident) => prefix.push(ident.to_string()),
                    TokenTree::Punct(punct) if punct.as_char() == '*' => {
                        self.modules[module].globs.push(prefix.clone());
                        alias = Some(String::from("_"));
                    }
                    TokenTree::Group(group) => {
                        let inner: Vec<TokenTree> = group.stream().into_iter().collect();
                        self.use_tree(module, &inner, prefix, is_reexport);
                        alias = Some(String::from("_"));
                    }
                    TokenTree::Punct(_) | TokenTree::Literal(_) => {}
                }
            }
            let is_name = alias.as_deref() != Some("_");
            if let (true, Some(last)) = (is_name && prefix.len() > depth, prefix.last().cloned()) {
                let mut path = prefix.clone();
                if last == "self" && path.len() > 1 {
                    path.pop();
                }
                let name = alias.or_else(|| path.last().cloned()).expect("a path has a name");
                if !is_reexport {
                    self.modules[module].paths.push(path.clone());
                }
                if path != [name.clone()] {
                    self.modules[module].aliases.insert(name, path);
                }
            }
            prefix.truncate(depth);
        }
    }
}

/// Whether an item ends here.
fn is_end(token: &TokenTree) -> bool {
    match token {
        TokenTree::Group(group) => group.delimiter() == Delimiter::Brace,
        token => is_punct(Some(token), ';'),
    }
}

fn is_punct(token: Option<&TokenTree>, character: char) -> bool {
    matches!(token, Some(TokenTree::Punct(punct)) if punct.as_char() == character)
}

/// The file of `#[path = "file"]`.
fn path_of(attribute: &Group) -> Option<String> {
    let tokens: Vec<TokenTree> = attribute.stream().into_iter().collect();
    match &tokens[..] {
        [TokenTree::Ident(name), _, TokenTree::Literal(path)] if name == "path" => {
            Some(path.to_string().trim_matches('"').to_owned())
        }
        _ => None,
    }
}

/// The path at the start of `tokens`, which is a name, and how many tokens it has.
fn path_at(tokens: &[TokenTree]) -> (Vec<String>, usize) {
    let mut path = vec![tokens[0].to_string()];
    let mut len = 1;
    while is_punct(tokens.get(len), ':') && is_punct(tokens.get(len + 1), ':') {
        let Some(TokenTree::Ident(next)) = tokens.get(len + 2) else { break };
        path.push(next.to_string());
        len += 3;
    }
    (path, len)
}

/// The type behind `impl`.
fn implemented(tokens: &[TokenTree]) -> Option<Vec<String>> {
    let is_body =
        |token: &&TokenTree| !matches!(token, TokenTree::Group(group) if group.delimiter() == Delimiter::Brace);
    let head: Vec<&TokenTree> = tokens.iter().take_while(is_body).collect();
    let mut depth = 0_i32;
    let mut of = None;
    for (at, token) in head.iter().enumerate() {
        match token {
            TokenTree::Punct(punct) if punct.as_char() == '<' => depth += 1,
            TokenTree::Punct(punct)
                if punct.as_char() == '>' && !is_punct(head.get(at.wrapping_sub(1)).copied(), '-') =>
            {
                depth -= 1;
            }
            TokenTree::Ident(ident) if depth == 0 && ident == "for" => of = None,
            TokenTree::Ident(ident) if depth == 0 && ident == "where" => break,
            TokenTree::Ident(_) if depth == 0 && of.is_none() => of = Some(path_at(&tokens[at..]).0),
            _ => {}
        }
    }
    of
}

enum Found {
    Module(usize),
    /// Defined in this module, by this name.
    Item(usize, String),
}

struct Names<'m> {
    modules: &'m [Module],
}

impl Names<'_> {
    /// The files of the names that a module uses, with these names.
    fn used_by(&self, module: usize) -> BTreeSet<(usize, String)> {
        let found = self.modules[module].paths.iter().filter_map(|path| match self.resolve(module, path, 0)? {
            Found::Item(definer, name) => Some((self.modules[definer].file, name)),
            Found::Module(_) => None,
        });
        let wholes = self.wholes_of(module);
        found.filter(|(file, _)| !wholes.contains(file)).collect()
    }

    /// The files of the modules above that this one is a part of.
    fn wholes_of(&self, module: usize) -> BTreeSet<usize> {
        let above = |other: usize| {
            std::iter::successors(self.modules[module].parent, |&up| self.modules[up].parent).any(|up| up == other)
        };
        let types = self.modules[module].impls.iter().filter_map(|path| match self.resolve(module, path, 0)? {
            Found::Item(definer, _) if above(definer) => Some(self.modules[definer].file),
            _ => None,
        });
        types.collect()
    }

    /// What a path means in a module: nothing where it leads into another crate.
    fn resolve(&self, module: usize, path: &[String], depth: usize) -> Option<Found> {
        let mut here = module;
        for (index, name) in path.iter().enumerate() {
            here = match name.as_str() {
                "crate" => 0,
                "self" => here,
                "super" => self.modules[here].parent?,
                _ => match self.lookup(here, name, depth) {
                    Some(Found::Module(child)) => child,
                    Some(item) => return Some(item),
                    None if index == 0 => return None,
                    // Made by a macro there.
                    None => return Some(Found::Item(here, name.clone())),
                },
            };
        }
        Some(Found::Module(here))
    }

    fn lookup(&self, module: usize, name: &str, depth: usize) -> Option<Found> {
        // Globs may lead in a circle.
        if depth > 8 {
            return None;
        }
        let scope = &self.modules[module];
        if scope.items.contains(name) {
            return Some(Found::Item(module, String::from(name)));
        }
        if let Some(&child) = scope.children.get(name) {
            return Some(Found::Module(child));
        }
        if let Some(path) = scope.aliases.get(name) {
            return self.resolve(module, path, depth + 1);
        }
        scope.globs.iter().find_map(|glob| match self.resolve(module, glob, depth + 1)? {
            Found::Module(other) if other != module => self.lookup(other, name, depth + 1),
            _ => None,
        })
    }
}

/// A crate of the files given, root first.
pub(crate) fn of_texts(files: &[(&str, &str)]) -> Graph {
    Graph::of(files[0].0, &|path| files.iter().find(|(name, _)| *name == path).map(|(_, text)| String::from(*text)))
}

/// The graph must see every road from one file to another, and no others.
#[test]
fn the_graph_is_awake() {
    let uses = |a: &str, b: &str, root: &str| {
        let graph = of_texts(&[
            ("lib.rs", root),
            ("a.rs", a),
            ("b.rs", b),
            ("b/c.rs", "pub struct C; impl super::B { fn f() {} }"),
        ]);
        let place = |name: &str| graph.files.iter().position(|file| file == name).expect("a file");
        let of_a = &graph.uses[place("a.rs")];
        let names = |name: &str| of_a.get(&place(name)).map_or(0, BTreeSet::len);
        (names("b.rs"), names("b/c.rs"), graph.circles().len())
    };
    let root = "mod a; mod b; pub use b::B as Other; pub use b::*;";
    let b = "mod c; pub use c::C; pub struct B; pub fn b() {} pub mod inner { pub const X: u8 = 0; }";
    let cases: &[(&str, (usize, usize))] = &[
        ("use crate::b::B;", (1, 0)),
        ("use super::b::{B, C as D, b};", (2, 1)),
        ("use crate::b; fn f() { b::b(); }", (1, 0)),
        ("use crate::b::inner; fn f() -> u8 { inner::X }", (1, 0)),
        ("fn f(_: crate::b::C) {}", (0, 1)),
        ("use crate::*; fn f(_: Other, _: C) {}", (1, 1)),
        ("use crate::b::*; fn f() { b(); }", (1, 0)),
        ("use crate::b::*; fn f(b: u8) -> u8 { b }", (0, 0)),
        ("pub use crate::b::B;", (0, 0)),
        ("pub use crate::b::B; fn f() -> B { B }", (1, 0)),
        ("pub(crate) fn f() { fn g() { let _ = crate::b::C; } }", (0, 1)),
        ("mod inside { use super::super::b::B; }", (1, 0)),
        ("#[cfg(test)] mod tests { use super::super::b::B; }", (0, 0)),
        ("#[cfg(test)] const X: u8 = 0; mod inside { use super::super::b::B; }", (1, 0)),
        ("// use crate::b::B;\nconst S: &str = \"crate::b::B\"; struct B; fn f(_: B) {}", (0, 0)),
        ("use std::b::B; use b::B as Foreign;", (0, 0)),
    ];
    for (a, wanted) in cases {
        let (to_b, to_c, circles) = uses(a, b, root);
        assert_eq!((to_b, to_c, circles), (wanted.0, wanted.1, 0), "{a}");
    }
    // There and back; a part of a type that uses its whole is no circle.
    assert_eq!(uses("use crate::b::B; pub struct A;", "mod c; pub use c::C; pub struct B(crate::a::A);", root).2, 1);
    assert_eq!(uses("", "mod c; use c::C; pub struct B(C);", root).2, 0);
    // Modules that a macro declares.
    assert_eq!(
        uses("use crate::b::B; pub struct A;", "listed! { mod c; } pub use c::C; pub struct B(crate::a::A);", root).2,
        1
    );
    let graph = of_texts(&[
        ("lib.rs", "mod b;"),
        ("b.rs", "mod c; use c::C; pub struct B(C);"),
        ("b/c.rs", "use super::B; pub struct C(Box<B>);"),
    ]);
    assert_eq!(graph.circles(), [["b.rs", "b/c.rs"]]);
    assert_eq!(graph.levels(), [["lib.rs", "b.rs", "b/c.rs"]], "those of a circle share a level");
}
