"""What the programs of this folder share: a server of their own and what it takes, a WebSocket by hand, rows with their bars.

Built binaries are looked for in target/release (or CARGO_TARGET_DIR's); RINGWIRE names another server to be measured.
"""

import atexit
import base64
import json
import os
import re
import shutil
import signal
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time
import urllib.request

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BIN = os.path.join(os.environ.get("CARGO_TARGET_DIR", os.path.join(ROOT, "target")), "release")
PROGRAM = os.environ.get("RINGWIRE", os.path.join(BIN, "ringwire"))
LOADTEST = os.path.join(BIN, "ringwire-loadtest")
SERVER_CPU, CLIENT_CPU = "0", "1"
# A folder for as long as the program runs.
WORK = tempfile.mkdtemp(prefix="ringwire-bench-")
OWNER = os.getpid()
started = []
missed = []


@atexit.register
def end_all():
    # Not in a process that was forked off.
    if os.getpid() != OWNER:
        return
    for process in started:
        process.kill()
    shutil.rmtree(WORK, ignore_errors=True)


def certificate():
    """A certificate for this machine, ECDSA P-256, and its key: made once."""
    pem, key = f"{WORK}/own.pem", f"{WORK}/own.key"
    if not os.path.exists(pem):
        command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj /CN=localhost"
        names = ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-addext", "basicConstraints=CA:FALSE"]
        subprocess.run([*command.split(), *names, "-keyout", key, "-out", pem], check=True, stderr=subprocess.DEVNULL)
    return pem, key


class Server:
    """A fresh server on one core; `cpu`: on that processor alone; `also`: one more scheme, on a port of its own.

    `purges`: freed memory goes back at once, so that what is resident is what is held; that costs time, TLS above all, and users
    have it otherwise.
    """

    def __init__(self, *arguments, scheme="ws", also=None, cpu=None, purges=False):
        pinned = [] if cpu is None else ["taskset", "-c", cpu]
        addresses = ",".join(f"{each}://127.0.0.1:0" for each in (scheme, also) if each)
        command = [*pinned, PROGRAM, f"--addr={addresses}", "--log=warn", *arguments]
        if not any(argument.startswith("--cores=") for argument in arguments):
            command.append("--cores=1")
        if scheme == "wss":
            self.pem, key = certificate()
            command += [f"--tls-cert={self.pem}", f"--tls-key={key}"]
        self.begin(command, purges)

    def begin(self, command, purges, **variables):
        if purges:
            variables["MIMALLOC_PURGE_DELAY"] = "0"
        environment = {**os.environ, **variables}
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        started.append(self.process)
        found = re.findall(r"wss?://[^ ,]+:\d+", self.process.stdout.readline())
        self.url, self.ports = found[0], [int(url.rsplit(":", 1)[1]) for url in found]
        self.port = self.ports[0]

    def rss_bytes(self):
        with open(f"/proc/{self.process.pid}/smaps_rollup") as rollup:
            return int(re.search(r"^Rss: +(\d+) kB", rollup.read(), re.M).group(1)) << 10

    def rss_peak_bytes(self):
        """The most that it ever was, or since `forget_peak`."""
        with open(f"/proc/{self.process.pid}/status") as status:
            return int(re.search(r"^VmHWM:\s+(\d+) kB", status.read(), re.M).group(1)) << 10

    def forget_peak(self):
        with open(f"/proc/{self.process.pid}/clear_refs", "w") as refs:
            refs.write("5")

    def cpu_s(self):
        with open(f"/proc/{self.process.pid}/stat") as stat:
            fields = stat.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def metric(self, name):
        """Summed over its labels."""
        with urllib.request.urlopen(self.url.replace("ws", "http", 1) + "/metrics") as metrics:
            values = re.findall(rf"^{name}(?:{{[^}}]*}})? (\S+)$", metrics.read().decode(), re.M)
        return sum(map(float, values))

    def connect(self, place=0):
        """To its first address, or another."""
        return socket.create_connection(("127.0.0.1", self.ports[place]), timeout=30)

    def end(self):
        self.process.terminate()
        self.process.wait(20)
        started.remove(self.process)


