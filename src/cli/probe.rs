//! `framewire probe`: does it answer, who is it, how fast.

use std::{ffi::OsString, future::poll_fn, time::Duration};

use clap::Args;
use framewire::{
    endpoint::{Endpoint, Size},
    io::proxy::Proxy,
    transport::{PollTransport, Revision, Transport},
};
use serde_json::{Value, json};
use tokio::time::{Instant, timeout};

use super::{
    bridge,
    exit::Failure,
    log,
    open::{self, Opened, Outgoing},
    quantity::{self, percentile},
    transport::AnyTransport,
};

/// Ask an endpoint whether it answers, who it is and how fast
///
/// Connects, initializes (or, of a stateless server that has no initialize, asks what it is), counts the tools, pings, and
/// prints percentiles of the round trips. Exit code 4 if there is no proper answer, 5 if that is because a child failed.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  framewire probe tcp://127.0.0.1:9110
  framewire probe --count 1000 --json unix:/run/user/1000/mcp.sock
  framewire probe exec: -- npx -y @modelcontextprotocol/server-everything")]
pub(crate) struct Arguments {
    /// What to ask
    endpoint: Endpoint,

    /// The command of an exec: endpoint
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<OsString>,

    /// HTTP proxy to go through
    #[arg(long, value_name = "URL")]
    proxy: Option<Proxy>,

    /// Pings to send, one after the other
    #[arg(short = 'n', long, default_value_t = 100)]
    count: u32,

    /// How long each answer may take
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = quantity::duration)]
    timeout: Duration,

    /// Largest message
    #[arg(long, value_name = "SIZE", default_value = "16MiB", value_parser = quantity::size)]
    max_message_size: Size,

    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let mut command = arguments.command.clone();
    let endpoint = bridge::with_command(arguments.endpoint.clone(), &mut command)?;
    if !command.is_empty() {
        return Err(Failure::usage(
            "'-- COMMAND' belongs to exec:, and the endpoint is another or has a command",
        ));
    }
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::runtime)?;
    let found = runtime.block_on(probe(&endpoint, arguments))?;
    let text = if arguments.json { found.json().to_string() } else { found.text() };
    super::print(&text)
}

/// What was found out.
struct Found {
    endpoint: String,
    name: String,
    version: String,
    protocol: String,
    stateless: bool,
    /// Their names.
    capabilities: Vec<String>,
    /// `None` when the server has none or does not say.
    tools: Option<usize>,
    connect: Duration,
    initialize: Duration,
    /// Round trips, sorted.
    pings: Vec<Duration>,
}

async fn probe(endpoint: &Endpoint, arguments: &Arguments) -> Result<Found, Failure> {
    let start = Instant::now();
    let outgoing = Outgoing {
        max: arguments.max_message_size.0,
        deflate: true,
        proxy: arguments.proxy.clone(),
        ..Outgoing::default()
    };
    let mut opened = open::connect(endpoint, &outgoing, 1).await?;
    let connect = start.elapsed();
    let found = examine(endpoint, arguments, &mut opened, connect).await;
    match found {
        Ok(found) => {
            opened.end().await;
            Ok(found)
        }
        Err(failure) => Err(opened.blame(endpoint, failure).await),
    }
}

