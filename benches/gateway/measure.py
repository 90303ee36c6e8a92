"""Starts each gateway in front of the fixture, loads it, and reads from /proc what it cost: measure.py CACHE [RIVAL...].

CPU is user and system time of the gateway and all its children, those that have ended included, divided by the requests
that were answered. The load's own CPU is not in it. Memory is the gateway's alone; its children are counted apart.
Standard library only.
"""

import json
import os
import pathlib
import shlex
import signal
import socket
import subprocess
import sys
import time

TICK = os.sysconf("SC_CLK_TCK")
SECONDS = os.environ.get("SECONDS_EACH", "4")
cache = pathlib.Path(sys.argv[1]).resolve()
fixture = str(cache / "target/release/fixture")
load = str(cache / "target/release/load")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def family(root):
    parents = {}
    for entry in pathlib.Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                pass
    found, more = {root}, {root}
    while more:
        more = {pid for pid, parent in parents.items() if parent in more} - found
        found |= more
    return found


def cpu(root):
    """Seconds used by `root` and all below it, ended children included."""
    total = 0
    for pid in family(root):
        try:
            fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            total += sum(map(int, fields[11:15]))
        except OSError:
            pass
    return total / TICK


def memory(pid, what):
    try:
        return int(pathlib.Path(f"/proc/{pid}/status").read_text().split(what + ":")[1].split()[0]) / 1024
    except (OSError, IndexError):
        return 0.0


