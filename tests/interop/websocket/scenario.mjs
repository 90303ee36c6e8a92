// What every peer does, in one place for Node and the browser: a socket is anything with the four functions below.
//
//   send(data)      a string goes out as text, a Uint8Array as binary
//   receive()       the next message, the same way; fails when the connection ends first
//   close(code, reason)
//   closed()        [code, reason] of the peer's Close frame

const SIZES = [0, 1, 125, 126, 127, 128, 65535, 65536, 65537, 1 << 20];

export function payload(size) {
  return Uint8Array.from({ length: size }, (_, at) => (at * 31 + (at >> 8)) & 0xff);
}

export function text(size) {
  return "grüße 🎉 {\"id\":1} ".repeat(size / 8 + 1).slice(0, size).toWellFormed?.() ?? "x".repeat(size);
}

export function same(got, want, what) {
  const equal =
    typeof want === "string"
      ? got === want
      : got instanceof Uint8Array && got.length === want.length && got.every((byte, at) => byte === want[at]);
  if (!equal) throw new Error(`${what}: ${typeof got} of ${got?.length} is not the ${typeof want} of ${want.length} sent`);
}

export async function scenario(socket) {
  for (const size of SIZES) {
    for (const sent of [text(size), payload(size)]) {
      socket.send(sent);
      same(await socket.receive(), sent, `alone, ${size}`);
    }
  }
  const batch = Array.from({ length: 128 }, (_, at) => (at % 2 ? text : payload)(at * 97));
  for (const sent of batch) socket.send(sent);
  for (const [at, sent] of batch.entries()) same(await socket.receive(), sent, `in a batch, ${at}`);
}

export async function farewell(socket) {
  socket.close(4000, "bye");
  const [code] = await socket.closed(); // the code is echoed, the reason need not be (RFC 6455 §5.5.1)
  if (code !== 4000) throw new Error(`close 4000 was answered with ${code}`);
}
