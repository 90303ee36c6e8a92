//! What a person probably meant.

use super::{EndpointError, tcp};

const SCHEMES: [&str; 13] = [
    "stdio",
    "exec",
    "tcp",
    "tls",
    "unix",
    "ws",
    "wss",
    "ws+unix",
    "http",
    "https",
    "http+unix",
    "demo",
    "echo",
];

/// Schemes that are named in the design and not built yet, so that they get an honest answer.
const RESERVED: [&str; 7] = ["nats", "mqtt", "redis", "amqp", "kafka", "sqs", "quic"];

/// The error for a text without a scheme.
pub(super) fn no_scheme(text: &str) -> EndpointError {
    let hint = if text == "-" {
        ": did you mean stdio:?".to_owned()
    } else if SCHEMES.contains(&text) {
        match text {
            "tcp" => ": did you mean tcp://HOST:PORT?".to_owned(),
            "tls" => ": did you mean tls://HOST:PORT?".to_owned(),
            "ws" | "wss" | "http" | "https" => format!(": did you mean {text}://HOST:PORT/PATH?"),
            "ws+unix" | "http+unix" => format!(": did you mean {text}:PATH?"),
            "unix" => ": did you mean unix:PATH?".to_owned(),
            "exec" => ": did you mean exec:COMMAND ARGS?".to_owned(),
            _ => format!(": did you mean {text}:?"),
        }
    } else if text.contains('/') || text.ends_with(".sock") {
        format!(": did you mean unix:{} or exec:{}?", shown(text), shown(text))
    } else {
        match nearest(text, &SCHEMES) {
            Some(scheme) => format!(": did you mean {scheme}:?"),
            None => format!(": did you mean exec:{}?", shown(text)),
        }
    };
    EndpointError::NoScheme { text: shown(text), hint }
}

/// The error for a scheme that is not known.
pub(super) fn unknown_scheme(scheme: &str, text: &str) -> EndpointError {
    let lower = scheme.to_ascii_lowercase();
    if let Some(scheme) = RESERVED.iter().find(|reserved| **reserved == lower) {
        return EndpointError::NotBuiltIn { scheme };
    }
    if SCHEMES.contains(&lower.as_str()) {
        return EndpointError::UnknownScheme {
            scheme: shown(scheme),
            hint: format!(": did you mean {lower}?"),
        };
    }
    // `127.0.0.1:9110`, `localhost:80`, `[::1]:80`: a host and a port without a scheme.
    if tcp(text).is_ok() || text.starts_with('[') {
        return EndpointError::NoScheme {
            text: shown(text),
            hint: format!(": did you mean tcp://{}?", shown(text)),
        };
    }
    if scheme.is_empty() || scheme.contains(['/', ' ']) {
        return EndpointError::NoScheme { text: shown(text), hint: String::new() };
    }
    EndpointError::UnknownScheme { scheme: shown(scheme), hint: did_you_mean(nearest(&lower, &SCHEMES)) }
}

/// A hint to be appended to an error.
pub(super) fn did_you_mean(nearest: Option<&str>) -> String {
    nearest.map(|nearest| format!(": did you mean {nearest}?")).unwrap_or_default()
}

/// What a person typed, safe to print and bounded.
pub(super) fn shown(text: &str) -> String {
    let mut shown: String = text.chars().take(80).flat_map(char::escape_debug).collect();
    shown = shown.replace("\\'", "'").replace("\\\"", "\"");
    if text.chars().nth(80).is_some() {
        shown.push('…');
    }
    shown
}

/// The one of `names` that differs from `text` by at most two letters.
pub(super) fn nearest<'a>(text: &str, names: &[&'a str]) -> Option<&'a str> {
    names
        .iter()
        .map(|name| (distance(text, name), *name))
        .filter(|(distance, name)| *distance <= 2 && *distance < name.len().min(text.len()))
        .min()
        .map(|(_, name)| name)
}

/// Levenshtein distance. Texts of more than 32 characters are taken as far away from everything.
fn distance(a: &str, b: &str) -> usize {
    if a.chars().nth(32).is_some() {
        return usize::MAX;
    }
    let mut row: Vec<usize> = (0..=b.chars().count()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut before = i;
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
        let mut left = i + 1;
        for (cell, to) in row.iter_mut().skip(1).zip(b.chars()) {
            let cost = (before + usize::from(from != to)).min(*cell + 1).min(left + 1);
            before = *cell;
            *cell = cost;
            left = cost;
        }
    }
    row.last().copied().unwrap_or_default()
}
