//! The fastest MCP server over stdio that is still one: `initialize`, `ping`, `tools/list` and `tools/call` of `echo`.
//! Nothing but the standard library and serde_json, so that what is measured is what stands in front of it.

use std::io::{self, BufRead, BufReader, Write, stdin};

use serde_json::{Value, json};

fn answer(method: &str, params: &Value) -> Result<Value, (i64, &'static str)> {
    match method {
        "initialize" => Ok(json!({
            "protocolVersion": params["protocolVersion"],
            "capabilities": { "tools": {} },
            "serverInfo": { "name": "fixture", "version": "1.0.0" },
        })),
        "ping" => Ok(json!({})),
        "tools/list" => Ok(json!({ "tools": [{
            "name": "echo",
            "description": "says what it is given",
            "inputSchema": { "type": "object", "properties": { "message": { "type": "string" } }, "required": ["message"] },
        }] })),
        "tools/call" => {
            Ok(json!({ "content": [{ "type": "text", "text": params["arguments"]["message"] }] }))
        }
        "resources/list" => Ok(json!({ "resources": [] })),
        "resources/templates/list" => Ok(json!({ "resourceTemplates": [] })),
        "prompts/list" => Ok(json!({ "prompts": [] })),
        _ => Err((-32601, "no such method")),
    }
}

fn main() -> io::Result<()> {
    let mut input = BufReader::with_capacity(64 * 1024, stdin());
    let mut output = io::stdout().lock();
    let (mut line, mut out) = (Vec::new(), Vec::new());
    while input.read_until(b'\n', &mut line)? > 0 {
        if let Ok(mut message) = serde_json::from_slice::<Value>(&line)
            && let Some(method) = message["method"].as_str()
            && !message["id"].is_null()
        {
            let said = answer(method, &message["params"]);
            let id = message["id"].take();
            let reply = match said {
                Ok(result) => json!({ "jsonrpc": "2.0", "id": id, "result": result }),
                Err((code, text)) => {
                    json!({ "jsonrpc": "2.0", "id": id, "error": { "code": code, "message": text } })
                }
            };
            serde_json::to_writer(&mut out, &reply)?;
            out.push(b'\n');
        }
        line.clear();
        line.shrink_to(1 << 20);
        // What one read brought is answered in one write.
        if !out.is_empty() && !input.buffer().contains(&b'\n') {
            output.write_all(&out)?;
            output.flush()?;
            out.clear();
            out.shrink_to(1 << 20);
        }
    }
    Ok(())
}
