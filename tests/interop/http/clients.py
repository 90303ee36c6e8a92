"""Real clients through the gateway to real servers."""

import os
import shutil

from rig import HERE, Skip, expect

LIMIT = 90


def python(case, mode, scenario, server, options):
    gateway = case.gateway(server, options)
    url = gateway.url.replace("/mcp", "/sse") if mode == "sse" else gateway.url
    case.run([case.rig.python, str(HERE / "client.py"), mode, scenario, url], LIMIT)


def typescript(case, which, scenario, server, options):
    gateway = case.gateway(server, options)
    url = gateway.url.replace("/mcp", "/sse") if which == "1sse" else gateway.url
    case.run([case.rig.node, str(case.rig.cache / "client.mjs"), which, scenario, url], LIMIT)


def inspector(case):
    gateway = case.gateway(case.rig.everything)
    base = [case.rig.node, case.rig.inspector, "--cli", gateway.url, "--transport", "http"]
    said = case.run([*base, "--method", "tools/list"], LIMIT)
    expect('"echo"' in said, f"the inspector said {said[-300:]}")
    said = case.run([*base, "--method", "tools/call", "--tool-name", "echo", "--tool-arg", "message=hello"], LIMIT)
    expect("Echo: hello" in said, f"the inspector said {said[-300:]}")


def page(case, kind):
    browser = os.environ.get("CHROMIUM", "chromium-headless-shell")
    if not shutil.which(browser):
        raise Skip(f"no {browser} here; WS_INSTALL_BROWSER=1 installs it")
    gateway = case.gateway(case.rig.server)
    url = gateway.url.replace("http:", "ws:") if kind == "ws" else gateway.url
    case.run([case.rig.node, str(case.rig.cache / "page.mjs"), kind, url], LIMIT)


def run(rig):
    shared = ["--shared"]
    both = [*rig.modern, "both"]
    rows = [
        (python, "python", "legacy", "fixture", rig.server, []),
        (python, "python", "legacy", "fixture", rig.server, shared),
        (python, "python", "sse", "fixture", rig.server, []),
        (python, "python", "auto", "everything", rig.everything, []),
        (python, "python", "auto", "fixture", rig.modern, []),
        (python, "python", "auto", "fixture", rig.modern, shared),
        (python, "python", "legacy", "fixture", rig.modern, []),
        (python, "python", "auto", "fixture", both, []),
        (typescript, "typescript", "1", "fixture", rig.server, []),
        (typescript, "typescript", "1", "fixture", rig.server, ["--stream-timeout", "20ms"]),
        (typescript, "typescript", "1sse", "fixture", rig.server, []),
        (typescript, "typescript", "1", "everything", rig.everything, shared),
        (typescript, "typescript", "2", "fixture", rig.server, []),
        (typescript, "typescript", "2auto", "everything", rig.everything, []),
        (typescript, "typescript", "2auto", "fixture", rig.modern, []),
        (typescript, "typescript", "2auto", "fixture", both, shared),
    ]
    names = {id(rig.server): "2025 fixture", id(rig.everything): "server-everything", id(rig.modern): "2026 fixture", id(both): "both eras"}
    for test, who, which, scenario, server, options in rows:
        more = " " + " ".join(options) if options else ""
        rig.case(f"client: {who} {which}, {names[id(server)]}{more}", test, which, scenario, server, options)
    rig.case("client: inspector --cli", inspector)
    rig.case("client: a page over fetch and SSE", page, "http")
    rig.case("client: a page over WebSocket", page, "ws")
