//! What is exchanged in any message, and in each of a batch, against a full parse: the result parses to the same tree but
//! for the fields that name a request.
#![no_main]

use framewire::{
    gateway::splice::{Exchange, Fields},
    json::{Envelope, Kind},
};
use libfuzzer_sys::fuzz_target;
use serde_json::{Map, Value};

const SUBSCRIPTION: &str = "io.modelcontextprotocol/subscriptionId";

fuzz_target!(|message: &[u8]| {
    let Ok(envelope) = Envelope::strict(message) else { return };
    check(&envelope);
    for element in envelope.elements().flatten() {
        check(&element);
    }
});

fn check(envelope: &Envelope<'_>) {
    let message = envelope.bytes();
    let Ok(mut fields) = Fields::find(envelope) else { return };
    let in_result = fields.find_in_result(envelope).is_ok();
    let mut out = Vec::new();
    assert!(fields.write(&Exchange::default(), &mut out));
    assert_eq!(out, message);
    out.clear();
    let exchange = Exchange {
        id: Some(b"\"new \\\" id\""),
        request_id: Some(b"123456789012345678901234567890"),
        progress_token: Some(b"0"),
        subscription_id: Some(b"\"\""),
    };
    let pieces = fields.pieces(&exchange);
    assert!(fields.write(&exchange, &mut out));
    assert_eq!(pieces.size(), out.len());
    assert!(Envelope::strict(&out).is_ok());
    // serde_json refuses lone surrogates and more than 127 levels.
    let (Ok(mut before), Ok(after)) =
        (serde_json::from_slice::<Value>(message), serde_json::from_slice::<Value>(&out))
    else {
        return;
    };
    if let Value::Object(members) = &mut before {
        edit(members, envelope.kind(), in_result);
    }
    assert_eq!(before, after);
}

/// The same on the tree.
fn edit(members: &mut Map<String, Value>, kind: Kind, in_result: bool) {
    swap(Some(members), "id", "\"new \\\" id\"");
    let method = members.get("method").and_then(Value::as_str).unwrap_or_default().to_owned();
    match kind {
        Kind::Request => swap(within(members, &["params", "_meta"]), "progressToken", "0"),
        Kind::Notification if method == "notifications/cancelled" => {
            swap(within(members, &["params"]), "requestId", "123456789012345678901234567890");
        }
        Kind::Notification if method == "notifications/progress" => {
            swap(within(members, &["params"]), "progressToken", "0");
        }
        Kind::Notification => swap(within(members, &["params", "_meta"]), SUBSCRIPTION, "\"\""),
        _ => {}
    }
    if in_result && kind != Kind::Notification && kind != Kind::Request {
        swap(within(members, &["result", "_meta"]), SUBSCRIPTION, "\"\"");
    }
}

fn within<'a>(members: &'a mut Map<String, Value>, path: &[&str]) -> Option<&'a mut Map<String, Value>> {
    path.iter().try_fold(members, |members, name| members.get_mut(*name)?.as_object_mut())
}

fn swap(members: Option<&mut Map<String, Value>>, name: &str, new: &str) {
    if let Some(value) = members.and_then(|members| members.get_mut(name))
        && (value.is_string() || value.is_number())
    {
        *value = serde_json::from_str(new).unwrap();
    }
}
