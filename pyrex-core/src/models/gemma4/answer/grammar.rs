//! What an answer with calls may be, as a grammar.

use crate::models::answer::CallRules;
use std::fmt::Write;

/// Any value, in the spelling of [`arguments`](super::arguments). What stands in a list after `start` is llguidance's Lark.
const VALUES: &str = r#"
members: member ("," member)*
member: KEY ":" value
value: string | NUMBER | "true" | "false" | "null" | "{" members? "}" | "[" items? "]"
items: value ("," value)*
KEY: /[A-Za-z_][A-Za-z0-9_.$-]*/
NUMBER: /-?(0|[1-9][0-9]{0,14})(\.[0-9]{1,15})?/
TEXT: /(.|\n)+/
"#;

/// The grammar of answers that keep to `rules`, with these marks.
pub(super) fn calls([open, close]: [u32; 2], quote: u32, rules: &CallRules<'_>) -> String {
    let calls = if rules.several { "call+" } else { "call" };
    let start = if rules.text { format!("TEXT? ({calls})?") } else { calls.to_owned() };
    let mut grammar = format!("start: {start}\n");
    let heads: Vec<String> = rules.names.iter().map(|name| quoted(&format!("call:{name}{{"))).collect();
    let heads = heads.join(" | ");
    // Writing into a string cannot fail.
    let _ = write!(grammar, "call: <[{open}]> ({heads}) members? \"}}\" <[{close}]>");
    let _ = write!(grammar, "\nstring: <[{quote}]> TEXT? <[{quote}]>{VALUES}");
    grammar
}

/// A name as a string of the grammar.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
