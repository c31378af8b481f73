//! What every endpoint that answers takes beside its prompt.

use super::bounded::{StopText, StopTexts};
use serde::Serialize;
use utoipa::ToSchema;

/// The type of a body that asks for an answer: its own fields, and those that all of them have.
macro_rules! request {
    ($(#[$attribute:meta])* $name:ident { $($own:tt)* }) => {
        $(#[$attribute])*
        ///
        /// What is left out is as the model recommends.
        #[derive(Serialize, ToSchema)]
        #[serde(deny_unknown_fields)]
        pub(crate) struct $name {
            $($own)*
            /// The model that should answer.
            model: Option<String>,
            /// Divides the logits; 0 always takes the likeliest token.
            #[schema(minimum = 0)]
            temperature: Option<f32>,
            /// Keep the likeliest tokens up to this mass.
            #[schema(exclusive_minimum = 0, maximum = 1)]
            top_p: Option<f32>,
            /// Keep this many of the likeliest tokens; 0 or −1 for all.
            #[schema(minimum = -1)]
            top_k: Option<i64>,
            /// Keep tokens at least this likely, relative to the likeliest.
            #[schema(minimum = 0, maximum = 1)]
            min_p: Option<f32>,
            /// Divides the positive and multiplies the negative logits of every token so far; 1 for none.
            #[schema(exclusive_minimum = 0)]
            repetition_penalty: Option<f32>,
            /// Taken off the logits of every token of the answer so far.
            #[schema(minimum = -2, maximum = 2)]
            presence_penalty: Option<f32>,
            /// Taken off as many times as the token is there.
            #[schema(minimum = -2, maximum = 2)]
            frequency_penalty: Option<f32>,
            /// Added to the logits of these tokens, by token id.
            #[schema(example = json!({"7": -1.5}))]
            logit_bias: Option<HashMap<String, Bias>>,
            /// The same seed gives the same answer.
            seed: Option<i64>,
            /// No stop token is among the first so many.
            #[schema(minimum = 0)]
            min_tokens: Option<u64>,
            /// Ends the answer; not part of it.
            stop: Option<Stop>,
            /// Ends the answer beside the model's own.
            #[schema(max_items = 1024)]
            stop_token_ids: Option<Vec<TokenId>>,
            /// Go on past the model's stop tokens, to measure.
            ignore_eos: Option<bool>,
            /// Whether the answer comes piece by piece, as server-sent events.
            stream: Option<bool>,
            /// Who asks.
            user: Option<String>,
            /// Higher is served first.
            #[schema(minimum = -128, maximum = 127)]
            priority: Option<i32>,
            /// Only requests of the same salt share computed prefixes.
            cache_salt: Option<String>,
            /// When the answer is of no use any more.
            #[schema(minimum = 1)]
            timeout_ms: Option<u64>,
        }
    };
}

pub(crate) use request;

/// One text or several.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum Stop {
    /// One.
    One(StopText),
    /// Several.
    Several(StopTexts),
}

/// What a stream has beside its pieces.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct StreamOptions {
    /// Whether a last piece says what the answer took.
    include_usage: Option<bool>,
}

/// What an answer must look like: vLLM's way to say it, with one of the three.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum StructuredOutputs {
    /// JSON of a schema.
    Json(JsonOutput),
    /// A text that matches a regular expression.
    Regex(RegexOutput),
    /// A text of a grammar.
    Grammar(GrammarOutput),
}

/// JSON of a schema.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct JsonOutput {
    json: SchemaOrText,
}

/// A text that matches a regular expression.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RegexOutput {
    /// In the syntax of Rust's `regex` crate.
    regex: String,
}

/// A text of a grammar.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct GrammarOutput {
    /// In llguidance's variant of Lark.
    grammar: String,
}

/// A JSON schema, as it is or in a string.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum SchemaOrText {
    /// As it is.
    #[schema(value_type = Object)]
    Schema(serde_json::Map<String, serde_json::Value>),
    /// In a string.
    Text(String),
}

/// What an answer must look like.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum ResponseFormat {
    /// Text, or any JSON object.
    Plain(PlainFormat),
    /// JSON of a schema.
    Schema(SchemaFormat),
}

/// Text, or any JSON object.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PlainFormat {
    #[schema(inline)]
    r#type: PlainKind,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum PlainKind {
    Text,
    JsonObject,
}

/// JSON of a schema.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SchemaFormat {
    #[schema(inline)]
    r#type: SchemaKind,
    json_schema: NamedSchema,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum SchemaKind {
    JsonSchema,
}

/// A schema and what it is called.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NamedSchema {
    name: String,
    description: Option<String>,
    #[schema(value_type = Object)]
    schema: serde_json::Map<String, serde_json::Value>,
    /// Changes nothing: an answer is always held to its schema.
    strict: Option<bool>,
}
