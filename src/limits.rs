//! Every default limit in one table, each with its unit, its reason and its source.
//!
//! Anything in the crate may use this module; it uses nothing.

use std::time::Duration;

/// Largest message accepted or sent, in bytes of payload: 16 MiB.
///
/// The seeds agree on it (AIRS's example configuration, TurboMCP's frame limit, rmcp's newest line limit); MCP
/// resources of a few MiB in base64 are common, more is a mistake or an attack.
pub const MAX_MESSAGE_SIZE: usize = 16 * 1024 * 1024;

/// Largest head of a Content-Length message, in bytes up to and including the blank line.
///
/// LSP clients send one or two headers of less than 100 bytes; 4 KiB leaves room and bounds a trickled head.
pub const MAX_HEAD_SIZE: usize = 4 * 1024;

/// Bytes that a server-sent event may take on the wire beyond the largest payload: 64 KiB, which is names of fields for
/// ten thousand data lines, or as many short comments.
pub const MAX_EVENT_OVERHEAD: usize = 64 * 1024;

/// Blank lines in a row in a stream of server-sent events that are one fault. Real servers write one between two events.
pub const MAX_BLANK_LINES: usize = 1024;

/// Fragments of one WebSocket message. What a message of many costs in memory is bounded by its size; Autobahn sends 4 MiB
/// in pieces of 64 bytes.
pub const MAX_FRAGMENTS: usize = 128 * 1024;

/// WebSocket control frames in a row without a data frame between them, as long as they come without a pause. Between the
/// fragments of one message pauses do not count.
pub const MAX_CONTROL_FRAMES: usize = 1024;

/// Silence of a WebSocket peer after which it is sent a ping, and after two that it leaves unanswered given up.
pub const KEEP_ALIVE: Duration = Duration::from_secs(30);

/// WebSocket messages smaller than this, in bytes, are sent uncompressed: the shortest that gain by it are about as long.
pub const DEFLATE_THRESHOLD: usize = 128;

/// How many times its compressed size a WebSocket message may be: 256.
///
/// Deflate reaches 1032. JSON comes to some 10, and to 200 where a message of 16 KiB repeats the one before it.
pub const MAX_INFLATE_RATIO: usize = 256;

/// Bytes that one compressed message may grow to whatever its ratio: the default limit on messages, since a real message
/// may be one letter over and over (deflate reaches 1,032:1). The ratio guards those who raise that limit.
pub const FREE_INFLATE_SIZE: usize = MAX_MESSAGE_SIZE;

/// Faults in a row (no good frame between them) after which a link gives up on its peer.
///
/// A server that prints a banner makes a few dozen noise lines; a stream that is not MCP at all makes nothing else.
pub const MAX_FAULTS_IN_A_ROW: u32 = 1024;

/// Deepest nesting of a JSON value, in containers open at a time: simd-json's own limit, eight times serde_json's. One
/// bit is kept for each level.
pub const MAX_JSON_DEPTH: usize = 1024;

/// Window of a read, in bytes, unless a larger message is on its way: stays within a core's second-level cache beside the
/// caller's own data.
pub const MAX_READ_WINDOW: usize = 64 * 1024;

/// Readable bytes that stand behind each block of the pool, in bytes, so that SIMD parsers may read past the end.
pub const BLOCK_PADDING: usize = 64;

/// A frame is copied out of its block when it is held and the block is more than this many times its size.
pub const PIN_FACTOR: usize = 128;

/// Size of the blocks that small held frames are copied into, in bytes: the most that one small frame pins.
pub const HOLD_BLOCK_SIZE: usize = 4 * 1024;

/// Payloads of at least this size, in bytes, go out by vectored write, untouched; smaller ones are copied into the
/// write buffer. Measured in `benches/codec.rs` (`write threshold`): the cross-over lies between 2 and 4 KiB.
pub const VECTORED_THRESHOLD: usize = 4 * 1024;

