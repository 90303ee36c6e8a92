//! `framewire bridge`: any endpoint to any other.

use std::{ffi::OsString, path::PathBuf, sync::Arc, time::Duration};

use clap::Args;
use framewire::{
    endpoint::{Address, Endpoint, Framing, Size},
    gateway::{Bridge, Noise},
    io::proxy::Proxy,
    link::LinkConfig,
};

use super::{
    exit::Failure,
    gateway::{Gateway, Sharing},
    http::HttpLimits,
    listen::Listener,
    open::{self, Outgoing},
    quantity::{self, Deadline},
    session::{self, Plan},
    signals::Signals,
    tap::Tap,
    websocket::Guard,
};

/// Join endpoints: each client that connects gets a backend of its own
///
/// Messages pass as they are, whatever the framing of either side. Two --connect and no --listen join two outgoing
/// ends once.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  framewire bridge --listen tcp://127.0.0.1:9110 --connect demo:
  framewire bridge --listen unix:/run/user/1000/mcp.sock -- npx -y @modelcontextprotocol/server-everything
  framewire bridge --listen stdio: --connect unix:/run/user/1000/mcp.sock
  framewire bridge --expose --listen 'tls://0.0.0.0:9443?cert=server.pem&key=server.key' --connect demo:
  framewire bridge --listen ws://127.0.0.1:9001 --connect demo:
  framewire bridge --listen stdio: --connect wss://example.com/mcp
  framewire bridge --listen 'tcp://[::1]:9110?framing=content-length' --connect exec:my-server")]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) ends: Ends,

    #[command(flatten)]
    pub(crate) limits: Limits,

    /// TOML file with any of these options but -v and -q under their long names, and 'command'; what is typed goes
    /// before it
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// Print all options as they are, as such a file, and do nothing else
    #[arg(long)]
    pub(crate) print_config: bool,

    /// Write logs as JSON, one object per line
    #[arg(long)]
    pub(crate) json: bool,
}

/// The endpoints to join.
#[derive(Debug, Args)]
pub(crate) struct Ends {
    /// Where clients connect; may repeat
    #[arg(short, long, value_name = "ENDPOINT")]
    listen: Vec<Endpoint>,

    /// Where each of them is connected to
    #[arg(short, long, value_name = "ENDPOINT")]
    connect: Vec<Endpoint>,

    /// The command of an exec endpoint; --connect exec: may then be left out
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

impl Ends {
    /// The backend alone, of which there has to be one and nothing to listen to.
    pub(crate) fn backend(mut self) -> Result<Endpoint, Failure> {
        if !self.listen.is_empty() || self.connect.len() > 1 {
            return Err(Failure::usage("a replay has one --connect and no --listen"));
        }
        let endpoint = match self.connect.pop() {
            Some(endpoint) => endpoint,
            None if self.command.is_empty() => return Err(Failure::usage("a replay needs --connect")),
            None => "exec:".parse().map_err(Failure::usage)?,
        };
        let endpoint = with_command(endpoint, &mut self.command)?;
        if self.command.is_empty() {
            Ok(endpoint)
        } else {
            Err(Failure::usage("'-- COMMAND' belongs to exec:"))
        }
    }
}

/// How much, and how long.
#[derive(Debug, Args)]
pub(crate) struct Limits {
    /// Largest message, both ways; larger ones are dropped and the connection goes on, but one that comes over
    /// WebSocket ends its connection (code 1009)
    #[arg(long, value_name = "SIZE", default_value = "16MiB", value_parser = quantity::size)]
    max_message_size: Size,

    /// Connections at once; more are refused
    #[arg(long, value_name = "COUNT", default_value_t = 1024, value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..))]
    max_connections: usize,

