"""What gateways are known to do wrong, one case a sentence. Each server behind is faulty.py, asked to misbehave; each client
is as wrong as the case needs. Bounds are for a loaded machine: they tell what is wrong in kind, not what is slow."""

import base64
import contextlib
import json
import os
import re
import signal
import socket
import statistics
import time

from rig import ANSWER_LIMIT, BOTH, GONE_LIMIT, Skip, Threads, WebSocket, expect, reap, wait_until

SHARED = ["--shared"]
LARGE = 20 * 1024 * 1024
MB = 1024  # kB, as /proc counts
SOON = 8  # seconds in which an error has to come that nothing delays


def refused(answer, *wanted):
    """`answer` has one of the statuses, and a body that is JSON or nothing."""
    body = answer.bytes()
    expect(answer.status in wanted, f"{answer.status}, not {' or '.join(map(str, wanted))}: {body[:200]!r}")
    if body:
        kind = answer.header("content-type") or ""
        expect(kind.startswith("application/json"), f"an error body of type {kind}: {body[:200]!r}")
        json.loads(body)
    answer.close()
    return json.loads(body) if body else None


def call(name, arguments, id=1):
    return {"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": {"name": name, "arguments": arguments}}


# What passes through


def bytes_to_the_server(case, options):
    session = case.faulty(options).open()
    body = (
        '{"jsonrpc": "2.0" ,"id":7, "method":"tools/call","params":{"name":"line","arguments":{"n":12345678901234567890123,'
        '"f":1.10,"e":1E+2,"s":"\\u00e9é\\/\\ud83e\\udd80\\n","twice":1,"twice":2, "z":[ ]}}}'
    ).encode()
    seen = base64.b64decode(session.post(body).message(7)["result"]["content"][0]["text"])
    if options:  # a shared server needs ids of the gateway's own
        seen = re.sub(rb'"id":("[^"]*"|\d+)', b'"id":7', seen, count=1)
    expect(seen == body, f"the server saw {seen!r}")


def bytes_to_the_client(case, options):
    session = case.faulty(options).open()
    line = (
        '{"jsonrpc": "2.0" ,"id":ID,"result":{"content":[ ],"n":9007199254740993,"f":1.10,"s":"\\u00e9é\\/\x7f","twice":1,'
        '"twice":2}}'
    ).encode()
    answer = session.begin("raw", {"base64": base64.b64encode(line + b"\n").decode()}, id=7)
    if answer.is_stream():
        got = next(data for _, _, data, _ in answer.events() if data and '"result"' in data).encode()
    else:
        got = answer.bytes()
    expect(got == line.replace(b"ID", b"7"), f"the client saw {got!r}")


def newlines_in_a_body(case, options):
    session = case.faulty(options).open()
    body = json.dumps(call("line", {"text": "line\none", "n": [1, 2]}, 7), indent=2).replace("\n", "\r\n").encode()
    seen = base64.b64decode(session.post(body).message(7)["result"]["content"][0]["text"])
    expect(b"\n" not in seen, f"the server saw {seen!r}")
    expect(json.loads(seen)["params"] == json.loads(body)["params"], f"the server saw {seen!r}")
    expect(re.sub(rb'"id":\s*("[^"]*"|\d+)', b'"id": 7', seen).replace(b"\r", b"") == body.replace(b"\r\n", b"")
           or b"  " in seen, f"the body was written anew: {seen!r}")


def ids_of_all_kinds(case, options):
    session = case.faulty(options).open()
    for id in ("text", 0, -1, "1", 1, 9007199254740993, "ü\"\\\n", ""):
        said = session.begin("echo", {"message": "m"}, id=id).message()
        expect(said["id"] == id and type(said["id"]) is type(id), f"{id!r} came back as {said['id']!r}")


