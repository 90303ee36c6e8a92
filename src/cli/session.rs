//! Sessions: each client that connects gets its own backend, and both are joined until they end.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use framewire::{
    Error,
    endpoint::{Address, Endpoint},
    error::{Deadline, End},
    gateway::{self, Bridge, Direction, Observer, Report},
    transport::http::server::HttpSessions,
};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
};
use tracing::{debug, error, info, warn};

use super::{
    exit::Failure,
    gateway::Gateway,
    listen::{Arrived, Listener},
    log,
    open::{self, Opened, Outgoing, Speaks},
    signals::Signals,
    tap::Tap,
    transport::AnyTransport,
};

/// Faulty messages of one connection that are logged one by one; the rest is only counted.
const LOGGED_FAULTS: u64 = 20;

/// Bytes of a line that is no message that are logged.
const SHOWN_NOISE: usize = 120;

/// How long children may take to be ended in order, once what is under way is cut off: more than the steps of that.
const CUT_TIMEOUT: Duration = Duration::from_secs(6);

/// What is asked of the sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stop {
    No,
    /// Take no more from the client, deliver what is under way.
    Drain,
    /// End now.
    Cut,
}

/// What is joined to what, and how much of it.
pub(crate) struct Plan {
    pub(crate) backend: Endpoint,
    pub(crate) outgoing: Outgoing,
    /// What stands before the backend for clients that are not simply piped.
    pub(crate) gateway: Arc<Gateway>,
    pub(crate) max_connections: usize,
    pub(crate) drain_timeout: Duration,
    pub(crate) bridge: Bridge,
    /// Shows what passes.
    pub(crate) tap: Option<Tap>,
}

/// Serves every client of `listeners` until they end, or a signal says stop and what was under way is delivered.
pub(crate) async fn serve(listeners: Vec<Listener>, plan: Plan, mut signals: Signals) -> Result<(), Failure> {
    let plan = Arc::new(plan);
    let (stop, stopped) = watch::channel(Stop::No);
    // One session that is the whole job: its end is the end of the command, and its failure the command's.
    let once = matches!(listeners.as_slice(), [only] if only.serves_once());
    let (accepted, mut clients) = mpsc::channel(1);
    let mut accepting = JoinSet::new();
    let connections: Vec<_> = listeners.iter().filter_map(Listener::connections).collect();
    for listener in listeners {
        let endpoint = listener.endpoint().to_string();
        info!(endpoint, "listening");
        accepting.spawn(accept(listener, accepted.clone(), stopped.clone()));
    }
    drop(accepted);
    // Whose end is the command's is told of by its own.
    if !once {
        open::look_for(&plan.backend);
    }

    let mut sessions = JoinSet::new();
    let mut outcome = Ok(());
    let mut number = 0_u64;
    loop {
        // Those that have ended make room before the next one is counted.
        while let Some(ended) = sessions.try_join_next() {
            finish(ended, once, &mut outcome);
        }
        tokio::select! {
            client = clients.recv() => match client {
                Some(client) if sessions.len() >= plan.max_connections => {
                    warn!(peer = client.peer(), "refused: {} open already", counted(sessions.len()));
                }
                Some(client) => {
                    number += 1;
                    sessions.spawn(session(number, client, plan.clone(), stopped.clone()));
                }
                None => break,
            },
            Some(ended) = sessions.join_next() => finish(ended, once, &mut outcome),
            Some(ended) = accepting.join_next(), if !accepting.is_empty() => {
                if let Ok(Err(failure)) = ended {
                    outcome = Err(failure);
                    break;
                }
            }
            signal = signals.next() => {
                info!("{signal}: stopping, {} under way", counted(sessions.len()));
                break;
            }
        }
    }
    clients.close();

    // All listeners are done (standard input serves once), or a signal came: what is under way ends by itself, or in
    // time.
    let mut deadline = None;
    if signals.came || outcome.is_err() {
        for connections in &connections {
            connections.shut();
        }
        let _ = stop.send(Stop::Drain);
        deadline = Some(tokio::time::Instant::now() + plan.drain_timeout);
    }
    // Nothing is listened on any more, but sessions over HTTP hang on what gave them.
    let mut sources = Vec::new();
    while let Some(source) = accepting.join_next().await {
        sources.push(source);
    }
    while !sessions.is_empty() {
        tokio::select! {
            Some(ended) = sessions.join_next() => finish(ended, once, &mut outcome),
            signal = signals.next() => {
                if deadline.is_some() {
                    sessions.shutdown().await;
                    return Err(Failure::Signal(signal.number()));
                }
                info!("{signal}: stopping, {} under way", counted(sessions.len()));
                let _ = stop.send(Stop::Drain);
                deadline = Some(tokio::time::Instant::now() + plan.drain_timeout);
            }
            () = until(deadline) => {
                let cut = sessions.len();
                let _ = stop.send(Stop::Cut);
                let ended = async {
                    while sessions.join_next().await.is_some() {}
                    // Those over HTTP that waited for answers are told that none will come.
                    for connections in &connections {
                        connections.end().await;
                    }
                };
                tokio::select! {
                    _ = tokio::time::timeout(CUT_TIMEOUT, ended) => {}
                    signal = signals.next() => return Err(Failure::Signal(signal.number())),
                }
                return Err(Failure::runtime(format!(
                    "{} cut off: not at an end within {:?}", counted(cut), plan.drain_timeout
                )));
            }
        }
    }
    // Answers that have left their sessions leave the process, and then the backends that all shared end in order.
    let ending = async {
        for connections in &connections {
            connections.end().await;
        }
        plan.gateway.close().await;
    };
    tokio::select! {
        _ = tokio::time::timeout(plan.drain_timeout.max(CUT_TIMEOUT), ending) => outcome,
        signal = signals.next() => Err(Failure::Signal(signal.number())),
    }
}

