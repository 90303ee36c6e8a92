//! `--config FILE`: options of a subcommand from a TOML file, each under its long name; and `--print-config`, which
//! writes such a file.
//!
//! ```toml
//! listen = ["http://127.0.0.1:8080/mcp", "unix:/run/user/1000/mcp.sock"]
//! command = ["npx", "-y", "@modelcontextprotocol/server-everything"]
//! max-message-size = "4MiB"
//! ```
//!
//! What the file says is put on the command line, where that does not say it already: so there is one parser, one set of
//! names and one kind of error for both, and an option that is new can be in the file at once. Paths in it are relative to
//! the working directory, as on the command line.

use std::{ffi::OsString, fmt::Write, path::Path};

use clap::{Arg, ArgAction, ArgMatches, Command, parser::ValueSource};
use toml::{Table, Value};

use super::exit::Failure;

/// The words behind `--` under this name.
const COMMAND: &str = "command";

/// Options that make no sense in a file.
const ABSENT: [&str; 5] = ["config", "print-config", "help", "version", "verbose"];

/// Options whose values are not to be shown.
const SECRET: [&str; 2] = ["token", "proxy"];

/// The largest file that is read, in bytes.
const MAX_FILE: u64 = 1 << 20;

/// The command line `words` with what the file adds that it names, if it names one. A command line that is wrong comes
/// back as it is.
pub(crate) fn expanded(program: &Command, mut words: Vec<OsString>) -> Result<Vec<OsString>, Failure> {
    let Ok(matches) = program.clone().try_get_matches_from(&words) else { return Ok(words) };
    let Some((name, matches)) = matches.subcommand() else { return Ok(words) };
    let Some(subcommand) = program.find_subcommand(name) else { return Ok(words) };
    let Ok(Some(file)) = matches.try_get_one::<std::path::PathBuf>("config") else { return Ok(words) };
    let (options, command) = added(subcommand, matches, &table(file)?)
        .map_err(|reason| Failure::usage(format!("--config {}: {reason}", file.display())))?;
    let end = words.iter().position(|word| word == "--").unwrap_or(words.len());
    words.splice(end..end, options);
    if !command.is_empty() {
        words.push("--".into());
        words.extend(command);
    }
    Ok(words)
}

fn table(file: &Path) -> Result<Table, Failure> {
    use std::io::Read;
    let wrong = |reason: String| Failure::usage(format!("--config {}: {reason}", file.display()));
    let mut text = String::new();
    std::fs::File::open(file)
        .and_then(|file| file.take(MAX_FILE).read_to_string(&mut text))
        .map_err(|error| wrong(error.to_string()))?;
    text.parse().map_err(|error: toml::de::Error| wrong(error.to_string().trim_end().to_owned()))
}

/// What stands behind `--` can be told from options by having no name.
fn is_command(option: &Arg) -> bool {
    option.is_last_set()
}

/// The options, and the words of the command, that `table` adds to what was typed.
fn added(
    subcommand: &Command,
    typed: &ArgMatches,
    table: &Table,
) -> Result<(Vec<OsString>, Vec<OsString>), String> {
    let was_typed = |name: &str| {
        typed.ids().any(|id| id.as_str() == name)
            && typed.value_source(name) == Some(ValueSource::CommandLine)
    };
    let id_of = |long: &str| {
        subcommand
            .get_arguments()
            .find(|option| option.get_long() == Some(long))
            .map(|option| option.get_id())
    };
    let goes_somewhere = was_typed("connect") || was_typed(COMMAND);
    let (mut options, mut command) = (Vec::new(), Vec::new());
    for (name, value) in table {
        if name == COMMAND && subcommand.get_arguments().any(is_command) {
            if !goes_somewhere {
                command = texts(name, value)?.into_iter().map(OsString::from).collect();
            }
            continue;
        }
        let known = id_of(name).filter(|_| !ABSENT.contains(&name.as_str()));
        let Some(id) = known else {
            let names = subcommand.get_arguments().filter_map(Arg::get_long);
            return Err(format!("there is no option '{}'{}", name.escape_debug(), nearest(name, names)));
        };
        if was_typed(id.as_str()) || (name == "connect" && goes_somewhere) {
            continue;
        }
        let option = subcommand.get_arguments().find(|option| option.get_id() == id);
        match (option.map(Arg::get_action), value) {
            (Some(ArgAction::SetTrue), Value::Boolean(true)) => options.push(format!("--{name}").into()),
            (Some(ArgAction::SetTrue), Value::Boolean(false)) => {}
            (Some(ArgAction::SetTrue), _) => return Err(format!("{name}: true or false is needed")),
            (Some(ArgAction::Append), _) => {
                for text in texts(name, value)? {
                    options.push(format!("--{name}={text}").into());
                }
            }
            _ => options.push(format!("--{name}={}", text(name, value)?).into()),
        }
    }
    Ok((options, command))
}

fn text(name: &str, value: &Value) -> Result<String, String> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Integer(number) => Ok(number.to_string()),
        Value::Float(number) => Ok(number.to_string()),
        _ => Err(format!("{name}: a text or a number is needed")),
    }
}

fn texts(name: &str, value: &Value) -> Result<Vec<String>, String> {
    match value {
        Value::Array(values) => values.iter().map(|value| text(name, value)).collect(),
        value => Ok(vec![text(name, value)?]),
    }
}

