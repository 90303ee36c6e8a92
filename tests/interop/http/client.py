"""The official Python client over HTTP: client.py legacy|auto|sse everything|fixture URL. Exits 0 when all came out right."""

import asyncio
import sys
import warnings

import mcp_types as types
from mcp import Client
from mcp.client.sse import sse_client

warnings.simplefilter("ignore")
AWKWARD = 'Grüße, 世界 🦀 "quoted" back\\slash tab\t newline\n return\r next\x85 separators\u2028\u2029 end'
LARGE = 512 * 1024  # this client takes no event of more than 1 MiB
logged, updated = [], asyncio.Event()


def expect(condition, what):
    if not condition:
        raise AssertionError(what)


def text(result):
    expect(not result.is_error, f"tool failed: {result}")
    return result.content[0].text


async def sample(_context, params):
    said = params.messages[0].content
    said = said[0] if isinstance(said, list) else said
    content = types.TextContent(type="text", text=f"heard {said.text}")
    return types.CreateMessageResult(role="assistant", content=content, model="m")


async def elicit(_context, _params):
    return types.ElicitResult(action="accept", content={"username": "u", "email": "e"})


async def log(params):
    logged.append(params.data)


async def message(said):
    if isinstance(getattr(said, "root", said), types.ResourceUpdatedNotification):
        updated.set()


async def echoes(client, wrap):
    for said in (AWKWARD, "x", "0123456789abcdef" * (LARGE // 16)):
        expect(text(await client.call_tool("echo", {"message": said})) == wrap(said), f"{len(said)} characters came back changed")
    answers = await asyncio.gather(*(client.call_tool("echo", {"message": f"m{i}"}) for i in range(32)))
    expect([text(answer) for answer in answers] == [wrap(f"m{i}") for i in range(32)], "calls at once were mixed up")


async def progress_of(client, name, arguments):
    steps = []

    async def progress(done, _total, _message):
        steps.append(done)

    text(await client.call_tool(name, arguments, progress_callback=progress))
    expect(len(steps) >= 2 and steps == sorted(steps), f"progress was {steps}")


async def everything(client):
    expect(len((await client.list_tools()).tools) >= 10, "tools are missing")
    await echoes(client, lambda said: f"Echo: {said}")
    await progress_of(client, "trigger-long-running-operation", {"duration": 0.4, "steps": 4})


async def fixture(client):
    await echoes(client, lambda said: said)
    await progress_of(client, "test_tool_with_progress", {})
    expect((await client.read_resource("test://static-text")).contents[0].text.startswith("This is"), "the resource differs")
    if client.protocol_version >= "2026" or "test_sampling" not in {tool.name for tool in (await client.list_tools()).tools}:
        return
    said = text(await client.call_tool("test_sampling", {"prompt": "me"}))
    expect(said == "LLM response: heard me", f"sampling said {said}")
    said = text(await client.call_tool("test_elicitation", {"message": "who"}))
    expect("accept" in said, f"elicitation said {said}")
    text(await client.call_tool("test_tool_with_logging", {}))
    await asyncio.sleep(0.1)
    expect(len(logged) == 3, f"logged were {logged}")
    await client.subscribe_resource("test://watched-resource")
    await asyncio.wait_for(updated.wait(), 10)  # belongs to no request


async def main():
    mode, scenario, url = sys.argv[1:]
    client = Client(
        sse_client(url) if mode == "sse" else url, mode="legacy" if mode == "sse" else mode, sampling_callback=sample,
        elicitation_callback=elicit, logging_callback=log, message_handler=message, read_timeout_seconds=30,
    )
    async with client:
        await {"everything": everything, "fixture": fixture}[scenario](client)


asyncio.run(asyncio.wait_for(main(), 60))
