//! [`parse`]: JSON in which no object has two fields of one name.

use crate::object::clip;
use serde::Deserialize;
use serde::de::{Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use std::collections::HashSet;
use std::fmt;

/// Reads a whole JSON text of at most 127 levels.
///
/// # Errors
/// What is wrong and at which line and column, if it is no JSON or an object has two fields of one name.
pub(crate) fn parse(text: &[u8]) -> serde_json::Result<Value> {
    let value = serde_json::from_slice(text)?;
    // Of two fields of one name a `Value` holds the second, so they are looked for in the text.
    serde_json::from_slice::<Unique>(text)?;
    Ok(value)
}

/// Any JSON without doubled fields.
struct Unique;

impl<'de> Deserialize<'de> for Unique {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Self)
    }
}

impl<'de> Visitor<'de> for Unique {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON")
    }

    fn visit_unit<E>(self) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_str<E>(self, _: &str) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self, A::Error> {
        while items.next_element::<Self>()?.is_some() {}
        Ok(self)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Self, A::Error> {
        let mut names = HashSet::new();
        while let Some(name) = fields.next_key::<String>()? {
            if let Some(first) = names.replace(name) {
                return Err(A::Error::custom(format_args!("`{}` is there twice", clip(&first))));
            }
            fields.next_value::<Self>()?;
        }
        Ok(self)
    }
}