def large_both_ways(case, options):
    gateway = case.faulty([*options, "--max-message-size", "64MiB"])
    session = gateway.open()
    session.call("echo", {"message": "warm"})
    text = "".join(chr(97 + i % 26) for i in range(1024)) * (LARGE // 1024)
    began = time.monotonic()
    expect(session.call("size", {"message": text}, timeout=60) == str(len(text)), "a large request was cut")
    request = time.monotonic() - began
    expect(len(session.call("big", {"bytes": LARGE}, timeout=60)) == LARGE, "a large answer was cut")
    expect(session.call("echo", {"message": text}, timeout=60) == text, "an echo came back changed")
    expect(request < 30, f"a request of 20 MB took {request:.1f} s")
    resident = gateway.process.resident()
    for _ in range(3):
        session.call("big", {"bytes": LARGE}, timeout=60)
        session.call("size", {"message": text}, timeout=60)
    grown = gateway.process.resident() - resident
    expect(grown < 32 * MB, f"{grown // MB} MB more after three more rounds")
    expect(resident < 200 * MB, f"{resident // MB} MB are held")


def too_large(case):
    gateway = case.faulty(["--max-message-size", "1MiB"])
    session = gateway.open()
    try:
        said = refused(session.post(call("size", {"message": "x" * 2 * 1024 * 1024})), 413)
        expect(said is None or "error" in said, f"413 with {said}")
    except (BrokenPipeError, ConnectionResetError):
        pass  # an answer that came before all was sent: allowed, as long as the gateway goes on
    said = session.begin("big", {"bytes": 2 * 1024 * 1024}).message(1)
    expect("error" in said, f"an answer over the limit came as {str(said)[:100]}")
    expect(session.call("echo", {"message": "next"}) == "next", "the session is over")


def answers_in_pieces(case, options):
    session = case.faulty(options).open()
    expect(session.call("pieces") == "in pieces", "not the answer")


# Garbage


def garbage_from_the_server(case, options):
    session = case.faulty(options).open()
    for id in range(3):
        expect(session.call("garbage", id=id) == "after garbage", "not the answer")
    expect(session.call("echo", {"message": "next"}) == "next", "not the answer")


def half_a_line(case, options):
    session = case.faulty(options).open()
    began = time.monotonic()
    session.error("half", id=5)
    expect(time.monotonic() - began < SOON, f"the error came after {time.monotonic() - began:.1f} s")
    expect(session.call("echo", {"message": "again"}) == "again", "no answer afterwards")


def not_json(case):
    session = case.faulty().open()
    for body in (b"nonsense", b"", b"{", b'{"jsonrpc":"2.0","id":1,"method":"ping"', b"\xef\xbb\xbf", b"\0"):
        said = refused(session.post(body), 400)
        expect(said and said["error"]["code"] in (-32700, -32600), f"{body!r} was answered {said}")
    expect(session.call("echo", {"message": "next"}) == "next", "the session is over")


def not_utf8(case):
    session = case.faulty().open()
    body = b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo","arguments":{"message":"\xff\xfe"}}}'
    said = refused(session.post(body), 400)
    expect(said and said["error"]["code"] == -32700, f"answered {said}")


def batches(case):
    gateway = case.faulty()
    batch = [call("echo", {"message": f"m{i}"}, i) for i in range(3)]
    said = refused(gateway.open("2025-06-18").post(batch), 400)
    expect(said and "error" in said, f"answered {said}")
    old = gateway.open("2025-03-26")
    answers = {m["id"]: m["result"]["content"][0]["text"] for m in old.post(batch).messages() if "result" in m}
    expect(answers == {i: f"m{i}" for i in range(3)}, f"a batch of 2025-03-26 was answered {answers}")


# The server dies


def killed_in_a_call(case, options):
    gateway = case.faulty(options)
    session, other = gateway.open(), gateway.open()
    pid = int(session.call("who").split()[0])
    threads, said = Threads(), []
    threads.start(lambda: said.append(session.begin("sleep", {"seconds": 60}, id=9).message(9)))
    time.sleep(0.5)
    began = time.monotonic()
    os.kill(pid, signal.SIGKILL)
    threads.join(SOON)
    expect("error" in said[0], f"the call was answered {said[0]}")
    expect(time.monotonic() - began < SOON, "the error came late")
    again = int(session.call("who", timeout=30).split()[0])
    expect(again != pid, "the killed server answers")
    expect(other.call("echo", {"message": "other"}, timeout=30) == "other", "the other session is over")


def crashes_again_and_again(case, options):
    gateway = case.faulty(options)
    session = gateway.open()
    for id in range(4):
        session.error("crash", id=id, timeout=40)
    expect(session.call("echo", {"message": "alive"}, timeout=40) == "alive", "no answer afterwards")
    expect(gateway.process.process.poll() is None, "the gateway ended")
    reap()
    children = gateway.process.children()
    expect(len(children) == 1, f"{len(children)} children after four crashes")


def cannot_start(case):
    gateway = case.faulty([], "--die")
    params = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "x", "version": "0"}}
    began = time.monotonic()
    answer = gateway.post({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params}, timeout=40)
    body = answer.bytes()
    expect(time.monotonic() - began < 30 and b'"error"' in body, f"initialize: {answer.status} {body[:200]!r}")
    expect(gateway.process.process.poll() is None, "the gateway ended")
    expect(gateway.request("GET", path="/healthz").status == 200, "/healthz is not 200")


