//! [`Params`]: which arguments of which tools a client repeats in headers `Mcp-Param-*` (revision 2026-07-28,
//! `x-mcp-header` in a tool's schema), learnt from the lists of tools that pass, so that head and body can be compared.
//!
//! A tool that was never listed here is not known, and its headers are not compared. What is remembered is bounded.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use http::{HeaderMap, header::HeaderName};

use super::stateless::{decode, raw};
use crate::json::{Envelope, JsonParser, Value, member, string};

/// Tools that are remembered.
const MAX_TOOLS: usize = 4096;

/// Headers of one tool.
const MAX_HEADERS: usize = 32;

/// How deep an argument lies at most.
const MAX_DEPTH: usize = 8;

/// Longest list of tools that is looked at, in bytes.
const MAX_LIST: usize = 4 * 1024 * 1024;

/// An argument that is repeated in a header.
#[derive(Debug, PartialEq, Eq)]
struct Declared {
    header: HeaderName,
    path: Vec<String>,
}

/// What is known of the tools.
#[derive(Debug, Default)]
pub(super) struct Params {
    tools: Mutex<HashMap<String, Arc<[Declared]>>>,
}

impl Params {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Arc<[Declared]>>> {
        self.tools.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in the answer to a `tools/list`.
    pub(super) fn learn(&self, message: &[u8]) {
        const MARK: &[u8] = b"x-mcp-header";
        let found = memchr::memmem::find(message, MARK).is_some();
        if message.len() > MAX_LIST || (!found && self.lock().is_empty()) {
            return;
        }
        let mut parser = JsonParser::new();
        let Ok(document) = parser.parse_copy(message) else { return };
        let tools = document.value().get("result").and_then(|result| result.get("tools"));
        let Some(tools) = tools.filter(|tools| tools.is_array()) else { return };
        let mut known = self.lock();
        for tool in tools.elements() {
            let Some(name) = tool.get("name").and_then(Value::as_str) else { continue };
            let mut declared = Vec::new();
            if let Some(schema) = tool.get("inputSchema") {
                collect(schema, &mut Vec::new(), &mut declared);
            }
            if declared.is_empty() {
                known.remove(name);
            } else if known.len() < MAX_TOOLS || known.contains_key(name) {
                known.insert(name.to_owned(), declared.into());
            }
        }
    }

