//! Terms as plain values: maps of atoms, and what JSON can say.

use rustler::{Decoder, Error, NifResult, Term, TermType};
use serde_json::{Map, Number, Value};

/// How deep a term may be nested: as deep as `serde_json` reads.
const MAX_DEPTH: usize = 128;

/// The value at the key `name`, an atom, of a map; `None` for nil.
pub(crate) fn optional<'a, T: Decoder<'a>>(map: Term<'a>, name: &str) -> NifResult<Option<T>> {
    let value = map.map_get(atom(map, name)?)?;
    if value.is_atom() && value.atom_to_string().is_ok_and(|name| name == "nil") {
        return Ok(None);
    }
    value.decode().map(Some).map_err(|_| bad_value(name))
}

/// As [`optional`], of a map that need not have the key.
pub(crate) fn absent_or<'a, T: Decoder<'a>>(map: Term<'a>, name: &str) -> NifResult<Option<T>> {
    match map.map_get(atom(map, name)?) {
        Ok(_) => optional(map, name),
        Err(_) => Ok(None),
    }
}

/// As [`optional`], of what must be there.
pub(crate) fn required<'a, T: Decoder<'a>>(map: Term<'a>, name: &str) -> NifResult<T> {
    optional(map, name)?.ok_or_else(|| bad_value(name))
}

fn atom(map: Term<'_>, name: &str) -> NifResult<rustler::Atom> {
    rustler::Atom::from_str(map.get_env(), name)
}

/// Raises an `ArgumentError`: whoever calls the NIF directly has passed something else than `native.ex` says.
pub(crate) fn bad_value(name: &str) -> Error {
    Error::RaiseTerm(Box::new(format!("{name} is not what Pyrex.Native expects")))
}

/// A term of nil, booleans, numbers, binaries, lists and maps.
pub(crate) struct Json(pub(crate) Value);

impl<'a> Decoder<'a> for Json {
    fn decode(term: Term<'a>) -> NifResult<Self> {
        value(term, MAX_DEPTH).map(Self)
    }
}

/// A map as an object.
pub(crate) fn object(term: Term<'_>) -> NifResult<Map<String, Value>> {
    match value(term, MAX_DEPTH)? {
        Value::Object(object) => Ok(object),
        _ => Err(Error::BadArg),
    }
}

fn value(term: Term<'_>, depth: usize) -> NifResult<Value> {
    let depth = depth.checked_sub(1).ok_or(Error::BadArg)?;
    match term.get_type() {
        TermType::Atom => match term.atom_to_string()?.as_str() {
            "nil" | "null" => Ok(Value::Null),
            "true" => Ok(Value::Bool(true)),
            "false" => Ok(Value::Bool(false)),
            other => Ok(Value::String(other.to_owned())),
        },
        TermType::Binary => term.decode().map(Value::String),
        TermType::Integer => match term.decode::<i64>() {
            Ok(integer) => Ok(integer.into()),
            Err(_) => term.decode::<u64>().map(Value::from),
        },
        TermType::Float => Number::from_f64(term.decode()?).map(Value::Number).ok_or(Error::BadArg),
        TermType::List => {
            let items = term.decode::<Vec<Term<'_>>>()?;
            items.into_iter().map(|item| value(item, depth)).collect::<NifResult<_>>().map(Value::Array)
        }
        TermType::Map => {
            let fields = rustler::MapIterator::new(term).ok_or(Error::BadArg)?;
            let field = |(key, field): (Term<'_>, Term<'_>)| Ok((name(key)?, value(field, depth)?));
            fields.map(field).collect::<NifResult<_>>().map(Value::Object)
        }
        _ => Err(Error::BadArg),
    }
}

fn name(key: Term<'_>) -> NifResult<String> {
    if key.is_atom() { key.atom_to_string() } else { key.decode() }
}