    /// How long connections may take to end after SIGINT or SIGTERM, calls under way to be answered first
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = quantity::duration)]
    drain_timeout: Duration,

    /// How long a backend may be silent after its client has ended
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = quantity::duration)]
    linger: Duration,

    /// How long a client on a socket may take for one message, from its first byte to its last, or 'none'
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = quantity::deadline)]
    frame_timeout: Deadline,

    /// How long a client on a socket may take nothing of what waits for it, or 'none'
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = quantity::deadline)]
    write_timeout: Deadline,

    /// How long a client on a socket may send nothing between two messages, or 'none'
    #[arg(long, value_name = "TIME", default_value = "none", value_parser = quantity::deadline)]
    idle_timeout: Deadline,

    /// Refuse messages that are not JSON or not UTF-8, both ways, at the first byte that is wrong; the connection goes on.
    /// What comes over http: and https: is refused so in any case
    #[arg(long)]
    validate: bool,

    /// Leave out what a backend writes that is no JSON-RPC message, such as a banner or a line of its log
    #[arg(long)]
    drop_noise: bool,

    /// HTTP proxy through which backends on TCP are reached: http://[USER:PASSWORD@]HOST:PORT. The environment is not
    /// looked at
    #[arg(long, value_name = "URL")]
    proxy: Option<Proxy>,

    #[command(flatten)]
    sharing: Sharing,

    #[command(flatten)]
    http: HttpLimits,

    #[command(flatten)]
    guard: Guard,
}

impl Limits {
    /// The deadlines of what connects.
    fn deadlines(&self) -> LinkConfig {
        let mut config = LinkConfig::default();
        config.frame = self.frame_timeout.0;
        config.write = self.write_timeout.0;
        config.idle = self.idle_timeout.0;
        config
    }
}

/// The endpoints of a command line that makes sense.
enum Shape {
    Serve(Vec<Endpoint>, Endpoint),
    Join(Endpoint, Endpoint),
}

pub(crate) fn run(arguments: Arguments) -> Result<(), Failure> {
    start(arguments.ends, &arguments.limits, None)
}

impl Limits {
    /// How backends are reached. `json`: messages are JSON for certain.
    pub(crate) fn outgoing(&self, json: bool) -> Result<Outgoing, Failure> {
        Ok(Outgoing {
            max: self.max_message_size.0,
            deflate: !self.guard.no_deflate,
            json,
            token: self.http.backend_token()?,
            validate: self.validate,
            proxy: self.proxy.clone(),
        })
    }
}

/// Runs a bridge, with a tap on it if there is one.
pub(crate) fn start(ends: Ends, limits: &Limits, tap: Option<Tap>) -> Result<(), Failure> {
    let shape = shape(ends)?;
    let mut bridge = Bridge::default();
    bridge.linger = limits.linger;
    if limits.drop_noise {
        bridge.noise = Noise::Drop;
    }
    // The one client on stdio that stops its bridge wants no more answers.
    bridge.answers_first = match &shape {
        Shape::Serve(listen, _) => listen.iter().any(|endpoint| endpoint.address != Address::Stdio),
        Shape::Join(..) => false,
    };
    let max = limits.max_message_size.0;
    // What comes from there is JSON, on as many lines as it likes.
    let speaks_json = |endpoint: &Endpoint| {
        matches!(endpoint.address, Address::Http(..) | Address::WebSocket(..))
            || endpoint.framing == Some(Framing::Json)
    };
    let is_json = limits.sharing.is_always() || limits.validate;
    let (to_backend, to_client) = match &shape {
        Shape::Serve(listen, backend) => (listen.iter().any(speaks_json), speaks_json(backend)),
        Shape::Join(first, second) => (speaks_json(first) || speaks_json(second), false),
    };
    let outgoing = limits.outgoing(is_json || to_backend)?;
    let plan = |backend: Endpoint, outgoing: Outgoing| Plan {
        gateway: Arc::new(Gateway::new(&backend, &outgoing, &limits.sharing, limits.max_connections)),
        backend,
        outgoing,
        max_connections: limits.max_connections,
        drain_timeout: limits.drain_timeout,
        bridge,
        tap,
    };
    let runtime = runtime()?;
    let done = runtime.block_on(async {
        match shape {
            Shape::Serve(listen, backend) => {
                let plan = plan(backend, outgoing);
                let (rules, gateway) = (limits.guard.rules()?, plan.gateway.clone());
                let ready = Arc::new(move || gateway.is_ready());
                let http = limits.http.settings(limits.max_connections, limits.sharing.max_in_flight, ready);
                // Before anything is there that would have to be tidied up.
                let signals = Signals::new()?;
                let mut listeners = Vec::new();
                for endpoint in &listen {
                    let listener = Listener::bind(endpoint, max, limits.deadlines(), &rules, &http).await?;
                    listeners.push(listener.on_one_line(is_json || to_client));
                }
                session::serve(listeners, plan, signals).await
            }
            Shape::Join(first, second) => {
                // An echo needs no end of its own.
                let (first, second) =
                    if first.address == Address::Echo { (second, first) } else { (first, second) };
                let opened = open::connect(&first, &outgoing, 1).await?;
                let other = match second.address {
                    Address::Echo => None,
                    _ => Some(open::connect(&second, &outgoing, 1).await?),
                };
                session::join(opened, other, plan(second, outgoing)).await
            }
        }
    });
    // Nothing that is still blocked somewhere may keep the process.
    runtime.shutdown_timeout(Duration::from_millis(100));
    done
}