    /// Whether the headers of a `tools/call` say what its arguments say.
    pub(super) fn check(&self, headers: &HeaderMap, envelope: &Envelope<'_>) -> Result<(), String> {
        if !envelope.method().is_some_and(|method| method.is("tools/call")) {
            return Ok(());
        }
        let field = |key| envelope.params().and_then(|params| member(params, key).ok().flatten());
        let Some(name) = field("name").and_then(string).and_then(|name| name.unescape()) else {
            return Ok(());
        };
        let Some(declared) = self.lock().get(&*name).cloned() else { return Ok(()) };
        for Declared { header, path } in declared.iter() {
            let mut value = field("arguments");
            for key in path {
                value = value.and_then(|object| member(object, key).ok().flatten());
            }
            // What is not there is not repeated.
            let Some(value) = value.filter(|value| *value != b"null" && !matches!(value, [b'{' | b'[', ..]))
            else {
                continue;
            };
            if !headers.contains_key(header) {
                return Err(format!("the header {header} is needed"));
            }
            let Some(said) = raw(headers, header).and_then(decode) else {
                return Err(format!("the header {header} is malformed"));
            };
            let same = match string(value) {
                Some(value) => value.is(&said),
                None => said.as_bytes() == value || same_number(&said, value),
            };
            if !same {
                return Err(format!("the header {header} is not the argument of the body"));
            }
        }
        Ok(())
    }
}

/// Whether two numbers are the same, however they are written: `42.0` and `42`.
fn same_number(said: &str, value: &[u8]) -> bool {
    let number = |text: &str| {
        let plain = text.bytes().all(|byte| byte.is_ascii_digit() || b"+-.eE".contains(&byte));
        if plain { text.parse::<f64>().ok() } else { None }
    };
    let value = std::str::from_utf8(value).ok().and_then(number);
    value.is_some() && value == number(said)
}

/// The headers that the properties of `schema` declare.
fn collect(schema: Value<'_>, path: &mut Vec<String>, declared: &mut Vec<Declared>) {
    let Some(properties) = schema.get("properties") else { return };
    for (name, property) in properties.members() {
        if declared.len() >= MAX_HEADERS {
            return;
        }
        path.push(name.to_owned());
        let header = property.get("x-mcp-header").and_then(Value::as_str);
        let header =
            header.and_then(|name| HeaderName::from_bytes(format!("mcp-param-{name}").as_bytes()).ok());
        if let Some(header) = header {
            declared.push(Declared { header, path: path.clone() });
        }
        if path.len() < MAX_DEPTH {
            collect(property, path, declared);
        }
        path.pop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_compared_with_the_arguments_they_repeat() {
        let params = Params::default();
        let call = |headers: &[(&'static str, &str)], arguments: &str| {
            let mut map = HeaderMap::new();
            for (name, value) in headers {
                map.append(*name, value.parse().unwrap());
            }
            let body = format!(
                r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"t","arguments":{arguments}}}}}"#
            );
            params.check(&map, &Envelope::strict(body.as_bytes()).unwrap()).is_ok()
        };
        assert!(call(&[], r#"{"region":"eu"}"#), "not known yet");
        let list = |schema: &str| {
            params.learn(format!(r#"{{"jsonrpc":"2.0","id":1,"result":{{"tools":[{{"name":"t","inputSchema":{schema}}}]}}}}"#).as_bytes());
        };
        list(
            r#"{"properties":{"region":{"type":"string","x-mcp-header":"Region"},"n":{"type":"integer","x-mcp-header":"N"},
                "deep":{"properties":{"flag":{"type":"boolean","x-mcp-header":"Flag"}}},"plain":{"type":"string"}}}"#,
        );
        for (headers, arguments, expected) in [
            (&[][..], r#"{}"#, true),
            (&[], r#"{"plain":"x","region":null}"#, true),
            (&[], r#"{"region":"eu"}"#, false),
            (&[("mcp-param-region", "eu")], r#"{"region":"eu"}"#, true),
            (&[("mcp-param-region", "us")], r#"{"region":"eu"}"#, false),
            (&[("mcp-param-region", "us")], r#"{}"#, true),
            (&[("mcp-param-region", "=?base64?SGVsbG8=?=")], r#"{"region":"Hello"}"#, true),
            (&[("mcp-param-region", "=?base64?SGVsbG8?=")], r#"{"region":"Hello"}"#, false),
            (&[("mcp-param-region", "=?base64?SGVs!!!bG8=?=")], r#"{"region":"Hello"}"#, false),
            (&[("mcp-param-region", "SGVsbG8=")], r#"{"region":"SGVsbG8="}"#, true),
            (&[("mcp-param-region", "=?base64?SGVsbG8=")], r#"{"region":"=?base64?SGVsbG8="}"#, true),
            (&[("mcp-param-n", "42.0")], r#"{"n":42}"#, true),
            (&[("mcp-param-n", "42")], r#"{"n":4.2e1}"#, true),
            (&[("mcp-param-n", "43")], r#"{"n":42}"#, false),
            (&[("mcp-param-n", "nan")], r#"{"n":42}"#, false),
            (&[("mcp-param-flag", "true")], r#"{"deep":{"flag":true}}"#, true),
            (&[("mcp-param-flag", "false")], r#"{"deep":{"flag":true}}"#, false),
        ] {
            assert_eq!(call(headers, arguments), expected, "{headers:?} {arguments}");
        }
        list(r#"{"properties":{"region":{"type":"string"}}}"#);
        assert!(call(&[], r#"{"region":"eu"}"#), "no longer declared");
    }
}