async fn examine(
    endpoint: &Endpoint,
    arguments: &Arguments,
    opened: &mut Opened,
    connect: Duration,
) -> Result<Found, Failure> {
    let name = endpoint.to_string();
    let no_answer =
        |trouble: Trouble| Failure::Connect(format!("{}: {}", name.trim_end_matches(':'), trouble.text));
    let mut asked = Asked { link: &mut opened.link, timeout: arguments.timeout, id: 0, meta: Value::Null };
    let start = Instant::now();
    let who = json!({ "name": "framewire-probe", "version": env!("CARGO_PKG_VERSION") });
    let hello = json!({
        "protocolVersion": Revision::LATEST_WITH_SESSIONS.as_str(),
        "capabilities": {},
        "clientInfo": who,
    });
    let stateless = Revision::R2026_07_28.as_str();
    let (hello, is_stateless) = match asked.ask("initialize", &hello).await {
        Ok(hello) => (hello, false),
        Err(refused @ Trouble { refused: true, .. }) => {
            asked.meta = json!({
                "io.modelcontextprotocol/protocolVersion": stateless,
                "io.modelcontextprotocol/clientInfo": who,
                "io.modelcontextprotocol/clientCapabilities": {},
            });
            // What it says to that is of interest only when it is an answer.
            let hello = asked.ask(DISCOVER, &Value::Null).await.map_err(|_| no_answer(refused))?;
            (hello, true)
        }
        Err(trouble) => return Err(no_answer(trouble)),
    };
    let initialize = start.elapsed();
    let shown = |value: Option<&Value>| match value {
        Some(Value::String(text)) => log::preview(text.as_bytes(), 80),
        _ => "?".to_owned(),
    };
    let info = hello
        .get("serverInfo")
        .or_else(|| hello.get("_meta").and_then(|meta| meta.get("io.modelcontextprotocol/serverInfo")));
    let part = |name| shown(info.and_then(|info| info.get(name)));
    let capabilities = hello.get("capabilities").and_then(Value::as_object);
    let mut found = Found {
        endpoint: endpoint.to_string(),
        name: part("name"),
        version: part("version"),
        protocol: if is_stateless { stateless.to_owned() } else { shown(hello.get("protocolVersion")) },
        stateless: is_stateless,
        capabilities: capabilities
            .map(|names| names.keys().take(MAX_SHOWN).map(|name| log::preview(name.as_bytes(), 80)).collect())
            .unwrap_or_default(),
        tools: None,
        connect,
        initialize,
        pings: Vec::new(),
    };
    if !is_stateless {
        asked.tell("notifications/initialized").await.map_err(no_answer)?;
    }
    if capabilities.is_some_and(|names| names.contains_key("tools")) {
        found.tools = asked.tools().await;
    }
    let ping = if is_stateless { DISCOVER } else { "ping" };
    for _ in 0..arguments.count {
        let start = Instant::now();
        asked.ask(ping, &Value::Null).await.map_err(no_answer)?;
        found.pings.push(start.elapsed());
    }
    found.pings.sort_unstable();
    Ok(found)
}

/// What a stateless server has instead of initialize; asked again instead of a ping.
const DISCOVER: &str = "server/discover";

/// Capabilities to show: they come from a peer.
const MAX_SHOWN: usize = 64;

/// Pages of tools to ask for.
const MAX_PAGES: usize = 1000;

struct Asked<'a> {
    link: &'a mut AnyTransport,
    timeout: Duration,
    id: u64,
    /// What goes with each request to a stateless server.
    meta: Value,
}

/// Why there is no result.
struct Trouble {
    text: String,
    /// There was an answer: an error.
    refused: bool,
}

impl From<String> for Trouble {
    fn from(text: String) -> Self {
        Self { text, refused: false }
    }
}