pub(crate) fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(Failure::runtime)
}

/// Puts the command where an `exec:` without one stands.
pub(crate) fn with_command(mut endpoint: Endpoint, command: &mut Vec<OsString>) -> Result<Endpoint, Failure> {
    if let Address::Exec(words) = &mut endpoint.address {
        match (words.is_empty(), command.is_empty()) {
            (true, true) => {
                return Err(Failure::usage(
                    "exec: needs a command: exec:COMMAND ARGS, or '-- COMMAND ARGS' at the end of the line",
                ));
            }
            (true, false) => *words = std::mem::take(command),
            (false, _) => {}
        }
    }
    Ok(endpoint)
}

fn shape(ends: Ends) -> Result<Shape, Failure> {
    let Ends { listen, mut connect, mut command } = ends;
    let has_command = !command.is_empty();
    if has_command && connect.len() < if listen.is_empty() { 2 } else { 1 } {
        let open =
            |endpoint: &Endpoint| matches!(&endpoint.address, Address::Exec(words) if words.is_empty());
        if !connect.iter().any(open) {
            connect.push(Endpoint::new(Address::Exec(Vec::new())));
        }
    }
    let mut backends = Vec::new();
    for endpoint in connect {
        backends.push(with_command(endpoint, &mut command)?);
    }
    if has_command && !command.is_empty() {
        return Err(Failure::usage(
            "'-- COMMAND' has no place: --connect names another endpoint (use --connect exec:, or leave one of them out)",
        ));
    }
    let stdio = listen.iter().chain(&backends).filter(|endpoint| endpoint.address == Address::Stdio).count();
    if stdio > 1 {
        return Err(Failure::usage("stdio: can be used only once: there is one standard input and output"));
    }
    let mut backends = backends.into_iter();
    match (listen.is_empty(), backends.next(), backends.next(), backends.next()) {
        (false, Some(backend), None, None) => {
            if backend.address == Address::Stdio {
                return Err(Failure::usage(
                    "--connect stdio: can serve only one client: use --listen stdio: instead",
                ));
            }
            Ok(Shape::Serve(listen, backend))
        }
        (true, Some(first), Some(second), None) => Ok(Shape::Join(first, second)),
        (_, None, ..) => Err(Failure::usage(
            "--connect ENDPOINT is missing: where should messages go? (try --connect demo:, or '-- COMMAND ARGS')",
        )),
        (true, Some(_), None, _) => Err(Failure::usage(
            "--listen ENDPOINT is missing: where do clients connect? (try --listen stdio:; two --connect join two ends)",
        )),
        _ => Err(Failure::usage("too many --connect: one with --listen, two without")),
    }
}