class Load:
    """The load generator against a server, in the background."""

    number = 0

    def __init__(self, scenario, url, *arguments, pid=None):
        Load.number += 1
        self.out = f"{WORK}/figures-{Load.number}.json"
        self.command = [LOADTEST, scenario, *map(str, arguments), "--quiet", "--json", self.out]
        self.command += ["--url", url] if url else []
        self.command += ["--server-pid", str(pid)] if pid else []
        self.process = subprocess.Popen(self.command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        started.append(self.process)

    def figures(self, code=0):
        """When it is over; it must have ended with this exit code, if with any."""
        said, _ = self.process.communicate()
        started.remove(self.process)
        if code is not None and self.process.returncode != code:
            sys.exit(f"{' '.join(self.command)}\n{said}")
        with open(self.out) as figures:
            return json.load(figures)

    def interrupt(self):
        """Ends it early, with a report."""
        self.process.send_signal(signal.SIGINT)


def measured(server, scenario, path, *arguments):
    """What a load has found, and what it took of the server."""
    return Load(scenario, server.url + path, *arguments, pid=server.process.pid).figures()


def frame(first, payload):
    """A client's, masked with zeros."""
    size = len(payload)
    if size < 126:
        head = struct.pack("!BB", first, 0x80 | size)
    elif size < 1 << 16:
        head = struct.pack("!BBH", first, 0x80 | 126, size)
    else:
        head = struct.pack("!BBQ", first, 0x80 | 127, size)
    return head + bytes(4) + payload


class WebSocket:
    """One by hand: `over` is a connected socket, maybe with TLS."""

    def __init__(self, over, path="/echo", offer=None):
        self.socket, self.come = over, b""
        extensions = f"Sec-WebSocket-Extensions: {offer}\r\n" if offer else ""
        key = base64.b64encode(os.urandom(16)).decode()
        self.socket.sendall(
            f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n{extensions}\r\n".encode()
        )
        while b"\r\n\r\n" not in self.come:
            self.read()
        head, self.come = self.come.split(b"\r\n\r\n", 1)
        assert b" 101 " in head, head
        assert not offer or b"permessage-deflate" in head, head

    def read(self):
        more = self.socket.recv(1 << 16)
        assert more, "the connection has ended"
        self.come += more

    def take(self, count):
        while len(self.come) < count:
            self.read()
        taken, self.come = self.come[:count], self.come[count:]
        return taken

    def frame(self):
        """The next one's first byte and payload."""
        first, size = self.take(2)
        if size == 126:
            (size,) = struct.unpack("!H", self.take(2))
        elif size == 127:
            (size,) = struct.unpack("!Q", self.take(8))
        return first, self.take(size)

    def ask(self):
        """Microseconds that an echo takes."""
        payload = os.urandom(64)
        began = time.perf_counter()
        self.socket.sendall(frame(0x82, payload))
        _, answer = self.frame()
        assert answer == payload
        return (time.perf_counter() - began) * 1e6

    def p99_us(self, seconds):
        """Of echoes in this time, asked every two milliseconds; and how many they were."""
        took, until = [], time.monotonic() + seconds
        while time.monotonic() < until:
            took.append(self.ask())
            time.sleep(0.002)
        return p99(took), len(took)


def p99(values):
    return statistics.quantiles(values, n=100)[98]


def heading(width=62):
    print(f"{'':<{width}} {'measured':>16} {'bar':>16}")


def row(what, value, bar, is_met, width=62):
    print(f"{what:<{width}} {value:>16} {bar:>16} {'ok' if is_met else 'MISSED'}", flush=True)
    if not is_met:
        missed.append(what)


def told(what, value, width=62):
    """A row without a bar."""
    print(f"{what:<{width}} {value:>16} {'-':>16}", flush=True)


def finish():
    sys.exit(1 if missed else 0)
