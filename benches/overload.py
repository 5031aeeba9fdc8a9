#!/usr/bin/env python3
"""What a stalled reader and too much load do to everybody else.

    cargo build --release -p ringwire -p ringwire-loadtest && benches/overload.py [--quick]

Prints a table and exits 1 when a bar is missed:

- one reader among 1,000 that stalls changes the others' 99th percentile by less than 10 %; its outbox holds no more than it
  may, and resident memory grows by that and what the allocator takes with it;
- at twice the rate that the server can sustain, what it answers stays at 90 % of that rate or more, and within a second
  of the end a connection that stayed all the time is answered as it was before.

Server and load generator share the machine's processors, so run it on an idle one. Latencies are medians over rounds.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

from common import LOADTEST, Server, finish as end, heading, row

QUICK = "--quick" in sys.argv
OUTBOX_BYTES_MAX = 1 << 20
# What the allocator may add: it takes memory in pieces of this size.
SLACK_BYTES = 1 << 20


def start(scenario, url, *arguments):
    out = tempfile.NamedTemporaryFile(suffix=".json", delete=False).name
    command = [LOADTEST, scenario, "--url", url, "--json", out, "--quiet", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL), out


def finish(load):
    process, out = load
    code = process.wait()
    with open(out) as figures:
        figures = json.load(figures)
    os.unlink(out)
    return code, figures


def run(scenario, url, *arguments):
    return finish(start(scenario, url, *arguments))[1]


def stalled_reader():
    """The stall is in the middle of each round: the same connections before and after it."""
    rounds, seconds = (1, 40) if QUICK else (3, 40)
    changes, growths, befores, whiles, outboxes = [], [], [], [], []
    for _ in range(rounds):
        server = Server("--cores=0-0", "--slow-consumer=drop-old", f"--max-outbox={OUTBOX_BYTES_MAX}", purges=True)
        load = start(
            "slow", f"{server.url}/broadcast", "--subscribers", 999, "--stalled", 1, "--rate", 40,
            "--size", 6000, "--duration", seconds, "--warmup", 2, "--pin", 1,
        )
        time.sleep(2.5 + seconds / 2 - 2)
        before = server.rss_bytes()
        time.sleep(seconds / 2 - 1.5)
        growths.append(server.rss_bytes() - before)
        # Of the connection with the most.
        outboxes.append(server.metric("ringwire_outbox_largest_bytes"))
        code, figures = finish(load)
        server.end()
        assert figures["while_stalled_us"]["count"] > 0, figures
        befores.append(figures["before_stall_us"]["p99"])
        whiles.append(figures["while_stalled_us"]["p99"])
        changes.append(whiles[-1] / befores[-1] - 1)
    print(f"99th percentile before: {[f'{us:.0f}' for us in befores]} us, while stalled: {[f'{us:.0f}' for us in whiles]} us")
    change = statistics.median(changes)
    row("one of 1,000 stalls: change of the others' p99", f"{change:+.1%}", "< 10 %", change < 0.10)
    held = max(outboxes)
    # A stalled reader whose outbox is nowhere near full would prove nothing.
    is_bounded = OUTBOX_BYTES_MAX / 2 < held <= OUTBOX_BYTES_MAX
    row("  bytes in its outbox", f"{held / 1024:.0f} KiB", "512..1024 KiB", is_bounded)
    growth = statistics.median(growths)
    row("  change of resident memory", f"{growth / 1024:.0f} KiB", "<= 2048 KiB", growth <= OUTBOX_BYTES_MAX + SLACK_BYTES)


def overload():
    seconds = 4 if QUICK else 8
    server = Server("--cores=0-0")
    url = f"{server.url}/echo"
    shape = ["--connections", 64, "--threads", 1, "--pin", 1]
    peaks = [run("echo", url, *shape, "--pipeline", 32, "--duration", seconds)["messages_per_s"] for _ in range(3)]
    peak = statistics.median(peaks)
    # A connection that is there before, during and after the overload.
    probing = 4 * seconds
    probe = start("echo", url, "--connections", 4, "--threads", 1, "--rate", 400, "--duration", probing,
                  "--warmup", 1, "--patience", 60)
    began = time.monotonic() + 1.0
    time.sleep(1 + seconds / 2)
    flood = run("echo", url, *shape, "--pipeline", 32, "--rate", 2 * peak, "--duration", seconds, "--warmup", 1,
                "--patience", 60)
    ended = time.monotonic() - began
    _, probed = finish(probe)
    goodput = flood["messages_per_s"]
    print(f"sustainable: {[f'{rate:,.0f}' for rate in peaks]} /s; offered {2 * peak:,.0f} /s, answered {goodput:,.0f} /s")
    row("twice the sustainable rate: answered of it", f"{goodput / peak:.1%}", ">= 90 %", goodput >= 0.9 * peak)
    series = probed["series"]
    before, after = window(series, 0, seconds / 2 - 0.5), window(series, ended + 1, probing)
    row("  median of p99s, a second after it", f"{after:.0f} us", f"<= 2 x {before:.0f} us", after <= 2 * before)
    row("  lost by the connections that stayed", f"{probed['checks']['lost']}", "0", probed["checks"]["lost"] == 0)
    server.end()


def window(series, begin_s, end_s):
    """The median of the intervals' 99th percentiles in a stretch of the run."""
    first = next(at for at, measured in zip(series["at_s"], series["measured"]) if measured)
    values = [p99 for at, p99 in zip(series["at_s"], series["p99_us"]) if begin_s <= at - first < end_s and p99]
    return statistics.median(values)


heading()
stalled_reader()
overload()
end()
