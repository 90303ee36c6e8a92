//! `demo:`, a small MCP server, so that a newcomer needs nothing else to try the command, and the tests neither.
//!
//! Speaks MCP 2024-11-05 to 2025-11-25: initialize, ping, tools/list, tools/call with `echo`, `add`, `sleep` (slow,
//! cancellable, with progress) and `big`. It forgives a missing handshake, so that one line typed by hand is answered.

use std::{
    collections::HashMap,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use framewire::endpoint::Size;
use serde_json::{Map, Value, json};
use tokio::{sync::mpsc, task::AbortHandle};

use super::end::AnyLink;

/// Protocol revisions, oldest first.
const REVISIONS: [&str; 4] = ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"];

/// The only revision with batches.
const WITH_BATCHES: &str = "2025-03-26";

/// Slow calls under way at once on one connection.
const MAX_RUNNING: usize = 256;

/// Messages in one batch.
const MAX_BATCH: usize = 1024;

/// Longest sleep.
const MAX_SLEEP: Duration = Duration::from_secs(600);

/// Bytes that stand around the text of `big`, at most.
const BIG_OVERHEAD: usize = 1024;

/// Answers on `link` until its peer has ended and every call under way is answered.
pub(crate) async fn serve(link: AnyLink, max_message_size: usize) {
    let (mut sender, mut receiver) = link.split();
    let (replies, mut later) = mpsc::channel(64);
    let mut server = Some(Server::new(replies, max_message_size));
    loop {
        let received = tokio::select! {
            received = receiver.receive_lent(), if server.is_some() => received,
            reply = later.recv() => match reply {
                Some(reply) if sender.send(&reply).await.is_ok() => continue,
                _ => break,
            },
        };
        let answer = match (received, &mut server) {
            (Ok(message), Some(server)) => server.handle(message),
            (Err(error), Some(server)) if !error.is_fatal() => {
                let fault = failure(&Value::Null, INVALID_REQUEST, &error.to_string());
                server.encode(&fault)
            }
            // What is under way is still answered: `later` ends when the last call drops its end of the channel.
            _ => {
                server = None;
                continue;
            }
        };
        if let Some(answer) = answer
            && sender.send(&answer).await.is_err_and(|error| error.is_fatal())
        {
            break;
        }
    }
    if let Some(server) = &server {
        server.cancel_all();
    }
    let _ = sender.close().await;
}

const PARSE_ERROR: i64 = -32700;
const INVALID_REQUEST: i64 = -32600;
const METHOD_NOT_FOUND: i64 = -32601;
const INVALID_PARAMS: i64 = -32602;
const BUSY: i64 = -32000;

type Running = Arc<Mutex<HashMap<String, AbortHandle>>>;

/// One connection's server: a message in, at most one out now, more later through the channel.
struct Server {
    replies: mpsc::Sender<Vec<u8>>,
    /// Calls that take time, by id.
    running: Running,
    revision: Option<&'static str>,
    max_message_size: usize,
}

enum Answer {
    /// A notification, a response, a call that was cancelled.
    None,
    Now(Value),
    Later(String, Pin<Box<dyn Future<Output = Value> + Send>>),
}

impl Server {
    fn new(replies: mpsc::Sender<Vec<u8>>, max_message_size: usize) -> Self {
        Self { replies, running: Running::default(), revision: None, max_message_size }
    }

    fn handle(&mut self, message: &[u8]) -> Option<Vec<u8>> {
        let answer = match serde_json::from_slice(message) {
            Ok(Value::Array(batch)) => return self.batch(batch),
            Ok(message) => self.one(message),
            Err(error) => Answer::Now(failure(&Value::Null, PARSE_ERROR, &format!("Parse error: {error}"))),
        };
        match answer {
            Answer::None => None,
            Answer::Now(value) => self.encode(&value),
            Answer::Later(id, work) => {
                let replies = self.replies.clone();
                let limit = self.max_message_size;
                self.spawn(id, async move {
                    let reply = work.await;
                    if let Some(reply) = encode(&reply, limit) {
                        let _ = replies.send(reply).await;
                    }
                });
                None
            }
        }
    }

    fn batch(&mut self, batch: Vec<Value>) -> Option<Vec<u8>> {
        let refused = match self.revision {
            _ if batch.is_empty() => Some("Invalid Request: an empty batch"),
            _ if batch.len() > MAX_BATCH => Some("Invalid Request: too many messages in a batch"),
            Some(revision) if revision != WITH_BATCHES => {
                Some("Invalid Request: this revision has no batches")
            }
            _ => None,
        };
        if let Some(refused) = refused {
            return self.encode(&failure(&Value::Null, INVALID_REQUEST, refused));
        }
        let mut answers = Vec::new();
        let mut handles = Vec::new();
        for message in batch {
            match self.one(message) {
                Answer::None => {}
                Answer::Now(value) => answers.push(value),
                Answer::Later(id, work) => {
                    let (done, answer) = tokio::sync::oneshot::channel();
                    self.spawn(id, async move {
                        let _ = done.send(work.await);
                    });
                    handles.push(answer);
                }
            }
        }
        if handles.is_empty() {
            return if answers.is_empty() { None } else { self.encode(&Value::Array(answers)) };
        }
        let (replies, limit) = (self.replies.clone(), self.max_message_size);
        tokio::spawn(async move {
            for handle in handles {
                // A call that was cancelled has no answer.
                if let Ok(answer) = handle.await {
                    answers.push(answer);
                }
            }
            if let Some(reply) = encode(&Value::Array(answers), limit) {
                let _ = replies.send(reply).await;
            }
        });
        None
    }

    /// Runs `work` beside the others until it is done or cancelled.
    fn spawn(&self, id: String, work: impl Future<Output = ()> + Send + 'static) {
        let running = self.running.clone();
        // Held until the entry exists, so that the end of a quick call cannot come before its start.
        let mut entries = lock(&self.running);
        let task = {
            let id = id.clone();
            tokio::spawn(async move {
                work.await;
                lock(&running).remove(&id);
            })
        };
        entries.insert(id, task.abort_handle());
    }

    fn cancel_all(&self) {
        for (_, task) in lock(&self.running).drain() {
            task.abort();
        }
    }

    fn encode(&self, value: &Value) -> Option<Vec<u8>> {
        encode(value, self.max_message_size)
    }

    fn one(&mut self, message: Value) -> Answer {
        let Value::Object(mut message) = message else {
            return invalid(&Value::Null, "Invalid Request: not an object");
        };
        let id = message.remove("id");
        let params = message.remove("params");
        let is_answer = message.contains_key("result") || message.contains_key("error");
        let method = match message.remove("method") {
            Some(Value::String(method)) => method,
            None if is_answer => return Answer::None,
            _ => return invalid(&shown(id.as_ref()), "Invalid Request: no method"),
        };
        if message.get("jsonrpc") != Some(&Value::from("2.0")) {
            return invalid(&shown(id.as_ref()), "Invalid Request: jsonrpc is not \"2.0\"");
        }
        let id = match id {
            None => return self.notification(&method, params.as_ref()),
            Some(id @ (Value::String(_) | Value::Number(_))) => id,
            Some(_) => return invalid(&Value::Null, "Invalid Request: an id is a string or a number"),
        };
        let params = match params {
            None => Map::new(),
            Some(Value::Object(params)) => params,
            Some(_) => return Answer::Now(failure(&id, INVALID_PARAMS, "Invalid params: not an object")),
        };
        if lock(&self.running).contains_key(&id.to_string()) {
            return Answer::Now(failure(&id, INVALID_REQUEST, "Invalid Request: this id is still in use"));
        }
        match method.as_str() {
            "initialize" => self.initialize(&id, &params),
            "ping" => Answer::Now(success(&id, &json!({}))),
            "tools/list" => Answer::Now(success(&id, &json!({ "tools": tools() }))),
            "tools/call" => self.call(&id, &params),
            _ => {
                let text = format!("Method not found: {}", super::log::preview(method.as_bytes(), 80));
                Answer::Now(failure(&id, METHOD_NOT_FOUND, &text))
            }
        }
    }

    fn notification(&self, method: &str, params: Option<&Value>) -> Answer {
        if method == "notifications/cancelled"
            && let Some(id) = params.and_then(|params| params.get("requestId"))
            && let Some(task) = lock(&self.running).remove(&id.to_string())
        {
            task.abort();
        }
        Answer::None
    }

    fn initialize(&mut self, id: &Value, params: &Map<String, Value>) -> Answer {
        let Some(Value::String(asked)) = params.get("protocolVersion") else {
            return Answer::Now(failure(id, INVALID_PARAMS, "Invalid params: protocolVersion is missing"));
        };
        let newest = REVISIONS.last().copied().unwrap_or_default();
        let revision = REVISIONS.iter().copied().find(|revision| revision == asked).unwrap_or(newest);
        self.revision = Some(revision);
        Answer::Now(success(
            id,
            &json!({
                "protocolVersion": revision,
                "capabilities": { "tools": {} },
                "serverInfo": {
                    "name": "framewire-demo",
                    "title": "framewire's demo server",
                    "version": env!("CARGO_PKG_VERSION"),
                },
                "instructions": "Tools to try a transport with: echo, add, sleep, big.",
            }),
        ))
    }

    fn call(&self, id: &Value, params: &Map<String, Value>) -> Answer {
        let bad = |text: String| Answer::Now(failure(id, INVALID_PARAMS, &text));
        let Some(Value::String(name)) = params.get("name") else {
            return bad("Invalid params: the name of a tool is missing".to_owned());
        };
        let none = Map::new();
        let arguments = match params.get("arguments") {
            None => &none,
            Some(Value::Object(arguments)) => arguments,
            Some(_) => return bad("Invalid params: arguments is not an object".to_owned()),
        };
        match name.as_str() {
            "echo" => match arguments.get("message") {
                Some(Value::String(message)) => Answer::Now(text(id, message)),
                _ => bad("Invalid params: message is not a string".to_owned()),
            },
            "add" => match (arguments.get("a"), arguments.get("b")) {
                (Some(Value::Number(a)), Some(Value::Number(b))) => match sum(a, b) {
                    Some(sum) => Answer::Now(text(id, &sum)),
                    None => bad("Invalid params: the sum is not a finite number".to_owned()),
                },
                _ => bad("Invalid params: a and b are not both numbers".to_owned()),
            },
            "sleep" => {
                let seconds = arguments.get("seconds").and_then(Value::as_f64);
                match seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()) {
                    Some(duration) if duration <= MAX_SLEEP => self.sleep(
                        id,
                        duration,
                        params.get("_meta").and_then(|meta| meta.get("progressToken")),
                    ),
                    _ => bad("Invalid params: seconds is not a number from 0 to 600".to_owned()),
                }
            }
            "big" => {
                let limit = self.max_message_size.saturating_sub(BIG_OVERHEAD);
                let bytes = arguments
                    .get("bytes")
                    .and_then(Value::as_u64)
                    .and_then(|bytes| usize::try_from(bytes).ok());
                match bytes {
                    Some(bytes) if bytes <= limit => Answer::Now(text(id, &big(bytes))),
                    _ => bad(format!("Invalid params: bytes is not a number from 0 to {}", Size(limit))),
                }
            }
            name => bad(format!("Unknown tool: {}", super::log::preview(name.as_bytes(), 80))),
        }
    }

    fn sleep(&self, id: &Value, duration: Duration, token: Option<&Value>) -> Answer {
        if lock(&self.running).len() >= MAX_RUNNING {
            return Answer::Now(failure(id, BUSY, "too many calls under way"));
        }
        let token = token.filter(|token| token.is_string() || token.is_number()).cloned();
        let (replies, limit) = (self.replies.clone(), self.max_message_size);
        let key = id.to_string();
        let id = id.clone();
        let work = async move {
            const STEPS: u32 = 5;
            for step in 1..=STEPS {
                tokio::time::sleep(duration / STEPS).await;
                let Some(token) = &token else { continue };
                let progress = json!({
                    "jsonrpc": "2.0",
                    "method": "notifications/progress",
                    "params": {
                        "progressToken": token,
                        "progress": step,
                        "total": STEPS,
                        "message": format!("slept {step} of {STEPS} steps"),
                    },
                });
                if let Some(progress) = encode(&progress, limit) {
                    let _ = replies.send(progress).await;
                }
            }
            text(&id, &format!("slept {} s", duration.as_secs_f64()))
        };
        Answer::Later(key, Box::pin(work))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An answer, or the reason why there is none: it would be larger than the connection takes.
fn encode(value: &Value, limit: usize) -> Option<Vec<u8>> {
    let bytes = serde_json::to_vec(value).ok()?;
    if bytes.len() <= limit {
        return Some(bytes);
    }
    let id = value.get("id").cloned().unwrap_or_default();
    serde_json::to_vec(&failure(&id, BUSY, "the answer is larger than this connection takes")).ok()
}

fn invalid(id: &Value, text: &str) -> Answer {
    Answer::Now(failure(id, INVALID_REQUEST, text))
}

/// The id to answer a bad request with: its own when it is one.
fn shown(id: Option<&Value>) -> Value {
    id.filter(|id| id.is_string() || id.is_number()).cloned().unwrap_or_default()
}

fn success(id: &Value, result: &Value) -> Value {
    json!({ "jsonrpc": "2.0", "id": id, "result": result })
}

fn failure(id: &Value, code: i64, message: &str) -> Value {
    json!({ "jsonrpc": "2.0", "id": id, "error": { "code": code, "message": message } })
}

fn text(id: &Value, text: &str) -> Value {
    success(id, &json!({ "content": [{ "type": "text", "text": text }], "isError": false }))
}

/// Exact for integers, so that numbers above 2^53 come back as they are.
fn sum(a: &serde_json::Number, b: &serde_json::Number) -> Option<String> {
    if let (Some(a), Some(b)) = (a.as_i128(), b.as_i128()) {
        return Some((a + b).to_string());
    }
    let sum = a.as_f64()? + b.as_f64()?;
    sum.is_finite().then(|| sum.to_string())
}

/// `bytes` letters that are easy to check: the alphabet, over and over.
fn big(bytes: usize) -> String {
    ('a'..='z').cycle().take(bytes).collect()
}

fn tools() -> Value {
    let tool = |name: &str, description: &str, properties: Value, required: &[&str]| {
        json!({
            "name": name,
            "description": description,
            "inputSchema": { "type": "object", "properties": properties, "required": required },
        })
    };
    json!([
        tool("echo", "Returns the message.", json!({ "message": { "type": "string" } }), &["message"]),
        tool(
            "add",
            "Adds two numbers.",
            json!({ "a": { "type": "number" }, "b": { "type": "number" } }),
            &["a", "b"]
        ),
        tool(
            "sleep",
            "Waits, with progress if a token is given. Can be cancelled.",
            json!({ "seconds": { "type": "number", "minimum": 0, "maximum": MAX_SLEEP.as_secs() } }),
            &["seconds"]
        ),
        tool(
            "big",
            "Returns a text of so many bytes.",
            json!({ "bytes": { "type": "integer", "minimum": 0 } }),
            &["bytes"]
        ),
    ])
}

#[cfg(test)]
mod tests;