/// So many connections, in words.
fn counted(count: usize) -> String {
    format!("{count} connection{}", if count == 1 { "" } else { "s" })
}

/// Joins an end with another, or, when there is no other, with itself, once.
pub(crate) async fn join(first: Opened, second: Option<Opened>, plan: Plan) -> Result<(), Failure> {
    let (stop, stopped) = watch::channel(Stop::No);
    let mut signals = Signals::new()?;
    let drain_timeout = plan.drain_timeout;
    let plan = Arc::new(plan);
    let joined = async {
        match second {
            Some(second) => run(1, first, second, plan, stopped).await,
            None => echo(1, first, plan, stopped).await,
        }
    };
    let mut joined = std::pin::pin!(joined);
    let mut deadline = None;
    loop {
        tokio::select! {
            done = &mut joined => return done,
            signal = signals.next() => {
                if deadline.is_some() {
                    return Err(Failure::Signal(signal.number()));
                }
                info!("{signal}: stopping");
                let _ = stop.send(Stop::Drain);
                deadline = Some(tokio::time::Instant::now() + drain_timeout);
            }
            () = until(deadline) => {
                let _ = stop.send(Stop::Cut);
                tokio::select! {
                    _ = tokio::time::timeout(CUT_TIMEOUT, &mut joined) => {}
                    signal = signals.next() => return Err(Failure::Signal(signal.number())),
                }
                return Err(Failure::runtime(format!("cut off: did not end within {drain_timeout:?}")));
            }
        }
    }
}

async fn until(deadline: Option<tokio::time::Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

fn finish(
    ended: Result<Result<(), Failure>, tokio::task::JoinError>,
    once: bool,
    outcome: &mut Result<(), Failure>,
) {
    match ended {
        Ok(Ok(())) => {}
        Ok(Err(failure)) if once => *outcome = Err(failure),
        Ok(Err(failure)) => {
            if let Some(text) = failure.text() {
                error!("{text}");
            }
        }
        Err(error) if error.is_panic() => error!("a connection's task panicked"),
        Err(_) => {}
    }
}

/// Takes clients in until there are no more, or it is time to stop. Gives what sessions over HTTP hang on.
async fn accept(
    mut listener: Listener,
    clients: mpsc::Sender<Arrived>,
    stopped: watch::Receiver<Stop>,
) -> Result<Option<HttpSessions>, Failure> {
    let mut stop = std::pin::pin!(asked(stopped, Stop::Drain));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut stop => return Ok(listener.into_sessions()),
        };
        match accepted {
            Ok(Some(client)) => {
                if clients.send(client).await.is_err() {
                    return Ok(listener.into_sessions());
                }
            }
            Ok(None) => return Ok(listener.into_sessions()),
            Err(error) => {
                return Err(Failure::Listen(format!(
                    "cannot listen on {} any more: {error}",
                    listener.endpoint()
                )));
            }
        }
    }
}

