//! The console page in a headless Chromium, driven as a person would: keys and clicks. Skipped, with a message, only
//! where no Chromium is installed.

#![forbid(unsafe_code)]

#[path = "../common/mod.rs"]
mod common;

#[path = "../common/browser.rs"]
mod browser;

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
    let server = TestServer::with(ringwire::Config { api_token: token, ..common::config() });
    let mut page = Page::console(&browser, &server, "");
    page.until("!document.querySelector('#auth').hidden");
    page.fill("#token", "c2VjcmV0");
    page.press("Enter");
    page.until("document.querySelector('#connections').textContent === '1'");
    page.until("document.querySelector('#auth').hidden");
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
        let picture = page.picture(width < 500);
        std::fs::write(directory.join(format!("{scheme}-{width}.png")), picture).expect("written");
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