def late_server(case):
    session = case.faulty([], "--late", "3").open()
    expect(session.call("echo", {"message": "late"}) == "late", "not the answer")


# Sessions


def same_ids(case, options):
    gateway = case.faulty(options)
    threads = Threads()

    def one(session, name):
        for round in range(6):
            answers = Threads()
            for id in range(8):
                text = f"{name} {round} {id}"
                answers.start(lambda id=id, text=text: expect(session.call("echo", {"message": text}, id) == text, "crossed"))
            answers.join()

    for i in range(3):
        threads.start(one, gateway.open(), f"session {i}")
    threads.join()


def progress_rides_its_stream(case, options):
    gateway = case.faulty(options)
    threads = Threads()

    def one(session, steps):
        answer = session.begin("progress", {"steps": steps, "pause": 0.02}, id=1, meta={"progressToken": 1})
        answer.message(1)
        tokens = [m["params"]["progressToken"] for m in answer.before if m.get("method") == "notifications/progress"]
        seen = [m["params"]["progress"] for m in answer.before if m.get("method") == "notifications/progress"]
        totals = {m["params"]["total"] for m in answer.before if m.get("method") == "notifications/progress"}
        expect(seen == list(range(steps)), f"progress was {seen} of {steps}")
        expect(set(tokens) == {1} and totals == {steps}, f"progress of another session: {tokens} {totals}")

    for steps in (5, 9, 14):
        threads.start(one, gateway.open(), steps)
    threads.join()


def asks_its_own_client(case):
    gateway = case.faulty()
    threads = Threads()

    def one(session, name):
        answer = session.begin("ask", {"text": name, "id": 1}, id=1)
        for message in answer.messages():
            if message.get("method") == "sampling/createMessage":
                asked = message["params"]["messages"][0]["content"]["text"]
                expect(asked == name, f"{name} was asked what {asked} was to be")
                result = {"model": "m", "role": "assistant", "content": {"type": "text", "text": f"for {name}"}}
                reply = session.post({"jsonrpc": "2.0", "id": message["id"], "result": result})
                expect(reply.status == 202, f"a response was answered {reply.status}, not 202")
            elif "result" in message:
                said = json.loads(message["result"]["content"][0]["text"])
                expect(said["result"]["content"]["text"] == f"for {name}", f"{name} got {said}")
                return
        expect(False, "no answer")

    for i in range(4):
        threads.start(one, gateway.open(capabilities={"sampling": {}}), f"client {i}")
    threads.join()


def deleted(case):
    gateway = case.faulty()
    session = gateway.open()
    expect(len(gateway.process.children()) == 1, f"{len(gateway.process.children())} children for one session")
    status = session.delete()
    expect(200 <= status < 300, f"DELETE: {status}")
    refused(session.post(call("echo", {"message": "x"})), 404)
    wait_until(lambda: not gateway.process.children(), GONE_LIMIT, "the child of a deleted session lives")


