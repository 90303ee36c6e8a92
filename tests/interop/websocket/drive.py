"""Runs every pairing of the command and a real WebSocket peer, and Autobahn's cases.

    drive.py CACHE [peers] [matrix] [cases]

CACHE is where `run` has put the peers. `matrix` pairs each peer with the command in both roles, `cases` runs Autobahn's
cases (conformance.py) in both roles, `peers` pairs the peers with themselves instead: what fails there is no fault of the
command. Default: `matrix cases`. Standard library only.

    WS_SERVER     the command that echoes as server, `{port}` in it is replaced
    WS_CLIENT     the command that connects to `{url}` and echoes
    WS_DEFLATE    0: the command has no permessage-deflate; the pairings that need it are left out
    WS_LIMIT      seconds for Autobahn's cases in one role; default 1500
    CHROMIUM      the browser; its pairing is left out, and said to be, when it is not there
"""

import contextlib
import functools
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
CASE_LIMIT = 90  # seconds for one pairing; a peer gives up by itself after 60
READY_LIMIT = 15
GONE_LIMIT = 10


class Failure(Exception):
    pass


def expect(condition, what):
    if not condition:
        raise Failure(what)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Processes:
    """What one pairing has started; all of it is gone when the pairing is over."""

    def __init__(self):
        self.log = tempfile.TemporaryFile()
        self.all = []

    def start(self, command):
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log)
        self.all.append(process)
        return process

    def listening(self, command, port):
        process = self.start(command)
        entry = f"0100007F:{port:04X} 00000000:0000 0A"
        end = time.monotonic() + READY_LIMIT
        while entry not in pathlib.Path("/proc/net/tcp").read_text():
            expect(process.poll() is None, f"{command[0]} ended with {process.returncode} before it listened")
            expect(time.monotonic() < end, f"{command[0]} does not listen after {READY_LIMIT} s")
            time.sleep(0.02)
        return process

    def said(self, word):
        end = time.monotonic() + READY_LIMIT
        while word not in self.text():
            expect(time.monotonic() < end, f"nobody said {word!r} in {READY_LIMIT} s")
            time.sleep(0.02)

    def text(self):
        return os.pread(self.log.fileno(), 1 << 20, 0).decode(errors="replace")

    def finish(self):
        for process in self.all:
            if process.poll() is None:
                process.terminate()
        for process in self.all:
            try:
                process.wait(2)  # time for browser.mjs to take the browser with it
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def ends(process, name, limit=CASE_LIMIT):
    try:
        code = process.wait(limit)
    except subprocess.TimeoutExpired:
        raise Failure(f"{name} did not end in {limit} s") from None
    expect(code == 0, f"{name} ended with {code}")


