//! Peers that do not keep up, by what their route says of them.

use std::ops::Range;

use ringwire::SlowConsumer;

use crate::rig::{Rig, Socket};
use crate::row::{long, number};

/// Messages of which the outbox holds some dozens, compressed or not.
const SENT: u32 = 300;

/// What arrives when the peer reads again.
fn read_on(rig: &mut Rig, client: &mut Socket) -> Vec<u32> {
    client.client.set_window(1 << 20);
    rig.pass_ms(10);
    client.texts().iter().map(|text| number(text)).collect()
}

fn flooded(rig: &mut Rig) -> Socket {
    let mut client = rig.open(0, "/den");
    client.client.set_window(100);
    client.text("flood");
    rig.pass_ms(10);
    client
}

row! {
    close;
    setup |setup| { setup.outbox_bytes_max = 64 << 10; }
    route |ws, log| {
        let lost = log.clone();
        ws.slow_consumer(SlowConsumer::Close)
            .on_drop(move |_, dropped| lost.add(dropped.newest.to_string()))
            .on_close(move |_, closed| log.add(closed.code.to_string()))
    };
    handler |peer, log, message| {
        let sent = (0..SENT).filter(|number| peer.send(long(*number)).is_queued()).count();
        log.add(format!("{}", (25..100).contains(&sent)));
    }
    client |rig, way, log| {
        let mut client = flooded(rig);
        client.client.set_window(1 << 20);
        rig.pass_ms(10);
        let events = client.events();
        assert_eq!(events.last(), Some(&crate::wire::Event::Close(Some(1013))));
        client.close(1013);
        rig.pass_ms(10);
        assert_eq!(log.take(), ["true", "1", "1013"]);
    }
}

/// Policies that drop messages one by one; of which ones a client still gets the last, or the first.
macro_rules! drops {
    ($name:ident, $policy:expr, $lost:ident, $kept:expr) => {
        row! {
            $name;
            setup |setup| { setup.outbox_bytes_max = 64 << 10; }
            route |ws, log| {
                let drained = log.clone();
                ws.slow_consumer($policy)
                    .on_drop(move |_, dropped| log.add(format!("lost {}", dropped.$lost)))
                    .on_drain(1_000, move |_| drained.add("drained"))
            };
            handler |peer, log, message| {
                for number in 0..SENT {
                    let _ = peer.send(long(number));
                }
            }
            client |rig, way, log| {
                let mut client = flooded(rig);
                let got = read_on(rig, &mut client);
                let count = got.len() as u32;
                assert!((25..100).contains(&count), "{count}");
                let kept: fn(u32) -> Range<u32> = $kept;
                assert_eq!(got, kept(count).collect::<Vec<_>>());
                assert_eq!(log.take(), [format!("lost {}", SENT - count), "drained".to_owned()]);
            }
        }
    };
}

drops!(drop_new, SlowConsumer::DropNew, newest, |count| 0..count);
drops!(drop_old, SlowConsumer::DropOld, oldest, |count| SENT - count..SENT);

row! {
    keep_latest;
    setup |setup| { setup.outbox_bytes_max = 64 << 10; }
    route |ws, log| ws.slow_consumer(SlowConsumer::KeepLatest);
    handler |peer, log, message| {
        for number in 0..SENT {
            let _ = peer.send_keyed([(number % 3) as u8], long(number));
        }
    }
    client |rig, way, log| {
        let mut client = flooded(rig);
        let got = read_on(rig, &mut client);
        assert!(got.len() < 100, "{}", got.len());
        // Each in the place of the one before it, wherever that was.
        let mut latest = got[got.len() - 3..].to_vec();
        latest.sort_unstable();
        assert_eq!(latest, [SENT - 3, SENT - 2, SENT - 1], "the latest of each key");
    }
}