def abandoned(case, count=1000):
    """Opened and left: some by DELETE, some with the connection cut in a call, most without a word."""
    if case.rig.custom:
        raise Skip("needs options of framewire")
    server = [*case.rig.framewire, "bridge", "--listen", "stdio:", "--connect", "demo:"]
    gateway = case.gateway(server, ["--session-timeout", "2s", "--max-connections", "200"])
    session = gateway.open()
    session.delete()
    wait_until(lambda: not gateway.process.children(), 15, lambda: f"{len(gateway.process.children())} children at the start")
    descriptors, resident = gateway.process.descriptors(), gateway.process.resident()
    opened, full = 0, 0
    end = time.monotonic() + 150
    while opened < count:
        expect(time.monotonic() < end, f"only {opened} of {count} sessions in 150 s, {full} times full")
        params = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "x", "version": "0"}}
        answer = gateway.post({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params})
        if answer.status in (429, 503):
            expect(answer.header("retry-after"), f"{answer.status} without Retry-After")
            answer.close()
            full += 1
            time.sleep(0.2)
            continue
        expect(answer.status == 200, f"initialize number {opened}: {answer.status}")
        session.id = answer.header("mcp-session-id")
        answer.close()
        opened += 1
        if opened % 5 == 1:
            session.delete()
        elif opened % 5 == 2:
            session.get().close()
    wait_until(lambda: not gateway.process.children(), 30, lambda: f"{len(gateway.process.children())} children are left")
    wait_until(lambda: gateway.process.descriptors() <= descriptors + 2, 10,
               lambda: f"{gateway.process.descriptors()} descriptors, {descriptors} before")
    grown = gateway.process.resident() - resident
    expect(grown < 12 * MB, f"{grown} kB more than before")
    expect(gateway.open().call("echo", {"message": "x"}) is not None, "no session afterwards")


def session_limit(case):
    gateway = case.faulty(["--max-connections", "3"])
    sessions = [gateway.open() for _ in range(3)]
    params = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "x", "version": "0"}}
    answer = gateway.post({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params})
    expect(answer.header("retry-after"), f"{answer.status} without Retry-After")
    refused(answer, 429, 503)
    expect(sessions[0].call("echo", {"message": "x"}) == "x", "the others are not served")
    sessions[1].delete()
    time.sleep(0.3)
    gateway.open()


# Slow and absent clients


def pings(session, count=60):
    took = []
    for id in range(count):
        began = time.monotonic()
        session.post({"jsonrpc": "2.0", "id": id, "method": "ping"}).message(id)
        took.append(time.monotonic() - began)
    return took


