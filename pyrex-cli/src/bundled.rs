//! The model inside the binary: `models/shapes`, so that `pyrex` has something to run on a bare machine.

use pyrex_core::ModelSource;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Bytes at an address that suits every dtype, so that weights are used in place.
#[repr(align(64))]
struct Aligned<T: ?Sized>(T);

macro_rules! files {
    ($($name:literal),+ $(,)?) => {
        [$({
            static FILE: &Aligned<[u8]> = &Aligned(*include_bytes!(concat!("../../models/shapes/", $name)));
            ($name, &FILE.0)
        }),+]
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
