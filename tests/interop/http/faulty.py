"""An MCP server over stdio that can do what servers do when they are wrong; faults.py asks it to. `python3 -I -S faulty.py`.

Standard library only, and little of it: hundreds of these are started. Options: `--cut` ends without a newline after the
last answer, `--late SECONDS` waits before the first answer, `--die` ends at once.
"""

import base64
import json
import os
import sys
import threading
import time

lock = threading.Lock()
out = sys.stdout.buffer
asked = {}  # id of a request to the client: what waits for its answer
notified = []  # what came without wanting an answer
calls = 0


def write(data):
    with lock:
        out.write(data)
        out.flush()


def send(message):
    write(json.dumps({"jsonrpc": "2.0", **message}, ensure_ascii=False).encode() + b"\n")


def answer(id, text):
    send({"id": id, "result": {"content": [{"type": "text", "text": text}]}})


def ask(method, params, id):
    """A request to the client, and its answer."""
    waiting = threading.Event()
    asked[id] = [waiting, None]
    send({"id": id, "method": method, "params": params})
    return asked.pop(id)[1] if waiting.wait(20) else {"error": "no answer in 20 s"}


def call(id, name, given, meta, line):
    if name == "echo":
        answer(id, given["message"])
    elif name == "who":
        answer(id, f"{os.getpid()} {calls}")
    elif name == "line":  # the very bytes of this request
        answer(id, base64.b64encode(line).decode())
    elif name == "size":
        answer(id, str(len(given["message"])))
    elif name == "big":
        time.sleep(given.get("after", 0))
        answer(id, "x" * given["bytes"])
    elif name == "sleep":
        time.sleep(given["seconds"])
        answer(id, "slept")
    elif name == "never":
        pass
    elif name == "notified":
        answer(id, json.dumps(notified))
    elif name == "crash":
        os._exit(given.get("code", 3))
    elif name == "half":  # ends in mid-line
        write(b'{"jsonrpc":"2.0","id":' + json.dumps(id).encode() + b',"result":{"cont')
        os._exit(0)
    elif name == "raw":  # these bytes instead of an answer; ID in them is the request's id
        write(base64.b64decode(given["base64"]).replace(b"ID", json.dumps(id).encode()))
    elif name == "garbage":
        write(b"not json\n" b"\xff\xfe\x80 not utf-8\n" b"\n" b"\r\n" b"{\"jsonrpc\":\n" b"[]\n" b"42\n" b'"text"\n' + b"\0\n")
        answer(id, "after garbage")
    elif name == "pieces":  # one answer in many writes
        text = json.dumps({"jsonrpc": "2.0", "id": id, "result": {"content": [{"type": "text", "text": "in pieces"}]}})
        for i in range(0, len(text), 7):
            write(text[i : i + 7].encode())
            time.sleep(0.002)
        write(b"\n")
    elif name == "progress":
        for step in range(given["steps"]):
            params = {"progressToken": meta.get("progressToken"), "progress": step, "total": given["steps"]}
            send({"method": "notifications/progress", "params": params})
            time.sleep(given.get("pause", 0))
        answer(id, "progressed")
    elif name == "log":  # belongs to no request: none is under way any more
        answer(id, "logged")
        time.sleep(0.3)
        for step in range(given["lines"]):
            send({"method": "notifications/message", "params": {"level": "info", "data": f"{given.get('text', '')}{step}"}})
    elif name == "flood":  # to no request, in the background, for ever
        def flood():
            while True:
                send({"method": "notifications/message", "params": {"level": "info", "data": "f" * given["bytes"]}})
        threading.Thread(target=flood, daemon=True).start()
        answer(id, "flooding")
    elif name == "ask":  # several may be under way: the id of each request to the client is given
        params = {"messages": [{"role": "user", "content": {"type": "text", "text": given["text"]}}], "maxTokens": 9}
        said = ask("sampling/createMessage", params, given["id"])
        answer(id, json.dumps(said))
    else:
        send({"id": id, "error": {"code": -32602, "message": f"no tool {name}"}})


def handle(line):
    global calls
    try:
        message = json.loads(line)
    except ValueError:
        send({"id": None, "error": {"code": -32700, "message": f"not JSON: {line[:40]!r}"}})
        return
    if isinstance(message, list):
        for one in message:  # answered one by one
            handle(json.dumps(one).encode())
        return
    method, id = message.get("method"), message.get("id")
    if method is None:
        waiting = asked.get(id)
        if waiting:
            waiting[1] = {key: message[key] for key in ("result", "error") if key in message}
            waiting[0].set()
        return
    params = message.get("params") or {}
    if id is None:
        notified.append({"method": method, "params": params})
    elif method == "initialize":
        version = params["protocolVersion"]
        capabilities = {"tools": {}, "logging": {}}
        result = {"protocolVersion": version, "capabilities": capabilities, "serverInfo": {"name": "faulty", "version": "0"}}
        send({"id": id, "result": result})
    elif method == "ping":
        send({"id": id, "result": {}})
    elif method == "tools/list":
        send({"id": id, "result": {"tools": [{"name": "echo", "description": "echo", "inputSchema": {"type": "object"}}]}})
    elif method == "tools/call":
        calls += 1
        run = (id, params["name"], params.get("arguments") or {}, params.get("_meta") or {}, line)
        if params["name"] in ("sleep", "ask", "progress", "big"):
            threading.Thread(target=call, args=run, daemon=True).start()
        else:
            call(*run)
    else:
        send({"id": id, "error": {"code": -32601, "message": f"no method {method}"}})


def main():
    if "--die" in sys.argv:
        sys.exit("this server cannot start")
    if "--late" in sys.argv:
        time.sleep(float(sys.argv[sys.argv.index("--late") + 1]))
    for line in sys.stdin.buffer:
        handle(line.rstrip(b"\n"))


main()
