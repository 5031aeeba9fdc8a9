#!/usr/bin/env python3
"""What TLS and permessage-deflate cost the server, row by row, each with its bar.

    cargo build --release && benches/secure_rows.py [--rounds N] [--seconds S] [--rows PART,PART] [--list]

The variants of a row take turns (A B A B), each time a fresh server on processor 0 with the load generator on processor 1. What
is compared is the server's CPU time per message, in microseconds: the median over the rounds, and its ratio to the first
variant's. Exits 1 when a bar is missed or a message was not as it should be.

Certificates are ECDSA P-256; both sides agree on TLS 1.3. New connections are made with X25519, of which the bars are, and with
X25519MLKEM768, which everything else has agreed on and whose cost of a handshake has no bar. Payloads of compressed rows are cuts of
a stream of JSON records (`--content json`).

Bars in microseconds are of a machine on which a plain echo of 1 KiB costs 3.24 of them. They stand as they are on any other; beside
each stands how many times a plain echo that was there, and what it is here.
"""

import argparse
import json
import statistics
import subprocess
import sys

from common import CLIENT_CPU, LOADTEST, SERVER_CPU, WORK, Server


# Where the bars in microseconds are from: a plain echo of 1 KiB.
PLAIN_US = 3.24


def serve(scheme, arguments, purges=False):
    return Server(*arguments, scheme=scheme, cpu=SERVER_CPU, purges=purges)


