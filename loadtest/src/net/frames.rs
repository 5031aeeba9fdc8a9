//! Reading WebSocket frames: what is due is compared piece by piece as it comes; what differs goes through the protocol
//! machine.

use ringwire::{
    proto::{Event, Limits, Spares, frame::put_masked_frame},
    quote::quoted,
};

use crate::{
    net::{
        App, Gone, Io, Received,
        line::{Line, State},
    },
    problems::Problem,
    wire::Match,
};

/// Reads frames; says whether the connection is over.
pub(super) fn read_frames<A: App>(
    line: &mut Line,
    io: &mut Io,
    app: &mut A,
    conn: u32,
    data: &mut [u8],
    limits: &Limits,
    spares: &mut Spares,
) -> Option<Gone> {
    let tag = line.tag;
    let messages = io.messages;
    let mut at = 0;
    while at < data.len() {
        // Between frames, and nothing closing: what is due can be compared as it comes. What has begun so goes on so, whoever closes
        // meanwhile: the machine has not seen its beginning.
        if line.machine.memory_bytes() == 0 && (line.machine.is_open() || line.coming.is_some()) {
            let coming = line.coming.take().or_else(|| app.due(tag).map(|name| (name, 0)));
            if let Some((name, before)) = coming {
                let parts = messages.reply(name);
                match parts.compare(before, &data[at..]) {
                    Match::Whole(used) => {
                        at += used;
                        if before == 0 || app.due(tag) == Some(name) {
                            app.matched(io, conn, tag);
                        } else {
                            app.received(io, conn, tag, Received { kind: messages.kind, payload: &parts.payload() });
                        }
                        continue;
                    }
                    Match::Partial => {
                        line.coming = Some((name, before + data.len() - at));
                        return None;
                    }
                    Match::Differs if before > 0 => {
                        // The machine has to see the frame from its beginning: what has come was as expected.
                        let mut again = parts.prefix(before);
                        let (mut used, mut ended) = (0, None);
                        while ended.is_none() && used < again.len() {
                            ended = read_event(line, io, app, conn, &mut again, &mut used, limits, spares);
                        }
                        if ended.is_some() {
                            return ended;
                        }
                    }
                    Match::Differs => {}
                }
            }
        }
        if let Some(gone) = read_event(line, io, app, conn, data, &mut at, limits, spares) {
            return Some(gone);
        }
    }
    None
}

/// Lets the machine take one event out of `data[*at..]`, or all of it; says whether the connection is over.
#[allow(clippy::too_many_arguments)]
fn read_event<A: App>(
    line: &mut Line,
    io: &mut Io,
    app: &mut A,
    conn: u32,
    data: &mut [u8],
    at: &mut usize,
    limits: &Limits,
    spares: &mut Spares,
) -> Option<Gone> {
    let tag = line.tag;
    let leaving = matches!(line.state, State::Leaving(_));
    let (outbox, keys) = (&mut io.outbox, &mut io.keys);
    let mut reply = |opcode, payload: &[u8]| {
        let key = keys.key();
        outbox.put(conn, |out| put_masked_frame(out, opcode, payload, key));
    };
    match line.machine.next(data, at, limits, spares, &mut reply)? {
        Event::Message(message) => {
            app.received(io, conn, tag, Received { kind: message.kind, payload: &message.payload });
            None
        }
        Event::Ping(_) => None,
        Event::Pong(payload) => {
            app.pong(io, tag, payload);
            None
        }
        Event::Close { code, reason } => {
            *io.tally.closes.entry(code.unwrap_or(1005)).or_default() += 1;
            if leaving {
                // The server ends the connection; the end of file comes next.
                return None;
            }
            let why = format!("Close {} {}", code.unwrap_or(1005), quoted(reason));
            line.fails(|| why);
            Some(Gone::Failed)
        }
        Event::Failed(error) => {
            let why = format!("the server broke the protocol: {error}");
            io.tally.note(Problem::Corrupted, 1, || format!("connection {tag}: {why}"));
            line.fails(|| why);
            Some(Gone::Failed)
        }
    }
}