def never_reads_an_answer(case, options):
    gateway = case.faulty([*options, "--max-message-size", "64MiB"])
    deaf, other = gateway.open(), gateway.open()
    pings(other, 5)
    stuck = []
    for id in range(6):  # 48 MB of answers that nobody takes
        body = json.dumps(call("big", {"bytes": 8 * 1024 * 1024}, id)).encode()
        head = (
            f"POST /mcp HTTP/1.1\r\nHost: 127.0.0.1:{gateway.port}\r\nContent-Type: application/json\r\nAccept: {BOTH}\r\n"
            f"Mcp-Session-Id: {deaf.id}\r\nMCP-Protocol-Version: 2025-11-25\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        stuck.append(socket.create_connection(("127.0.0.1", gateway.port)))
        stuck[-1].sendall(head.encode() + body)
    took = pings(other)
    expect(statistics.median(took) < 0.5, f"another session's ping takes {statistics.median(took):.3f} s")
    expect(max(took) < 5, f"another session's ping took {max(took):.1f} s")
    resident = gateway.process.resident()
    expect(resident < 160 * MB, f"{resident // MB} MB are held")
    for one in stuck:
        one.close()
    expect(other.call("echo", {"message": "x"}) == "x", "no answer afterwards")


def never_reads_a_stream(case):
    """A server that floods, a client that opened a GET stream and never reads it."""
    gateway = case.faulty()
    deaf, other = gateway.open(), gateway.open()
    stream = deaf.get()
    expect(stream.status == 200, f"GET: {stream.status}")
    deaf.call("flood", {"bytes": 10_000})
    pings(other, 20)
    time.sleep(2)
    took = pings(other)
    expect(statistics.median(took) < 0.5, f"another session's ping takes {statistics.median(took):.3f} s")
    resident = gateway.process.resident()
    expect(resident < 100 * MB, f"{resident // MB} MB are held")
    stream.close()


def large_beside_small(case, options):
    gateway = case.faulty([*options, "--max-message-size", "64MiB"])
    large, small = gateway.open(), gateway.open()
    pings(small, 5)
    threads, took = Threads(), []
    threads.start(lambda: [large.call("big", {"bytes": LARGE}, timeout=60) for _ in range(3)])
    while threads.threads[0].is_alive():
        took += pings(small, 3)
    threads.join()
    if not options:  # a shared server is itself busy with the large answer
        expect(statistics.median(took) < 0.2, f"a ping takes {statistics.median(took):.3f} s meanwhile")
    expect(max(took) < 5, f"a ping took {max(took):.1f} s")


def slow_heads(case):
    """Connections that send half a request and wait do not keep others out."""
    gateway = case.faulty()
    session = gateway.open()
    stuck = [socket.create_connection(("127.0.0.1", gateway.port)) for _ in range(100)]
    for i, one in enumerate(stuck):
        one.sendall(b"POST /mcp HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100\r\n"[: 20 + i % 40])
    expect(session.call("echo", {"message": "x"}) == "x", "not the answer")
    for one in stuck:
        one.close()


# Streams


def notifications_on_get(case, options):
    session = case.faulty(options).open()
    stream = session.get()
    expect(stream.status == 200 and stream.is_stream(), f"GET: {stream.status}")
    session.call("log", {"lines": 20})
    seen = []
    for message in stream.messages():
        seen.append(message["params"]["data"])
        if len(seen) == 20:
            break
    expect(seen == [str(i) for i in range(20)], f"log lines were {seen}")
    stream.close()


def get_resumes(case):
    session = case.faulty().open()
    stream = session.get()
    session.call("log", {"lines": 3, "text": "a"})
    last, seen = None, []
    for id, _, data, _ in stream.events():
        last = id or last
        if data:
            seen.append(json.loads(data)["params"]["data"])
        if len(seen) == 3:
            break
    expect(last, "events have no ids")
    stream.close()
    session.call("log", {"lines": 3, "text": "b"})
    stream = session.get(last)
    expect(stream.status == 200, f"GET with Last-Event-ID: {stream.status}")
    for message in stream.messages():
        seen.append(message["params"]["data"])
        if len(seen) == 6:
            break
    expect(seen == ["a0", "a1", "a2", "b0", "b1", "b2"], f"seen were {seen}")
    stream.close()


def post_resumes(case):
    """The connection of a call is lost after its first event; the rest is had by GET, in order and once."""
    session = case.faulty().open()
    answer = session.begin("progress", {"steps": 8, "pause": 0.1}, id=4, meta={"progressToken": "t"})
    last, seen = None, []
    for id, _, data, _ in answer.events():
        last = id or last
        if data:
            seen.append(json.loads(data)["params"]["progress"])
        if len(seen) == 2:
            break
    answer.close()
    answer.response.close()
    expect(last, "events have no ids")
    time.sleep(0.3)
    stream = session.get(last)
    expect(stream.status == 200, f"GET with Last-Event-ID: {stream.status}")
    for message in stream.messages():
        if "result" in message:
            expect(message["id"] == 4, f"an answer to {message['id']}")
            break
        seen.append(message["params"]["progress"])
    expect(seen == list(range(8)), f"progress was {seen}")
    stream.close()


def larger_than_the_store(case):
    """An answer that comes when its stream has been closed, and is larger than what is kept: kept all the same, or an
    error; never nothing."""
    session = case.faulty(["--stream-timeout", "200ms", "--event-store", "64KiB"]).open()
    answer = session.begin("big", {"bytes": 1 << 20, "after": 1}, id=4)
    events = list(answer.events())
    expect(events and not any(data for _, _, data, _ in events), f"the stream was to be closed; it had {str(events)[:200]}")
    last = events[-1][0]
    for attempt in range(8):
        stream = session.get(last)
        expect(stream.status == 200, f"GET with Last-Event-ID: {stream.status}")
        for id, _, data, _ in stream.events():
            last = id or last
            if data and json.loads(data).get("id") == 4:
                return
        stream.close()
        time.sleep(0.2)
    expect(False, "no answer and no error")


def modern_cancels(case, options):
    """At 2026-07-28, closing the stream of a request is its cancellation."""
    gateway = case.gateway(case.rig.modern, options)
    gateway.modern("tools/list").bytes()
    params = {"name": "test_slow", "arguments": {}}
    with contextlib.suppress(TimeoutError, OSError):
        gateway.modern("tools/call", params, timeout=1.0)

    def cancelled():
        said = gateway.modern("tools/call", {"name": "test_cancelled", "arguments": {}}, id=2).message(2)
        return int(said["result"]["content"][0]["text"]) == 1

    wait_until(cancelled, 6, "the server was not told")


# What HTTP asks


def ladder(case):
    gateway = case.faulty()
    session = gateway.open()
    ping = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "ping"}).encode()
    kind = {"Content-Type": "application/json"}
    with_session = {**kind, "Accept": BOTH, "Mcp-Session-Id": session.id, "MCP-Protocol-Version": "2025-11-25"}
    rows = [
        ("PUT", ping, with_session, [405]),
        ("PATCH", ping, with_session, [405]),
        ("POST", ping, {**with_session, "Accept": "text/html"}, [406]),
        ("POST", ping, {**with_session, "Content-Type": "text/plain"}, [415]),
        ("POST", ping, {**with_session, "MCP-Protocol-Version": "1999-01-01"}, [400]),
        ("POST", ping, {**with_session, "Mcp-Session-Id": None}, [400]),
        ("POST", ping, {**with_session, "Mcp-Session-Id": "no-such-session"}, [404]),
        ("GET", None, {"Accept": "text/event-stream", "Mcp-Session-Id": "no-such-session"}, [404]),
        ("DELETE", None, {"Mcp-Session-Id": "no-such-session"}, [404]),
        ("GET", None, {"Accept": "application/json", "Mcp-Session-Id": session.id}, [406]),
        ("POST", b"[]", with_session, [400]),
        ("POST", b'"text"', with_session, [400]),
    ]
    for method, body, headers, wanted in rows:
        answer = gateway.request(method, body, headers)
        try:
            refused(answer, *wanted)
        except Exception as error:
            raise type(error)(f"{method} {body!r} {[h for h in headers.items() if with_session.get(h[0]) != h[1]]}: {error}")
    refused(gateway.request("GET", path="/no/such/path"), 404)
    answer = session.post({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 99}})
    expect(answer.status == 202 and not answer.bytes(), f"a notification: {answer.status}")