/// Payloads of at most this size, in bytes, are gathered into one write all the same when they answer messages that came
/// together: two of them fill a block. Over TCP a write costs microseconds, and such a copy less than one.
pub const GATHER_LIMIT: usize = 32 * 1024;

/// Size of the blocks that small outgoing frames are gathered in, in bytes.
pub const WRITE_BLOCK_SIZE: usize = 16 * 1024;

/// Bytes queued for writing above which sending waits and, where asked for, reading pauses: 256 KiB, four socket buffers'
/// worth.
pub const WRITE_HIGH_WATER: usize = 256 * 1024;

/// Hard cap on the bytes of a buffer manager, lent and pooled together: 256 MiB, so that 64 messages of 1 MiB can be
/// held with room for as many connections' windows.
pub const POOL_MAX_BYTES: usize = 256 * 1024 * 1024;

/// How long an acquire waits for a buffer when the pool is exhausted (AIRS's seed: 100 ms).
pub const ACQUIRE_TIMEOUT: Duration = Duration::from_millis(100);

/// How long a close waits for queued bytes to leave.
pub const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// How long an opening handshake (WebSocket, TLS) may take, from the connection on.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Largest head of a WebSocket handshake, in bytes: browsers with cookies stay below, proxies allow 8 to 16 KiB.
pub const HANDSHAKE_MAX_HEAD: usize = 16 * 1024;

/// Most headers of a WebSocket handshake: browsers send some fifteen.
pub const HANDSHAKE_MAX_HEADERS: usize = 64;

/// How long a TCP or Unix connect may take.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a TLS handshake may take, from the first byte to the last: a few round trips, and 10 s of them on a bad line.
pub const TLS_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// TLS handshakes that one listener has under way; further connections wait in the system's queue. Each takes some
/// 10 KiB, so strangers hold at most a few MiB.
pub const TLS_HANDSHAKES_AT_ONCE: usize = 256;

/// How long the files of a certificate are believed not to have changed: a handshake later than that looks again.
pub const TLS_CERTIFICATE_CHECK: Duration = Duration::from_secs(1);

/// Bytes that one direction of an in-memory pair holds: 1 MiB.
pub const MEMORY_QUEUE_BYTES: usize = 1024 * 1024;

/// Messages that one direction of an in-memory pair holds (bytes alone do not bound empty ones).
pub const MEMORY_QUEUE_MESSAGES: usize = 1024;

/// Requests that one server behind a gateway has under way: 16,384, a thousand clients with sixteen each. One costs some
/// 100 bytes.
pub const MAX_IN_FLIGHT: usize = 16 * 1024;

/// Resources that are subscribed to at one server behind a gateway, over all clients, so far as they are told apart by
/// client and set again after a restart.
pub const MAX_SUBSCRIPTIONS: usize = 4096;

/// Bytes of their URIs: 1 MiB.
pub const SUBSCRIPTION_BYTES: usize = 1024 * 1024;

/// Longest id of a request, and longest progress token, in bytes, that a gateway remembers: 1 KiB. UUIDs have 38.
pub const MAX_ID_SIZE: usize = 1024;

/// Pause before a server that has ended is started again, at first.
pub const MIN_BACKOFF: Duration = Duration::from_millis(100);

/// Longest pause before a server that ends again and again is started again.
pub const MAX_BACKOFF: Duration = Duration::from_secs(30);

/// How long a message waits for a server that is being restarted: well below the 60 s after which clients give up.
pub const HOLD_TIME: Duration = Duration::from_secs(10);

/// Bytes that wait for a server that is being restarted: 4 MiB.
pub const HOLD_BYTES: usize = 4 * 1024 * 1024;

/// Messages that wait for a server that is being restarted.
pub const HOLD_MESSAGES: usize = 1024;

