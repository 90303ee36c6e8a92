//! Arguments of tools that go into headers, too: which, the tools' schemas say by `x-mcp-header` (revision 2026-07-28).

use std::{collections::HashMap, sync::Arc};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use memchr::memmem;

use super::{call::Call, error::HttpClientError, message::Message, shared::Shared, stateless};
use crate::{
    Frame,
    json::{Envelope, JsonParser, RawString, Value, member},
};

/// Tools whose declarations are kept.
const MAX_TOOLS: usize = 4096;

/// Declarations of one tool.
const MAX_DECLARATIONS: usize = 64;

/// Containers that are gone into.
const MAX_DEPTH: usize = 16;

/// Largest integer that a header may say: beyond it JavaScript has no exact one, and says nothing.
const MAX_INTEGER: i64 = (1 << 53) - 1;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Type {
    String,
    Integer,
    Boolean,
}

#[derive(Debug)]
struct Declaration {
    path: Vec<String>,
    header: HeaderName,
    kind: Type,
}

/// The declarations of the tools that were listed.
#[derive(Debug, Default)]
pub(super) struct Tools {
    by_name: HashMap<String, Declared>,
}

/// What a tool declares. A declaration that the specification does not allow makes the tool one that must not be called.
type Declared = Result<Vec<Declaration>, Undeclarable>;

/// Why a tool must not be called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Undeclarable(&'static str);

impl Tools {
    /// Takes in the result of a `tools/list`. Returns where the list goes on.
    pub(super) fn learn(&mut self, result: &[u8]) -> Option<Bytes> {
        let next = member(result, "nextCursor").ok().flatten();
        let next = next.filter(|cursor| cursor.first() == Some(&b'"')).map(Bytes::copy_from_slice);
        // Few servers declare any: no other list is parsed.
        if self.by_name.is_empty() && memmem::find(result, b"x-mcp-header").is_none() {
            return next;
        }
        let mut parser = JsonParser::new();
        let mut frame = Frame::copy_from_slice(result);
        let Ok(document) = parser.parse_in_place(&mut frame) else { return next };
        let Some(tools) = document.value().get("tools") else { return next };
        for tool in tools.elements() {
            let Some(name) = tool.get("name").and_then(Value::as_str) else { continue };
            let mut found = Vec::new();
            let wrong = tool
                .get("inputSchema")
                .and_then(|schema| declarations(schema, &mut Vec::new(), &mut found).err());
            let found = wrong.map_or(Ok(found), Err);
            if found.as_ref().is_ok_and(Vec::is_empty) {
                self.by_name.remove(name);
            } else if self.by_name.len() < MAX_TOOLS || self.by_name.contains_key(name) {
                self.by_name.insert(name.to_owned(), found);
            }
        }
        next
    }

    /// Puts the headers of a `tools/call` to the others. An argument that is absent or null, or not of the type that was
    /// declared, has none.
    pub(super) fn put(&self, message: &[u8], headers: &mut HeaderMap) {
        let Some((envelope, Ok(declared))) = self.declared(message) else { return };
        let Some(params) = envelope.params() else { return };
        let Ok(Some(arguments)) = member(params, "arguments") else { return };
        for declaration in declared {
            let value =
                declaration.path.iter().try_fold(arguments, |object, key| member(object, key).ok().flatten());
            if let Some(value) = value.and_then(|value| declaration.kind.text(value)) {
                headers.insert(declaration.header.clone(), value);
            }
        }
    }
}

impl Tools {
    fn declared<'a>(&self, message: &'a [u8]) -> Option<(Envelope<'a>, &Declared)> {
        if self.by_name.is_empty() {
            return None;
        }
        let envelope = Envelope::peek(message).ok()?;
        let Ok(Some([b'"', raw @ .., b'"'])) = envelope.name() else { return None };
        let declared = self.by_name.get(&*RawString::new(raw).unescape()?)?;
        Some((envelope, declared))
    }

    /// Why the tool of a `tools/call` must not be called, if there is a reason.
    pub(super) fn forbids(&self, message: &[u8]) -> Option<&'static str> {
        match self.declared(message)? {
            (_, Err(Undeclarable(reason))) => Some(reason),
            _ => None,
        }
    }
}

/// Pages of a list of tools that are asked for.
const MAX_PAGES: usize = 16;

/// Id of a request that the transport makes for itself. No client's: they are numbers or of a client's own making.
const OWN_ID: &str = "\"framewire tools\"";