def evil(case):
    gateway = case.faulty()
    session = gateway.open()
    ping = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
    for origin in ("http://evil.example", "https://127.0.0.1.evil.example", "http://localhost.evil.example", "null", "file://"):
        refused(session.post(ping, headers={"Origin": origin}), 403)
        answer = session.get(headers={"Origin": origin})
        refused(answer, 403)
        upgrade = WebSocket(gateway.port, headers={"Origin": origin})
        expect(upgrade.status >= 400, f"a WebSocket from {origin}: {upgrade.status}")
        upgrade.close()
    for host in ("evil.example", f"evil.example:{gateway.port}", "127.0.0.1.evil.example"):
        refused(session.post(ping, host=host), 400, 403, 421)
    for origin in (f"http://127.0.0.1:{gateway.port}", f"http://localhost:{gateway.port}", "http://localhost:3000"):
        answer = session.post(ping, headers={"Origin": origin})
        expect(answer.status == 200, f"{origin}: {answer.status}")
        answer.close()
    for host in (f"localhost:{gateway.port}", f"[::1]:{gateway.port}"):
        expect(session.post(ping, host=host).status == 200, f"{host} was refused")


def token(case):
    gateway = case.faulty(["--token", "a-secret-token"])
    ping = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "a-secret-token"}, {"Authorization": "Bearer "}):
        answer = gateway.post(ping, headers=headers)
        expect(answer.header("www-authenticate"), f"{answer.status} without WWW-Authenticate")
        refused(answer, 401)
    good = {"Authorization": "Bearer a-secret-token"}
    expect(gateway.open(headers=good).call("echo", {"message": "x"}) == "x", "not the answer")
    refused_ws = WebSocket(gateway.port)
    expect(refused_ws.status == 401, f"a WebSocket without token: {refused_ws.status}")


