//! Rooms on one core: a message to a thousand members, and joining and leaving. The times are per publish and tick, or per
//! pair of join and leave; the throughput of `publish` counts messages delivered.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ringwire::config::SlowConsumer;
use ringwire::hub::CoreHub;
use ringwire::hub::IdKey;
use ringwire::mail::PostOffice;
use ringwire::outbox::Outbox;
use ringwire::proto::{Kind, Spares};

const MEMBERS: u32 = 1000;

fn hub() -> CoreHub {
    let (post, _) = PostOffice::new(1, 1).take(0);
    let mut hub = CoreHub::new(IdKey::default(), post, Outbox::new(1 << 20), Spares::new(1 << 20), SlowConsumer::Close);
    for slot in 0..MEMBERS {
        hub.outbox.open(slot, 0);
        hub.enter(slot, 0, 0);
    }
    hub
}

fn publish(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("publish to 1,000");
    group.throughput(Throughput::Elements(u64::from(MEMBERS)));
    for len in [64, 4096] {
        let mut hub = hub();
        let room = hub.room("room");
        for slot in 0..MEMBERS {
            hub.join(slot, "room").expect("an open connection");
        }
        let payload = vec![7; len];
        group.bench_function(BenchmarkId::from_parameter(len), |bencher| {
            bencher.iter(|| {
                let delivery = hub.publish(room, Kind::Binary, black_box(&payload), None, None);
                black_box(hub.outbox.batch().count());
                hub.outbox.settle(|_| {});
                delivery
            });
        });
    }
    group.finish();
}

fn membership(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("join and leave");
    for (name, others) in [("a room of 1,000", MEMBERS - 1), ("a room of its own", 0)] {
        let mut hub = hub();
        for slot in 1..=others {
            hub.join(slot, "room").expect("an open connection");
        }
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let joined = hub.join(0, black_box("room"));
                (joined, hub.leave(0, black_box("room")))
            });
        });
    }
    group.finish();
}

criterion_group!(benches, publish, membership);
criterion_main!(benches);
