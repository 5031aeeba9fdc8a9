//! Other people's programs over TLS, each where it is installed: openssl, curl, Python's websockets, Node, Chromium.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::mpsc::channel;
use std::thread;

use data_encoding::BASE64;
use rcgen::PublicKeyData as _;
use ringwire::Deflate;
use sha2::{Digest as _, Sha256};

use crate::browser::Browser;
use crate::common::pki::Folder;
use crate::common::{PATIENCE, TestServer, config};
use crate::{Pki, serve};

/// Files by which a program knows whom to trust.
struct Trust {
    folder: Folder,
    authority: PathBuf,
}

impl Trust {
    fn in_authority_of(pki: &Pki) -> Trust {
        let folder = Folder::new();
        let authority = folder.write("ca.pem", &pki.authority.pem());
        Trust { folder, authority }
    }
}

/// Whether it runs with these arguments; says so where it does not.
fn is_there(program: &str, arguments: &[&str]) -> bool {
    let output = Command::new(program).args(arguments).env("NODE_PATH", node_modules()).output();
    let is_there = output.is_ok_and(|output| output.status.success());
    if !is_there {
        eprintln!("skipped: {program} {} does not run here", arguments.join(" "));
    }
    is_there
}

fn node_modules() -> String {
    std::env::var("RINGWIRE_TEST_NODE_MODULES").unwrap_or_else(|_| "/usr/lib/node_modules".to_owned())
}

fn run(command: &mut Command, input: &str) -> String {
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it runs");
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn openssl_gets_along() {
    if !is_there("openssl", &["version"]) {
        return;
    }
    let served = serve();
    let Trust { folder, authority } = Trust::in_authority_of(&served.pki);
    let session = folder.file("session.pem");
    let client = |arguments: &[&str], input: &str| {
        let address = served.address.to_string();
        let mut command = Command::new("openssl");
        command.args(["s_client", "-connect", &address, "-servername", "localhost", "-verify_return_error"]);
        command.arg("-ign_eof").arg("-CAfile").arg(&authority).args(arguments);
        run(&mut command, input)
    };
    let request = "GET /told HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    for (version, name) in [("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")] {
        let file = session.to_str().unwrap();
        let first = client(&[version, "-sess_out", file], request);
        assert!(first.contains(&format!("{name} ")) && first.contains("resumed=false"), "{first}");
        assert!(first.contains("localhost"), "{first}");
        let second = client(&[version, "-sess_in", file], request);
        assert!(second.contains("resumed=true"), "{second}");
    }
    let (pem, key) = folder.put("own", &served.pki.issued);
    let shown = client(&["-cert", pem.to_str().unwrap(), "-key", key.to_str().unwrap()], request);
    assert!(shown.contains("certificate=true"), "{shown}");
}

