//! Masking in place and while copying, aligned and not, against the scalar loop.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ringwire::proto::mask;

const KEY: [u8; 4] = [0x37, 0xFA, 0x21, 0x3D];
const LENGTHS: [usize; 9] = [1, 8, 64, 125, 256, 1024, 16 * 1024, 128 * 1024, 1024 * 1024];

fn scalar(key: [u8; 4], data: &mut [u8]) {
    for (i, byte) in data.iter_mut().enumerate() {
        *byte ^= key[i & 3];
    }
}

fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("mask");
    for len in LENGTHS {
        group.throughput(Throughput::Bytes(len as u64));
        let mut data = vec![7; len + 64];
        // Cache-line aligned, then one byte off.
        let start = data.as_ptr().align_offset(64);
        for (name, start) in [("aligned", start), ("unaligned", start + 1)] {
            group.bench_function(BenchmarkId::new(name, len), |bencher| {
                let data = &mut data[start..start + len];
                bencher.iter(|| mask::apply(black_box(KEY), 0, black_box(data)));
            });
        }
        group.bench_function(BenchmarkId::new("copy", len), |bencher| {
            let mut out = Vec::with_capacity(len);
            bencher.iter(|| {
                out.clear();
                mask::copy_into(black_box(KEY), 0, black_box(&data[..len]), black_box(&mut out));
            });
        });
        group.bench_function(BenchmarkId::new("scalar", len), |bencher| {
            bencher.iter(|| scalar(black_box(KEY), black_box(&mut data[..len])));
        });
    }
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