class Gateway:
    def __init__(self, line, log):
        self.port = free_port()
        self.line = [word.replace("{port}", str(self.port)) for word in line]
        self.process = subprocess.Popen(
            self.line, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
        self.pid = self.process.pid

    def own(self):
        """The gateway's own processes: npm's and Python's may have a parent that only waits."""
        return [pid for pid in family(self.pid) if os.path.basename(os.readlink(f"/proc/{pid}/exe")) != "fixture"]

    def peak(self):
        return sum(memory(pid, "VmHWM") for pid in self.own())

    def resident(self):
        return sum(memory(pid, "VmRSS") for pid in self.own())

    def stop(self):
        pids = family(self.pid)
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(3)
        except subprocess.TimeoutExpired:
            pass
        for pid in pids | family(self.pid):
            try:
                os.kill(pid, signal.SIGKILL)
            except OSError:
                pass
        self.process.wait()


class Load:
    def __init__(self, mode, gateway, path, sessions=1, in_flight=1, seconds=SECONDS):
        arguments = [load, mode, f"127.0.0.1:{gateway.port}", path, str(sessions), str(in_flight), str(seconds)]
        self.process = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def ready(self):
        line = self.process.stdout.readline()
        if line.strip() != "ready":
            raise RuntimeError(self.process.communicate()[1].strip()[:200] or "no load")

    def finish(self):
        said, error = self.process.communicate("\n", timeout=300)
        if self.process.returncode:
            raise RuntimeError(error.strip()[:200])
        return json.loads(said.strip().splitlines()[-1]), error.strip()


def rows():
    framewire = [*shlex.split(os.environ["FRAMEWIRE"]), "bridge", "--listen", "http://127.0.0.1:{port}/mcp", "--max-message-size", "64MiB"]
    modules = cache / "node_modules"
    supergateway = ["node", str(modules / "supergateway/dist/index.js"), "--stdio", fixture, "--port", "{port}", "--logLevel", "none"]
    proxy = f"from fastmcp.server import create_proxy; from fastmcp.client.transports import StdioTransport; create_proxy(StdioTransport({fixture!r}, [])).run(transport='http', host='127.0.0.1', port={{port}}, show_banner=False, log_level='ERROR')"
    known = {
        "framewire": ("http", "/mcp", [*framewire, "--", fixture]),
        "framewire --shared": ("http", "/mcp", [*framewire, "--shared", "--", fixture]),
        "framewire, WebSocket": ("ws", "/mcp", [*framewire, "--", fixture]),
        "supergateway": ("http", "/mcp", [*supergateway, "--outputTransport", "streamableHttp", "--stateful", "--streamableHttpPath", "/mcp"]),
        "supergateway-ws": ("ws", "/message", [*supergateway, "--outputTransport", "ws"]),
        "npm-mcp-proxy": ("http", "/mcp", ["node", str(modules / "mcp-proxy/dist/bin/mcp-proxy.mjs"), "--port", "{port}", "--host", "127.0.0.1", "--server", "stream", "--", fixture]),
        "python-mcp-proxy": ("http", "/mcp", [str(cache / "venv-mcp-proxy/bin/mcp-proxy"), "--port", "{port}", "--log-level", "ERROR", fixture]),
        "fastmcp": ("http", "/mcp", [str(cache / "venv-fastmcp/bin/python"), "-c", proxy]),
    }
    own = os.environ.get("ONLY_RIVALS") != "1"
    for name, row in known.items():
        if name.startswith("framewire") and own or name in sys.argv[2:]:
            yield name, *row


def measure(name, mode, path, line, log):
    found = {"name": name}

    def attempt(what, run):
        try:
            run()
        except (RuntimeError, subprocess.TimeoutExpired, OSError, ValueError, IndexError) as error:
            found[what] = None
            print(f"{name}: {what}: {error}", file=sys.stderr)

    def start():
        times = []
        for _ in range(5 if name.startswith("framewire") else 2):
            gateway = Gateway(line, log)
            try:
                took, _ = Load("first", gateway, path if mode == "http" else f"ws:{path}").finish()
                times.append(took["seconds"])
            finally:
                gateway.stop()
        found["first"] = sorted(times)[len(times) // 2]

    def loads(sessions, in_flight, key):
        gateway = Gateway(line, log)
        try:
            # Up already when the load begins: its first connection may not be refused.
            Load("first", gateway, path if mode == "http" else f"ws:{path}").finish()
            one = Load(mode, gateway, path, sessions, in_flight)
            one.ready()
            before = cpu(gateway.pid)
            said, _ = one.finish()
            spent = cpu(gateway.pid) - before
            found[key] = {
                "cpu": spent / said["requests"] * 1e6, "rate": said["requests"] / said["seconds"], "p50": said["p50_us"],
                "p99": said["p99_us"], "peak": gateway.peak(), "children": len(family(gateway.pid)) - len(gateway.own()),
            }
        finally:
            gateway.stop()

    def idle():
        gateway = Gateway([*line], log)
        try:
            Load("first", gateway, path).finish()
            one = Load("idle", gateway, path, 1000)
            one.ready()
            found["idle"] = gateway.resident()
            one.finish()
        finally:
            gateway.stop()

    def large():
        gateway = Gateway(line, log)
        try:
            Load("first", gateway, path).finish()
            one = Load("large", gateway, path)
            one.ready()
            said, more = one.finish()
            found["large"] = {"ping": said["p50_us"] / 1000, "peak": gateway.peak(), "more": more}
        finally:
            gateway.stop()

    attempt("first", start)
    for sessions, in_flight in ((1, 1), (1, 16), (50, 16)):
        attempt((sessions, in_flight), lambda s=sessions, n=in_flight: loads(s, n, (s, n)))
    if mode == "http" and (name.startswith("framewire") or os.environ.get("RIVALS_IDLE") == "1"):
        attempt("idle", idle)
        attempt("large", large)
    return found


def number(value, form="{:,.0f}"):
    return "–" if value is None else form.format(value)


def main():
    log = open(cache / "gateways.log", "ab")
    every = [measure(*row, log) for row in rows()]
    print("| gateway | start → first answer | CPU µs/request, 1 / 16 in flight | requests/s at 16, 1 / 50 sessions | p50 µs, 1 in flight | peak RSS at 50 sessions, MB | idle, 1,000 sessions, MB | ping beside 20 MB, ms (peak RSS, MB) |")
    print("|---|---|---|---|---|---|---|---|")
    get = lambda row, key, what: (row.get(key) or {}).get(what)
    for row in every:
        big = row.get("large")
        children = get(row, (50, 16), "children")
        cells = [
            row["name"], number(row.get("first"), "{:.3f} s"),
            number(get(row, (1, 1), "cpu")) + " / " + number(get(row, (1, 16), "cpu")),
            number(get(row, (1, 16), "rate")) + " / " + number(get(row, (50, 16), "rate")),
            number(get(row, (1, 1), "p50")),
            number(get(row, (50, 16), "peak"), "{:.1f}") + (f" + {children} children" if children else ""),
            number(row.get("idle"), "{:.1f}"),
            f"{big['ping']:.2f} ({big['peak']:.0f}); {big['more']}" if big else "–",
        ]
        print("| " + " | ".join(cells) + " |", flush=True)
    for kind in ("http", "ws"):
        ours = next((row for row in every if row["name"] == ("framewire" if kind == "http" else "framewire, WebSocket")), None)
        for row in every:
            if ours is None or row["name"].startswith("framewire") or row["name"].endswith("-ws") != (kind == "ws"):
                continue
            parts = []
            for key, what, text in (((1, 1), "cpu", "CPU at 1"), ((1, 16), "cpu", "CPU at 16"), ((1, 16), "rate", "requests/s, 1 session"), ((50, 16), "rate", "requests/s, 50 sessions")):
                a, b = get(ours, key, what), get(row, key, what)
                if a and b:
                    parts.append(f"{text} {b / a if what == 'cpu' else a / b:.1f} ×")
            print(f"{row['name']} / {ours['name']}: " + ", ".join(parts))
    print(json.dumps([{str(key): value for key, value in row.items()} for row in every]), file=sys.stderr)


main()
