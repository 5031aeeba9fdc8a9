//! Text checks: whole messages against std, and the same in pieces.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ringwire::proto::utf8::{self, Utf8};

fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("utf8");
    for len in [16, 64, 256, 1024, 16 * 1024, 1024 * 1024] {
        group.throughput(Throughput::Bytes(len as u64));
        let ascii = "x".repeat(len);
        let mixed: String = "Grüße, κόσμε! 🦀 ".chars().cycle().take(len / 2).collect();
        for (name, text) in [("ascii", ascii.as_bytes()), ("mixed", mixed.as_bytes())] {
            group.bench_function(BenchmarkId::new(format!("{name}/whole"), len), |bencher| {
                bencher.iter(|| utf8::is_valid(black_box(text)));
            });
            group.bench_function(BenchmarkId::new(format!("{name}/std"), len), |bencher| {
                bencher.iter(|| std::str::from_utf8(black_box(text)).is_ok());
            });
            group.bench_function(BenchmarkId::new(format!("{name}/pieces"), len), |bencher| {
                bencher.iter(|| {
                    let mut utf8 = Utf8::new();
                    text.chunks(2000).all(|piece| utf8.push(black_box(piece)).is_ok())
                });
            });
        }
    }
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