def smuggling(case):
    gateway = case.faulty()
    body = b'{"jsonrpc":"2.0","id":1,"method":"ping"}'
    start = f"POST /mcp HTTP/1.1\r\nHost: 127.0.0.1:{gateway.port}\r\nContent-Type: application/json\r\nAccept: {BOTH}\r\n".encode()
    for head in (
        b"Content-Length: 40\r\nContent-Length: 41\r\n\r\n",
        b"Content-Length: 40\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"Content-Length: +40\r\n\r\n",
        b"Content-Length: 40, 40, 41\r\n\r\n",
        b"Transfer-Encoding: gzip, identity\r\n\r\n",
    ):
        with socket.create_connection(("127.0.0.1", gateway.port), 5) as one:
            one.sendall(start + head + body)
            try:
                line = one.recv(4096).split(b"\r\n")[0]
            except ConnectionResetError:
                line = b""
            expect(not line or line.split()[1][:1] == b"4", f"{head!r} was answered {line!r}")
    gateway.open()


def one_connection(case):
    """Requests one after the other on one connection, and the next sent before the answer."""
    gateway = case.faulty()
    session = gateway.open()
    def request(id):
        body = json.dumps({"jsonrpc": "2.0", "id": id, "method": "ping"}).encode()
        return (
            f"POST /mcp HTTP/1.1\r\nHost: 127.0.0.1:{gateway.port}\r\nContent-Type: application/json\r\nAccept: {BOTH}\r\n"
            f"Mcp-Session-Id: {session.id}\r\nMCP-Protocol-Version: 2025-11-25\r\nContent-Length: {len(body)}\r\n\r\n"
        ).encode() + body
    with socket.create_connection(("127.0.0.1", gateway.port), ANSWER_LIMIT) as one:
        one.sendall(request(1))
        said = one.recv(65536)
        expect(said.startswith(b"HTTP/1.1 200"), f"answered {said[:80]!r}")
        one.sendall(request(2) + request(3))
        said = b""
        while b'"id": 3' not in said:  # as faulty.py writes it
            part = one.recv(65536)
            expect(part, f"the connection was closed after {said[-200:]!r}")
            said += part
        expect(said.index(b'"id": 2') < said.index(b'"id": 3'), "answers are not in order")


def health(case):
    gateway = case.faulty()
    for path in ("/healthz", "/readyz"):
        answer = gateway.request("GET", path=path)
        expect(answer.status == 200, f"{path}: {answer.status}")
        answer.close()


def web_socket(case, options):
    gateway = case.faulty(options)
    sockets = [WebSocket(gateway.port) for _ in range(2)]
    for one in sockets:
        expect(one.status == 101, f"the upgrade was answered {one.status}")
        params = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "x", "version": "0"}}
        expect("result" in one.ask("initialize", params), "initialize failed")
        one.send({"jsonrpc": "2.0", "method": "notifications/initialized"})
    for i, one in enumerate(sockets):
        for id in range(5):
            said = one.ask("tools/call", {"name": "echo", "arguments": {"message": f"{i} {id}"}}, id)
            expect(said["result"]["content"][0]["text"] == f"{i} {id}", f"said {said}")
    sockets[0].send(b"this is no JSON")
    said = sockets[0].receive()
    expect(said and said["error"]["code"] == -32700, f"malformed text was answered {said}")
    said = sockets[0].ask("tools/call", {"name": "echo", "arguments": {"message": "next"}}, 9)
    expect(said["result"]["content"][0]["text"] == "next", f"said {said}")
    for one in sockets:
        one.close()
    if not options:
        wait_until(lambda: not gateway.process.children(), GONE_LIMIT, "children of closed sockets live")