/// How long opening a connection to a server behind a gateway may take, whatever it is.
pub const OPEN_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a restarted server may take to answer `initialize`: package runners fetch the package first.
pub const REPLAY_TIMEOUT: Duration = Duration::from_secs(60);

/// Clients that share a server, or a few: 4,096. Idle, each costs less than 1 KiB in the hub.
pub const MAX_CLIENTS: usize = 4096;

/// Requests that one client of a shared server has under way: as many as can be told from a mistake.
pub const MAX_IN_FLIGHT_PER_CLIENT: usize = 1024;

/// Bytes that wait for a client of a shared server above which nothing more is taken from it: 1 MiB.
pub const CLIENT_MARK: usize = 1024 * 1024;

/// Bytes that wait for a client of a shared server above which it is given up: 64 MiB, four of the largest messages. A
/// server answers faster than a client reads, so this is far above the mark.
pub const CLIENT_QUEUE_BYTES: usize = 64 * 1024 * 1024;

/// Messages that wait for a client of a shared server above which it is given up.
pub const CLIENT_QUEUE_MESSAGES: usize = 16 * 1024;

/// Largest head of an HTTP request, in bytes: what browsers and proxies send with cookies stays below 16 KiB; hyper reads
/// and writes bodies in pieces of up to this size too.
pub const HTTP_MAX_HEAD_SIZE: usize = 64 * 1024;

/// Most headers of an HTTP request (hyper's own limit).
pub const HTTP_MAX_HEADERS: usize = 100;

/// How long an HTTP connection may take from one request to the end of the head of the next, and a body from one piece to
/// the next.
pub const HTTP_READ_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a client of HTTP may take nothing of what waits for it.
pub const HTTP_WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// Sessions that an HTTP server has at a time. Each that idles takes a few KiB, and what its backend takes.
pub const HTTP_MAX_SESSIONS: usize = 1024;

/// Requests without a session that an HTTP server has under way at a time.
pub const HTTP_MAX_STATELESS: usize = 1024;

/// Requests of one session over HTTP under way at a time, those of batches among them. Clients of today send one to a few
/// dozen.
pub const HTTP_MAX_IN_FLIGHT: usize = 128;

/// Sessions of an HTTP server that wait to be accepted.
pub const HTTP_ACCEPT_QUEUE: usize = 128;

/// Messages of one HTTP session that wait to be received; further POSTs wait.
pub const HTTP_INBOX_MESSAGES: usize = 256;

/// Time after which an HTTP session with no request under way and no stream open is forgotten: 30 min, as a person
/// thinks over an answer.
pub const HTTP_SESSION_IDLE: Duration = Duration::from_secs(30 * 60);

/// Silence of an event stream after which a comment is sent, so that neither end nor a proxy takes it for dead; proxies
/// cut at 60 s, some at 30 s. A request that has no answer by then is answered by a stream.
pub const HTTP_KEEP_ALIVE: Duration = Duration::from_secs(15);

/// How long a client of HTTP is asked to wait before it opens a broken stream anew.
pub const HTTP_RETRY: Duration = Duration::from_secs(1);

/// Bytes of events that one session keeps for clients that come back.
pub const EVENT_STORE_BYTES: usize = 256 * 1024;

/// Events that one session keeps for clients that come back.
pub const EVENT_STORE_EVENTS: usize = 1024;

/// How long an event is kept for a client that comes back.
pub const EVENT_STORE_AGE: Duration = Duration::from_secs(5 * 60);

/// How long `server/discover` may go unanswered before a server is taken for one with sessions. One that is only slow is
/// found out later, by its refusal of `initialize`.
pub const ERA_PROBE_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a server with sessions may take to answer `initialize` when a gateway sends it: what package runners need to
/// fetch one is a minute at most.
pub const ERA_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(60);

/// Requests that one translated connection has in flight.
pub const ERA_MAX_IN_FLIGHT: usize = 4096;