/// Kills: a new key that is not taken, or not answered where it is asked for.
#[test]
fn openssl_renews_its_keys() {
    if !is_there("openssl", &["version"]) {
        return;
    }
    let served = serve();
    let mut child = Command::new("openssl")
        .args(["s_client", "-connect", &served.address.to_string(), "-servername", "localhost", "-tls1_3"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it runs");
    let (mut input, output, errors) =
        (child.stdin.take().unwrap(), child.stdout.take().unwrap(), child.stderr.take().unwrap());
    let (heard, lines) = channel();
    let of_errors = heard.clone();
    let readers = [
        thread::spawn(move || BufReader::new(output).split(b'\n').flatten().for_each(|line| _ = heard.send(line))),
        thread::spawn(move || BufReader::new(errors).split(b'\n').flatten().for_each(|line| _ = of_errors.send(line))),
    ];
    let until = |word: &str| {
        let mut all = String::new();
        while !all.lines().last().is_some_and(|line| line.contains(word)) {
            let line = lines.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("no {word} in {all}"));
            all.push_str(&String::from_utf8_lossy(&line));
            all.push('\n');
        }
    };
    until("Verify return code");
    // A letter alone is a command: K renews our key and asks for the server's, k renews ours.
    for command in ["K", "k", "K"] {
        input.write_all(format!("{command}\n").as_bytes()).unwrap();
        until("KEYUPDATE");
        input.write_all(b"GET /told HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        // The body has no line of its own end: the next word comes behind it.
        until("content-length");
    }
    input.write_all(b"GET /nowhere HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    until("404");
    drop(input);
    let _ = child.wait();
    readers.into_iter().for_each(|reader| reader.join().unwrap());
}

/// Ready to ask a server by its name, and for what.
fn curl(address: SocketAddr) -> (Command, String) {
    let port = address.port();
    let mut command = Command::new("curl");
    command.args(["-sS", "--resolve", &format!("localhost:{port}:127.0.0.1")]);
    (command, format!("https://localhost:{port}/told"))
}

#[test]
fn curl_gets_along() {
    if !is_there("curl", &["--version"]) {
        return;
    }
    let served = serve();
    let trust = Trust::in_authority_of(&served.pki);
    let (mut command, url) = curl(served.address);
    command.arg("--cacert").arg(&trust.authority).args([&url, &url]);
    let told = run(&mut command, "");
    assert_eq!(told.matches("localhost http/1.1 resumed=false").count(), 2, "{told}");
}

/// The stand-alone program's server with TLS and compression.
struct Compressing {
    server: TestServer,
    pki: Pki,
    trust: Trust,
    /// Of its echo.
    url: String,
}

fn compressing() -> Compressing {
    let pki = Pki::new();
    let server = TestServer::with(config().deflate(Deflate::Dedicated).tls(pki.server()));
    let url = format!("wss://localhost:{}/echo", server.address.port());
    let trust = Trust::in_authority_of(&pki);
    Compressing { server, pki, trust, url }
}

#[test]
fn python_websockets_get_along() {
    const SCRIPT: &str = r#"
import asyncio, os, ssl, sys, websockets
async def main():
    context = ssl.create_default_context(cafile=sys.argv[2])
    async with websockets.connect(sys.argv[1], ssl=context, max_size=None) as socket:
        texts = ['{"n":%d,"text":"na\u00efve and naive"}' % n * (n + 1) for n in range(60)] + [os.urandom(1_500_000).hex()]
        for text in texts:
            await socket.send(text)
            assert await socket.recv() == text
        for n in range(500):
            await socket.send(bytes([n % 256]) * n)
        for n in range(500):
            assert await socket.recv() == bytes([n % 256]) * n
        await (await socket.ping())
        extensions = getattr(socket, "protocol", socket).extensions
        print(socket.transport.get_extra_info("ssl_object").version(), [extension.name for extension in extensions])
    print(socket.close_code)
asyncio.run(main())
"#;
    let python = std::env::var("RINGWIRE_TEST_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    if !is_there(&python, &["-c", "import websockets"]) {
        return;
    }
    let served = compressing();
    let said = run(Command::new(&python).args(["-c", SCRIPT, &served.url]).arg(&served.trust.authority), "");
    assert_eq!(said.trim(), "TLSv1.3 ['permessage-deflate']\n1000");
}

#[test]
fn node_ws_gets_along() {
    const SCRIPT: &str = r#"
const WebSocket = require('ws');
const socket = new WebSocket(process.argv[1], { ca: require('fs').readFileSync(process.argv[2]), perMessageDeflate: { threshold: 0 } });
const text = n => JSON.stringify({ n, words: 'again and again '.repeat(n * n) });
let got = 0;
socket.on('open', () => { for (let n = 0; n < 60; n++) socket.send(text(n)); });
socket.on('message', data => {
    if (data.toString() !== text(got)) console.log('wrong', got);
    if (++got === 60) { console.log(socket._socket.getProtocol(), socket.extensions); socket.close(1000); }
});
socket.on('close', code => console.log(code));
socket.on('error', error => console.log(error.message));
"#;
    if !is_there("node", &["-e", "require('ws')"]) {
        return;
    }
    let served = compressing();
    let mut command = Command::new("node");
    command.env("NODE_PATH", node_modules()).args(["-e", SCRIPT, &served.url]).arg(&served.trust.authority);
    let said = run(&mut command, "");
    assert_eq!(said.trim(), "TLSv1.3 permessage-deflate\n1000");
}

/// The WebSocket that is built into Node, which older ones have behind a flag.
#[test]
fn nodes_own_websocket_gets_along() {
    const SCRIPT: &str = r#"
const socket = new WebSocket(process.argv[1]);
const text = n => 'again and again '.repeat(n * n);
let got = 0;
socket.onopen = () => { for (let n = 0; n < 60; n++) socket.send(text(n)); };
socket.onmessage = event => {
    if (event.data !== text(got)) console.log('wrong', got);
    if (++got === 60) { console.log('all'); socket.close(1000); }
};
socket.onclose = event => { console.log(event.code, event.wasClean); };
socket.onerror = event => console.log(event.message);
"#;
    let flags: &[&str] = if is_there("node", &["-e", "new WebSocket('ws://127.0.0.1:1').onerror = () => {}"]) {
        &[]
    } else if is_there("node", &["--experimental-websocket", "-e", "WebSocket"]) {
        &["--experimental-websocket"]
    } else {
        return;
    };
    let served = compressing();
    let mut command = Command::new("node");
    command.env("NODE_EXTRA_CA_CERTS", &served.trust.authority).env("NODE_NO_WARNINGS", "1").args(flags);
    let said = run(command.args(["-e", SCRIPT, &served.url]), "");
    assert_eq!(said.trim(), "all\n1000 true");
}

/// The console page over https, which uses wss, and a socket of the page's own with compression.
#[test]
fn chromium_gets_along() {
    let served = compressing();
    // It has no setting for authorities; this one accepts who has that key, and nobody else.
    let key = Sha256::digest(served.pki.issued.public_key().subject_public_key_info());
    let flag = format!("--ignore-certificate-errors-spki-list={}", BASE64.encode(&key));
    let Some(browser) = Browser::start_with(&[&flag]) else { return };
    let mut page = browser.open(&format!("https://localhost:{}/", served.server.address.port()));
    page.until("document.querySelector('#status')?.dataset.state === 'open'");
    page.eval(
        "socket2 = new WebSocket(`wss://${location.host}/echo`); got = []; ended = '';
         socket2.onopen = () => { for (let n = 0; n < 50; n++) socket2.send('again and again '.repeat(n * n)); };
         socket2.onmessage = event => { if (got.push(event.data) === 50) socket2.close(1000); };
         socket2.onclose = event => { ended = `${event.code} ${event.wasClean}`; }; 0",
    );
    page.until("ended !== ''");
    let ended = page.eval(
        "ended + ' ' + socket2.extensions + ' ' + got.every((text, n) => text === 'again and again '.repeat(n * n))",
    );
    let ended = ended.as_str().expect("text").to_owned();
    assert!(ended.starts_with("1000 true permessage-deflate") && ended.ends_with(" true"), "{ended}");
    page.has_no_complaints();
}

/// Who does not know the authority hears so from his own library, and the server from an alert.
#[test]
fn without_the_authority_nobody_is_fooled() {
    if !is_there("curl", &["--version"]) {
        return;
    }
    let served = serve();
    let mut said = String::new();
    let (mut command, url) = curl(served.address);
    let mut child = command.arg(&url).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("it runs");
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(!child.wait().unwrap().success() && said.contains("certificate"), "{said}");
}