def first_revision(case):
    """2024-11-05: GET /sse tells where to POST; answers come on the stream."""
    gateway = case.faulty()
    stream = gateway.request("GET", None, {"Accept": "text/event-stream"}, path="/sse")
    expect(stream.status == 200, f"GET /sse: {stream.status}")
    events = stream.events()
    _, event, path, _ = next(events)
    expect(event == "endpoint", f"the first event is {event}")
    path = path.removeprefix(f"http://127.0.0.1:{gateway.port}")
    def say(message):
        answer = gateway.request("POST", json.dumps(message).encode(), {"Content-Type": "application/json"}, path=path)
        expect(answer.status in (200, 202), f"POST: {answer.status}")
        answer.close()
    params = {"protocolVersion": "2024-11-05", "capabilities": {}, "clientInfo": {"name": "x", "version": "0"}}
    say({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params})
    expect(json.loads(next(events)[2])["id"] == 1, "no answer to initialize")
    say({"jsonrpc": "2.0", "method": "notifications/initialized"})
    say(call("echo", {"message": "old"}, 2))
    expect(json.loads(next(events)[2])["result"]["content"][0]["text"] == "old", "not the answer")
    stream.close()
    stream.response.close()
    wait_until(lambda: not gateway.process.children(), GONE_LIMIT, "the child of a closed stream lives")


def terminated(case, options):
    """SIGTERM: what is in flight is answered, children end, the exit is clean."""
    gateway = case.faulty(options)
    session = gateway.open()
    session.call("echo", {"message": "x"})
    children = gateway.process.children()
    threads, said = Threads(), []
    threads.start(lambda: said.append(session.begin("sleep", {"seconds": 1}, id=9).message(9)))
    time.sleep(0.5)
    gateway.process.process.send_signal(signal.SIGTERM)
    threads.join(15)
    expect("result" in said[0], f"answered {said[0]}")
    code = gateway.process.finish(15, "the gateway")
    expect(code == 0, f"the gateway ended with {code}")
    reap()
    alive = [pid for pid in children if os.path.exists(f"/proc/{pid}")]
    expect(not alive, f"children live: {alive}")


def run(rig):
    both = lambda name, test: [rig.case(f"fault: {name}{', shared' if o else ''}", test, o) for o in ([], SHARED)]
    one = lambda name, test: rig.case(f"fault: {name}", test)
    both("bytes to the server are the client's", bytes_to_the_server)
    both("bytes to the client are the server's", bytes_to_the_client)
    both("newlines in a body", newlines_in_a_body)
    both("ids of all kinds come back as they were", ids_of_all_kinds)
    both("20 MB each way", large_both_ways)
    one("too large in either direction", too_large)
    both("an answer in many pieces", answers_in_pieces)
    both("garbage from the server", garbage_from_the_server)
    both("half a line and the end", half_a_line)
    one("a body that is no JSON", not_json)
    one("a body that is no UTF-8", not_utf8)
    one("batches", batches)
    both("the server killed in a call", killed_in_a_call)
    both("the server crashes again and again", crashes_again_and_again)
    one("the server cannot start", cannot_start)
    one("the server is late", late_server)
    both("sessions with the same ids", same_ids)
    both("progress rides its own stream, in order", progress_rides_its_stream)
    one("the server asks its own client, same ids", asks_its_own_client)
    one("a deleted session is gone", deleted)
    one("1,000 sessions opened and abandoned", abandoned)
    one("the limit of sessions", session_limit)
    both("a client that never reads its answers", never_reads_an_answer)
    one("a client that never reads its stream", never_reads_a_stream)
    both("large answers beside small ones", large_beside_small)
    one("a hundred half requests", slow_heads)
    both("notifications to no request come by GET", notifications_on_get)
    one("a GET stream resumes", get_resumes)
    one("a POST stream resumes by GET", post_resumes)
    one("an answer larger than the store of events", larger_than_the_store)
    both("2026-07-28: closing the stream cancels", modern_cancels)
    one("the ladder of statuses", ladder)
    one("evil Origin and Host", evil)
    one("a token", token)
    one("two lengths, and other ambiguities", smuggling)
    one("one connection, many requests", one_connection)
    one("/healthz and /readyz", health)
    both("WebSocket on the same port", web_socket)
    one("HTTP+SSE of 2024-11-05", first_revision)
    both("SIGTERM", terminated)
