"""Autobahn's cases, by kosoku or by Autobahn's own suite, compared with expected.json.

    conformance.py server PORT       the command under test echoes as server on PORT
    conformance.py client COMMAND    COMMAND connects to `{url}` and echoes; started once for each case

    WS_CASES        globs of the cases to run, split at blanks; default: all
    WS_CASES_NOT    globs of the cases to leave out; default: 12.* 13.*, the slow ones with permessage-deflate
    WS_PARALLEL     cases at once as server, with kosoku only; default 1: some have time limits inside
    WS_AUTOBAHN     a Python 2.7 that has autobahntestsuite, to run that and not kosoku
    WS_LIMIT        seconds for all of them as server; default 1500

A verdict that differs is named with what was expected, in either direction: what has become better belongs into
expected.json. Ends with 0 when nothing differs.
"""

import asyncio
import fnmatch
import json
import os
import pathlib
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time

from websockets.asyncio.client import connect

HERE = pathlib.Path(__file__).resolve().parent
AGENT = "framewire"
CASE_LIMIT = 120  # seconds for one case as client
KOSOKU = [str(pathlib.Path(sys.executable).with_name("kosoku"))]


def selection():
    only = os.environ.get("WS_CASES", "").split()
    without = os.environ.get("WS_CASES_NOT", "12.* 13.*").split()
    return only, without


def suite(mode, port, reports):
    """The command line of the suite, which connects to PORT as `fuzzingclient` and listens there as `fuzzingserver`."""
    only, without = selection()
    url = f"ws://127.0.0.1:{port}"
    if autobahn := os.environ.get("WS_AUTOBAHN"):
        spec = pathlib.Path(reports) / "spec.json"
        cases = {"cases": only or ["*"], "exclude-cases": without}
        spec.write_text(json.dumps({"url": url, "servers": [{"url": url, "agent": AGENT}], "outdir": reports, **cases}))
        return [autobahn, str(HERE / "wstest.py"), "--mode", mode, "--webport", "0", "--spec", str(spec)]
    cases = [word for glob in only for word in ("-i", glob)] + [word for glob in without for word in ("-x", glob)]
    if mode == "fuzzingserver":
        return [*KOSOKU, "-m", mode, *cases, "-o", reports, f"127.0.0.1:{port}"]
    return [*KOSOKU, "-p", os.environ.get("WS_PARALLEL", "1"), *cases, "-o", reports, url]


def as_server(port, reports):
    subprocess.run(suite("fuzzingclient", port, reports), timeout=int(os.environ.get("WS_LIMIT", "1500")))


async def ask(url):
    async with connect(url, compression=None) as ws:
        return await ws.recv()


async def tell(url):
    # Autobahn's own suite writes all its reports before it answers.
    async with connect(url, compression=None, open_timeout=120, ping_interval=None) as ws:
        await ws.wait_closed()


def as_client(command, reports):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen(suite("fuzzingserver", port, reports))
    base = f"ws://127.0.0.1:{port}"
    try:
        for attempt in range(100):
            try:
                count = int(asyncio.run(ask(f"{base}/getCaseCount")))
                break
            except OSError:
                time.sleep(0.1)
        else:
            raise SystemExit("the fuzzing server does not listen")
        for case in range(1, count + 1):
            url = f"{base}/runCase?case={case}&agent={AGENT}"
            try:
                subprocess.run(
                    [part.format(url=url) for part in shlex.split(command)],
                    stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=CASE_LIMIT,
                )
            except subprocess.TimeoutExpired:
                print(f"case number {case}: the client did not end in {CASE_LIMIT} s")
        asyncio.run(tell(f"{base}/updateReports?agent={AGENT}"))
        if os.environ.get("WS_AUTOBAHN"):  # kosoku ends by itself
            server.terminate()
        server.wait(60)
    finally:
        server.kill()
        server.wait()


def compare(reports):
    """Prints what differs; returns how many cases do."""
    expected = json.loads((HERE / "expected.json").read_text())
    only, without = selection()

    def selected(case):
        return (not only or any(fnmatch.fnmatch(case, glob) for glob in only)) and not any(
            fnmatch.fnmatch(case, glob) for glob in without
        )

    found, index = {}, pathlib.Path(reports) / "index.json"
    for agent in json.loads(index.read_text()).values() if index.exists() else []:
        found |= {case: (verdict["behavior"], verdict["behaviorClose"]) for case, verdict in agent.items()}
    wrong = 0
    for case in expected["cases"]:
        if not selected(case):
            continue
        behavior, close = found.pop(case, ("not run", "not run"))
        wanted = expected["behavior"].get(case, "OK")
        wanted_close = expected["behaviorClose"].get(case, "OK")
        if (behavior, close) != (wanted, wanted_close):
            wrong += 1
            print(f"{case}: {behavior}, close {close}; expected {wanted}, close {wanted_close}")
    for case in found:
        wrong += 1
        print(f"{case}: not in expected.json")
    ran = sum(map(selected, expected["cases"]))
    print(f"{ran - wrong} of {ran} cases as expected")
    return wrong if ran else 1


def main():
    role, argument = sys.argv[1:3]
    # By exception, so that the suite does not stay behind when drive.py has lost patience.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    with tempfile.TemporaryDirectory() as reports:
        (as_server if role == "server" else as_client)(argument, reports)
        sys.exit(1 if compare(reports) else 0)


main()