impl Shared {
    /// Asks for the list of tools on behalf of a call whose headers the server has missed.
    pub(super) async fn list_tools(self: &Arc<Self>, message: &Message) -> Result<(), HttpClientError> {
        let bad = |reason: &str| HttpClientError::BadAnswer { reason: reason.into() };
        let envelope = Envelope::peek(&message.bytes).map_err(|error| bad(&error.to_string()))?;
        let Ok(Some(meta)) = envelope.meta() else { return Err(bad("there is no _meta")) };
        let mut next: Option<Bytes> = None;
        for _ in 0..MAX_PAGES {
            let mut request =
                format!(r#"{{"jsonrpc":"2.0","id":{OWN_ID},"method":"tools/list","params":{{"_meta":"#)
                    .into_bytes();
            request.extend_from_slice(meta);
            if let Some(cursor) = &next {
                request.extend_from_slice(b",\"cursor\":");
                request.extend_from_slice(cursor);
            }
            request.extend_from_slice(b"}}");
            let list = Message::new(request.into()).map_err(|error| bad(&error.to_string()))?;
            // Found by the stream it comes on alone: it is not entered with those of the client.
            let call = Call::quiet(list);
            self.ask(&call).await?;
            next = call.noted();
            if next.is_none() {
                return Ok(());
            }
        }
        Ok(())
    }
}

impl Type {
    /// A value of this type as a header has it.
    fn text(self, value: &[u8]) -> Option<HeaderValue> {
        match (self, value) {
            (Self::String, [b'"', raw @ .., b'"']) => stateless::value(&RawString::new(raw).unescape()?),
            (Self::Boolean, b"true" | b"false") => HeaderValue::from_bytes(value).ok(),
            (Self::Integer, number) => {
                let number: i64 = std::str::from_utf8(number).ok()?.parse().ok()?;
                (-MAX_INTEGER..=MAX_INTEGER).contains(&number).then(|| number.into())
            }
            _ => None,
        }
    }
}

/// Collects what the properties of a schema declare, at any depth.
fn declarations(
    schema: Value<'_>,
    path: &mut Vec<String>,
    found: &mut Vec<Declaration>,
) -> Result<(), Undeclarable> {
    let Some(properties) = schema.get("properties").filter(|_| path.len() < MAX_DEPTH) else { return Ok(()) };
    for (name, property) in properties.members() {
        path.push(name.to_owned());
        if let Some(named) = property.get("x-mcp-header") {
            let kind = match property.get("type").and_then(Value::as_str) {
                Some("string") => Type::String,
                Some("integer") => Type::Integer,
                Some("boolean") => Type::Boolean,
                _ => return Err(Undeclarable("only a string, integer or boolean can go into a header")),
            };
            let header = named
                .as_str()
                .filter(|name| !name.is_empty())
                .and_then(|name| HeaderName::try_from(format!("mcp-param-{name}")).ok())
                .ok_or(Undeclarable("the name of its header is none"))?;
            if found.iter().any(|other| other.header == header) {
                return Err(Undeclarable("two of its arguments go into the same header"));
            }
            if found.len() >= MAX_DECLARATIONS {
                return Err(Undeclarable("more of its arguments go into headers than a head can have"));
            }
            found.push(Declaration { path: path.clone(), header, kind });
        }
        declarations(property, path, found)?;
        path.pop();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_become_the_headers_that_were_declared() {
        let mut tools = Tools::default();
        tools.learn(
            br#"{"tools":[{"name":"t","inputSchema":{"properties":{
                "region":{"type":"string","x-mcp-header":"Region"},
                "on":{"type":"boolean","x-mcp-header":"On"},
                "deep":{"type":"object","properties":{"n":{"type":"integer","x-mcp-header":"N"}}},
                "list":{"type":"array","items":{"type":"string","x-mcp-header":"Item"}},
                "free":{"type":"number"},
                "none":{"type":"string","x-mcp-header":"None"}}}}]}"#,
        );
        let call = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"t","arguments":
            {"region":"Köln","on":true,"deep":{"n":-7},"list":["x"],"free":1.5,"none":null}}}"#;
        let mut headers = HeaderMap::new();
        tools.put(call.as_bytes(), &mut headers);
        let header = |name: &str| headers.get(name).map(|value| value.to_str().expect("ASCII"));
        assert_eq!(header("mcp-param-region"), Some("=?base64?S8O2bG4=?="));
        assert_eq!(header("mcp-param-on"), Some("true"));
        assert_eq!(header("mcp-param-n"), Some("-7"));
        assert_eq!(headers.len(), 3, "{headers:?}");
        // One that the specification does not allow.
        for wrong in [
            r#"{"a":{"type":"number","x-mcp-header":"A"}}"#,
            r#"{"a":{"type":"string","x-mcp-header":""}}"#,
            r#"{"a":{"type":"string","x-mcp-header":"A B"}}"#,
            r#"{"a":{"type":"string","x-mcp-header":"A"},"b":{"type":"string","x-mcp-header":"a"}}"#,
        ] {
            let list = format!(r#"{{"tools":[{{"name":"t","inputSchema":{{"properties":{wrong}}}}}]}}"#);
            tools.learn(list.as_bytes());
            assert!(tools.forbids(call.as_bytes()).is_some(), "{wrong}");
        }
        // A later list counts.
        tools.learn(br#"{"tools":[{"name":"t","inputSchema":{}}]}"#);
        headers.clear();
        tools.put(call.as_bytes(), &mut headers);
        assert!(headers.is_empty());
        assert_eq!(tools.forbids(call.as_bytes()), None);
    }
}
