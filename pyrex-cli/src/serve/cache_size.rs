//! [`CacheSize`]: how large the cache is, as a person writes it.

use pyrex_core::KvCacheSize;
use std::fmt;
use std::str::FromStr;

const UNITS: [(&str, usize); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("", 1)];

/// `auto`, bytes such as `512MiB`, or a share of the free memory such as `50%`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct CacheSize(pub(crate) KvCacheSize);

impl FromStr for CacheSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?}, expected auto, bytes such as 512MiB, or a share such as 50%");
        if text == "auto" {
            return Ok(Self(KvCacheSize::Auto));
        }
        if let Some(percent) = text.strip_suffix('%') {
            let percent: Option<f64> = percent.parse().ok();
            let percent = percent.filter(|percent| *percent > 0.0 && *percent <= 100.0).ok_or_else(wrong)?;
            return Ok(Self(KvCacheSize::FreeFraction(percent / 100.0)));
        }
        let in_unit =
            |(unit, bytes): (&str, usize)| text.strip_suffix(unit)?.parse::<usize>().ok()?.checked_mul(bytes);
        let bytes = UNITS.into_iter().find_map(in_unit).ok_or_else(wrong)?;
        Ok(Self(KvCacheSize::Bytes(bytes)))
    }
}

impl fmt::Display for CacheSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            KvCacheSize::Auto => f.write_str("auto"),
            KvCacheSize::FreeFraction(share) => write!(f, "{}%", share * 100.0),
            KvCacheSize::Bytes(bytes) => {
                let fits = |(_, unit): &(&str, usize)| bytes > 0 && bytes.is_multiple_of(*unit);
                let (unit, in_it) = UNITS.into_iter().find(fits).unwrap_or(("", 1));
                write!(f, "{}{unit}", bytes / in_it)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_and_written_alike() {
        for (text, expected) in [
            ("auto", KvCacheSize::Auto),
            ("50%", KvCacheSize::FreeFraction(0.5)),
            ("100%", KvCacheSize::FreeFraction(1.0)),
            ("1000", KvCacheSize::Bytes(1000)),
            ("3KiB", KvCacheSize::Bytes(3072)),
            ("512MiB", KvCacheSize::Bytes(512 << 20)),
            ("2GiB", KvCacheSize::Bytes(2 << 30)),
        ] {
            let size: CacheSize = text.parse().unwrap();
            assert_eq!((size.0, size.to_string().as_str()), (expected, text));
        }
        for text in ["", "MiB", "0%", "101%", "-1", "1.5GiB", "10MB", "99999999999999GiB"] {
            assert!(text.parse::<CacheSize>().is_err(), "{text}");
        }
    }
}
