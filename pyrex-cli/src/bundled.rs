//! The model inside the binary: `models/shapes`, so that `pyrex` has something to run on a bare machine.

use pyrex_core::ModelSource;
use std::collections::BTreeMap;
use std::sync::Arc;

macro_rules! files {
    ($($name:literal),+ $(,)?) => {
        [$(($name, include_bytes!(concat!("../../models/shapes/", $name)).as_slice())),+]
    };
}

/// The bundled checkpoint.
pub(crate) fn source() -> ModelSource {
    let files = files![
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "processor_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
    ];
    let shared = |(name, bytes): (&str, &'static [u8])| (name.to_owned(), Arc::new(bytes) as _);
    ModelSource::Memory(BTreeMap::from(files.map(shared)))
}
