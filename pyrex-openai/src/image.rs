//! [`picture`]: the bytes of an image that stands in the body itself, as a data URL, or that the caller fetches.
//!
//! Where a URL may lead is the caller's to decide, not a library's. The media type is not compared with the bytes, which
//! tell themselves what they are.

use crate::object::{Misfit, Object, Read, clip, one_of, text};
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use base64::{DecodeError, Engine};
use pyrex_core::{Error, ImageBytes, Result};
use serde_json::Value;

const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Brings what an http, https or file URL leads to.
pub(crate) type Fetch<'a> = &'a dyn Fn(&str) -> Result<ImageBytes>;

/// Brings nothing.
pub(crate) fn fetch_nothing(url: &str) -> Result<ImageBytes> {
    let (scheme, _) = url.split_once(':').unwrap_or_default();
    Err(Error::unsupported(format_args!("is a {scheme} URL, only data URLs are read here")))
}

/// Reads an `image_url`: `{"url": "data:image/png;base64,…", "detail": "auto"}`.
pub(crate) fn picture(value: Value, fetch: Fetch<'_>) -> Read<ImageBytes> {
    let mut image = Object::new(value)?;
    let bytes = image.require("url", |url| load(&text(url)?, fetch))?;
    image.take("detail", detail)?;
    image.finish(&[])?;
    Ok(bytes)
}

/// How closely to look: every image gets as many tokens as the model gives it.
pub(crate) fn detail(value: Value) -> Read<String> {
    one_of(value, &["auto"], &["low", "high", "original"])
}

/// The bytes behind a URL.
pub(crate) fn load(url: &str, fetch: Fetch<'_>) -> Read<ImageBytes> {
    let (scheme, rest) = url.split_once(':').unwrap_or_default();
    match scheme.to_ascii_lowercase().as_str() {
        "data" => Ok(decode(rest)?.into()),
        "http" | "https" | "file" => Ok(fetch(url)?),
        _ => Err(Misfit::wrong(format_args!("is {:?}, expected a data URL", clip(url)))),
    }
}

/// What stands behind `data:`.
fn decode(rest: &str) -> Read<Vec<u8>> {
    let (head, data) = rest.split_once(',').unwrap_or((rest, ""));
    let (media_type, encoding) = head.rsplit_once(';').unwrap_or((head, ""));
    let (kind, subtype) = media_type.split_once('/').unwrap_or_default();
    let is_image = kind.eq_ignore_ascii_case("image") && !subtype.is_empty() && !subtype.contains(';');
    if !is_image || !encoding.eq_ignore_ascii_case("base64") {
        let found = clip(head);
        return Err(Misfit::wrong(format_args!("is a data URL of {found:?}, expected image/…;base64")));
    }
    match BASE64.decode(data) {
        Ok(bytes) if bytes.is_empty() => Err(Misfit::wrong("is a data URL without data, expected an image")),
        Ok(bytes) => Ok(bytes),
        Err(error) => Err(Misfit::wrong(format_args!("is no base64, {}", fault(error)))),
    }
}

fn fault(error: DecodeError) -> String {
    match error {
        DecodeError::InvalidByte(at, byte) | DecodeError::InvalidLastSymbol(at, byte) => {
            format!("byte {at} of its data is {:?}", char::from(byte))
        }
        DecodeError::InvalidLength(len) => format!("its data has {len} symbols"),
        DecodeError::InvalidPadding => "its data is padded wrongly".to_owned(),
    }
}
