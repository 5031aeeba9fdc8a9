//! What the compiler tells who uses the library wrongly: each mistake is named with its mend.

#[path = "common/folder.rs"]
mod folder;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use folder::Folder;

/// What stands in front of each program.
const HEAD: &str = "#![allow(unused)]\nuse ringwire::*;\n";

/// Nothing is wrong with this one.
const RIGHT: &str =
    r#"fn app() -> App { App::new().ws("/", |socket: &mut Socket, message: Message| message.into_owned()) }"#;

struct Row {
    what: &'static str,
    program: &'static str,
    /// What the compiler's words have in them.
    told: &'static [&'static str],
}

const ROWS: &[Row] = &[
    Row {
        what: "a number as the reply of a closure",
        program: r#"fn app() -> App { App::new().ws("/", ws().on_message(|socket: &mut Socket, message: Message| 5u32)) }"#,
        told: &["`u32` is no reply of a handler", "a number as text by `.to_string()`"],
    },
    Row {
        what: "a number as the reply of a handler that waits",
        program: r#"fn app() -> App { App::new().ws("/", ws().on_message_async(async |connection, message| 5u32)) }"#,
        told: &["`u32` is no reply of a handler", "a number as text by `.to_string()`"],
    },
    Row {
        what: "a struct as a reply",
        program: r#"struct Tick; fn app() -> App { App::new().ws("/", ws().on_text(|socket: &mut Socket, text: &str| Tick)) }"#,
        told: &["`Tick` is no reply of a handler", "`ringwire::Json(value)`"],
    },
    Row {
        what: "a number as a message of a socket",
        program: "fn send(socket: &mut Socket) { socket.send(7); }",
        told: &["is no message", "text (`&str`, `String`) is sent as text"],
    },
    Row {
        what: "a struct as a message of a connection",
        program: "struct Tick; async fn send(connection: Connection) { connection.send(Tick); }",
        told: &["`Tick` is no message", "`ringwire::Json(value)`"],
    },
    Row {
        what: "a number as an HTTP response",
        program: r#"fn app() -> App { App::new().get("/", async |request: Request| 5u32) }"#,
        told: &["`u32` is no response of an HTTP handler", "`(StatusCode, body)`"],
    },
    Row {
        what: "a number as a route",
        program: r#"fn app() -> App { App::new().ws("/", 5u32) }"#,
        told: &["`u32` is no WebSocket route", "`ws().on_message(|socket, message| …)`"],
    },
    Row {
        what: "something else than an app as what a server runs",
        program: "fn run(server: Server) { server.run(|| 5u32); }",
        told: &["expected `App`, found `u32`"],
    },
];

/// Where the libraries are that this test was linked with.
fn libraries() -> PathBuf {
    let program = std::env::current_exe().unwrap();
    program.parent().unwrap().to_owned()
}

/// The compiler's words on a program that uses `library`; `None` if it has none against it.
fn complaints(library: &Path, program: &str) -> Option<String> {
    let folder = Folder::new();
    let source = folder.write("program.rs", &format!("{HEAD}{program}\n"));
    let mut rustc = Command::new(std::env::var("RUSTC").unwrap_or_else(|_| "rustc".into()));
    rustc
        .args(["--edition=2024", "--crate-type=lib", "--emit=metadata", "--color=never", "--out-dir"])
        .arg(folder.path());
    rustc.arg("--extern").arg(format!("ringwire={}", library.display()));
    rustc.arg("-L").arg(format!("dependency={}", libraries().display())).arg(&source);
    let output = rustc.output().expect("the compiler runs");
    (!output.status.success()).then(|| String::from_utf8_lossy(&output.stderr).into_owned())
}

/// The library in the form in which it was built last and can be used.
static LIBRARY: LazyLock<PathBuf> = LazyLock::new(|| {
    let entries = std::fs::read_dir(libraries()).unwrap().map(|entry| entry.unwrap());
    let is_library = |path: &Path| {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        name.starts_with("libringwire-") && name.ends_with(".rlib")
    };
    let mut found: Vec<_> = entries
        .filter(|entry| is_library(&entry.path()))
        .map(|entry| (entry.metadata().unwrap().modified().unwrap(), entry.path()))
        .collect();
    found.sort();
    let usable = found.into_iter().rev().map(|(_, path)| path).find(|path| complaints(path, RIGHT).is_none());
    usable.expect("the library that this test is linked with")
});

#[test]
fn mistakes_are_told_with_their_mend() {
    let mut wrong = Vec::new();
    for Row { what, program, told } in ROWS {
        let Some(words) = complaints(&LIBRARY, program) else {
            wrong.push(format!("{what}: it compiles"));
            continue;
        };
        for part in *told {
            if !words.contains(part) {
                wrong.push(format!("{what}: nothing of {part:?} in\n{words}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}
