//! What it costs to queue a tick's messages and to settle them once the sockets have taken them. The times are per tick;
//! the throughput counts messages delivered.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ringwire::outbox::{Outbox, Queued, Stretch};
use ringwire::proto::Opcode;

fn outbox(connections: u32) -> Outbox {
    let mut outbox = Outbox::new(1 << 20);
    (0..connections).for_each(|slot| outbox.open(slot, 0));
    outbox
}

/// Looks at the batch as the ring does, and lets every send succeed.
fn settle(outbox: &mut Outbox) {
    for send in outbox.batch() {
        if let Stretch::One(bytes) = send.bytes {
            black_box(bytes.as_ptr());
        }
    }
    outbox.settle(|_| {});
}

fn echo(criterion: &mut Criterion) {
    const MESSAGES: usize = 16;
    let mut group = criterion.benchmark_group("outbox");
    group.throughput(Throughput::Elements(MESSAGES as u64));
    let mut outbox = outbox(1);
    let payload = [7; 64];
    group.bench_function("echo 64 B x 16", |bencher| {
        bencher.iter(|| {
            for _ in 0..MESSAGES {
                let queued = outbox.send(0, Opcode::Binary, black_box(&payload));
                debug_assert_eq!(queued, Queued::Yes);
            }
            settle(&mut outbox);
        });
    });
    group.finish();
}

fn fan_out(criterion: &mut Criterion) {
    const CONNECTIONS: u32 = 1000;
    let mut group = criterion.benchmark_group("outbox");
    for (name, messages, len) in
        [("1 x 64 B to 1,000", 1, 64), ("8 x 64 B to 1,000", 8, 64), ("1 x 4 KiB to 1,000", 1, 4096)]
    {
        group.throughput(Throughput::Elements(messages * u64::from(CONNECTIONS)));
        let mut outbox = outbox(CONNECTIONS);
        let payload = vec![7; len];
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                for _ in 0..messages {
                    let frame = outbox.encode(Opcode::Binary, black_box(&payload)).expect("the arena has room");
                    for slot in 0..CONNECTIONS {
                        black_box(outbox.queue(slot, frame));
                    }
                }
                settle(&mut outbox);
            });
        });
    }
    group.finish();
}

criterion_group!(benches, echo, fan_out);
criterion_main!(benches);