fn nearest<'a>(name: &str, names: impl Iterator<Item = &'a str>) -> String {
    let dashed = name.replace('_', "-");
    names
        .filter(|known| !ABSENT.contains(known))
        .find(|known| *known == dashed || known.starts_with(dashed.as_str()) || dashed.starts_with(*known))
        .map(|known| format!(": did you mean '{known}'?"))
        .unwrap_or_default()
}

/// The options of `subcommand` as they came out, as a file that `--config` reads.
pub(crate) fn printed(subcommand: &Command, matches: &ArgMatches) -> String {
    let mut text = String::new();
    for option in subcommand.get_arguments() {
        let name = match option.get_long() {
            Some(name) if ABSENT.contains(&name) => continue,
            Some(name) => name,
            None if is_command(option) => COMMAND,
            None => continue,
        };
        let id = option.get_id().as_str();
        if let Some(help) = option.get_help().filter(|_| option.get_long().is_some()) {
            let _ = writeln!(text, "# {help}");
        }
        if matches!(option.get_action(), ArgAction::SetTrue) {
            let _ = writeln!(text, "{name} = {}\n", matches.get_flag(id));
            continue;
        }
        let values: Vec<_> = matches
            .get_raw(id)
            .into_iter()
            .flatten()
            .map(|value| match value.to_string_lossy() {
                number if number.parse::<i64>().is_ok() => number.into_owned(),
                text => Value::String(text.into_owned()).to_string(),
            })
            .collect();
        let repeats = matches!(option.get_action(), ArgAction::Append) || is_command(option);
        let _ = match values.as_slice() {
            [] => writeln!(text, "# {name} = {}\n", if repeats { "[]" } else { "\"\"" }),
            _ if SECRET.contains(&name) => writeln!(text, "# {name} = \"…\"\n"),
            values if repeats => writeln!(text, "{name} = [{}]\n", values.join(", ")),
            [value, ..] => writeln!(text, "{name} = {value}\n"),
        };
    }
    text.truncate(text.trim_end().len());
    text
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::cli::Arguments;

    fn expand(file: &str, words: &[&str]) -> Result<Vec<String>, String> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("c.toml");
        std::fs::write(&path, file).unwrap();
        let words = ["framewire", "bridge", "--config"]
            .into_iter()
            .map(OsString::from)
            .chain([path.into_os_string()])
            .chain(words.iter().map(OsString::from))
            .collect();
        let words = expanded(&Arguments::command(), words)
            .map_err(|failure| failure.text().unwrap_or_default().to_owned())?;
        Ok(words.into_iter().skip(4).map(|word| word.into_string().unwrap()).collect())
    }

    #[test]
    fn the_command_line_goes_before_the_file() {
        let file = "listen = [\"stdio:\", \"unix:x\"]\nmax-connections = 7\njson = true\nno-deflate = false\ncommand = [\"a\", \"b c\"]";
        for (typed, expected) in [
            (
                &[][..],
                &["--listen=stdio:", "--listen=unix:x", "--max-connections=7", "--json", "--", "a", "b c"][..],
            ),
            (
                &["--listen", "tcp://h:1"],
                &["--listen", "tcp://h:1", "--max-connections=7", "--json", "--", "a", "b c"],
            ),
            (
                &["--max-connections=8", "--json", "--", "x"],
                &["--max-connections=8", "--json", "--listen=stdio:", "--listen=unix:x", "--", "x"],
            ),
            (
                &["--connect", "demo:"],
                &[
                    "--connect",
                    "demo:",
                    "--listen=stdio:",
                    "--listen=unix:x",
                    "--max-connections=7",
                    "--json",
                ],
            ),
        ] {
            let mut got = expand(file, typed).unwrap();
            let mut expected: Vec<_> = expected.iter().map(ToString::to_string).collect();
            // A table has no order of its own.
            let end = |words: &[String]| words.iter().position(|word| word == "--").unwrap_or(words.len());
            let (ours, theirs) = (end(&got), end(&expected));
            got[typed.len().min(ours)..ours].sort();
            expected[typed.len().min(theirs)..theirs].sort();
            assert_eq!(got, expected, "{typed:?}");
        }
    }

    #[test]
    fn a_wrong_file_says_what_is_wrong() {
        for (file, reason) in [
            ("listne = 1", "there is no option 'listne'"),
            ("max_connections = 1", "did you mean 'max-connections'?"),
            ("config = \"x\"", "there is no option 'config'"),
            ("json = 1", "true or false"),
            ("listen = {}", "a text or a number"),
            ("listen = ", "TOML parse error"),
        ] {
            let error = expand(file, &[]).unwrap_err();
            assert!(error.contains(reason), "{file}: {error}");
        }
    }

    #[test]
    fn what_is_printed_is_read_back() {
        let program = Arguments::command();
        let words = |file: &str| {
            let words = expand(file, &[]).unwrap();
            ["framewire", "bridge"].into_iter().map(String::from).chain(words).collect::<Vec<_>>()
        };
        let first =
            "listen = \"exec:'a b'\"\ncommand = [\"\\\"q\", \"7\"]\nmax-message-size = \"1MiB\"\njson = true";
        let print = |words: Vec<String>| {
            let matches = program.clone().try_get_matches_from(words).unwrap();
            let (name, matches) = matches.subcommand().unwrap();
            printed(program.find_subcommand(name).unwrap(), matches)
        };
        let text = print(words(first));
        assert!(text.contains("max-message-size = \"1MiB\"") && text.contains("json = true"), "{text}");
        assert_eq!(print(words(&text)), text);
    }
}
