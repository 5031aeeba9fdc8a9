//! Limits of a connection's rooms: the server's, and its route's where that has its own.

use ringwire::{App, Config, JoinError, Message, Socket, ws};

use super::rig::{config, say, serve_with, text};

/// Joins rooms with names of these lengths, and tells what came of each.
fn joins(socket: &mut Socket<'_>, message: Message<'_>) -> String {
    let lengths = message.as_text().unwrap_or_default().split(' ').filter_map(|length| length.parse::<usize>().ok());
    let mut told = Vec::new();
    for (number, length) in lengths.enumerate() {
        told.push(match socket.join(format!("{number:0length$}")) {
            Ok(()) => String::from("in"),
            Err(error @ (JoinError::TooManyRooms { .. } | JoinError::NameTooLong { .. })) => error.to_string(),
            Err(error) => format!("another error: {error}"),
        });
    }
    told.join(", ")
}

#[test]
fn the_limits_of_rooms_are_settings_and_routes_may_have_their_own() {
    let too_many = |max: usize| format!("the connection is in {max} rooms already, and may be in no more");
    let too_long = |max: usize| format!("a room's name has at most {max} bytes");
    let served = serve_with(Config { rooms_max: 2, ..config() }, || {
        App::new()
            .ws("/plain", ws().on_message(joins))
            .ws("/more", ws().max_rooms(3).max_room_name(300).on_message(joins))
            .get("/upgraded", {
                let route = ws().max_rooms(1).max_room_name(10).on_message(joins);
                async move |request: ringwire::Request| request.upgrade(&route)
            })
    });
    for (path, lengths, told) in [
        ("/plain", "256 257 9 9", format!("in, {}, in, {}", too_long(256), too_many(2))),
        ("/more", "300 301 9 9 9", format!("in, {}, in, in, {}", too_long(300), too_many(3))),
        ("/upgraded", "10 11 9", format!("in, {}, {}", too_long(10), too_many(1))),
    ] {
        let mut client = served.client(path);
        say(&mut client, lengths);
        assert_eq!(text(&mut client), told, "{path}");
    }
}
