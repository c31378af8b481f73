//! Python's ways inside minijinja, as chat templates written for Jinja2 expect them.
//!
//! `str()` and `repr()` of values, `raise_exception`; `json.dumps` and `strftime_now` lie beside it.
//! Strings' and mappings' methods come from minijinja-contrib.

use super::{python_json, strftime};
use minijinja::value::ValueKind;
use minijinja::{Environment, Error, ErrorKind, Output, State, Value};
use std::fmt::Write;
use std::time::{SystemTime, UNIX_EPOCH};

/// Values nested deeper than this do not print: the recursion must end before the stack does.
const MAX_DEPTH: usize = 128;

/// Makes `environment` behave as the reference's Jinja2 does.
pub(crate) fn teach(environment: &mut Environment<'_>) {
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    environment.set_formatter(format);
    environment.add_filter("tojson", python_json::to_json);
    environment.add_filter("string", |value: &Value| str_of(value));
    environment.add_filter("trim", trim);
    environment.add_function("raise_exception", |message: &Value| -> Result<Value, Error> {
        Err(Error::new(ErrorKind::InvalidOperation, message.to_string()))
    });
    environment.add_function("strftime_now", |pattern: &str| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        strftime::strftime(pattern, now)
    });
}

fn format(out: &mut Output<'_>, _state: &State<'_, '_>, value: &Value) -> Result<(), Error> {
    match value.as_str() {
        Some(text) => out.write_str(text).map_err(Error::from),
        None => out.write_str(&str_of(value)?).map_err(Error::from),
    }
}

pub(crate) fn str_of(value: &Value) -> Result<String, Error> {
    if let Some(text) = value.as_str() {
        return Ok(text.to_owned());
    }
    let mut text = String::new();
    repr(&mut text, value, 0)?;
    Ok(text)
}

/// `str(value).strip(chars)`: of what is not a string, too, as some templates trim lists.
fn trim(value: &Value, chars: Option<&str>) -> Result<String, Error> {
    // Python counts the four ASCII separators as white space, Unicode does not.
    let is_space = |char: char| char.is_whitespace() || ('\x1c'..='\x1f').contains(&char);
    let text = str_of(value)?;
    let trimmed = match chars {
        Some(chars) => text.trim_matches(|char| chars.contains(char)),
        None => text.trim_matches(is_space),
    };
    Ok(trimmed.to_owned())
}

fn repr(out: &mut String, value: &Value, depth: usize) -> Result<(), Error> {
    check_depth(depth)?;
    match value.kind() {
        ValueKind::Undefined => {}
        ValueKind::None => out.push_str("None"),
        ValueKind::Bool => out.push_str(if value.is_true() { "True" } else { "False" }),
        ValueKind::Number => out.push_str(&number(value)),
        ValueKind::String => repr_str(out, value.as_str().unwrap_or_default()),
        ValueKind::Seq => list(out, value, ('[', ']'), |out, item| repr(out, item, depth + 1))?,
        ValueKind::Map => map(out, value, &mut |out, key, item| {
            repr(out, key, depth + 1)?;
            out.push_str(": ");
            repr(out, item, depth + 1)
        })?,
        _ => drop(write!(out, "{value}")),
    }
    Ok(())
}

pub(crate) fn check_depth(depth: usize) -> Result<(), Error> {
    if depth <= MAX_DEPTH {
        return Ok(());
    }
    Err(Error::new(ErrorKind::InvalidOperation, format!("a value is nested more than {MAX_DEPTH} deep")))
}

fn list(
    out: &mut String,
    value: &Value,
    (open, close): (char, char),
    mut item: impl FnMut(&mut String, &Value) -> Result<(), Error>,
) -> Result<(), Error> {
    out.push(open);
    for (index, entry) in value.try_iter()?.enumerate() {
        if index > 0 {
            out.push_str(", ");
        }
        item(out, &entry)?;
    }
    out.push(close);
    Ok(())
}

type Entry<'a> = &'a mut dyn FnMut(&mut String, &Value, &Value) -> Result<(), Error>;

fn map(out: &mut String, value: &Value, entry: Entry<'_>) -> Result<(), Error> {
    list(out, value, ('{', '}'), |out, key| entry(out, key, &value.get_item(key)?))
}

/// A number as Python prints it: shortest digits, exponents of at least two digits from 1e16 up and below 1e-4.
pub(crate) fn number(value: &Value) -> String {
    if value.is_integer() {
        return value.to_string();
    }
    let Ok(float) = f64::try_from(value.clone()) else { return value.to_string() };
    if !float.is_finite() {
        return if float.is_nan() {
            "nan"
        } else if float > 0.0 {
            "inf"
        } else {
            "-inf"
        }
        .to_owned();
    }
    let magnitude = float.abs();
    if magnitude != 0.0 && !(1e-4..1e16).contains(&magnitude) {
        let text = format!("{float:e}");
        let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let (sign, exponent) = exponent.strip_prefix('-').map_or(('+', exponent), |rest| ('-', rest));
        return format!("{digits}e{sign}{exponent:0>2}");
    }
    format!("{float:?}")
}

fn repr_str(out: &mut String, text: &str) {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    out.push(quote);
    for char in text.chars() {
        match char {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\\' => out.push_str("\\\\"),
            char if char == quote => out.extend(['\\', char]),
            char if char.is_ascii_control() => drop(write!(out, "\\x{:02x}", u32::from(char))),
            char => out.push(char),
        }
    }
    out.push(quote);
}
