//! Frames: a buffer of 16 pipelined messages through the machine, the same echoed, and encoding alone. The times are per
//! buffer of 16.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ringwire::proto::frame::{put_frame, put_masked_frame};
use ringwire::proto::{Event, Limits, Machine, Opcode, Role, Spares};

const FRAMES: usize = 16;
const KEY: [u8; 4] = [0x37, 0xFA, 0x21, 0x3D];
const LIMITS: Limits = Limits { message_bytes_max: 1 << 24, fragments_max: 1 << 17 };

/// One pass over `input`; what it does with each message is up to `each`. Unmasking scrambles the input, which is copied
/// fresh each time: `decode/copy` is the price of that alone.
fn decode(machine: &mut Machine, spares: &mut Spares, input: &mut [u8], mut each: impl FnMut(&[u8])) {
    let mut consumed = 0;
    let mut replies = |_: Opcode, _: &[u8]| {};
    while let Some(event) = machine.next(input, &mut consumed, &LIMITS, spares, &mut replies) {
        match event {
            Event::Message(message) => each(message.payload.as_slice()),
            other => panic!("{other:?}"),
        }
    }
}

fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("frame");
    group.throughput(Throughput::Elements(FRAMES as u64));
    for len in [0, 16, 64, 125, 512, 4096] {
        for (name, opcode) in [("binary", Opcode::Binary), ("text", Opcode::Text)] {
            let mut bytes = Vec::new();
            for _ in 0..FRAMES {
                put_masked_frame(&mut bytes, opcode, &vec![b'x'; len], KEY);
            }
            let mut input = bytes.clone();
            let mut machine = Machine::new(Role::Server);
            let mut spares = Spares::new(1 << 20);
            if opcode == Opcode::Binary {
                group.bench_function(BenchmarkId::new("decode/copy", len), |bencher| {
                    bencher.iter(|| input.copy_from_slice(black_box(&bytes)));
                });
            }
            group.bench_function(BenchmarkId::new(format!("decode/{name}"), len), |bencher| {
                bencher.iter(|| {
                    input.copy_from_slice(black_box(&bytes));
                    decode(&mut machine, &mut spares, &mut input, |payload| {
                        black_box(payload);
                    });
                });
            });
            group.bench_function(BenchmarkId::new(format!("echo/{name}"), len), |bencher| {
                let mut out = Vec::new();
                bencher.iter(|| {
                    out.clear();
                    input.copy_from_slice(black_box(&bytes));
                    decode(&mut machine, &mut spares, &mut input, |payload| {
                        put_frame(&mut out, opcode, payload);
                    });
                    black_box(&out);
                });
            });
        }
        let payload = vec![b'x'; len];
        group.bench_function(BenchmarkId::new("encode", len), |bencher| {
            let mut out = Vec::new();
            bencher.iter(|| {
                out.clear();
                for _ in 0..FRAMES {
                    put_frame(black_box(&mut out), Opcode::Binary, black_box(&payload));
                }
            });
        });
    }
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