def load(server, scenario, path, arguments):
    out = f"{WORK}/figures.json"
    trust = ["--insecure"] if server.url.startswith("wss") else []
    command = [
        LOADTEST, scenario, server.url + path, "--quiet", "--json", out, "--pin", CLIENT_CPU,
        "--server-pid", str(server.process.pid), *trust, *arguments,
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
    with open(out) as figures:
        return json.load(figures)


class Variant:
    """One way of serving a row: what the server and the load generator are told beside the row's own."""

    def __init__(self, name, scheme="ws", server=(), load=(), bar=None, bar_us=None, ratio=None, key_exchange=None):
        self.name, self.scheme, self.server, self.load = name, scheme, list(server), list(load)
        self.bar, self.bar_us, self.ratio, self.key_exchange = bar, bar_us, ratio, key_exchange


class Row:
    def __init__(self, name, scenario, path, load, variants, figure="cpu_us_per_message", timed=True):
        self.name, self.scenario, self.path, self.load = name, scenario, path, load.split()
        self.variants, self.figure, self.timed = variants, figure, timed

    def sample(self, variant, seconds):
        server = serve(variant.scheme, variant.server)
        timed = ["--duration", str(seconds), "--warmup", "0.5"] if self.timed else []
        figures = load(server, self.scenario, self.path, self.load + variant.load + timed)
        if variant.key_exchange:
            agreed = figures["tls"]["agreed"]
            if not agreed or not all(f", {variant.key_exchange}," in words for words in agreed):
                sys.exit(f"{variant.name}: agreed on {agreed}")
        server.end()
        return figures


def secure(bar):
    return [Variant("ws"), Variant("wss", "wss", bar=bar)]


def connecting(kind, key_exchange, load=(), bar=None):
    load = ["--key-exchange", key_exchange.lower(), *load]
    return Variant(f"wss {kind}, {key_exchange}", "wss", load=load, bar=bar, key_exchange=key_exchange)


def deflate(mode, **bars):
    return Variant(f"deflate {mode}", server=[f"--deflate={mode}"], load=["--deflate"], **bars)


JSON = "--size 1KiB --content json"
ROWS = [
    Row("echo 64 x 64 B", "echo", "/echo", "--connections 64", secure(1.20)),
    Row("echo 64 x 64 B, 16 in flight", "echo", "/echo", "--connections 64 --pipeline 16", secure(1.12)),
    Row("echo 64 x 16 KiB", "echo", "/echo", "--connections 64 --size 16KiB", secure(1.75)),
    Row("fan-out 1,000 x 64 B", "broadcast", "/broadcast", "--subscribers 1000", secure(1.15)),
    # Eight handshakes at once: so many tickets are kept.
    Row(
        "connect + upgrade + echo", "connect", "/echo", "--connections 4000 --echo --concurrency 8",
        [
            Variant("ws"),
            connecting("full", "X25519", load=["--no-resumption"], bar=4.0),
            connecting("resumed", "X25519", bar=3.5),
            connecting("full", "X25519MLKEM768", load=["--no-resumption"]),
            connecting("resumed", "X25519MLKEM768"),
        ],
        figure="cpu_us_per_connection", timed=False,
    ),
    Row("echo 64 x 1 KiB JSON", "echo", "/echo", f"--connections 64 {JSON}", [
        Variant("plain"),
        deflate("stateless", bar_us=20, ratio=1.7),
        deflate("dedicated", bar_us=25, ratio=4.0),
    ]),
    Row("fan-out 1,000 x 1 KiB JSON", "broadcast", "/broadcast", f"--subscribers 1000 {JSON}", [
        Variant("plain"),
        deflate("stateless", bar=1.25),
        deflate("shared", bar=1.25, ratio=3.5),
    ]),
]


def measure(row, rounds, seconds):
    samples = {variant.name: [] for variant in row.variants}
    last = {}
    for _ in range(rounds):
        for variant in row.variants:
            figures = last[variant.name] = row.sample(variant, seconds)
            samples[variant.name].append(figures["server"][row.figure])
    print(f"{row.name}  (server CPU, us; median of {rounds} [lowest .. highest])")
    met, first, width = True, None, max(len(variant.name) for variant in row.variants)
    for variant in row.variants:
        each = sorted(samples[variant.name])
        median = statistics.median(each)
        first = first or median
        text = f"    {variant.name:<{width}} {median:9.3f}  [{each[0]:.3f} .. {each[-1]:.3f}]"
        judged = []
        if variant is not row.variants[0]:
            text += f"  ratio {median / first:.3f}"
        if variant.bar:
            judged.append((f"<= {variant.bar:.2f} x", median / first <= variant.bar))
        if variant.bar_us:
            judged.append((f"<= {variant.bar_us} us ({variant.bar_us / PLAIN_US:.1f} x plain there)", median <= variant.bar_us))
        if "deflate" in last[variant.name]:
            ratio = last[variant.name]["deflate"]["received"]["ratio"]
            text += f"  {ratio:.2f} to 1"
            if variant.ratio:
                judged.append((f">= {variant.ratio} to 1", ratio >= variant.ratio))
        if "tls" in last[variant.name] and row.figure == "cpu_us_per_connection":
            tls = last[variant.name]["tls"]
            text += f"  ({tls['full']} full, {tls['resumed']} resumed)"
        text += "".join(f"   {bar}: {'met' if is_met else 'MISSED'}" for bar, is_met in judged)
        met &= all(is_met for _, is_met in judged)
        print(text, flush=True)
    return met


def memory(name, scheme, arguments, scenario, path, load_arguments, count, warm=None):
    """Resident bytes a connection at the end of a run, above a server that has served before: so much more for one more."""
    server = serve(scheme, arguments, purges=True)
    if warm:
        load(server, scenario, path, load_arguments + warm)
    else:
        warm = [*(load_arguments or ["--size", "16KiB"]), *"--connections 16 --duration 1 --warmup 0".split()]
        load(server, "echo", "/echo", warm)
    before = server.rss_bytes()
    figures = load(server, scenario, path, load_arguments + count)
    server.end()
    each = (figures["server"]["rss_bytes"] - before) / figures["connections"]["ready"]
    print(f"    {name:<18} {each:9.0f} bytes a connection", end="")
    return each


def idle():
    met = True

    def judge(is_met, bar):
        nonlocal met
        met &= is_met
        print(f"   <= {bar} bytes: {'met' if is_met else 'MISSED'}", flush=True)

    print("memory of a connection after a message each way (resident, above a server that has served)")
    held = "--connections 10000 --echo --hold 1".split()
    memory("ws", "ws", [], "connect", "/echo", [], held)
    print()
    judge(memory("wss", "wss", [], "connect", "/echo", [], held) <= 4500, 4500)
    print("memory of a connection with 1 KiB of JSON each way, many times")
    compressed, count = f"{JSON} --deflate".split(), "--connections 1000 --duration 3 --warmup 0".split()
    judge(memory("deflate dedicated", "ws", ["--deflate=dedicated"], "echo", "/echo", compressed, count) <= 60_000, 60_000)
    print("memory of a subscriber, 1 KiB of JSON broadcast 100 times to 5,000")
    count = "--subscribers 5000 --count 100 --warmup 0".split()
    # What a core has once, a compressor, is there before.
    few = "--subscribers 16 --count 100 --warmup 0".split()
    plain = memory("plain", "ws", [], "broadcast", "/broadcast", JSON.split(), count, few)
    print()
    shared = memory("deflate shared", "ws", ["--deflate=shared"], "broadcast", "/broadcast", compressed, count, few)
    judge(shared - plain <= 64, f"plain + {64}")
    return met


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--rounds", type=int, default=7)
    arguments.add_argument("--seconds", type=float, default=2.0, help="measured seconds of a round")
    arguments.add_argument("--rows", default="", help="only rows with one of these in their names")
    arguments.add_argument("--list", action="store_true")
    asked = arguments.parse_args()
    if asked.list:
        print("\n".join([row.name for row in ROWS] + ["memory"]))
        return True
    wanted = [part for part in asked.rows.split(",") if part]
    is_wanted = lambda name: not wanted or any(part in name for part in wanted)
    met = True
    for row in ROWS:
        if is_wanted(row.name):
            met &= measure(row, asked.rounds, asked.seconds)
    if is_wanted("memory"):
        met &= idle()
    return met


if __name__ == "__main__":
    sys.exit(0 if main() else 1)
