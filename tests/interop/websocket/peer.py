"""The `websockets` package as a peer: `peer.py client|server scenario|echo|goodbye PORT plain|deflate`.

A server prints `ready` once it listens. `scenario` and `goodbye` serve one connection and end with 0 when all was right;
`echo` goes on until it is ended.
"""

import asyncio
import sys

from websockets.asyncio.client import connect
from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed

ROLE, PART, PORT, COMPRESSION = sys.argv[1:5]
OPTIONS = {"compression": "deflate" if COMPRESSION == "deflate" else None, "max_size": 1 << 24}
SIZES = [0, 1, 125, 126, 127, 128, 65535, 65536, 65537, 1 << 20]


def payload(size):
    return bytes((at * 31 + (at >> 8)) & 0xFF for at in range(size))


def text(size):
    return ('grüße 🎉 {"id":1} ' * (size // 8 + 1))[:size]


async def exchange(ws, sent, what):
    await ws.send(sent)
    same(await ws.recv(), sent, what)


def same(got, want, what):
    if type(got) is not type(want) or got != want:
        raise AssertionError(f"{what}: {type(got).__name__} of {len(got)} is not what was sent, {type(want).__name__} of {len(want)}")


async def run(ws):
    agreed = any(extension.name == "permessage-deflate" for extension in ws.protocol.extensions)
    assert agreed == (COMPRESSION == "deflate"), f"extensions are {ws.protocol.extensions}, not {COMPRESSION}"
    if PART == "goodbye":
        await exchange(ws, "here", "before the goodbye")
        print("connected", flush=True)
        await ws.wait_closed()
        assert ws.close_code == 1001, f"goodbye is {ws.close_code}, not 1001"
        return
    for size in SIZES:
        await exchange(ws, text(size), f"alone, {size}")
        await exchange(ws, payload(size), f"alone, {size}")
    batch = [(text if at % 2 else payload)(at * 97) for at in range(128)]
    sending = asyncio.create_task(send_all(ws, batch))
    for at, sent in enumerate(batch):
        same(await ws.recv(), sent, f"in a batch, {at}")
    await sending
    for sent in [text(70000), payload(70000)]:
        pieces = [sent[at : at + 7001] for at in range(0, len(sent), 7001)]
        await ws.send(pieces)
        pong = await ws.ping(b"behind")
        same(await ws.recv(), sent, "in fragments")
        await pong
    await ws.close(4000, "bye")
    # The code is echoed, the reason need not be (RFC 6455 §5.5.1).
    assert ws.protocol.close_rcvd.code == 4000, ws.protocol.close_rcvd


async def send_all(ws, batch):
    for one in batch:
        await ws.send(one)


async def echo(ws):
    try:
        async for message in ws:
            await ws.send(message)
    except ConnectionClosed:
        pass


async def main():
    if ROLE == "client":
        async with connect(f"ws://127.0.0.1:{PORT}/", **OPTIONS) as ws:
            await (echo if PART == "echo" else run)(ws)
        return
    done = asyncio.get_running_loop().create_future()

    async def handle(ws):
        if PART == "echo":
            await echo(ws)
            return
        try:
            await run(ws)
            done.set_result(None)
        except Exception as error:
            done.set_exception(error)

    async with serve(handle, "127.0.0.1", int(PORT), **OPTIONS):
        print("ready", flush=True)
        await done


asyncio.run(main() if PART == "echo" else asyncio.wait_for(main(), 60))
