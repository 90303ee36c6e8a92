// What the conformance suite expects a server to have, as plain data and functions: server.mjs (the SDK of the revisions
// up to 2025-11-25) and modern.mjs (the SDK of 2026-07-28) serve it. Nothing here knows an SDK.

export const info = { name: "framewire-fixture", version: "1.0.0" };

// A red dot, and a tenth of a second of silence.
export const png = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8DwHwAFBQIAX8jx0gAAAABJRU5ErkJggg==";
export const wav = Buffer.concat([
  Buffer.from("RIFF"), u32(36 + 800), Buffer.from("WAVEfmt "), u32(16), u16(1), u16(1), u32(8000), u32(8000), u16(1), u16(8),
  Buffer.from("data"), u32(800), Buffer.alloc(800, 0x80),
]).toString("base64");

function u16(value) {
  const bytes = Buffer.alloc(2);
  bytes.writeUInt16LE(value);
  return bytes;
}

function u32(value) {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value);
  return bytes;
}

export const sleep = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));
export const text = (text) => ({ content: [{ type: "text", text }] });

const nothing = { type: "object", properties: {} };
const strings = (...names) => ({
  type: "object",
  properties: Object.fromEntries(names.map((name) => [name, { type: "string" }])),
  required: names,
});

const schema2020 = {
  $schema: "https://json-schema.org/draft/2020-12/schema",
  type: "object",
  $defs: {
    address: { $anchor: "addressDef", type: "object", properties: { street: { type: "string" }, city: { type: "string" } } },
  },
  properties: {
    name: { type: "string" },
    address: { $ref: "#/$defs/address" },
    contactMethod: { type: "string", enum: ["phone", "email"] },
    phone: { type: "string" },
    email: { type: "string" },
  },
  allOf: [{ anyOf: [{ required: ["phone"] }, { required: ["email"] }] }],
  if: { properties: { contactMethod: { const: "phone" } }, required: ["contactMethod"] },
  then: { required: ["phone"] },
  else: { required: ["email"] },
  additionalProperties: false,
};

// Tools that only answer. Each: description, input schema, and what it says to its arguments.
export const tools = {
  test_simple_text: ["says a sentence", nothing, () => text("This is a simple text response for testing.")],
  test_image_content: ["shows a picture", nothing, () => ({ content: [{ type: "image", data: png, mimeType: "image/png" }] })],
  test_audio_content: ["plays silence", nothing, () => ({ content: [{ type: "audio", data: wav, mimeType: "audio/wav" }] })],
  test_embedded_resource: ["holds a resource", nothing, () => ({
    content: [{
      type: "resource",
      resource: { uri: "test://embedded-resource", mimeType: "text/plain", text: "This is an embedded resource content." },
    }],
  })],
  test_multiple_content_types: ["says, shows and holds", nothing, () => ({
    content: [
      { type: "text", text: "Multiple content types test:" },
      { type: "image", data: png, mimeType: "image/png" },
      {
        type: "resource",
        resource: { uri: "test://mixed-content-resource", mimeType: "application/json", text: '{"test":"data","value":123}' },
      },
    ],
  })],
  test_error_handling: ["always fails", nothing, () => ({
    isError: true,
    content: [{ type: "text", text: "This tool intentionally returns an error for testing" }],
  })],
  json_schema_2020_12_tool: ["has a schema with all the words of 2020-12", schema2020, (given) => text(JSON.stringify(given))],
  echo: ["says what it is given", strings("message"), ({ message }) => text(message)],
};

// Tools that need more than their arguments: only what the lists say of them; what they do is in the servers.
export const longer = {
  test_tool_with_logging: ["logs three times", nothing],
  test_tool_with_progress: ["reports 0, 50 and 100 of 100", nothing],
  test_sampling: ["asks the client's model", strings("prompt")],
  test_elicitation: ["asks the user", strings("message")],
  test_elicitation_sep1034_defaults: ["asks the user, with defaults", nothing],
  test_elicitation_sep1330_enums: ["asks the user to choose", nothing],
  test_reconnection: ["takes so long that its stream may be closed before it answers", nothing],
};

