//! The console page in a headless Chromium, driven as a person would: keys and clicks. Skipped, with a message, only
//! where no Chromium is installed.

#![forbid(unsafe_code)]

#[path = "../common/mod.rs"]
mod common;

#[path = "../common/browser.rs"]
mod browser;

#[cfg(feature = "nats")]
#[path = "../common/nats.rs"]
mod nats;

use std::time::Duration;

use serde_json::json;

use crate::browser::{Browser, Page};
use crate::common::TestServer;

impl Page {
    /// The console of this server, connected.
    fn console(browser: &Browser, server: &TestServer, hash: &str) -> Page {
        let mut page = browser.open(&format!("http://{}/{hash}", server.address));
        page.until("document.querySelector('#status')?.dataset.state === 'open'");
        page
    }

    #[track_caller]
    fn until_logged(&mut self, text: &str) {
        self.until(&format!("document.querySelector('#log').innerText.includes({})", json!(text)));
    }

    /// What the server calls this connection.
    fn my_id(&mut self) -> String {
        self.until("me !== ''");
        self.eval("me").as_str().expect("an id").to_owned()
    }

    fn see(&mut self, view: &str) {
        self.click(&format!("[data-view={view}]"));
    }

    fn join(&mut self, room: &str) {
        self.fill("#room", room);
        self.press("Enter");
        self.until(&format!("document.querySelector('#rooms').innerText.includes({})", json!(room)));
    }
}