/// Bytes of requests that one translated connection keeps for the case that their results ask for input: two messages of
/// the largest size.
pub const ERA_MAX_HELD_BYTES: usize = 2 * MAX_MESSAGE_SIZE;

/// Bytes of what a client says of itself that travel with each request, and of one URI: 16 KiB.
pub const ERA_MAX_DECLARATION: usize = 16 * 1024;

/// Resources that one translated connection is subscribed to.
pub const ERA_MAX_SUBSCRIPTIONS: usize = 1024;

/// Streams of `subscriptions/listen` of one translated connection.
pub const ERA_MAX_STREAMS: usize = 64;

/// Messages of one batch that is taken apart for a server without batches.
pub const ERA_MAX_BATCH: usize = 256;

/// Calls of stateless clients that wait for their client to come back: of one connection, and of all to one server.
pub const ERA_MAX_SUSPENDED: usize = 64;

/// How long a stateless client has to come back with what it was asked for: ten minutes, as for people.
pub const ERA_SUSPENSION: Duration = Duration::from_secs(600);

/// Requests that an HTTP client has under way at once: more connections than that, servers refuse.
pub const HTTP_REQUESTS_IN_FLIGHT: usize = 128;

/// How long an HTTP client waits for a request without any byte for it. Tools take minutes; beyond five, clients have given
/// up, and a server that means to be longer sends comments.
pub const HTTP_RESPONSE_TIMEOUT: Duration = Duration::from_secs(300);

/// How long the server may take to accept a notification or response, which is no work: what is behind it waits so long.
pub const HTTP_ACCEPT_TIMEOUT: Duration = Duration::from_secs(30);

/// Least pause before an HTTP client asks for a stream again.
pub const HTTP_BACK_OFF_MIN: Duration = Duration::from_millis(500);

/// Longest pause before an HTTP client asks for a stream again, unless the server asks for more.
pub const HTTP_BACK_OFF_MAX: Duration = Duration::from_secs(30);

/// Longest `retry` of a server that an HTTP client obeys.
pub const HTTP_MAX_RETRY: Duration = Duration::from_secs(300);

/// Attempts in a row to go on with a stream that was cut: with the default pauses, half a minute.
pub const HTTP_MAX_RESUMES: u32 = 5;

/// Longest `Retry-After` that an HTTP client waits for. Beyond it the one who asks should decide.
pub const HTTP_MAX_RETRY_AFTER: Duration = Duration::from_secs(30);

/// How many times an HTTP client repeats what the server refused for now (429, 503).
pub const HTTP_MAX_REPEATS: u32 = 3;

/// How long a connection may be idle and still be used again by an HTTP client, where the server does not say. Node and
/// uvicorn close theirs after 5 s, and a request that meets the close is lost.
pub const HTTP_IDLE_REUSE: Duration = Duration::from_secs(4);

/// Idle connections that an HTTP client keeps.
pub const HTTP_MAX_IDLE: usize = 32;

/// How long an HTTP client's goodbye (DELETE of its session) may take.
pub const HTTP_GOODBYE_TIMEOUT: Duration = Duration::from_secs(2);

/// How long the stream of a request may stay open behind its answer, or behind its cancellation.
pub const HTTP_STREAM_GRACE: Duration = Duration::from_secs(5);

/// Bytes of a refusal's body that an HTTP client reads: enough for any JSON-RPC error.
pub const HTTP_MAX_REFUSAL: usize = 64 * 1024;

/// Messages that wait for one receiver of a fan-out.
pub const FANOUT_MESSAGES: usize = 1024;

/// Bytes that wait for one receiver of a fan-out: 4 MiB. They are shared with all others that wait for the same.
pub const FANOUT_BYTES: usize = 4 * 1024 * 1024;

/// Receivers of a fan-out.
pub const FANOUT_RECEIVERS: usize = 64 * 1024;

/// Topics of one receiver of a fan-out.
pub const FANOUT_TOPICS: usize = 1024;
