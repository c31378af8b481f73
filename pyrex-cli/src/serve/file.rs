//! The file of `--config`: the server's own, and a table `[engine]` that only a process with an engine of its own has.

use super::engine::EngineSettings;
use pyrex_core::{Error, Result};
use pyrex_server::Config;
use std::path::Path;

/// Reads a file; relations between fields are checked once flags have changed them.
///
/// # Errors
/// `Io` if it cannot be read, `InvalidRequest` with the line for what it says; both name the file.
pub(super) fn read(path: &Path) -> Result<(Config, EngineSettings)> {
    let text = std::fs::read_to_string(path).map_err(Error::io);
    text.and_then(|text| parse(&text)).map_err(|error| error.context(path.display()))
}

fn parse(text: &str) -> Result<(Config, EngineSettings)> {
    let (server, engine) = split(text);
    Ok((Config::from_toml(&server)?, parse_engine(&engine)?))
}

/// The same text twice, each with empty lines for what is not its own, so that errors name the right line.
fn split(text: &str) -> (String, String) {
    let (mut server, mut engine) = (String::new(), String::new());
    let mut in_engine = false;
    for line in text.lines() {
        let code = line.split('#').next().unwrap_or_default().trim();
        if code.starts_with('[') && code.ends_with(']') {
            in_engine = code.trim_start_matches('[').trim_end_matches(']').trim() == "engine";
        }
        let (own, other) = if in_engine { (&mut engine, &mut server) } else { (&mut server, &mut engine) };
        own.push_str(line);
        own.push('\n');
        other.push('\n');
    }
    (server, engine)
}

fn parse_engine(text: &str) -> Result<EngineSettings> {
    #[derive(serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Table {
        #[serde(default)]
        engine: EngineSettings,
    }
    let table: Table = toml::from_str(text).map_err(|error| {
        let line_idx = error.span().map_or(0, |span| text[..span.start].matches('\n').count());
        let line = text.lines().nth(line_idx).unwrap_or_default().trim();
        Error::invalid_request(format_args!("line {}, `{line}`: {}", line_idx + 1, error.message()))
    })?;
    let engine = table.engine;
    let counts = [
        ("num_threads", engine.num_threads),
        ("max_model_len", engine.max_model_len),
        ("max_batch_tokens", engine.max_batch_tokens),
        ("max_sequences", engine.max_sequences),
        ("max_waiting", engine.max_waiting),
        ("stuck_after_ms", engine.stuck_after_ms.map(|ms| ms as usize)),
    ];
    match counts.iter().find(|(_, count)| *count == Some(0)) {
        Some((field, _)) => {
            Err(Error::invalid_request(format_args!("engine.{field}: is 0, expected at least 1")))
        }
        None => Ok(engine),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pyrex_core::DeviceChoice;

    #[test]
    fn the_engines_table_may_stand_anywhere() {
        let text =
            "port = 9\n[engine] # ours\nmax_sequences = 3\ndevice = \"cuda:1\"\n[limits]\nmax_images = 2\n";
        let (config, engine) = parse(text).unwrap();
        assert_eq!((config.port, config.limits.max_images), (9, 2));
        assert_eq!((engine.max_sequences, engine.device), (Some(3), Some(DeviceChoice::Cuda(1))));
        assert_eq!(parse("").unwrap(), (Config::default(), EngineSettings::default()));
    }

    #[test]
    fn errors_name_the_line_of_the_file() {
        for (text, needle) in [
            ("[engine]\nmax_sequences = 3\n[limits]\nmax_image = 2\n", "line 4, `max_image = 2`"),
            ("port = 9\n[engine]\nmax_sequence = 3\n", "line 3, `max_sequence = 3`"),
            ("[engine]\nkv_cache = \"10MB\"\n", "line 2, `kv_cache = \"10MB\"`: \"10MB\", expected auto"),
            ("[engine]\ndevice = \"gpu\"\n", "expected cpu, cuda or cuda:n"),
            ("[engine]\nmax_waiting = 0\n", "engine.max_waiting: is 0, expected at least 1"),
            ("[engines]\n", "line 1"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.message().contains(needle), "{text}: {error}");
        }
    }
}
