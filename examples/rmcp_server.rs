//! An MCP server on the official Rust SDK, over this crate's stdio instead of the SDK's own, or over WebSocket, for which
//! the SDK has no transport.
//!
//! `cargo run --release --features rmcp --example rmcp_server`: give that as its command to any MCP client. With an
//! address behind it, such as `-- 127.0.0.1:9004`, it listens there for WebSockets, each a session of its own.

use std::{future::Future, time::Duration};

use framewire::{
    Link,
    codec::{
        Newline,
        websocket::handshake::{Asked, ServerConfig as Handshake, Verdict},
    },
    io::{self, tcp},
    transport::websocket::WebSocketTransport,
};
use rmcp::{
    ErrorData, RoleServer, ServerHandler, ServiceExt,
    model::{
        CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, JsonObject, ListToolsResult,
        PaginatedRequestParams, ProgressNotificationParam, ServerCapabilities, ServerConfig, Tool,
    },
    service::RequestContext,
};
use serde_json::{Value, json};

/// How many times `sleep` tells of its progress.
const STEPS: u32 = 5;

struct Tools;

impl ServerHandler for Tools {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
    }

    fn list_tools(
        &self,
        _page: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> impl Future<Output = Result<ListToolsResult, ErrorData>> + Send + '_ {
        let tools = [
            ("echo", "Returns the message", json!({ "message": { "type": "string" } })),
            ("add", "Adds two numbers", json!({ "a": { "type": "integer" }, "b": { "type": "integer" } })),
            ("sleep", "Waits, and tells how far it is", json!({ "seconds": { "type": "number" } })),
            ("big", "Returns that many bytes of text", json!({ "bytes": { "type": "integer" } })),
        ];
        let tools = tools.map(|(name, does, properties)| {
            let mut schema = JsonObject::new();
            schema.insert("type".to_owned(), "object".into());
            schema.insert("properties".to_owned(), properties);
            Tool::new(name, does, schema)
        });
        std::future::ready(Ok(ListToolsResult::with_all_items(tools.to_vec())))
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let arguments = request.arguments.unwrap_or_default();
        let argument = |name: &str| arguments.get(name).unwrap_or(&Value::Null);
        let missing =
            || ErrorData::invalid_params(format!("{}: an argument is missing or wrong", request.name), None);
        let text = match request.name.as_ref() {
            "echo" => argument("message").as_str().ok_or_else(missing)?.to_owned(),
            "add" => match (argument("a").as_i64(), argument("b").as_i64()) {
                (Some(a), Some(b)) => a.checked_add(b).ok_or_else(missing)?.to_string(),
                _ => return Err(missing()),
            },
            "sleep" => {
                let seconds = argument("seconds").as_f64().filter(|seconds| (0.0..=600.0).contains(seconds));
                sleep(Duration::from_secs_f64(seconds.ok_or_else(missing)?), &context).await?
            }
            "big" => {
                let bytes =
                    argument("bytes").as_u64().filter(|&bytes| bytes <= 12 << 20).ok_or_else(missing)?;
                ('a'..='z').cycle().take(bytes as usize).collect()
            }
            name => return Err(ErrorData::invalid_params(format!("no tool {name}"), None)),
        };
        Ok(CallToolResult::success(vec![ContentBlock::text(text)]).into())
    }
}

async fn sleep(whole: Duration, context: &RequestContext<RoleServer>) -> Result<String, ErrorData> {
    for step in 1..=STEPS {
        tokio::select! {
            () = context.ct.cancelled() => return Err(ErrorData::internal_error("cancelled", None)),
            () = tokio::time::sleep(whole / STEPS) => {}
        }
        if let Some(token) = context.meta.get_progress_token() {
            let progress = ProgressNotificationParam::new(token, step.into()).with_total(STEPS.into());
            let _gone = context.peer.notify_progress(progress).await;
        }
    }
    Ok(format!("slept {whole:?}"))
}

/// A page in a browser must not talk to a server on this machine, whatever name it has reached it by (DNS rebinding).
fn who_may(asked: &Asked<'_>) -> Verdict {
    let name = asked.host.rsplit_once(':').map_or(asked.host, |(name, _)| name);
    let local = matches!(name, "localhost" | "127.0.0.1" | "[::1]");
    if local && asked.origin.is_none() { Verdict::Accept } else { Verdict::Forbidden }
}

/// Serves each WebSocket that comes, for ever.
pub async fn listen(listener: tcp::Listener) -> Result<(), Box<dyn std::error::Error>> {
    let handshake = Handshake::new().protocol("mcp")?.policy(who_may);
    loop {
        let (reader, writer, peer) = listener.accept().await?;
        let handshake = handshake.clone();
        tokio::spawn(async move {
            let (link, _) = match <WebSocketTransport>::accept((reader, writer), &handshake).await {
                Ok(accepted) => accepted,
                Err(error) => return eprintln!("{peer}: {error}"),
            };
            match Tools.serve(link).await {
                Ok(service) => drop(service.waiting().await),
                Err(error) => eprintln!("{peer}: {error}"),
            }
        });
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    if let Some(address) = std::env::args().nth(1) {
        let listener = tcp::Listener::bind(&*address).await?;
        eprintln!("ws://{}", listener.local_addr()?);
        return listen(listener).await;
    }
    let (reader, writer) = io::stdio::open()?;
    let service = Tools.serve(Link::pair(Newline::new(), reader, writer)).await?;
    service.waiting().await?;
    Ok(())
}
