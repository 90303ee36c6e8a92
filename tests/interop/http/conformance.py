"""The official conformance suite, against the gateway in front of the fixtures and, its client half, against the bridge's
HTTP client. What is expected stands in expected.json: for each run, [passed, failed] of each of the suite's scenarios: at
least so many passed, at most so many failed. Scenarios of extensions and of tools that the fixtures do not have fail by
themselves. server-sse-multiple-streams counts a second check only for answers that come as SSE, which it names first in
Accept; sessions keep to that, requests of 2026-07-28 that stand alone are answered by JSON and have one check."""

import json
import os
import re
import shlex
import tempfile

from rig import HERE, expect

LINE = re.compile(r"^[✓✗] (\S+): (\d+) passed, (\d+) failed", re.M)
EXPECTED = HERE / "expected.json"
CLIENT_SCENARIOS = ["initialize", "tools_call", "sse-retry", "request-metadata", "http-standard-headers", "http-custom-headers"]


def suite(case, version, arguments, env=None):
    """Runs the suite: {scenario: [passed, failed]} and the directory of its records."""
    directory = tempfile.mkdtemp(prefix="fw-suite-", dir="/tmp")
    rig = case.rig
    command = [rig.node, rig.suites[version], *arguments]
    if version != "0.1.16":
        command += ["-o", directory]
    process = case.start(command, env=env, cwd=directory)
    process.finish(150, "the suite")
    return {name: [int(passed), int(failed)] for name, passed, failed in LINE.findall(case.text())}, directory


def compare(name, found):
    everything = json.loads(EXPECTED.read_text()) if EXPECTED.exists() else {}
    if os.environ.get("WRITE_EXPECTED"):
        everything[name] = dict(sorted(found.items()))
        rows = [
            f"  {json.dumps(run)}: {{\n" + ",\n".join(f"    {json.dumps(k)}: {json.dumps(v)}" for k, v in rows.items()) + "\n  }"
            for run, rows in sorted(everything.items())
        ]
        EXPECTED.write_text("{\n" + ",\n".join(rows) + "\n}\n")
    wanted = everything.get(name)
    expect(wanted is not None, f"nothing is expected of {name} yet; WRITE_EXPECTED=1 writes it: {json.dumps(found)}")
    none = [0, 1 << 20]
    wrong = [
        f"{key} {found.get(key)}, not {count}" for key, count in sorted(wanted.items())
        if found.get(key, none)[0] < count[0] or found.get(key, none)[1] > count[1]
    ]
    expect(not wrong, f"[passed, failed] of {len(wrong)} scenarios: " + "; ".join(wrong))


def server(case, name, version, fixture, options, arguments, env=None):
    gateway = case.gateway(fixture, options, env=env)
    found, _ = suite(case, version, ["server", "--url", gateway.url, *arguments])
    expect(found, f"the suite said nothing: {case.text()[-800:]}")
    compare(name, found)
    return gateway


def polled(case):
    """Non-vacuously: the stream is closed in mid-call, and the answer comes by GET."""
    gateway = case.gateway(case.rig.server, ["--stream-timeout", "300ms"])
    _, directory = suite(case, "0.2", ["server", "--url", gateway.url, "--scenario", "server-sse-polling", "--spec-version", "2025-11-25"])
    checks = {}
    for base, _, files in os.walk(directory):
        for file in files:
            if file == "checks.json":
                with open(os.path.join(base, file)) as opened:
                    checks |= {check["id"]: check["status"] for check in json.load(opened)}
    wanted = ["server-sse-priming-event", "server-sse-retry-field", "server-sse-disconnect-resume"]
    got = {id: checks.get(id) for id in wanted}
    expect(set(got.values()) == {"SUCCESS"}, f"checks are {got}")


def client(case, scenario):
    bridge = os.environ.get("JUDGED_BRIDGE") or " ".join([*case.rig.framewire, "bridge", "--listen", "stdio:", "--connect", "{url}"])
    command = shlex.join([case.rig.node, str(case.rig.cache / "judged.mjs")])
    arguments = ["client", "--command", command, "--scenario", scenario]
    revision = "2026-07-28" if scenario.startswith(("http-", "request-")) else "2025-11-25"
    process = case.start(
        [case.rig.node, case.rig.suites["0.2"], *arguments, "--spec-version", revision, "--timeout", "20000"],
        env={"JUDGED_BRIDGE": bridge}, cwd=tempfile.mkdtemp(prefix="fw-suite-", dir="/tmp"),
    )
    code = process.finish(60, "the suite")
    said = case.text()
    passed = re.search(r"Passed: (\d+)/(\d+), (\d+) failed", said)
    expect(passed, f"the suite said: {said[-800:]}")
    expect(code == 0 and passed[3] == "0" and int(passed[2]) > 0, f"{passed[0]}, exit {code}")


def run(rig):
    old, requirements = ["--suite", "all"], lambda revision: ["--requirements", revision]
    each, shared = [], ["--shared"]
    closing = ["--stream-timeout", "300ms"]
    for name, *what in [
        ("2025-11-25, suite 0.1.16", "0.1.16", rig.server, each, old),
        ("2025-11-25, suite 0.1.16, --shared", "0.1.16", rig.server, shared, old),
        ("2025-11-25, suite 0.2", "0.2", rig.server, closing, requirements("2025-11-25")),
        ("2025-11-25, suite 0.2, --shared", "0.2", rig.server, [*shared, *closing], requirements("2025-11-25")),
        ("2026-07-28, suite 0.2", "0.2", rig.modern, each, requirements("2026-07-28")),
        ("2026-07-28 client, 2025-11-25 server", "0.2", rig.server, each, requirements("2026-07-28")),
        ("2025-11-25 client, 2026-07-28 server", "0.2", rig.modern, each, requirements("2025-11-25")),
    ]:
        rig.case(f"conformance: {name}", lambda case, name=name, what=what: server(case, name, *what))
    rig.case("conformance: sse-polling with streams closed in mid-call", polled)
    for scenario in CLIENT_SCENARIOS:
        rig.case(f"conformance: client, {scenario}", client, scenario)
