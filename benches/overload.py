#!/usr/bin/env python3
"""What a stalled reader and too much load do to everybody else.

    cargo build --release -p ringwire -p ringwire-loadtest && benches/overload.py [--rounds N] [--quick]

Prints a table and exits 1 when a bar is missed:

- one reader among 1,000 that stalls changes the others' 99th percentile by less than 10 %; its outbox holds no more than it
  may, and resident memory grows by that and what the allocator takes with it;
- at twice the rate that the server can sustain, what it answers stays at 92 % of that rate or more, and within a second
  of the end a connection that stayed all the time is answered as it was before.

Rounds with a stall, and such in which nobody stalls, take turns. What is compared is the 99th percentiles of the seconds behind the
middle of a round with those before it, medians each, and a round with a stall with the one beside it: what a round brings with it, and
what the machine does to a second here and there, is in neither. The same of goodput: each flood is held against the peaks just before
and just behind it.

A message to 1,000 takes a core some milliseconds, so the 99th percentile is about when the last of them has it. 40 a second leave the
core 40 % of its time.

Server and load generator share the machine's processors, so run it on an idle one.
"""

import argparse
import statistics
import time

from common import Load, Server, finish, heading, row

OUTBOX_BYTES_MAX = 1 << 20
# What the allocator may add: it takes memory in pieces of this size.
SLACK_BYTES = 1 << 20


def figures(scenario, url, *arguments):
    # Too much load is a problem to the load generator, too.
    return Load(scenario, url, *arguments).figures(None)


def window(series, begin_s, end_s):
    """The median of the intervals' 99th percentiles in a stretch of the run."""
    first = next(at for at, measured in zip(series["at_s"], series["measured"]) if measured)
    values = [p99 for at, p99 in zip(series["at_s"], series["p99_us"]) if begin_s <= at - first < end_s and p99]
    return statistics.median(values)


def stalled_reader(rounds, seconds):
    """The stall is in the middle of a round: the same connections before and after it."""
    changes, growths, outboxes = [], [], []
    for number in range(rounds):
        drift = {}
        # Neither is always the first.
        for stalls in (True, False) if number % 2 else (False, True):
            server = Server("--cores=0-0", "--slow-consumer=drop-old", f"--max-outbox={OUTBOX_BYTES_MAX}", purges=True)
            load = Load(
                "slow", f"{server.url}/broadcast", "--subscribers", 999, "--stalled", 1, "--rate", 40, "--size", 6000,
                "--duration", seconds, "--warmup", 2, "--pin", 1, "--stall-after", seconds / 2 if stalls else 3600,
            )
            time.sleep(2.5 + seconds / 2 - 2)
            before = server.rss_bytes()
            time.sleep(seconds / 2 - 1.5)
            if stalls:
                growths.append(server.rss_bytes() - before)
                # Of the connection with the most.
                outboxes.append(server.metric("ringwire_outbox_largest_bytes"))
            found = load.figures(None)
            server.end()
            was, is_now = window(found["series"], 0, seconds / 2), window(found["series"], seconds / 2 + 1, seconds)
            drift[stalls] = is_now / was
            print(f"    99th percentile {was:,.0f} us, then {is_now:,.0f} us {'with one stalled' if stalls else 'with none'}", flush=True)
        changes.append(drift[True] / drift[False] - 1)
    change = statistics.median(changes)
    row("one of 1,000 stalls: change of the others' p99", f"{change:+.1%}", "< 10 %", change < 0.10)
    held = max(outboxes)
    # A stalled reader whose outbox is nowhere near full would prove nothing.
    is_bounded = OUTBOX_BYTES_MAX / 2 < held <= OUTBOX_BYTES_MAX
    row("  bytes in its outbox", f"{held / 1024:.0f} KiB", "512..1024 KiB", is_bounded)
    growth = statistics.median(growths)
    row("  change of resident memory", f"{growth / 1024:.0f} KiB", "<= 2048 KiB", growth <= OUTBOX_BYTES_MAX + SLACK_BYTES)


def goodput(rounds, seconds):
    server = Server("--cores=0-0")
    shape = ["--connections", 64, "--threads", 1, "--pin", 1, "--pipeline", 32, "--duration", seconds]
    url = f"{server.url}/echo"

    def peak():
        return figures("echo", url, *shape)["messages_per_s"]

    before, shares = peak(), []
    for _ in range(rounds):
        flood = figures("echo", url, *shape, "--rate", 2 * before, "--warmup", 1, "--patience", 60)["messages_per_s"]
        behind = peak()
        shares.append(flood / statistics.mean([before, behind]))
        print(f"    sustainable {before:,.0f} /s and {behind:,.0f} /s; of twice as much answered {flood:,.0f} /s", flush=True)
        before = behind
    share = statistics.median(shares)
    row("twice the sustainable rate: answered of it", f"{share:.1%}", ">= 92 %", share >= 0.92)
    server.end()
    return before


def afterwards(sustainable, seconds):
    """A connection that is there before, during and after an overload."""
    server = Server("--cores=0-0")
    url = f"{server.url}/echo"
    probing = 4 * seconds
    probe = Load("echo", url, "--connections", 4, "--threads", 1, "--rate", 400, "--duration", probing, "--warmup", 1, "--patience", 60)
    began = time.monotonic() + 1.0
    time.sleep(1 + seconds / 2)
    figures(
        "echo", url, "--connections", 64, "--threads", 1, "--pin", 1, "--pipeline", 32, "--rate", 2 * sustainable,
        "--duration", seconds, "--warmup", 1, "--patience", 60,
    )
    ended = time.monotonic() - began
    probed = probe.figures(None)
    server.end()
    before, after = window(probed["series"], 0, seconds / 2 - 0.5), window(probed["series"], ended + 1, probing)
    row("  median of p99s, a second after it", f"{after:.0f} us", f"<= 2 x {before:.0f} us", after <= 2 * before)
    row("  lost by the connections that stayed", f"{probed['checks']['lost']}", "0", probed["checks"]["lost"] == 0)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="one round, for trying it out")
    arguments = parser.parse_args()
    rounds, stall_s, flood_s = (1, 40, 4) if arguments.quick else (arguments.rounds, 40, 8)
    heading()
    stalled_reader(rounds, stall_s)
    afterwards(goodput(rounds, flood_s), flood_s)
    finish()


main()
