//! What the opening handshake says, as the command line, a scenario file and its columns have it.

mod common;

use std::{
    fs,
    io::{Read, Write},
    net::SocketAddr,
    path::Path,
    sync::{Arc, Mutex},
};

use common::{program, scratch, serve};

type Heads = Arc<Mutex<Vec<String>>>;

/// Refuses all, and keeps what they said.
fn serve_heads() -> (SocketAddr, Heads) {
    let heads = Heads::default();
    let kept = heads.clone();
    let addr = serve(move |mut stream| {
        let mut head = Vec::new();
        let mut bytes = [0; 4096];
        while !head.ends_with(b"\r\n\r\n") {
            match stream.read(&mut bytes) {
                Ok(len @ 1..) => head.extend_from_slice(&bytes[..len]),
                _ => return,
            }
        }
        kept.lock().expect("held briefly").push(String::from_utf8_lossy(&head).into_owned());
        let _ = stream.write_all(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n");
    });
    (addr, heads)
}

/// Kills: Host twice, which servers answer with 400.
#[test]
fn each_field_is_said_once_and_the_command_line_goes_before() {
    let (addr, heads) = serve_heads();
    let (csv, file) = (scratch("rows.csv"), scratch("run.toml"));
    fs::write(&csv, "host,agent\ncolumn.example,kim\n").expect("ours");
    let name = csv.file_name().and_then(|name| name.to_str()).expect("UTF-8");
    fs::write(
        &file,
        format!(
            "url = 'ws://{addr}'\nconnections = 1\nduration = '0.2s'\n[[users]]\ncsv = '{name}'\n\
             headers = {{ Host = '{{host}}', User-Agent = '{{agent}}', X-Own = 'file' }}\nsteps = [{{ think = 1 }}]\n"
        ),
    )
    .expect("ours");
    let own = addr.to_string();
    let run = |scenario: &str, what: &Path, headers: &[&str]| {
        let mut command = program();
        command.args([scenario, "-q"]).arg(what);
        for header in headers {
            command.args(["--header", header]);
        }
        if scenario == "connect" {
            command.args(["--connections", "1"]);
        }
        let output = command.output().expect("it starts");
        let heads = std::mem::take(&mut *heads.lock().expect("held briefly"));
        heads.first().cloned().unwrap_or_else(|| panic!("{}", String::from_utf8_lossy(&output.stderr)))
    };
    let url = format!("ws://{addr}/");
    type Row<'a> = (&'a str, &'a Path, &'a [&'a str], &'a [(&'a str, &'a str)]);
    let rows: [Row<'_>; 4] = [
        ("connect", Path::new(&url), &[], &[("host", &own)]),
        (
            "connect",
            Path::new(&url),
            &["host: x.example", "Origin: https://y"],
            &[("host", "x.example"), ("origin", "https://y")],
        ),
        ("run", &file, &[], &[("host", "column.example"), ("user-agent", "kim"), ("x-own", "file")]),
        (
            "run",
            &file,
            &["HOST: z.example", "x-own: line"],
            &[("host", "z.example"), ("user-agent", "kim"), ("x-own", "line")],
        ),
    ];
    for (scenario, what, headers, expected) in rows {
        let head = run(scenario, what, headers);
        for (name, value) in expected {
            let fields = head.lines().filter_map(|line| line.split_once(": "));
            let values: Vec<&str> =
                fields.filter(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value).collect();
            assert_eq!(values, [*value], "{scenario} {headers:?}: {name} in {head}");
        }
    }
    let refused = program().args(["connect", &url, "--header", "Upgrade: x"]).output().expect("it starts");
    let text = String::from_utf8_lossy(&refused.stderr);
    assert!(refused.status.code() == Some(2) && text.contains("the handshake has its own"), "{text}");
    let twice = ["connect", &url, "--header", "Host: a", "--header", "Host: b"];
    let text = program().args(twice).output().expect("it starts").stderr;
    assert!(String::from_utf8_lossy(&text).contains("--header: Host is given twice"));
    [csv, file].into_iter().for_each(|path| fs::remove_file(path).expect("ours"));
}
