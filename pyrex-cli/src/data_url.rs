//! An image file inside a URL, as OpenAI's protocol takes it.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

/// An image file as a data URL.
pub(crate) fn data_url(bytes: &[u8]) -> String {
    format!("data:{};base64,{}", media_type(bytes), BASE64_STANDARD.encode(bytes))
}

/// By how the file begins; whoever reads it looks there too.
fn media_type(bytes: &[u8]) -> &'static str {
    match bytes {
        [0x89, b'P', b'N', b'G', ..] => "image/png",
        [0xff, 0xd8, ..] => "image/jpeg",
        [b'G', b'I', b'F', ..] => "image/gif",
        [b'R', b'I', b'F', b'F', ..] => "image/webp",
        _ => "image/bmp",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_named_by_how_it_begins() {
        for (bytes, expected) in [
            (&b"\x89PNG\r\n"[..], "data:image/png;base64,iVBORw0K"),
            (b"\xff\xd8\xff", "data:image/jpeg;base64,/9j/"),
            (b"GIF89a", "data:image/gif;base64,R0lGODlh"),
            (b"RIFF", "data:image/webp;base64,UklGRg=="),
            (b"BM", "data:image/bmp;base64,Qk0="),
        ] {
            assert_eq!(data_url(bytes), expected);
        }
    }
}
