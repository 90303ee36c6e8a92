//! The `framewire` command: arguments, logs, exit codes, and one file per subcommand.
//!
//! Uses the library's public API; nothing uses this.

use std::process::ExitCode;

use clap::{ArgAction, ArgMatches, CommandFactory, FromArgMatches, Parser, Subcommand};

mod bench;
mod bridge;
mod builtin;
mod config;
mod demo;
mod end;
mod exit;
mod gateway;
mod http;
mod listen;
mod log;
mod open;
mod probe;
mod quantity;
mod recording;
mod replay;
mod serve;
mod session;
mod signals;
mod tap;
mod tls;
mod transport;
mod websocket;

use exit::Failure;

/// Moves MCP messages between transports, byte for byte.
#[derive(Debug, Parser)]
#[command(name = "framewire", version, max_term_width = 100, after_help = exit::HELP, after_long_help = LONG)]
struct Arguments {
    #[command(subcommand)]
    command: Command,

    /// Say more on stderr; twice for every connection's details
    #[arg(short, long, global = true, action = ArgAction::Count, conflicts_with = "quiet")]
    verbose: u8,

    /// Say only what went wrong
    #[arg(short, long, global = true)]
    quiet: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    Bridge(bridge::Arguments),
    Tap(tap::Arguments),
    Probe(probe::Arguments),
    Bench(bench::Arguments),
}

/// Endpoints and exit codes, below the long help.
const LONG: &str = "\
Endpoints:
  stdio:                   this process's own stdin and stdout
  exec:COMMAND ARGS        a child process per connection; quotes as in a shell, but no shell
                           (or '-- COMMAND ARGS' at the end of the line)
  tcp://HOST:PORT          TCP; IPv6 addresses in brackets
  tls://HOST:PORT          TLS over TCP
  unix:PATH                a Unix socket; unix:@NAME an abstract one (Linux)
  ws://HOST:PORT/PATH      WebSocket; wss://HOST:PORT/PATH over TLS, ws+unix:SOCKET[:/PATH]
                           on a Unix socket
  http://HOST:PORT/PATH    MCP over HTTP; https://HOST:PORT/PATH over TLS,
                           http+unix:SOCKET[:/PATH] on a Unix socket
  demo:                    a small MCP server inside this program
  echo:                    sends each message back
Options of an endpoint:
  ?framing=newline         one message per line (the default)
  ?framing=length          a big-endian length of four bytes before each message
  ?framing=content-length  a Content-Length header before each message
  ?framing=json            JSON values one after the other, with or without anything between
  ?max-message-size=64KiB  a limit for this endpoint alone
  ?cert=FILE&key=FILE      tls: this end's certificate and key, PEM; needed for listening,
                           loaded again when they change and on SIGHUP
  ?ca=FILE                 tls, connecting: whom to trust instead of the system's authorities
  ?client-ca=FILE          tls, listening: let in only clients whom these vouch for
  ?pin=SHA256[,...]        tls, connecting: the server's public key must be one of these (base64)
  ?server-name=NAME        tls, connecting: the name to expect in the certificate
  ?min-version=1.2         tls: accept TLS 1.2, too
  ?alpn=NAME[,...]         tls: application protocols
  They follow the endpoint, joined by '&'; for exec they stand before the colon:
  exec?framing=length:COMMAND. Those of a URL (ws, wss, http, https), which has no framing,
  follow a '#', as its query is the server's: wss://HOST/PATH?user=1#ca=ca.pem

Exit codes:
  0    done; also after SIGINT or SIGTERM when everything under way was delivered
  1    something failed while running
  2    the command line is wrong
  3    cannot listen (port in use, bad socket path, ...)
  4    cannot connect, or the other end gives no proper answer
  5    the child process failed or could not be started
  130  stopped by a second SIGINT; 143 by a second SIGTERM

Environment:
  FRAMEWIRE_LOG            which logs: error, warn, info, debug, trace; overrides -v and -q";

/// Runs the command that the process was started with.
pub(crate) fn run() -> ExitCode {
    if let Some(served) = serve::start(std::env::args_os().skip(1).map_while(|word| word.into_string().ok()))
    {
        return end(served);
    }
    let program = Arguments::command();
    let words = match config::expanded(&program, std::env::args_os().collect()) {
        Ok(words) => words,
        Err(failure) => {
            log::start(0, false, false);
            return end(Err(failure));
        }
    };
    let matches = program.clone().get_matches_from(words);
    let Arguments { command, verbose, quiet } =
        Arguments::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    let json = matches!(
        &command,
        Command::Bridge(bridge::Arguments { json: true, .. })
            | Command::Tap(tap::Arguments { json: true, .. })
    );
    log::start(verbose, quiet, json);
    if let Command::Bridge(bridge::Arguments { print_config: true, .. }) = &command {
        return end(print_config(&program, &matches));
    }
    end(match command {
        Command::Bridge(arguments) => bridge::run(arguments),
        Command::Tap(arguments) => tap::run(arguments),
        Command::Probe(arguments) => probe::run(&arguments),
        Command::Bench(arguments) => bench::run(&arguments),
    })
}

/// Prints what the command line and the file make together.
fn print_config(program: &clap::Command, matches: &ArgMatches) -> Result<(), Failure> {
    let Some((name, matches)) = matches.subcommand() else { return Ok(()) };
    let Some(subcommand) = program.find_subcommand(name) else { return Ok(()) };
    print(&config::printed(subcommand, matches))
}

fn end(done: Result<(), Failure>) -> ExitCode {
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if let Some(text) = failure.text() {
                tracing::error!("{text}");
            }
            failure.code()
        }
    }
}

/// Prints a result on stdout. A reader that has gone is no failure.
fn print(text: &str) -> Result<(), Failure> {
    use std::io::Write;
    match writeln!(std::io::stdout(), "{text}") {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(Failure::runtime(error)),
        _ => Ok(()),
    }
}
