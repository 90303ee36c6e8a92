"""Runs every pairing of real clients, the framewire command and real servers, and compares the bytes at both ends.

    drive.py FRAMEWIRE CACHE [RMCP_SERVER]

FRAMEWIRE is the command under test (split at blanks), CACHE where `run` has put the peers, RMCP_SERVER the built example
`rmcp_server`. Between each client and the command, and between the command and each server, stands recorder.py; what it
kept on both sides has to be the same to the byte. Standard library only.
"""

import contextlib
import ctypes
import os
import pathlib
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
CASE_LIMIT = 90  # seconds for one client's whole scenario; the client's own limit is 60
GONE_LIMIT = 10  # seconds for processes to be gone after what should end them
PR_SET_CHILD_SUBREAPER = 36


class Failure(Exception):
    pass


def expect(condition, what):
    if not condition:
        raise Failure(what)


def descendants():
    """Every process below this one, name by id. Orphans count: this process adopts them (see main)."""
    parents, names = {}, {}
    for entry in pathlib.Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            name, _, rest = (entry / "stat").read_text().partition("(")[2].rpartition(")")
            parents[int(entry.name)], names[int(entry.name)] = int(rest.split()[1]), name
    below, found = {os.getpid()}, {}
    while True:
        more = {pid for pid, parent in parents.items() if parent in below} - below
        if not more:
            return found
        below |= more
        found |= {pid: names[pid] for pid in more}


