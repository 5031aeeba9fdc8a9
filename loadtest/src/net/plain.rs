//! Reading what is not WebSocket: the bytes that are due and nothing else, or HTTP/1.1 responses.

use crate::{
    net::{App, Gone, Io, line::Line},
    problems::Problem,
    wire::{Layout, Match},
};

/// Bytes of a response head, and of its body.
const HTTP_BYTES_MAX: usize = 64 << 10;

pub(super) fn read_raw<A: App>(line: &mut Line, io: &mut Io, app: &mut A, conn: u32, mut data: &[u8]) -> Option<Gone> {
    let messages = io.messages;
    debug_assert!(messages.layout != Layout::WebSocket);
    while !data.is_empty() {
        let coming = line.coming.take().or_else(|| app.due(line.tag).map(|name| (name, 0)));
        let Some((name, before)) = coming else {
            let why = "bytes that nothing asked for";
            io.tally.note(Problem::Unexpected, 1, || format!("connection {}: {why}", line.tag));
            line.fails(|| why.to_owned());
            return Some(Gone::Failed);
        };
        match messages.reply(name).compare(before, data) {
            Match::Whole(used) => {
                data = &data[used..];
                app.matched(io, conn, line.tag);
            }
            Match::Partial => {
                line.coming = Some((name, before + data.len()));
                return None;
            }
            Match::Differs => {
                let why = format!("reply {} differs", name.sequence);
                io.tally.note(Problem::Corrupted, 1, || format!("connection {}: {why}", line.tag));
                line.fails(|| why);
                return Some(Gone::Failed);
            }
        }
    }
    None
}

pub(super) fn read_http<A: App>(line: &mut Line, io: &mut Io, app: &mut A, conn: u32, data: &[u8]) -> Option<Gone> {
    line.head.extend_from_slice(data);
    let mut used = 0;
    let malformed = loop {
        let mut fields = [httparse::EMPTY_HEADER; 64];
        let mut response = httparse::Response::new(&mut fields);
        let head = match response.parse(&line.head[used..]) {
            Ok(httparse::Status::Complete(head)) => head,
            Ok(httparse::Status::Partial) => break line.head.len() - used > HTTP_BYTES_MAX,
            Err(_) => break true,
        };
        let length = response.headers.iter().find(|field| field.name.eq_ignore_ascii_case("content-length"));
        let length = length.and_then(|field| std::str::from_utf8(field.value).ok()?.trim().parse::<usize>().ok());
        let Some(length) = length.filter(|&length| length <= HTTP_BYTES_MAX) else { break true };
        if line.head.len() - used < head + length {
            break false;
        }
        let status = response.code.unwrap_or_default();
        let body = &line.head[used + head..used + head + length];
        used += head + length;
        app.responded(io, conn, line.tag, status, body);
    };
    line.head.drain(..used);
    if malformed {
        line.fails(|| "not an HTTP response with a Content-Length".to_owned());
        return Some(Gone::Failed);
    }
    None
}
