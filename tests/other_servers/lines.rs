//! How long the ports are, beside their originals.

/// What a document shows, and the items here that do it.
struct Port {
    /// The section of the document.
    section: &'static str,
    /// Lines of the original that are neither empty nor comments nor imports.
    lines: usize,
    items: &'static [&'static str],
    /// The original is statements without a function: so are the lines that count here.
    is_body: bool,
}

const fn port(section: &'static str, lines: usize, items: &'static [&'static str]) -> Port {
    Port { section, lines, items, is_body: false }
}

const fn body(section: &'static str, lines: usize, items: &'static [&'static str]) -> Port {
    Port { section, lines, items, is_body: true }
}

const DOCUMENTS: [(&str, &str, &[Port]); 5] = [
    ("Arcade: WebSockets Guide", include_str!("arcade.rs"), &ARCADE),
    ("Revali: WebSockets", include_str!("revali.rs"), &REVALI),
    ("Spry: Advanced, Websockets", include_str!("spry.rs"), &SPRY),
    ("Dart WebSocket", include_str!("dart.rs"), &DART),
    ("Finch: WebSocket", include_str!("finch.rs"), &FINCH),
];

#[rustfmt::skip]
const ARCADE: [Port; 10] = [
    port("Basic WebSocket Server", 23, &["fn basic_server"]),
    port("WebSocket with Connection Handler", 21, &["fn connection_handler"]),
    port("Authentication with WebSockets", 33, &["async fn authenticate", "fn private_route"]),
    port("Broadcasting Messages", 24, &["fn broadcasts"]),
    port("Chat Room Example", 120,
        &["struct ChatRoom", "impl ChatRoom", "type ChatRooms", "enum FromUser", "fn chat_rooms"]),
    port("WebSocket Hooks", 24, &["struct MessageCount", "fn monitored_route"]),
    port("Binary Data over WebSocket", 15, &["fn binary_data"]),
    port("WebSocket Subprotocols", 14, &["fn subprotocols"]),
    port("Connection Management", 23, &["fn connection_management"]),
    port("Client-Side Example", 51, &["async fn client_that_comes_back"]),
];

const REVALI: [Port; 22] = [
    port("Creating a WebSocket Handler", 8, &["fn handler_of_a_controller"]),
    port("Two-Way Communication", 4, &["fn two_way"]),
    port("Receive-Only", 4, &["fn receive_only"]),
    port("Send-Only", 4, &["fn send_only"]),
    port("Basic Message Handling", 5, &["fn basic_messages"]),
    port("JSON Messages", 15, &["fn json_messages"]),
    port("Async Message Handling", 5, &["fn async_messages"]),
    port("Sending Messages Without Client Input", 7, &["fn sender_with_a_timer"]),
    body("Sending Messages Without Client Input: Type Matching", 3, &["async fn one_sender_of_all_types"]),
    port("Closing Connections: Send-Only Mode", 4, &["fn closed_when_sent"]),
    port("Closing Connections: Two-Way and Receive-Only Modes", 8, &["fn open_until_closed"]),
    body("Close Codes", 5, &["fn close_codes"]),
    port("Ping/Pong", 4, &["fn pings"]),
    port("On Connect Trigger", 7, &["fn trigger_on_connect"]),
    port("Chat Application", 12, &["fn chat_application"]),
    port("Real-Time Notifications", 10, &["fn notifications_of_a_service"]),
    port("File Upload Progress", 12, &["fn upload_progress"]),
    port("Using web_socket_channel", 15, &["fn client_that_blocks"]),
    port("Using dart:io WebSocket", 15, &["async fn client_that_awaits"]),
    port("Use Appropriate Modes", 8, &["fn fitting_modes"]),
    port("Handle Connection Cleanup", 7, &["fn cleanup"]),
    port("Use Type-Safe Messages", 15, &["fn type_safe_messages"]),
];

const SPRY: [Port; 5] = [
    port("WebSockets", 4, &["fn route"]),
    port("Listening for messages: await for", 6, &["fn awaited_messages"]),
    port("Listening for messages: listen", 6, &["fn listened_messages"]),
    port("Sending messages", 7, &["fn message_sent_back"]),
    port("Closing the connection", 8, &["fn message_sent_back_and_closed"]),
];

const DART: [Port; 5] = [
    port("Basic WebSocket Client", 13, &["fn basic_client"]),
    port("WebSocket with Error Handling", 19, &["fn client_with_error_handling"]),
    port("WebSocket Server", 24, &["fn server"]),
    port("Binary Data Transfer", 13, &["fn binary_client"]),
    port("WebSocket with JSON", 14, &["fn json_client"]),
];

const FINCH: [Port; 11] = [
    port("Define a SocketManager", 25, &["fn socket_manager"]),
    port("Define Named Routes", 14, &["fn socket_routes"]),
    port("Create a Socket Controller", 6, &["async fn socket_controller"]),
    port("Register the WebSocket Route", 6, &["fn socket_route"]),
    body("Sending Messages from the Server", 3, &["fn messages_from_the_server"]),
    port("Client-Side JavaScript Example", 12, &["fn client"]),
    body("How Many Clients Are Connected?", 1, &["fn count_of_clients"]),
    port("SocketManager", 24, &["fn second_socket_manager"]),
    port("SocketEvent", 5, &["fn time_event"]),
    port("WebSocket Route", 9, &["fn test_route"]),
    port("Adding your socket routes to FinchApp", 12, &["fn routes_added_to_the_app"]),
];

#[test]
fn no_port_is_half_as_long_again_as_its_original() {
    let mut too_long = Vec::new();
    for (document, source, ports) in DOCUMENTS {
        for port in ports {
            let lines: usize = port.items.iter().map(|item| lines_of(source, item)).sum();
            // The line with the name of the function, and its last brace.
            let lines = lines - if port.is_body { around_body(source, port.items[0]) } else { 0 };
            assert!(lines > 0, "{document}, {}: nothing is counted", port.section);
            if 2 * lines > 3 * port.lines {
                too_long.push(format!("{document}, {}: {lines} lines for {}", port.section, port.lines));
            }
        }
    }
    assert!(too_long.is_empty(), "{too_long:#?}");
}

/// Nothing of a port is where it does not count: what tests use besides are the functions that only they call.
#[test]
fn every_item_is_a_port_or_a_tests() {
    for (document, source, ports) in DOCUMENTS {
        let (ported, _) = source.split_once("#[test]").expect("tests");
        let counted = |line: &str| ports.iter().flat_map(|port| port.items).any(|item| is_head(line, item));
        let heads = ported.lines().filter(|line| {
            let head = line.strip_prefix("async ").unwrap_or(line);
            ["fn ", "struct ", "enum ", "impl ", "type ", "const ", "static "].iter().any(|kind| head.starts_with(kind))
        });
        let others: Vec<&str> = heads.filter(|line| !counted(line)).collect();
        let helpers = others.iter().all(|line| {
            ["fn echo()", "fn app(", "fn next(", "fn output(", "fn connected(", "fn server(", "fn welcomed("]
                .iter()
                .any(|helper| line.starts_with(helper))
        });
        assert!(helpers, "{document}: {others:#?}");
    }
}

fn is_head(line: &str, item: &str) -> bool {
    line.strip_prefix(item).is_some_and(|rest| !rest.starts_with(|next: char| next.is_alphanumeric() || next == '_'))
}

/// The lines of an item at the margin, attributes included, that are neither empty nor comments nor imports.
fn item<'s>(source: &'s str, name: &str) -> Vec<&'s str> {
    let lines: Vec<&str> = source.lines().collect();
    let head = lines.iter().position(|line| is_head(line, name)).unwrap_or_else(|| panic!("there is no {name}"));
    let first = lines[..head].iter().rposition(|line| !line.starts_with("#[")).map_or(0, |before| before + 1);
    let is_last = |line: &&str| !line.starts_with([' ', '#', ')']) && line.ends_with(['}', ';']);
    let last = head + lines[head..].iter().position(is_last).unwrap_or_else(|| panic!("{name} has no end"));
    let code = lines[first..=last].iter().filter(|line| {
        let line = line.trim_start();
        !line.is_empty() && !line.starts_with("//") && !line.starts_with("use ")
    });
    code.copied().collect()
}

fn lines_of(source: &str, name: &str) -> usize {
    item(source, name).len()
}

/// Lines of a function that are not its body: its head, and its last brace.
fn around_body(source: &str, name: &str) -> usize {
    let begins_body = |line: &&str| !line.starts_with(' ') && line.ends_with('{');
    item(source, name).iter().position(begins_body).unwrap_or_else(|| panic!("{name} has no body")) + 2
}

#[test]
fn lines_are_counted_as_they_are_said_to_be() {
    let source = "/// A word.\n#[derive(Clone)]\nstruct Two {\n    // one\n    one: u8,\n\n}\nstruct Tuple(u64);\n";
    assert_eq!((lines_of(source, "struct Two"), lines_of(source, "struct Tuple")), (4, 1));
    let source = "fn two() {}\nfn twofold(\n    of: u8,\n) -> u8 {\n    use std::mem;\n    of\n}\n";
    assert_eq!(
        (lines_of(source, "fn two"), lines_of(source, "fn twofold"), around_body(source, "fn twofold")),
        (1, 5, 4)
    );
}