class Rig:
    def __init__(self, cache):
        node = ["node", str(cache / "peer.mjs")]
        python = [str(cache / "venv/bin/python"), str(HERE / "peer.py")]
        rust = str(cache / "target/debug/framewire-websocket-peers")
        self.cache = cache
        # name: (command, has permessage-deflate)
        self.peers = {
            "ws": (node, True),
            "websockets": (python, True),
            "tokio-tungstenite": ([rust, "tungstenite"], False),
            "fastwebsockets": ([rust, "fastwebsockets"], False),
        }
        self.browser = ["node", str(cache / "browser.mjs")]
        self.has_browser = shutil.which(os.environ.get("CHROMIUM", "chromium-headless-shell")) is not None
        self.deflate = os.environ.get("WS_DEFLATE") != "0"
        self.server = shlex.split(os.environ.get("WS_SERVER", "framewire bridge --listen ws://127.0.0.1:{port} --connect echo:"))
        self.client = shlex.split(os.environ.get("WS_CLIENT", "framewire bridge --connect {url} --connect echo:"))
        self.passed = self.failed = self.skipped = 0

    def run(self, name, test):
        began, problem, processes = time.monotonic(), None, Processes()
        try:
            test(processes)
        except Failure as failure:
            problem = failure
        except Exception as error:  # a peer that is not installed, say: the other pairings still run
            problem = repr(error)
        processes.finish()
        self.passed += problem is None
        self.failed += problem is not None
        print(f"{'FAILED' if problem else 'ok    '} {name} ({time.monotonic() - began:.1f} s)", flush=True)
        if problem:
            print(f"       {problem}")
            for line in processes.text().splitlines()[-30:]:
                print(f"       | {line[:300]}")

    def skip(self, name, why):
        self.skipped += 1
        print(f"skip   {name}: {why}", flush=True)

    def peer(self, name, role, part, port, compression):
        command, _ = self.peers[name]
        return [*command, role, part, str(port), compression][: None if self.peers[name][1] else -1]

    def ours(self, port):
        return [part.format(port=port) for part in self.server]

    def ours_to(self, url):
        return [part.format(url=url) for part in self.client]

    # The pairings.

    def against(self, server, client):
        """`client(port)` plays the scenario on `server(port)`, which is then told to go."""

        def test(processes):
            port = free_port()
            running = processes.listening(server(port), port)
            ends(processes.start(client(port)), "the client")
            expect(running.poll() is None, f"the server ended with {running.returncode}")
            return running

        return test

    def to_our_server(self, client):
        def test(processes):
            running = self.against(self.ours, client)(processes)
            running.send_signal(signal.SIGTERM)
            ends(running, "the command, after SIGTERM,", GONE_LIMIT)

        return test

    def server_plays(self, name, compression, client):
        """The peer is the server and plays the scenario; the client echoes, and ends when the peer closes."""

        def test(processes):
            port = free_port()
            server = processes.listening(self.peer(name, "server", "scenario", port, compression), port)
            replaced = [part.format(port=port, url=f"ws://127.0.0.1:{port}/") for part in client]
            echo = processes.start(replaced)
            ends(server, "the server")
            with contextlib.suppress(subprocess.TimeoutExpired):
                echo.wait(GONE_LIMIT)
            expect(echo.poll() is not None, "the client stayed behind")

        return test

    def goodbye(self, name, role):
        """SIGTERM to the command: the peer gets Close 1001, the command ends with 0."""

        def test(processes):
            port = free_port()
            peer = self.peer(name, role, "goodbye", port, "plain")
            if role == "client":
                ours = processes.listening(self.ours(port), port)
                peer = processes.start(peer)
            else:
                peer = processes.listening(peer, port)
                ours = processes.start(self.ours_to(f"ws://127.0.0.1:{port}/"))
            processes.said("connected")
            # The peer has yet to see that the handshake is done.
            time.sleep(0.5)
            ours.send_signal(signal.SIGTERM)
            ends(peer, "the peer", GONE_LIMIT)
            ends(ours, "the command", GONE_LIMIT)

        return test

    def together(self):
        """All clients at once on one server."""

        def test(processes):
            port = free_port()
            processes.listening(self.ours(port), port)
            clients = [
                processes.start(self.peer(name, "client", "scenario", port, "plain")) for name in self.peers for _ in range(2)
            ]
            for client in clients:
                ends(client, "a client")

        return test

    def compressions(self, name):
        return ["plain", "deflate"] if self.peers[name][1] and self.deflate else ["plain"]

    def matrix(self):
        for name in self.peers:
            for how in self.compressions(name):
                client = functools.partial(self.peer, name, "client", "scenario", compression=how)
                self.run(f"{name} → framewire, {how}", self.to_our_server(client))
                self.run(f"framewire → {name}, {how}", self.server_plays(name, how, self.client))
        how = "deflate" if self.deflate else "plain"
        if self.has_browser:
            self.run(f"chromium → framewire, {how}", self.to_our_server(lambda port: [*self.browser, str(port), how]))
        else:
            self.skip("chromium → framewire", "no browser here")
        for name in ("ws", "websockets"):
            self.run(f"{name} → framewire, SIGTERM", self.goodbye(name, "client"))
            self.run(f"framewire → {name}, SIGTERM", self.goodbye(name, "server"))
        self.run("all clients at once", self.together())

    def among_themselves(self):
        def pair(server, client, how):
            return self.against(
                lambda port: self.peer(server, "server", "echo", port, how),
                lambda port: [*self.browser, str(port), how] if client is None else self.peer(client, "client", "scenario", port, how),
            )

        for server, (_, server_deflates) in self.peers.items():
            for client, (_, client_deflates) in self.peers.items():
                self.run(f"{client} → {server}, plain", pair(server, client, "plain"))
                if server_deflates and client_deflates:
                    self.run(f"{client} → {server}, deflate", pair(server, client, "deflate"))
            # The other way round: the server plays, the client echoes, as the command does in the matrix.
            echo = self.peer(server, "client", "echo", "{port}", "plain")
            self.run(f"{server} → {server}, the server plays", self.server_plays(server, "plain", echo))
            if self.has_browser:
                how = "deflate" if server_deflates else "plain"
                self.run(f"chromium → {server}, {how}", pair(server, None, how))

    def cases(self):
        python, script = str(self.cache / "venv/bin/python"), str(HERE / "conformance.py")
        limit = int(os.environ.get("WS_LIMIT", "1500"))

        def as_server(processes):
            port = free_port()
            processes.listening(self.ours(port), port)
            ends(processes.start([python, script, "server", str(port)]), "the cases", limit)

        def as_client(processes):
            ends(processes.start([python, script, "client", shlex.join(self.client)]), "the cases", limit)

        self.run("Autobahn's cases, framewire as server", as_server)
        self.run("Autobahn's cases, framewire as client", as_client)


def main():
    rig = Rig(pathlib.Path(sys.argv[1]).resolve())
    parts = sys.argv[2:] or ["matrix", "cases"]
    for part in parts:
        {"peers": rig.among_themselves, "matrix": rig.matrix, "cases": rig.cases}[part]()
    print(f"{rig.passed} passed, {rig.failed} failed" + (f", {rig.skipped} skipped" if rig.skipped else ""))
    sys.exit(1 if rig.failed or not rig.passed else 0)


if __name__ == "__main__":
    main()
