//! Logs, on stderr only: stdout may carry messages.

use std::io::{self, IsTerminal};

use tracing_subscriber::{
    filter::{LevelFilter, Targets},
    fmt,
    layer::SubscriberExt,
    util::SubscriberInitExt,
};

/// Which logs: `FRAMEWIRE_LOG`, a level or `target=level,…`; else what `-v` and `-q` say.
pub(crate) fn start(verbose: u8, quiet: bool, json: bool) {
    let level = match (quiet, verbose) {
        (true, _) => LevelFilter::ERROR,
        (false, 0) => LevelFilter::INFO,
        (false, 1) => LevelFilter::DEBUG,
        (false, _) => LevelFilter::TRACE,
    };
    let filter = std::env::var("FRAMEWIRE_LOG").ok().filter(|filter| !filter.is_empty());
    let (filter, wrong) = match filter.as_deref().map(targets) {
        Some(Ok(filter)) => (filter, None),
        Some(Err(error)) => (Targets::new().with_default(level), Some(error)),
        None => (Targets::new().with_default(level), None),
    };
    let logs = fmt::layer().with_writer(io::stderr).with_target(false);
    let registry = tracing_subscriber::registry().with(filter);
    if json {
        registry.with(logs.json().flatten_event(true)).init();
    } else {
        let colours = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        registry.with(logs.with_ansi(colours)).init();
    }
    if let Some(error) = wrong {
        tracing::warn!("FRAMEWIRE_LOG is ignored: {error}");
    }
}

/// Reads `FRAMEWIRE_LOG`. A word alone has to be a level: `Targets` would take a misspelt one for a target, and then be
/// silent of everything else, errors included.
fn targets(filter: &str) -> Result<Targets, String> {
    let words = filter.split(',').map(str::trim).filter(|word| !word.is_empty() && !word.contains('='));
    for word in words {
        let _level: LevelFilter = word
            .parse()
            .map_err(|_| format!("'{word}' is no level: error, warn, info, debug and trace are"))?;
    }
    filter.parse().map_err(|error: tracing_subscriber::filter::ParseError| error.to_string())
}

/// Peer bytes for a log or a screen: escaped, and cut at `limit` bytes.
pub(crate) fn preview(bytes: &[u8], limit: usize) -> String {
    let mut text = String::new();
    let (head, cut) = match bytes.get(..limit) {
        Some(head) if bytes.len() > limit => (head, true),
        _ => (bytes, false),
    };
    for chunk in head.utf8_chunks() {
        for char in chunk.valid().chars() {
            match char {
                '"' | '\'' => text.push(char),
                // Text that is displayed in another order than it was sent is escaped too.
                '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
                    text.extend(char.escape_unicode());
                }
                char => text.extend(char.escape_debug()),
            }
        }
        text.extend(
            chunk.invalid().iter().flat_map(|byte| format!("\\x{byte:02x}").into_bytes()).map(char::from),
        );
    }
    if cut {
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{preview, targets};

    #[test]
    fn a_misspelt_level_silences_nothing() {
        for good in ["warn", "INFO", "off", "3", "debug,framewire=trace", "framewire=info", "error, h2=off"] {
            assert!(targets(good).is_ok(), "{good}");
        }
        for bad in ["warning", "bogus", "info,framewire", "framewire=loud"] {
            assert!(targets(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn peer_bytes_are_shown_safely() {
        assert_eq!(preview(b"{\"id\":1}", 80), "{\"id\":1}");
        assert_eq!(preview(b"a\x1b[31m\xff\r", 80), "a\\u{1b}[31m\\xff\\r");
        assert_eq!(preview("abc\u{202e}".as_bytes(), 80), "abc\\u{202e}");
        assert_eq!(preview(b"abcdef", 3), "abc…");
        assert_eq!(preview(b"abc", 3), "abc");
        assert_eq!(preview("aé".as_bytes(), 2), "a\\xc3…");
    }
}