async fn session(
    number: u64,
    client: Arrived,
    plan: Arc<Plan>,
    stopped: watch::Receiver<Stop>,
) -> Result<(), Failure> {
    debug!(connection = number, peer = client.peer(), "accepted");
    // What only some clients need, and none for long, is boxed: each session has room for all of this as long as it lives.
    let opened = tokio::select! {
        biased;
        opened = client.open() => opened,
        // Who is still shaking hands has asked for nothing that a stop would wait for.
        () = asked(stopped.clone(), Stop::Drain) => {
            info!(connection = number, "closed inside the handshake");
            return Ok(());
        }
    };
    let mut client = match opened {
        Ok(client) => client,
        Err(failure) => {
            info!(connection = number, "refused: {}", failure.text().unwrap_or_default());
            return Ok(());
        }
    };
    if plan.outgoing.validate {
        client.link.validate();
    }
    match client.speaks {
        // As many as there are requests.
        Speaks::Request => debug!(connection = number, peer = client.peer, "connected"),
        _ => info!(connection = number, peer = client.peer, "connected"),
    }
    if plan.backend.address == Address::Echo {
        return Box::pin(echo(number, client, plan, stopped)).await;
    }
    let backend = match client.speaks {
        Speaks::Request => Ok(plan.gateway.request()),
        Speaks::Session => Ok(plan.gateway.session()),
        Speaks::Stream if plan.gateway.is_always() => Ok(plan.gateway.session()),
        Speaks::Stream => {
            let opened = tokio::select! {
                biased;
                opened = Box::pin(open::connect(&plan.backend, &plan.outgoing, number)) => opened,
                () = asked(stopped.clone(), Stop::Cut) => {
                    info!(connection = number, "cut off");
                    return Ok(());
                }
            };
            opened.map(|backend| match plan.backend.address {
                Address::Http(..) => plan.gateway.translated(backend),
                _ => backend,
            })
        }
    };
    match backend {
        Ok(backend) => run(number, client, backend, plan, stopped).await,
        Err(failure) => {
            info!(connection = number, "closed: there is no backend");
            leave(client, stopped).await;
            Err(failure)
        }
    }
}

async fn run(
    number: u64,
    mut client: Opened,
    mut backend: Opened,
    plan: Arc<Plan>,
    stopped: watch::Receiver<Stop>,
) -> Result<(), Failure> {
    debug!(connection = number, backend = backend.peer, "joined");
    let watcher = Watcher { number, tap: plan.tap.as_ref(), faults: AtomicU64::new(0) };
    let mut bridge = plan.bridge.clone();
    let answered = client.answered.take();
    // A server may end with its input, whatever it has under way.
    bridge.answers_first &= answered.is_none();
    let stop = async {
        asked(stopped.clone(), Stop::Drain).await;
        if let Some(answered) = answered {
            answered.await;
        }
    };
    let cut = asked(stopped.clone(), Stop::Cut);
    let report = tokio::select! {
        report = bridge.run(&mut client.link, &mut backend.link, &watcher, stop) => report,
        () = cut => {
            info!(connection = number, "cut off");
            Box::pin(part(client, backend, true)).await;
            return Ok(());
        }
    };
    for (who, end) in [("the client", &client), ("the backend", &backend)] {
        if let Some(reason) = end.link.close_reason() {
            // The text is the peer's: the log quotes it, so that it cannot pass for lines of its own.
            info!(
                connection = number,
                code = reason.code(),
                text = reason.text(),
                "{who} closed the WebSocket"
            );
        }
    }
    // Nobody takes what may still be queued of those that were given up.
    Box::pin(part(client, backend, report.gave_up)).await;
    told(number, &report)
}

/// Ends a client for whom there is nobody: one that was told that it is a WebSocket is told of its end, too (RFC 6455 §7.3).
async fn leave(client: Opened, stopped: watch::Receiver<Stop>) {
    tokio::select! {
        () = Box::pin(client.end()) => {}
        () = asked(stopped, Stop::Cut) => {}
    }
}

/// Ends both, at once or in order.
async fn part(client: Opened, backend: Opened, at_once: bool) {
    if at_once {
        tokio::join!(client.cut(), backend.cut());
    } else {
        client.end().await;
        backend.end().await;
    }
}

