"""Real peers of one era before real peers of the other, through the command: what each can do with its own kind works."""

LIMIT = 120


def session_client(case):
    """A client with sessions, a stateless server, over stdio."""
    over_stdio(case, "session_client.mjs", [case.rig.node, cached(case, "stateless_server.mjs")])


def stateless_client(case):
    """A stateless client, a server with sessions, over stdio."""
    over_stdio(case, "stateless_client.mjs", [*case.rig.everything, "stdio"])


def stateless_client_over_http(case):
    """The same over HTTP, where each request is a connection."""
    gateway = case.gateway([*case.rig.everything, "stdio"])
    case.run([case.rig.node, cached(case, "stateless_client.mjs"), gateway.url], LIMIT)


def over_stdio(case, client, server):
    bridge = [*case.rig.framewire, "bridge", "--quiet", "--restart", "--listen", "stdio:", "--"]
    case.run([case.rig.node, cached(case, client), *bridge, *server], LIMIT)


def cached(case, name):
    return str(case.rig.cache / name)


def run(rig):
    if rig.custom:
        return
    rig.case("era: a client with sessions, a stateless server", session_client)
    rig.case("era: a stateless client, a server with sessions", stateless_client)
    rig.case("era: the same over HTTP", stateless_client_over_http)