def reap():
    """Takes the exit status of whatever has been adopted and is over; a zombie is not a leftover."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def wait_until(condition, limit, what):
    end = time.monotonic() + limit
    while not condition():
        expect(time.monotonic() < end, f"{what} (waited {limit} s)")
        time.sleep(0.02)


class Case:
    """One test: its scratch directory, its processes, its recordings."""

    def __init__(self, rig, directory):
        self.rig = rig
        self.directory = directory
        self.near, self.far = directory / "near", directory / "far"
        self.near.mkdir()
        self.far.mkdir()
        self.bridges = []
        self.log = directory / "log"

    def recorder(self, directory, command):
        return [sys.executable, "-I", "-S", str(HERE / "recorder.py"), str(directory), *command]

    def server(self, command):
        """`command` behind the far recorder, as an endpoint."""
        return "exec:" + shlex.join(self.recorder(self.far, command))

    def bridge_command(self, listen, connect):
        return [*self.rig.framewire, "bridge", "--listen", listen, "--connect", connect]

    def bridge(self, listen, connect, ready):
        """A bridge in the background, returned once `ready()`."""
        with open(self.log, "ab") as log:
            process = subprocess.Popen(
                self.bridge_command(listen, connect), stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        self.bridges.append(process)
        wait_until(lambda: ready() or process.poll() is not None, 10, f"no bridge on {listen}")
        expect(process.poll() is None, f"the bridge on {listen} ended with {process.poll()}")
        return process

    def unix_bridge(self, connect):
        """A bridge behind a Unix socket; returns the endpoint to reach it."""
        path = self.directory / "socket"
        self.bridge(f"unix:{path}", connect, path.exists)
        expect(path.stat().st_mode & 0o777 == 0o600, f"socket mode is {path.stat().st_mode & 0o777:o}, not 600")
        return f"unix:{path}"

    def tcp_bridge(self, connect, query):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        entry = f"0100007F:{port:04X} 00000000:0000 0A"
        endpoint = f"tcp://127.0.0.1:{port}{query}"
        self.bridge(endpoint, connect, lambda: entry in pathlib.Path("/proc/net/tcp").read_text())
        return endpoint

    def start_client(self, client, scenario, command):
        """A client that starts `command`, through the near recorder if that is part of it."""
        with open(self.log, "ab") as log:
            return subprocess.Popen(
                [*self.rig.clients.get(client, self.rig.probing), scenario, *command],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )

    def front(self, endpoint):
        """What a client believes is its server: a bridge from stdio to `endpoint`, behind the near recorder."""
        return self.recorder(self.near, self.bridge_command("stdio:", endpoint))

    def finish_client(self, process):
        try:
            code = process.wait(CASE_LIMIT)
        except subprocess.TimeoutExpired:
            raise Failure(f"the client did not finish in {CASE_LIMIT} s") from None
        expect(code == 0, f"the client ended with {code}")

    def run_client(self, client, scenario, command):
        self.finish_client(self.start_client(client, scenario, command))

    def recordings(self, directory):
        """What each process behind the recorder in `directory` was sent and said, as sorted pairs of bytes."""
        found = []
        for path in directory.glob("*.in"):
            wait_until(path.with_suffix(".exit").exists, GONE_LIMIT, f"{directory.name} peer did not end")
            found.append((path.read_bytes(), path.with_suffix(".out").read_bytes()))
        return sorted(found)

    def compare(self, count=1):
        """Both ends saw the same bytes; returns how many."""
        near, far = self.recordings(self.near), self.recordings(self.far)
        expect(len(near) == len(far) == count, f"{len(near)} sessions near, {len(far)} far, {count} expected")
        for ours, theirs in zip(near, far):
            for direction, a, b in zip(("to the server", "from the server"), ours, theirs):
                same = next((i for i, (x, y) in enumerate(zip(a, b)) if x != y), min(len(a), len(b))) if a != b else 0
                expect(a == b, f"bytes {direction} differ from byte {same} on ({len(a)} near, {len(b)} far)")
                expect(a.endswith(b"\n"), f"bytes {direction} end in mid-message")
        return sum(len(a) + len(b) for a, b in near)

    def stop_bridges(self):
        """SIGTERM drains: a clean exit, soon."""
        for process in self.bridges:
            process.send_signal(signal.SIGTERM)
        for process in self.bridges:
            try:
                code = process.wait(GONE_LIMIT)
            except subprocess.TimeoutExpired:
                raise Failure("a bridge ignored SIGTERM") from None
            expect(code == 0, f"a bridge ended with {code} after SIGTERM")
        self.bridges = []

    def no_leftovers(self):
        def none():
            reap()
            return not descendants()

        with contextlib.suppress(Failure):
            wait_until(none, GONE_LIMIT, "")
        left = descendants()
        expect(not left, f"left running: {left}")


class Rig:
    def __init__(self, framewire, cache, rmcp):
        self.framewire = framewire
        self.rmcp = rmcp
        modules = cache / "node_modules/@modelcontextprotocol"
        self.everything = ["node", str(modules / "server-everything/dist/index.js")]
        node = ["node", str(cache / "client.mjs")]
        python = [str(cache / "venv/bin/python"), str(HERE / "client.py")]
        self.probing = [*python, "auto"]
        self.clients = {
            "python mcp": [*python, "legacy"],
            "typescript sdk": [*node, "1"],
            "typescript client": [*node, "2"],
        }
        self.passed = self.failed = 0

    def run(self, name, test):
        directory = pathlib.Path(tempfile.mkdtemp(prefix="fw-", dir="/tmp"))
        case, began, problem, note = Case(self, directory), time.monotonic(), None, ""
        try:
            note = test(case) or ""
            case.stop_bridges()
            expect(not (directory / "socket").exists(), "the socket file was left behind")
            case.no_leftovers()
        except Failure as failure:
            problem = failure
        except Exception as error:  # a peer that is not installed, say: the other cases still run
            problem = repr(error)
        for pid in descendants():  # only after a failure is there anything to end
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        reap()
        if problem is None:
            self.passed += 1
        else:
            self.failed += 1
        print(f"{'ok    ' if problem is None else 'FAILED'} {name} ({time.monotonic() - began:.1f} s){note}", flush=True)
        if problem is not None:
            print(f"       {problem}")
            if case.log.exists():
                for line in case.log.read_text(errors="replace").splitlines()[-40:]:
                    print(f"       | {line[:300]}")
        shutil.rmtree(directory, ignore_errors=True)

    # The cases. Node gives the programs it starts sockets for stdin and stdout, Python pipes: the cases without a
    # recorder see both, the others pipes only.

    def direct(self, client, scenario, server):
        """No bridge and no recorder."""
        return lambda case: case.run_client(client, scenario, server)

    def embedded(self, client):
        """The server inside the command, no recorder."""
        return lambda case: case.run_client(client, "demo", case.bridge_command("stdio:", "demo:"))

    def through(self, client, scenario, server, middle):
        """Two bridges joined by `middle`: "unix", or the query of a TCP endpoint."""

        def test(case):
            target = case.server(server)
            endpoint = case.unix_bridge(target) if middle == "unix" else case.tcp_bridge(target, middle)
            case.run_client(client, scenario, case.front(endpoint))
            return f", {case.compare():,} bytes the same at both ends"

        return test

    def together(self, scenario, server):
        """All clients at once through one listener: each has a server of its own and sees only its own bytes."""

        def test(case):
            front = case.front(case.unix_bridge(case.server(server)))
            running = [case.start_client(client, scenario, front) for client in self.clients for _ in range(2)]
            for process in running:
                case.finish_client(process)
            return f", {case.compare(len(running)):,} bytes the same at both ends"

        return test

    def killed(self, what):
        """SIGKILL of one end in mid-session: everything behind it ends too, and nothing hangs."""

        def test(case):
            endpoint = case.unix_bridge(case.server(self.everything))
            front = subprocess.Popen(
                case.bridge_command("stdio:", endpoint), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
            front.stdin.write(b'{"jsonrpc":"2.0","id":1,"method":"ping"}\n')
            front.stdin.flush()
            expect(b'"id":1' in front.stdout.readline(), "no answer to ping")
            back = case.bridges[0]
            if what == "front":
                front.kill()
                front.wait()
                # The other bridge goes on listening; the server of the lost session does not.
                wait_until(lambda: list(case.far.glob("*.exit")) or not case_servers(back.pid), GONE_LIMIT, "server runs on")
            elif what == "server":
                for pid in case_servers(back.pid):
                    os.kill(pid, signal.SIGKILL)
                wait_until(lambda: front.poll() is not None, GONE_LIMIT, "the client's end never learnt of the death")
            else:
                case.bridges.remove(back)
                back.kill()
                back.wait()
                wait_until(lambda: front.poll() is not None, GONE_LIMIT, "the client's end never learnt of the death")
                (case.directory / "socket").unlink(missing_ok=True)  # nobody was left to unlink it
            front.stdin.close()
            front.stdout.close()
            front.wait(GONE_LIMIT)

        return test

    def all(self):
        for client in self.clients:
            # The peers agree with each other, so whatever fails below is ours.
            self.run(f"{client} with server-everything, nothing between", self.direct(client, "everything", self.everything))
        for client in self.clients:
            self.run(f"{client} over a Unix socket to server-everything",
                     self.through(client, "everything", self.everything, "unix"))
        # As the Python client starts when it is not told: it asks `server/discover` first and is refused.
        self.run("python mcp, probing, over a Unix socket to server-everything",
                 self.through("python mcp, probing", "everything", self.everything, "unix"))
        for client, query in zip(self.clients, ("", "?framing=length", "?framing=content-length")):
            self.run(f"{client} over TCP{query} to server-everything",
                     self.through(client, "everything", self.everything, query))
        self.run("six clients at once through one listener", self.together("everything", self.everything))
        for client in self.clients:
            self.run(f"{client} with demo:", self.embedded(client))
        if self.rmcp:
            for client in self.clients:
                self.run(f"{client} with the rmcp example", self.direct(client, "rmcp", [self.rmcp]))
            for client in self.clients:
                self.run(f"{client} over a Unix socket to the rmcp example",
                         self.through(client, "rmcp", [self.rmcp], "unix"))
        for what in ("front", "server", "back"):
            self.run(f"SIGKILL of the {what} in mid-session", self.killed(what))


def case_servers(bridge):
    """The processes directly below a bridge."""
    found = []
    for entry in pathlib.Path(f"/proc/{bridge}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found += [int(pid) for pid in entry.read_text().split()]
    return found


def main():
    # Orphans become our children, so that none escapes the count.
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    rig = Rig(sys.argv[1].split(), pathlib.Path(sys.argv[2]), sys.argv[3] if len(sys.argv) > 3 else None)
    rig.all()
    print(f"{rig.passed} passed, {rig.failed} failed")
    sys.exit(1 if rig.failed else 0)


main()