/// Sends a client's messages back to it.
async fn echo(
    number: u64,
    mut client: Opened,
    plan: Arc<Plan>,
    stopped: watch::Receiver<Stop>,
) -> Result<(), Failure> {
    let watcher = Watcher { number, tap: plan.tap.as_ref(), faults: AtomicU64::new(0) };
    let (stop, cut) = (asked(stopped.clone(), Stop::Drain), asked(stopped.clone(), Stop::Cut));
    let AnyTransport::Link(link) = &mut client.link else {
        leave(client, stopped).await;
        return Err(Failure::usage("echo: has no answer to a request over HTTP, use demo:"));
    };
    let report = tokio::select! {
        report = gateway::echo(link, &watcher, stop) => report,
        () = cut => {
            info!(connection = number, "cut off");
            client.cut().await;
            return Ok(());
        }
    };
    client.end().await;
    told(number, &report)
}

/// Logs what a session has done, and says whether it failed.
fn told(number: u64, report: &Report) -> Result<(), Failure> {
    let failure = reason(number, report);
    let (out, back) = (&report.to_backend, &report.to_client);
    info!(
        connection = number,
        messages_to_backend = out.messages,
        messages_to_client = back.messages,
        bytes_to_backend = out.bytes,
        bytes_to_client = back.bytes,
        dropped = out.dropped + back.dropped,
        lost = out.lost + back.lost,
        "closed"
    );
    match failure {
        Some(failure) => Err(failure),
        None => Ok(()),
    }
}

/// Waits until `what` or more is asked.
async fn asked(mut stopped: watch::Receiver<Stop>, what: Stop) {
    // When nobody can say stop any more, nobody will.
    if stopped.wait_for(|stop| *stop >= what).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Tells why the session ended, and whether that was a failure.
fn reason(number: u64, report: &Report) -> Option<Failure> {
    if report.gave_up {
        info!(connection = number, "gave up the side that did not end");
    }
    let ends = [
        ("the client", &report.to_backend.received),
        ("the backend", &report.to_client.received),
        ("the client", &report.to_client.sent),
        ("the backend", &report.to_backend.sent),
    ];
    let mut failure = None;
    if let (Some(Direction::ToClient), Some(error @ Error::Ended(End::Reset))) =
        (report.first, &report.to_client.received)
    {
        // Nobody had told it of an end: what it still had to say is missing.
        failure = Some(because(number, "the backend", error));
    }
    for (who, error) in ends {
        match error {
            None => {}
            Some(error @ Error::Ended(End::Reset)) => debug!(connection = number, "{who}: {error}"),
            Some(error) if error.is_clean_end() => debug!(connection = number, "{who}: {error}"),
            Some(error @ Error::TimedOut { deadline: Deadline::Idle, .. }) => {
                info!(connection = number, "{who}: {error}");
            }
            Some(error) => {
                failure.get_or_insert(because(number, who, error));
            }
        }
    }
    failure
}

fn because(number: u64, who: &str, error: &Error) -> Failure {
    let text = format!("connection {number}: {who}: {error}");
    #[cfg(unix)]
    if let Error::Io(error) = error
        && error.get_ref().is_some_and(|inner| inner.is::<framewire::io::child::ChildFailed>())
    {
        return Failure::Child(text);
    }
    Failure::Runtime(text)
}

/// Logs what one connection leaves out, and shows what passes when asked to.
struct Watcher<'a> {
    number: u64,
    tap: Option<&'a Tap>,
    faults: AtomicU64,
}

impl Observer for Watcher<'_> {
    fn message(&self, direction: Direction, payload: &[u8]) {
        if let Some(tap) = self.tap {
            tap.message(self.number, direction, payload);
        }
    }

    fn noise(&self, _: Direction, payload: &[u8]) {
        let count = self.faults.fetch_add(1, Relaxed);
        if count < LOGGED_FAULTS {
            let text = log::preview(payload, SHOWN_NOISE);
            warn!(connection = self.number, from = "backend", text, "no message of JSON-RPC 2.0, left out");
        }
        if count == LOGGED_FAULTS {
            warn!(connection = self.number, "more bad messages follow; they are only counted");
        }
        if let Some(tap) = self.tap {
            tap.noise(self.number, payload);
        }
    }

    fn dropped(&self, direction: Direction, error: &Error) {
        let from = match direction {
            Direction::ToBackend => "client",
            Direction::ToClient => "backend",
        };
        let count = self.faults.fetch_add(1, Relaxed);
        if count < LOGGED_FAULTS {
            warn!(connection = self.number, from, "{error}");
        }
        if count == LOGGED_FAULTS {
            warn!(connection = self.number, "more bad messages follow; they are only counted");
        }
        if let Some(tap) = self.tap {
            tap.dropped(self.number, direction, error);
        }
    }
}