export const userSchema = {
  type: "object",
  properties: {
    username: { type: "string", description: "User's response" },
    email: { type: "string", description: "User's email address" },
  },
  required: ["username", "email"],
};

export const defaultsSchema = {
  type: "object",
  properties: {
    name: { type: "string", default: "John Doe" },
    age: { type: "integer", default: 30 },
    score: { type: "number", default: 95.5 },
    status: { type: "string", enum: ["active", "inactive", "pending"], default: "active" },
    verified: { type: "boolean", default: true },
  },
  required: [],
};

const titles = (prefix, suffix) =>
  ["First", "Second", "Third"].map((title, i) => ({ const: `${prefix}${i + 1}`, title: `${title} ${suffix}` }));

export const enumsSchema = {
  type: "object",
  properties: {
    untitledSingle: { type: "string", enum: ["option1", "option2", "option3"] },
    titledSingle: { type: "string", oneOf: titles("value", "Option") },
    legacyEnum: { type: "string", enum: ["opt1", "opt2", "opt3"], enumNames: ["Option One", "Option Two", "Option Three"] },
    untitledMulti: { type: "array", items: { type: "string", enum: ["option1", "option2", "option3"] } },
    titledMulti: { type: "array", items: { anyOf: titles("value", "Choice") } },
  },
  required: [],
};

export const resources = [
  { uri: "test://static-text", name: "static text", description: "a sentence", mimeType: "text/plain" },
  { uri: "test://static-binary", name: "static picture", description: "a red dot", mimeType: "image/png" },
  { uri: "test://watched-resource", name: "watched", description: "may be subscribed to", mimeType: "text/plain" },
];

export const templates = [
  { uriTemplate: "test://template/{id}/data", name: "template", description: "data of an id", mimeType: "application/json" },
];

// The contents of `uri`, or nothing when there is no such resource.
export function read(uri) {
  const id = /^test:\/\/template\/([^/]+)\/data$/.exec(uri)?.[1];
  if (id) {
    const data = JSON.stringify({ id, templateTest: true, data: `Data for ID: ${id}` });
    return { contents: [{ uri, mimeType: "application/json", text: data }] };
  }
  switch (uri) {
    case "test://static-text":
      return { contents: [{ uri, mimeType: "text/plain", text: "This is the content of the static text resource." }] };
    case "test://static-binary":
      return { contents: [{ uri, mimeType: "image/png", blob: png }] };
    case "test://watched-resource":
      return { contents: [{ uri, mimeType: "text/plain", text: "This is watched." }] };
  }
}

const user = (content) => ({ role: "user", content });

// Each: description, the names of its arguments, and its messages.
export const prompts = {
  test_simple_prompt: ["a sentence", [], () => [user({ type: "text", text: "This is a simple prompt for testing." })]],
  test_prompt_with_arguments: ["a sentence of two words", ["arg1", "arg2"], ({ arg1, arg2 }) => [
    user({ type: "text", text: `Prompt with arguments: arg1='${arg1}', arg2='${arg2}'` }),
  ]],
  test_prompt_with_embedded_resource: ["a resource", ["resourceUri"], ({ resourceUri }) => [
    user({
      type: "resource",
      resource: { uri: resourceUri, mimeType: "text/plain", text: "Embedded resource content for testing." },
    }),
    user({ type: "text", text: "Please process the embedded resource above." }),
  ]],
  test_prompt_with_image: ["a picture", [], () => [
    user({ type: "image", data: png, mimeType: "image/png" }),
    user({ type: "text", text: "Please analyze the image above." }),
  ]],
};

// What an argument that begins with `value` may be.
export function complete(value) {
  const values = ["paris", "park", "party"].filter((word) => word.startsWith(value));
  return { completion: { values, total: values.length, hasMore: false } };
}
