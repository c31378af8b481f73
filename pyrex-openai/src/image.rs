//! [`picture`]: the bytes of an image that stands in the body itself, as a data URL.
//!
//! Nothing is fetched: where a URL may lead is the caller's to decide, not a library's. The media type is not compared with
//! the bytes, which tell themselves what they are.

use crate::object::{Object, Read, Refusal, clip, one_of, text};
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use base64::{DecodeError, Engine};
use serde_json::Value;
use std::sync::Arc;

const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Reads an `image_url`: `{"url": "data:image/png;base64,…", "detail": "auto"}`.
pub(crate) fn picture(value: Value) -> Read<Arc<[u8]>> {
    let mut image = Object::new(value)?;
    let bytes = image.require("url", |url| decode(&text(url)?))?;
    image.take("detail", |detail| one_of(detail, &["auto"], &["low", "high", "original"]))?;
    image.finish(&[])?;
    Ok(bytes.into())
}

fn decode(url: &str) -> Read<Vec<u8>> {
    let (scheme, rest) = url.split_once(':').unwrap_or_default();
    match scheme.to_ascii_lowercase().as_str() {
        "data" => {}
        "http" | "https" | "file" => {
            return Err(Refusal::unsupported(format_args!(
                "is a {scheme} URL, only data URLs are read here"
            )));
        }
        _ => return Err(Refusal::wrong(format_args!("is {:?}, expected a data URL", clip(url)))),
    }
    let (head, data) = rest.split_once(',').unwrap_or((rest, ""));
    let (media_type, encoding) = head.rsplit_once(';').unwrap_or((head, ""));
    let (kind, subtype) = media_type.split_once('/').unwrap_or_default();
    let is_image = kind.eq_ignore_ascii_case("image") && !subtype.is_empty() && !subtype.contains(';');
    if !is_image || !encoding.eq_ignore_ascii_case("base64") {
        let found = clip(head);
        return Err(Refusal::wrong(format_args!("is a data URL of {found:?}, expected image/…;base64")));
    }
    match BASE64.decode(data) {
        Ok(bytes) if bytes.is_empty() => Err(Refusal::wrong("is a data URL without data, expected an image")),
        Ok(bytes) => Ok(bytes),
        Err(error) => Err(Refusal::wrong(format_args!("is no base64, {}", fault(error)))),
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
