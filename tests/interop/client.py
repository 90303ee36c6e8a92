"""Drives an MCP server with the official Python client: client.py legacy|auto SCENARIO COMMAND [ARG...]

legacy starts with `initialize`, auto with `server/discover`. Exits 0 when every step of the scenario came out as
expected. The steps mirror client.mjs.
"""

import asyncio
import base64
import gzip
import random
import sys
import time
import warnings

from mcp import Client, StdioServerParameters

warnings.simplefilter("ignore")  # ping is deprecated in the newest revision; these servers speak older ones

# Characters that break careless framings: quotes, escapes, line separators that are no newline, four-byte UTF-8.
AWKWARD = 'Grüße, 世界 🦀 "quoted" back\\slash tab\t newline\n return\r next\x85 separators\u2028\u2029 end'
LARGE = 4 * 1024 * 1024
RESOURCE = 3 * 1024 * 1024


def expect(condition, what):
    if not condition:
        raise AssertionError(what)


def text(result):
    expect(not result.is_error, f"tool failed: {result}")
    return result.content[0].text


async def slowly(client, name, arguments):
    """Progress arrives in order and before the answer, and a slow call does not hold up a fast one."""
    steps = []

    async def progress(done, total, _message):
        steps.append((done, total))

    slow = asyncio.create_task(client.call_tool(name, arguments, progress_callback=progress))
    text(await client.call_tool("echo", {"message": "overtakes"}))
    expect(not slow.done(), "a fast call waited for a slow one")
    text(await slow)
    # A client may handle the last notification just after the answer when both came in one read.
    expect(len(steps) >= 4, f"progress was {steps}")
    expect(steps == [(step, 5) for step in range(1, 6)][: len(steps)], f"progress was {steps}")


async def everything(client):
    """@modelcontextprotocol/server-everything."""
    expect(client.server_info.name == "mcp-servers/everything", f"server is {client.server_info}")
    tools = {tool.name for tool in (await client.list_tools()).tools}
    expect(len(tools) >= 13 and "echo" in tools, f"tools are {tools}")
    await client.send_ping()

    for message in (AWKWARD, "x", "0123456789abcdef" * (LARGE // 16)):
        echoed = text(await client.call_tool("echo", {"message": message}))
        expect(echoed == f"Echo: {message}", f"echo of {len(message)} characters came back changed")

    await slowly(client, "trigger-long-running-operation", {"duration": 1, "steps": 5})

    answers = await asyncio.gather(*(client.call_tool("echo", {"message": f"m{i}"}) for i in range(64)))
    expect([text(answer) for answer in answers] == [f"Echo: m{i}" for i in range(64)], "64 calls at once were mixed up")

    # A large resource, made by a tool and then read.
    data = random.Random(1).randbytes(RESOURCE)
    link = await client.call_tool(
        "gzip-file-as-resource",
        {"name": "large.gz", "data": "data:application/octet-stream;base64," + base64.b64encode(data).decode()},
    )
    expect(not link.is_error, f"gzip failed: {str(link)[:200]}")
    contents = (await client.read_resource(link.content[0].uri)).contents
    expect(gzip.decompress(base64.b64decode(contents[0].blob)) == data, "the large resource came back changed")

    resources = (await client.list_resources()).resources
    expect(len(resources) > 3, f"resources are {resources}")
    prompts = (await client.list_prompts()).prompts
    expect(len(prompts) > 1, f"prompts are {prompts}")

    refused = False
    try:
        refused = (await client.call_tool("no-such-tool", {})).is_error
    except Exception as error:
        refused = "no-such-tool" in str(error)
    expect(refused, "an unknown tool was accepted")


async def small(client, required):
    """demo: and the rmcp example. What they have of demo:'s tools is tried; the required ones they must have."""
    tools = {tool.name for tool in (await client.list_tools()).tools}
    expect(required <= tools, f"tools are {tools}")
    await client.send_ping()

    for message in (AWKWARD, "", "0123456789abcdef" * (LARGE // 16)):
        echoed = text(await client.call_tool("echo", {"message": message}))
        expect(echoed == message, f"echo of {len(message)} characters came back changed")
    answers = await asyncio.gather(*(client.call_tool("echo", {"message": f"m{i}"}) for i in range(64)))
    expect([text(answer) for answer in answers] == [f"m{i}" for i in range(64)], "64 calls at once were mixed up")

    if "add" in tools:
        expect(text(await client.call_tool("add", {"a": 2, "b": 40})) == "42", "2 + 40 is not 42")
    if "big" in tools:
        big = text(await client.call_tool("big", {"bytes": 2 * LARGE}))
        expect(len(big) == 2 * LARGE and big.startswith("abcdefghij"), f"big is {len(big)} characters")
    if "sleep" in tools:
        await slowly(client, "sleep", {"seconds": 1})


SCENARIOS = {
    "everything": everything,
    "demo": lambda client: small(client, {"echo", "add", "sleep", "big"}),
    "rmcp": lambda client: small(client, {"echo"}),
}


async def main():
    mode, scenario, command, *arguments = sys.argv[1:]
    server = StdioServerParameters(command=command, args=arguments)
    async with asyncio.timeout(60):
        async with Client(server, mode=mode, read_timeout_seconds=30) as client:
            await SCENARIOS[scenario](client)
            closing = time.monotonic()
        # The client waits 2 s after closing stdin before it sends SIGTERM: a clean end needs neither.
        expect(time.monotonic() - closing < 2, f"shutdown took {time.monotonic() - closing:.1f} s")


asyncio.run(main())