#[test]
fn two_pages_in_one_room_see_each_other() {
    let Some(browser) = Browser::start() else { return };
    let server = TestServer::new();
    let mut one = Page::console(&browser, &server, "");
    let mut other = Page::console(&browser, &server, "");
    one.join("den");
    other.join("den");
    for page in [&mut one, &mut other] {
        page.until("document.querySelector('#rooms em').textContent === '2'");
    }
    one.fill("#message", "hello from <b>one</b>");
    one.press("Enter");
    other.until_logged("hello from <b>one</b>");
    other.fill("#message", r#"{"answer":42}"#);
    other.press("Enter");
    one.until_logged(r#"{"answer":42}"#);
    one.until_logged("hello from <b>one</b>");
    one.until("document.querySelector('#message').value === ''");

    other.click("#type");
    one.until("document.querySelector('#typing').textContent.endsWith('is typing …')");
    other.click("#leave");
    one.until("document.querySelector('#rooms em').textContent === '1'");
    other.until("document.querySelectorAll('#rooms li').length === 0");
    one.has_no_complaints();
    other.has_no_complaints();
}

#[test]
fn counters_count() {
    let Some(browser) = Browser::start() else { return };
    let server = TestServer::new();
    let _others = [server.client("/echo"), server.client("/rooms/x")];
    let mut page = Page::console(&browser, &server, "");
    page.until("document.querySelector('#connections').textContent === '3'");
    // The page's own ping, and what it was answered.
    page.until(
        "/^[1-9][0-9]* received · [1-9][0-9]* sent · 0 dropped$/.test(document.querySelector('#server').textContent)",
    );
    page.until("parseFloat(document.querySelector('#rtt').textContent) > 0");
    // `connected` has come, and the page's own pings do not count.
    page.until("document.querySelector('#in-total').textContent.startsWith('1 message ')");
    page.until("document.querySelector('#out-total').textContent.startsWith('0 messages ')");
    page.click("#ping");
    page.until_logged("pong");
    page.until("document.querySelector('#in-total').textContent.startsWith('2 messages ')");
    page.until("document.querySelector('#out-total').textContent.startsWith('1 message ')");
    page.has_no_complaints();
}

#[test]
fn a_burst_goes_there_and_back_on_every_route() {
    let Some(browser) = Browser::start() else { return };
    let server = TestServer::new();
    for route in ["/echo", "/broadcast", "/rooms/den", "/ws"] {
        let mut page = Page::console(&browser, &server, &format!("#{route}"));
        if route == "/ws" {
            page.join("den");
        }
        page.click("#burst");
        page.until_logged("1,000 messages there and back in ");
        page.until("document.querySelector('#in-total').textContent.startsWith('1,00')");
        page.until("document.querySelectorAll('#log li').length <= 500");
        page.has_no_complaints();
    }
}

#[test]
fn a_lost_connection_comes_back_with_its_rooms() {
    let Some(browser) = Browser::start() else { return };
    let server = TestServer::new();
    let mut page = Page::console(&browser, &server, "");
    page.join("den");
    let members = server.members("ws/den");
    let lost = server.handle().hub().disconnect(members[0], 4000, "begone").expect("a legal code");
    assert_eq!(lost.wait(), Some(true));
    page.until_logged("closed: 4000 “begone”");
    page.until("document.querySelector('#status').dataset.state === 'open'");
    crate::common::eventually(|| server.members("ws/den").len() == 1, || "the room to be joined again".into());
    assert_ne!(server.members("ws/den"), members);

    // One that was sent away by an operator stays away.
    let id = server.members("ws/den")[0];
    let mut client = server.raw();
    client.send(format!("DELETE /api/ws/connections/{id} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes());
    assert_eq!(client.response(false).status, 200);
    page.until_logged("closed: 1008 “Admin action”");
    page.until("document.querySelector('#status').dataset.state === 'closed'");
    page.press_alt("c");
    page.until("document.querySelector('#status').dataset.state === 'open'");
    page.has_no_complaints();
}

#[test]
fn raw_frames_errors_and_the_filter() {
    let Some(browser) = Browser::start() else { return };
    let server = TestServer::new();
    let mut page = Page::console(&browser, &server, "");
    page.click("summary");
    page.fill("#raw", "no event at all");
    page.click("#send-raw");
    page.until_logged("not an event such as");
    page.until("document.querySelector('#log .err .name').textContent === 'error'");
    page.fill("#filter", "connected");
    page.until("[...document.querySelectorAll('#log li')].filter(line => line.offsetHeight).length === 2");
    page.fill("#filter", "");
    page.press("Escape");
    page.eval("document.querySelector('#log .in p').click()");
    page.until("document.querySelector('#log .in pre').textContent.includes('\"event\": \"connected\"')");
    page.click("#clear");
    page.until("document.querySelector('#log').hidden");
    page.has_no_complaints();
}

#[test]
fn a_server_with_a_token_asks_for_it() {
    let Some(browser) = Browser::start() else { return };
    let token = Some("c2VjcmV0".parse().expect("a token"));
    let server = TestServer::with(common::config().api_token(token));
    let mut page = Page::console(&browser, &server, "");
    page.until("!document.querySelector('#auth').hidden");
    page.fill("#token", "c2VjcmV0");
    page.press("Enter");
    page.until("document.querySelector('#connections').textContent === '1'");
    page.until("document.querySelector('#auth').hidden");
}

/// Kills: lists that lack somebody, that keep who has gone, and buttons that do nothing or are somebody else's.
#[test]
fn connections_are_listed_sent_to_and_disconnected() {
    let Some(browser) = Browser::start() else { return };
    let server = TestServer::new();
    let mut page = Page::console(&browser, &server, "");
    let mut other = Page::console(&browser, &server, "");
    let _echo = server.client("/echo");
    let me = other.my_id();
    page.see("connections");
    page.until("document.querySelectorAll('#list li').length === 3");
    page.until(
        "[...document.querySelectorAll('#list li')].filter(it => it.innerText.includes('(this page)')).length === 1",
    );
    // What takes no events cannot be sent one.
    page.until("[...document.querySelectorAll('#list li')].every(it => it.querySelector('button').disabled === it.innerText.includes('/echo'))");
    page.fill("#filter", &me);
    page.until("[...document.querySelectorAll('#list li')].filter(it => it.offsetHeight).length === 1");
    page.eval(&of_row(&me, 0));
    page.until("document.activeElement.id === 'to-data'");
    page.insert(r#"{"n":12345678901234567890}"#);
    page.press("Enter");
    other.until_logged(r#"private-message"#);
    other.until("document.querySelector('#log li:last-child').dataset.text.includes('12345678901234567890')");
    page.eval(&of_row(&me, 1));
    other.until_logged("closed: 1008 “Admin action”");
    page.until("document.querySelectorAll('#list li').length === 2");
    page.fill("#filter", "");
    page.press("Escape");
    page.see("log");
    page.until_logged("→ {\"disconnected\":true}");
    page.has_no_complaints();
    other.has_no_complaints();
}

#[test]
fn rooms_are_listed_sent_to_and_sent_away() {
    let Some(browser) = Browser::start() else { return };
    let server = TestServer::new();
    let mut page = Page::console(&browser, &server, "");
    page.see("rooms");
    page.until("document.querySelector('#listing-said').textContent === 'Nobody is in a room of /ws.'");
    let mut other = Page::console(&browser, &server, "");
    other.join("the den/ü");
    page.until("document.querySelector('#list').innerText.includes('the den/ü') && document.querySelector('#list').innerText.includes('1 member')");
    page.eval(&of_row("the den/ü", 0));
    page.fill("#to-event", "news");
    page.fill("#to-data", "it rains");
    page.press("Enter");
    other.until_logged("news\"it rains\"");
    page.until("document.querySelector('#me').textContent === 'sent to 1'");
    // Not by one slip of the hand.
    page.eval(&of_row("the den/ü", 1));
    page.until("document.querySelector('#list .armed').textContent === 'All of them?'");
    assert_eq!(server.members("ws/the den/ü").len(), 1);
    page.eval(&of_row("the den/ü", 1));
    other.until_logged("closed: 1008 “Admin action”");
    page.until("document.querySelectorAll('#list li').length === 0");
    page.has_no_complaints();
    other.has_no_complaints();
}

/// The button of this number in the row of a list that says this.
fn of_row(text: &str, button: usize) -> String {
    let text = json!(text);
    format!(
        "[...document.querySelectorAll('#list li')].find(it => it.dataset.text.includes({text})).querySelectorAll('button')[{button}].click()"
    )
}

#[test]
fn bytes_are_sent_and_shown() {
    let Some(browser) = Browser::start() else { return };
    let server = TestServer::new();
    let mut page = Page::console(&browser, &server, "#/echo");
    page.click("summary");
    for (kind, typed, came) in [
        ("hex", "0x00 ff,7A:41\n0a", "binary, 5 bytes: 00 ff 7a 41 0a"),
        ("hex", "", "binary, 0 bytes: "),
        ("utf8", "aü", "binary, 3 bytes: 61 c3 bc"),
        ("text", "00", "00"),
    ] {
        page.click("#clear");
        page.fill("#raw", typed);
        if typed.is_empty() {
            page.eval("document.querySelector('#raw').value = ''");
        }
        page.eval(&format!("document.querySelector('#kind').value = '{kind}'"));
        page.click("#send-raw");
        page.until(&format!("document.querySelector('#log .in')?.dataset.text === {}", json!(came)));
        assert_eq!(page.eval("document.querySelector('#log .out').dataset.text"), json!(came));
    }
    for wrong in ["0", "zz", "0x1"] {
        page.click("#clear");
        page.fill("#raw", wrong);
        page.eval("document.querySelector('#kind').value = 'hex'");
        page.click("#send-raw");
        page.until_logged("not hex");
        assert_eq!(page.eval("document.querySelectorAll('#log .out').length"), json!(0));
    }
    page.click("#clear");
    page.fill("#raw", &"41".repeat(20_000));
    page.click("#send-raw");
    page.until("document.querySelector('#log .in') !== null");
    page.eval("document.querySelector('#log .in p').click()");
    page.until("document.querySelector('#log .in pre').textContent.startsWith('0000  41 41')");
    page.until("document.querySelector('#log .in pre').textContent.endsWith('AAAA\\n… and 3,616 bytes more')");
    page.has_no_complaints();
}

#[test]
fn messages_are_kept_in_the_browser() {
    let Some(browser) = Browser::start() else { return };
    let server = TestServer::new();
    let mut page = Page::console(&browser, &server, "#/echo");
    for (kind, text) in [("hex", "00 ff"), ("text", "<b>one</b>"), ("text", "<b>one</b>"), ("text", "two")] {
        page.eval(&format!("document.querySelector('#kind').value = '{kind}'"));
        page.eval(&format!("document.querySelector('#raw').value = {}", json!(text)));
        page.click("#save");
    }
    let names = "[...document.querySelectorAll('#saved b')].map(it => it.textContent).join()";
    assert_eq!(page.eval(names), "two,<b>one</b>,00 ff");
    page.go("about:blank");
    page.go(&format!("http://{}/#/echo", server.address));
    page.until("document.querySelector('#status')?.dataset.state === 'open'");
    assert_eq!(page.eval(names), "two,<b>one</b>,00 ff");
    page.click("#saved li:last-child .pick");
    assert_eq!(page.eval("document.querySelector('#raw').value + document.querySelector('#kind').value"), "00 ffhex");
    page.click("#saved .part");
    assert_eq!(page.eval(names), "<b>one</b>,00 ff");
    // What somebody else has left there does no harm.
    for left in ["null", "{", r#"[1,null,{"text":1}]"#, "7"] {
        page.eval(&format!("localStorage.setItem('ringwire.saved', {})", json!(left)));
        page.go("about:blank");
        page.go(&format!("http://{}/#/echo", server.address));
        page.until("document.querySelector('#status')?.dataset.state === 'open'");
        assert_eq!(page.eval(names), "");
    }
    page.has_no_complaints();
}

#[test]
fn subprotocols_are_offered() {
    let Some(browser) = Browser::start() else { return };
    let server = TestServer::new();
    let mut page = Page::console(&browser, &server, "#/echo");
    page.click("#options summary");
    page.fill("#protocols", "v2.json, chat");
    page.click("#toggle");
    page.until("document.querySelector('#status').dataset.state === 'closed'");
    page.click("#toggle");
    page.until_logged("connected to /echo, subprotocol v2.json");
    page.click("#toggle");
    page.fill("#protocols", "a a");
    page.click("#toggle");
    page.until("document.querySelector('#log .err') !== null");
    page.until("document.querySelector('#status').dataset.state === 'closed'");
    page.has_no_complaints();
}

#[test]
fn the_log_is_exported_as_it_is_filtered() {
    let Some(browser) = Browser::start() else { return };
    let server = TestServer::new();
    let mut page = Page::console(&browser, &server, "#/echo");
    let directory = std::env::temp_dir().join(format!("ringwire-export-{}", std::process::id()));
    std::fs::create_dir_all(&directory).expect("a directory");
    page.download_to(&directory);
    page.eval("transmit('apple \"1\"'), transmit('pear'), transmit(new Uint8Array([1, 255]))");
    page.until("document.querySelectorAll('#log .in').length === 3");
    let mut exported = |filter: &str| {
        page.eval(&format!("document.querySelector('#filter').value = {}; refilter()", json!(filter)));
        page.click("#export");
        let start = std::time::Instant::now();
        loop {
            let files = std::fs::read_dir(&directory).expect("a directory").map(|file| file.expect("a file").path());
            if let Some(file) = files.into_iter().find(|file| file.extension().is_some_and(|it| it == "jsonl")) {
                let text = std::fs::read_to_string(&file).expect("text");
                std::fs::remove_file(&file).expect("removed");
                break text
                    .lines()
                    .map(|line| serde_json::from_str(line).expect("JSON"))
                    .collect::<Vec<serde_json::Value>>();
            }
            assert!(start.elapsed() < Duration::from_secs(30), "no file");
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    let all = exported("");
    assert_eq!(all.len(), 7, "{all:?}");
    assert_eq!((&all[0]["kind"], &all[0]["text"]), (&json!("note"), &json!("connected to /echo")));
    assert_eq!((&all[3]["kind"], &all[3]["bytes"], &all[3]["hex"]), (&json!("out"), &json!(2), &json!("01ff")));
    assert!(all.iter().all(|line| line["at"].as_str().is_some_and(|at| at.ends_with('Z'))));
    let some = exported("APPLE");
    let texts: Vec<_> = some.iter().map(|line| line["text"].as_str().expect("text")).collect();
    assert_eq!(texts, ["apple \"1\"", "apple \"1\""]);
    page.has_no_complaints();
    std::fs::remove_dir_all(&directory).expect("removed");
}

/// Kills: a printer that reads numbers as JavaScript does, and one that trips over strings.
#[test]
fn json_is_pretty() {
    let Some(browser) = Browser::start() else { return };
    let server = TestServer::new();
    let mut page = Page::console(&browser, &server, "#/echo");
    page.eval("transmit(String.raw`{\"n\":12345678901234567890,\"s\":\"a,\\\"{[b\",\"e\":{},\"l\":[1,[]]}`), transmit('no json')");
    page.until("document.querySelectorAll('#log .in').length === 2");
    page.click("#pretty");
    let want =
        "{\n  \"n\": 12345678901234567890,\n  \"s\": \"a,\\\"{[b\",\n  \"e\": {},\n  \"l\": [\n    1,\n    []\n  ]\n}";
    page.until(&format!("document.querySelector('#log .in pre').textContent === {}", json!(want)));
    assert_eq!(page.eval("document.querySelectorAll('#log pre').length"), json!(2));
    page.eval("transmit('[1]')");
    page.until("document.querySelectorAll('#log pre').length === 4");
    page.click("#pretty");
    page.until("document.querySelectorAll('#log pre').length === 0");
    // Deeper than is of use to anybody, and longer.
    page.eval("pretty('['.repeat(50000) + ']'.repeat(50000)), pretty('[' + '1,'.repeat(100000) + '1]')");
    page.has_no_complaints();
}

/// Kills: "closed: 1006", and nothing more, where the server has said why; and asking again and again for what is not there.
#[test]
fn a_handshake_that_fails_is_explained() {
    let Some(browser) = Browser::start() else { return };
    let origins = "https://example.org".parse().expect("origins");
    let api_token = Some("c2VjcmV0".parse().expect("a token"));
    let server = TestServer::with(common::config().origins(origins).api_token(api_token));
    let mut page = browser.open(&format!("http://{}/#/nope", server.address));
    for (route, why, state) in [
        ("/nope", "no WebSocket at /nope: GET was answered 404 “not found”: there is no such route.", "closed"),
        ("/healthz", "no WebSocket at /healthz: GET was answered 200: this is plain HTTP", "closed"),
        ("/api/ws/connections", "GET was answered 401 “a bearer token is needed”: who connects must say who", "closed"),
        ("/echo", "GET was answered 426 “this is a WebSocket endpoint”: the route is there", "waiting"),
    ] {
        page.until("typeof connect === 'function'");
        page.eval(&format!("document.querySelector('#route').value = '{route}'; clear(); disconnect(); connect()"));
        page.until_logged(why);
        page.until(&format!("document.querySelector('#status').dataset.state === '{state}'"));
        assert_eq!(page.eval("document.querySelector('#log').innerText.includes('1006')"), json!(false));
    }
}

#[test]
fn a_whole_url_is_understood() {
    let Some(browser) = Browser::start() else { return };
    let server = TestServer::new();
    let mut page = Page::console(&browser, &server, "");
    let (address, port) = (server.address, server.address.port());
    for (typed, path) in [
        (format!("ws://{address}/echo"), "/echo"),
        (format!("http://{address}/echo?a=b#c"), "/echo?a=b"),
        (format!("localhost:{port}/rooms/x"), "/rooms/x"),
        (format!("{address}/broadcast"), "/broadcast"),
        (format!("wss://{address}/echo"), "/echo"),
        (format!("WS://LOCALHOST:{port}/ws"), "/ws"),
        ("rooms/y".to_owned(), "/rooms/y"),
    ] {
        page.click("#clear");
        page.click("#toggle");
        page.until("document.querySelector('#status').dataset.state === 'closed'");
        page.fill("#route", &typed);
        page.press("Enter");
        page.until("document.querySelector('#status').dataset.state === 'open'");
        assert_eq!(page.eval("document.querySelector('#route').value"), path, "{typed}");
    }
    for (typed, why) in [
        ("wss://example.org/chat", "example.org is another server"),
        ("example.org:80/x", "http://example.org/#/x"),
        ("ws://", "not a URL"),
    ] {
        page.eval("disconnect(), clear()");
        page.until("document.querySelector('#status').dataset.state === 'closed'");
        page.fill("#route", typed);
        page.press("Enter");
        page.until_logged(why);
        page.until("document.querySelector('#status').dataset.state === 'closed'");
    }
    page.has_no_complaints();
}

#[test]
fn where_the_api_is_away_the_page_says_so() {
    let Some(browser) = Browser::start() else { return };
    let admin_address = Some("127.0.0.1:0".parse().expect("an address"));
    let server = TestServer::with(common::config().admin_address(admin_address));
    let mut page = Page::console(&browser, &server, "");
    page.until("document.querySelector('#server').textContent === 'at the admin address'");
    for view in ["connections", "rooms"] {
        page.see(view);
        page.until("document.querySelector('#listing-said').innerText.includes('RINGWIRE_ADMIN_ADDR')");
    }
}

/// Kills: what is answered where a phone's screen has ended, and what is wider than it.
#[test]
fn on_a_phone_the_answer_is_on_the_screen() {
    let Some(browser) = Browser::start() else { return };
    let server = TestServer::new();
    let mut page = Page::console(&browser, &server, "#/echo");
    page.look("light", 1280, 800);
    for number in 0..30 {
        page.fill("#message", &format!("message {number}"));
        page.click("#send");
        page.until(&format!("document.querySelector('#log .in:last-child')?.innerText.includes('message {number}')"));
    }
    // Turned, or with its keyboard out, it is another screen: the end of the log stays on it.
    page.look("light", 390, 844);
    page.see("rooms");
    page.see("log");
    for what in [
        "#message",
        "#send",
        "#log li:last-child",
        "#toggle",
        "#status",
        "#filter",
        "#clear",
        "#tabs [data-view=rooms]",
    ] {
        page.until(&format!(
            "(({{ left, top, right, bottom, height }}) => height > 0 && left >= 0 && top >= 0 && right <= 390 && bottom <= 844)(document.querySelector('{what}').getBoundingClientRect())"
        ));
    }
    // There are four where the machine has others beside it.
    page.until(
        "(document.querySelector('#machines-tab').hidden = false,
          document.querySelector('#machines-tab').getBoundingClientRect().right <= 390
            && document.querySelector('#bar').scrollWidth <= 390
            && document.documentElement.scrollHeight <= 844)",
    );
    for view in ["connections", "rooms", "log"] {
        page.see(view);
        page.until("document.documentElement.scrollWidth <= 390 && document.documentElement.scrollHeight <= 844");
        page.until(
            "document.querySelector('#bar').scrollWidth <= 390 && document.querySelector('#list').scrollWidth <= 390",
        );
    }
    page.has_no_complaints();
}

/// Not a test: `cargo test --test console -- --ignored` makes pictures of the page in `target/console`.
#[test]
#[ignore = "makes pictures"]
fn pictures() {
    let Some(browser) = Browser::start() else { return };
    let server = TestServer::new();
    let directory = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("console");
    std::fs::create_dir_all(&directory).expect("a directory");
    let mut friend = Page::console(&browser, &server, "");
    friend.join("lobby");
    let mut page = Page::console(&browser, &server, "");
    page.join("lobby");
    page.join("rust-and-rings");
    page.until("document.querySelectorAll('#rooms li').length === 2");
    page.click("#rooms .pick");
    for (speaker, text) in [
        (0, "hello, is anybody there?"),
        (1, "yes! a second window of the same page"),
        (0, r#"{"works":"with JSON too","n":[1,2,3]}"#),
    ] {
        let speaker = if speaker == 0 { &mut page } else { &mut friend };
        speaker.fill("#message", text);
        speaker.press("Enter");
        std::thread::sleep(Duration::from_millis(700));
    }
    page.click("#burst");
    page.until_logged("there and back");
    page.click("#clear");
    for text in ["the burst is over", "and the log is short again"] {
        page.fill("#message", text);
        page.press("Enter");
        friend.fill("#message", "I saw all of it");
        friend.press("Enter");
        std::thread::sleep(Duration::from_millis(1500));
    }
    friend.click("#type");
    page.eval("transmit('not an event')");
    page.until("document.querySelector('#typing').textContent !== ''");
    let shots =
        [("light", 1280, 800), ("dark", 1280, 800), ("light", 390, 844), ("dark", 390, 844), ("dark", 860, 900)];
    for (scheme, width, height) in shots {
        friend.click("#type");
        page.look(scheme, width, height);
        std::thread::sleep(Duration::from_millis(1200));
        let picture = page.picture(false);
        std::fs::write(directory.join(format!("{scheme}-{width}.png")), picture).expect("written");
        for view in ["connections", "rooms"] {
            page.see(view);
            page.until("document.querySelectorAll('#list li').length > 1");
            page.click("#list button");
            let picture = page.picture(false);
            std::fs::write(directory.join(format!("{scheme}-{width}-{view}.png")), picture).expect("written");
        }
        page.see("log");
        let mut failed = browser.open("about:blank");
        failed.look(scheme, width, height);
        failed.go(&format!("http://{}/#/echo", server.address));
        failed.until("document.querySelector('#status')?.dataset.state === 'open'");
        failed.eval(
            "document.querySelector('#kind').value = 'hex'; document.querySelector('#raw').value = '00 ff 7a 41'",
        );
        for what in ["#raw-part summary", "#send-raw", "#save", "#pretty"] {
            failed.click(what);
        }
        failed.eval("transmit(JSON.stringify({ a: [1, 2], b: null }))");
        failed.until("document.querySelectorAll('#log .in').length === 2");
        failed.eval("document.querySelector('#log .in p').click()");
        failed.click("#toggle");
        failed.until("document.querySelector('#status').dataset.state === 'closed'");
        failed.fill("#route", "/nope");
        failed.press("Enter");
        failed.until_logged("there is no such route");
        failed.until("document.querySelector('#status').dataset.state === 'closed'");
        std::fs::write(directory.join(format!("{scheme}-{width}-failed.png")), failed.picture(false)).expect("written");
    }
    let mut empty = browser.open("about:blank");
    empty.look("light", 1280, 800);
    empty.go(&format!("http://{}/#/echo", server.address));
    empty.until("document.querySelector('#status')?.dataset.state === 'open'");
    empty.click("#toggle");
    empty.until("document.querySelector('#status').dataset.state === 'closed'");
    empty.click("#clear");
    std::thread::sleep(Duration::from_millis(1200));
    std::fs::write(directory.join("empty-1280.png"), empty.picture(false)).expect("written");
}

/// Kills: a list of machines that has no other, or this one twice; a tab where there is only one machine.
#[cfg(feature = "nats")]
#[test]
fn machines_are_listed_where_there_are_several() {
    let Some(browser) = Browser::start() else { return };
    let alone = TestServer::new();
    let mut page = Page::console(&browser, &alone, "");
    page.until("/sent/.test(document.querySelector('#server').textContent)");
    assert_eq!(page.eval("document.querySelector('#machines-tab').hidden"), json!(true));
    let Some(nats) = nats::Nats::start() else { return };
    let start = |name: &str| {
        let config = common::config().nats_url(Some(nats.url().parse().expect("a URL")));
        TestServer::with(config.node(name.parse().expect("a name")))
    };
    let (one, other) = (start("one"), start("other"));
    let _sockets = [other.client("/rooms/x"), other.client("/rooms/y")];
    let mut page = Page::console(&browser, &one, "");
    page.until("!document.querySelector('#machines-tab').hidden");
    page.see("machines");
    page.until("document.querySelectorAll('#list li').length === 2");
    let line = |number: u32, text: &str| {
        format!(
            "document.querySelectorAll('#list li')[{number}].innerText.replace(/\\s+/g, ' ').startsWith({})",
            json!(text)
        )
    };
    page.until(&line(0, "one (this one) 1 connection · 0 rooms · up "));
    page.until(&line(1, "other 2 connections · 2 rooms · up "));
    page.until("/heard [0-9]+ s ago$/.test(document.querySelectorAll('#list li')[1].innerText.trim())");
    assert_eq!(page.eval("document.querySelectorAll('#list button').length"), json!(0));
    page.has_no_complaints();
}