impl Asked<'_> {
    async fn tell(&mut self, method: &str) -> Result<(), Trouble> {
        let message = json!({ "jsonrpc": "2.0", "method": method }).to_string();
        Ok(Transport::send(self.link, message.as_bytes()).await.map_err(|error| error.to_string())?)
    }

    /// How many tools there are. `None` when the server says so no better.
    async fn tools(&mut self) -> Option<usize> {
        let mut count = 0;
        let mut params = Value::Null;
        for _ in 0..MAX_PAGES {
            let page = match self.ask("tools/list", &params).await {
                Ok(page) => page,
                Err(trouble) => {
                    tracing::debug!("{}", trouble.text);
                    return None;
                }
            };
            count += page.get("tools")?.as_array()?.len();
            match page.get("nextCursor") {
                None | Some(Value::Null) => return Some(count),
                Some(cursor) => params = json!({ "cursor": cursor }),
            }
        }
        None
    }

    /// Sends a request and waits for its answer. What else comes, notifications and requests of the server, is passed
    /// over; so are lines that are no messages, which some servers print when they start.
    async fn ask(&mut self, method: &str, params: &Value) -> Result<Value, Trouble> {
        self.id += 1;
        let id = self.id;
        let mut params = params.clone();
        if !self.meta.is_null() {
            params = match params {
                Value::Object(mut params) => {
                    params.insert("_meta".to_owned(), self.meta.clone());
                    Value::Object(params)
                }
                _ => json!({ "_meta": self.meta }),
            };
        }
        let mut message = json!({ "jsonrpc": "2.0", "id": id, "method": method });
        if let (Some(message), false) = (message.as_object_mut(), params.is_null()) {
            message.insert("params".into(), params);
        }
        Transport::send(self.link, message.to_string().as_bytes())
            .await
            .map_err(|error| format!("no answer to {method}: {error}"))?;
        let link = &mut *self.link;
        let answer = async move {
            loop {
                let received = match poll_fn(|cx| link.poll_receive(cx)).await {
                    Ok(received) => received,
                    Err(error) if error.is_fatal() => {
                        return Err(format!("no answer to {method}: {error}").into());
                    }
                    Err(error) => {
                        tracing::debug!("{error}");
                        continue;
                    }
                };
                let Ok(mut answer) = serde_json::from_slice::<Value>(&received) else {
                    tracing::debug!("not JSON: {}", log::preview(&received, 120));
                    continue;
                };
                if answer.get("id") != Some(&json!(id)) || answer.get("method").is_some() {
                    continue;
                }
                if let Some(error) = answer.get("error") {
                    let error = log::preview(error.to_string().as_bytes(), 200);
                    let text = format!("{method} was answered with an error: {error}");
                    return Err(Trouble { text, refused: true });
                }
                return Ok(answer.get_mut("result").map(Value::take).unwrap_or_default());
            }
        };
        timeout(self.timeout, answer)
            .await
            .unwrap_or_else(|_| Err(format!("no answer to {method} within {:?}", self.timeout).into()))
    }
}

fn micros(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e7).round() / 10.0
}

impl Found {
    fn text(&self) -> String {
        let at = |share| micros(percentile(&self.pings, share));
        let mut text = format!(
            "{}\n  server      {} {}\n  protocol    {}{}\n  can         {}\n  tools       {}\n  connect     {} µs\n  initialize  {} µs",
            self.endpoint,
            self.name,
            self.version,
            self.protocol,
            if self.stateless { ", stateless" } else { "" },
            if self.capabilities.is_empty() { "nothing".to_owned() } else { self.capabilities.join(", ") },
            self.tools.map_or_else(|| "?".to_owned(), |tools| tools.to_string()),
            micros(self.connect),
            micros(self.initialize),
        );
        if !self.pings.is_empty() {
            text.push_str(&format!(
                "\n  ping × {}  p50 {} µs, p90 {} µs, p99 {} µs, max {} µs",
                self.pings.len(),
                at(0.5),
                at(0.9),
                at(0.99),
                at(1.0)
            ));
        }
        text
    }

    fn json(&self) -> Value {
        let at = |share| micros(percentile(&self.pings, share));
        json!({
            "endpoint": self.endpoint,
            "server": { "name": self.name, "version": self.version },
            "protocol": self.protocol,
            "era": if self.stateless { "stateless" } else { "sessions" },
            "capabilities": self.capabilities,
            "tools": self.tools,
            "connect_us": micros(self.connect),
            "initialize_us": micros(self.initialize),
            "pings": self.pings.len(),
            "ping_us": { "p50": at(0.5), "p90": at(0.9), "p99": at(0.99), "max": at(1.0) },
        })
    }
}
