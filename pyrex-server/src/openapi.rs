//! The document of the API at `/openapi.json`: what stands in bodies comes from the types of `pyrex-openai`, paths and
//! statuses from here. It says what this server answers as it is configured, with keys or without.

use crate::config::Config;
use crate::models::JSON;
use crate::router::App;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use pyrex_openai::components;
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// Statuses of every path that needs to know who asks, and can therefore be too many.
const REFUSED: &[&str] = &["401", "403", "500"];
/// Those of a path that reads a body.
const READ: &[&str] = &["400", "404", "408", "413", "415", "503"];
/// Those of a path whose answer the engine makes.
const GENERATED: &[&str] = &["429", "504"];

/// `GET /openapi.json`
pub(crate) async fn document(State(app): State<Arc<App>>) -> Response {
    (JSON, app.openapi.clone()).into_response()
}

/// The document for this config.
pub(crate) fn written(config: &Config) -> String {
    let mut components = serde_json::to_value(components()).expect("schemas are JSON");
    limit_priority(&mut components, config);
    let mut document = json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Pyrex",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Text and images in, text out, over OpenAI's protocol. A field that is not described here is \
                refused by its name. Every answer has an `x-request-id`: the client's own, or a new one.",
            "license": {"name": "MIT OR Apache-2.0"},
        },
        "paths": paths(config),
        "components": components,
    });
    if config.auth.keys.is_some() {
        document["components"]["securitySchemes"] = json!({"key": {"type": "http", "scheme": "bearer"}});
    }
    document.to_string()
}

/// The highest priority of any tenant is the highest that may be asked for.
fn limit_priority(components: &mut Value, config: &Config) {
    let highest = config.tenants.values().map(|tenant| tenant.priority).max().unwrap_or(0);
    let schemas = components["schemas"].as_object_mut().into_iter().flat_map(Map::values_mut);
    for priority in schemas.filter_map(|schema| schema.pointer_mut("/properties/priority")) {
        priority["maximum"] = highest.into();
    }
}

fn paths(config: &Config) -> Value {
    let chat = ["ChatCompletionRequest", "ChatCompletion", "ChatChunk"];
    let text = ["CompletionRequest", "TextCompletion", "TextCompletion"];
    let responses = ["ResponseRequest", "ResponseObject", "ResponseEvent"];
    let mut paths = Map::new();
    let mut add = |path: &str, method: &str, operation: Operation| {
        paths.insert(path.to_owned(), json!({method: operation.written(config)}));
    };
    add("/v1/chat/completions", "post", generates("Go on with a conversation.", chat));
    add("/v1/completions", "post", generates("Go on with a text.", text));
    add("/v1/responses", "post", generates("Answer once; nothing is stored.", responses));
    add("/v1/embeddings", "post", embeddings());
    add("/v1/models", "get", Operation::new("models", "The one model.").known().answers("ModelList"));
    add("/v1/models/{id}", "get", model());
    let tokenize = Operation::new("tokens", "The tokens that a model reads of a text or a conversation.");
    add("/tokenize", "post", tokenize.known().reads("TokenizeRequest").answers("Tokens"));
    let detokenize = Operation::new("tokens", "The text of tokens.");
    add("/detokenize", "post", detokenize.known().reads("DetokenizeRequest").answers("Detokenized"));
    add("/health/live", "get", health("Whether the process answers.", &[]));
    add("/health/ready", "get", health("Whether requests would be answered; if not, why.", &["503"]));
    let metrics = Operation::new("operations", "What Prometheus reads, in OpenMetrics.").known();
    add("/metrics", "get", metrics.says("application/openmetrics-text", json!({"type": "string"})));
    let document = Operation::new("pages", "This document.");
    add("/openapi.json", "get", document.says("application/json", json!({"type": "object"})));
    let page = |what| Operation::new("pages", what).says("text/html", json!({"type": "string"}));
    add("/docs", "get", page("This document to read."));
    add("/", "get", page("A conversation in a browser."));
    Value::Object(paths)
}

fn generates(summary: &'static str, [asked, whole, piece]: [&str; 3]) -> Operation {
    let mut operation = Operation::new("generate", summary).known().reads(asked).answers(whole);
    operation.refusals.extend(GENERATED);
    operation.description = "With `stream` the answer comes as server-sent events, each with the schema below, then `[DONE]` \
        where OpenAI sends it. What is wrong before the first token is a plain error with its status; later it is an event.";
    operation.answer["text/event-stream"] = json!({"schema": reference(piece)});
    operation
}

fn embeddings() -> Operation {
    let mut operation =
        Operation::new("generate", "Refused: no model that is served here has embeddings.").known();
    operation.refusals.push("404");
    operation
}

fn model() -> Operation {
    let mut operation = Operation::new("models", "One model by its name.").known().answers("Model");
    operation.refusals.push("404");
    operation.parameters =
        json!([{"name": "id", "in": "path", "required": true, "schema": {"type": "string", "minLength": 1}}]);
    operation
}

fn health(summary: &'static str, refusals: &[&'static str]) -> Operation {
    let schema = json!({
        "type": "object",
        "required": ["status"],
        "properties": {
            "status": {"enum": ["live", "ready", "unready"]},
            "checks": {"type": "object", "additionalProperties": {"type": "string"}},
        },
    });
    let mut operation = Operation::new("operations", summary).says("application/json", schema.clone());
    operation.health = refusals.iter().map(|status| (*status, schema.clone())).collect();
    operation
}

/// One method of one path.
struct Operation {
    tag: &'static str,
    summary: &'static str,
    description: &'static str,
    parameters: Value,
    needs_identity: bool,
    request: Option<Value>,
    answer: Value,
    refusals: Vec<&'static str>,
    /// Statuses that are no errors of OpenAI's shape.
    health: Vec<(&'static str, Value)>,
}

impl Operation {
    fn new(tag: &'static str, summary: &'static str) -> Self {
        Self {
            tag,
            summary,
            description: summary,
            parameters: json!([]),
            needs_identity: false,
            request: None,
            answer: json!({}),
            refusals: Vec::new(),
            health: Vec::new(),
        }
    }

    /// Whoever asks must be known.
    fn known(mut self) -> Self {
        self.needs_identity = true;
        self.refusals.extend(REFUSED);
        self
    }

    fn reads(mut self, schema: &str) -> Self {
        self.request = Some(json!({
            "required": true,
            "content": {"application/json": {"schema": reference(schema)}},
        }));
        self.refusals.extend(READ);
        self
    }

    fn answers(self, schema: &str) -> Self {
        self.says("application/json", reference(schema))
    }

    fn says(mut self, media_type: &str, schema: Value) -> Self {
        self.answer[media_type] = json!({"schema": schema});
        self
    }

    fn written(mut self, config: &Config) -> Value {
        let mut responses = Map::new();
        if self.answer.as_object().is_some_and(|answer| !answer.is_empty()) {
            responses.insert("200".to_owned(), json!({"description": "The answer.", "content": self.answer}));
        }
        for (status, schema) in self.health {
            let content = json!({"application/json": {"schema": schema}});
            let response =
                json!({"description": meaning(status), "content": content, "headers": headers(status)});
            responses.insert(status.to_owned(), response);
        }
        self.refusals.sort_unstable();
        for status in self.refusals {
            let content = json!({"application/json": {"schema": reference("ErrorBody")}});
            let response =
                json!({"description": meaning(status), "content": content, "headers": headers(status)});
            responses.insert(status.to_owned(), response);
        }
        let mut operation = json!({
            "tags": [self.tag],
            "summary": self.summary,
            "description": self.description,
            "parameters": self.parameters,
            "responses": responses,
        });
        if let Some(request) = self.request {
            operation["requestBody"] = request;
        }
        if self.needs_identity && config.auth.keys.is_some() {
            operation["security"] = json!([{"key": []}]);
        }
        operation
    }
}

fn reference(schema: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{schema}")})
}

fn meaning(status: &str) -> &'static str {
    match status {
        "400" => "The body says what cannot be; `param` names the field.",
        "401" => "A key is needed, and there is none that is known.",
        "403" => "Whoever this is may not ask here.",
        "404" => "There is no such model, or it cannot do this.",
        "408" => "The body did not come in time.",
        "413" => "The body is too long.",
        "415" => "The body is something else than JSON.",
        "429" => "Too many at once; `retry-after` says when to come again.",
        "503" => "Nothing is answered now; `retry-after` says when to come again.",
        "504" => "The answer was not ready in time.",
        _ => "A mistake of the server's.",
    }
}

fn headers(status: &str) -> Value {
    match status {
        "429" | "503" => {
            json!({"retry-after": {"description": "In seconds.", "schema": {"type": "integer"}}})
        }
        "401" => json!({"www-authenticate": {"schema": {"type": "string"}}}),
        _ => json!({}),
    }
}
