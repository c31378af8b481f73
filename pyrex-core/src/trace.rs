//! Taps: watch, or replace, a named tensor while a model runs.
//!
//! A model part writes `let x = tap.see(|| format!("{name}.q_proj"), x)?` where a reader would want to look.
//! The name is the module's path in the checkpoint; it is built only if somebody watches, so a
//! [`NoTap`] costs one virtual call. What a name means:
//!
//! - `<module>` is that module's output, `<module>.input` what goes into it;
//! - `<module>.input_clamped` and `<module>.linear` stand inside a clipped linear, before and after its product.
//!
//! With each tensor comes its [`Origin`]: the function that shows it, and where.

use crate::error::Result;
use candle_core::Tensor;
use std::fmt;
use std::panic::Location;

/// Watches the tensors of a forward pass, and may hand back others in their place.
pub trait Tap {
    /// Whether anybody looks at all; `false` spares the building of names.
    fn watching(&self) -> bool;

    /// Whether to look inside fused operations too, which then run step by step.
    fn watching_steps(&self) -> bool {
        self.watching()
    }

    /// Called with each named tensor; a returned tensor of the same shape replaces it from there on.
    ///
    /// # Errors
    /// Whatever the tap says; the forward pass stops with it.
    fn visit(&mut self, name: &str, tensor: &Tensor, origin: Origin) -> Result<Option<Tensor>>;

    /// Asked before each layer whether the pass should go on.
    ///
    /// # Errors
    /// Whatever the tap says; the pass ends with it, and what it has written to the cache is of no use.
    fn proceed(&mut self) -> Result<()> {
        Ok(())
    }
}

impl dyn Tap + '_ {
    /// Shows `tensor` under the name that `name` builds, and returns it or its replacement.
    ///
    /// # Errors
    /// Whatever the tap says.
    #[track_caller]
    pub fn see<N: FnOnce() -> String>(&mut self, name: N, tensor: Tensor) -> Result<Tensor> {
        if !self.watching() {
            return Ok(tensor);
        }
        let origin = Origin::of::<N>(Location::caller());
        let replacement = self.visit(&name(), &tensor, origin)?;
        Ok(replacement.unwrap_or(tensor))
    }
}

/// Where a tensor was shown; the code that made it stands right above.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Origin {
    /// The source file, from the root of the repository.
    pub file: &'static str,
    /// The line in it.
    pub line: u32,
    /// The path of the function, the crate's name aside.
    pub function: &'static str,
}

impl Origin {
    /// Of the function in which the closure `N` stands.
    fn of<N>(location: &'static Location<'static>) -> Self {
        let closure = std::any::type_name::<N>();
        let function = closure.trim_end_matches("::{{closure}}");
        let function = function.strip_prefix(concat!(env!("CARGO_CRATE_NAME"), "::")).unwrap_or(function);
        Self { file: location.file(), line: location.line(), function }
    }

    /// The function's name with the type or module before it: `RmsNorm::forward`.
    pub fn short_function(&self) -> String {
        let (owner, name) = self.function.rsplit_once("::").unwrap_or(("", self.function));
        // A trait's function is written `<path::Type as path::Trait>::function`.
        let owner = owner.trim_start_matches('<').split(" as ").next().unwrap_or_default();
        match owner.rsplit("::").next() {
            None | Some("") => name.to_string(),
            Some(owner) => format!("{owner}::{name}"),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}:{})", self.short_function(), self.file, self.line)
    }
}

/// Nobody looks.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoTap;

impl Tap for NoTap {
    fn watching(&self) -> bool {
        false
    }

    fn visit(&mut self, _name: &str, _tensor: &Tensor, _origin: Origin) -> Result<Option<Tensor>> {
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{DType, Device};

    #[derive(Default)]
    struct Last(Option<Origin>);

    impl Tap for Last {
        fn watching(&self) -> bool {
            true
        }

        fn visit(&mut self, _name: &str, _tensor: &Tensor, origin: Origin) -> Result<Option<Tensor>> {
            self.0 = Some(origin);
            Ok(None)
        }
    }

    struct Part;

    impl Part {
        fn forward(&self, tap: &mut dyn Tap) {
            let x = Tensor::zeros(1, DType::F32, &Device::Cpu).unwrap();
            tap.see(|| "part".to_string(), x).unwrap();
        }
    }

    #[test]
    fn functions_are_called_by_their_type() {
        let check = |function: &'static str, short: &str| {
            assert_eq!(Origin { file: "f", line: 1, function }.short_function(), short);
        };
        check("nn::norm::RmsNorm::forward", "RmsNorm::forward");
        check(
            "<pyrex_core::models::gemma4::Gemma4 as pyrex_core::models::Model>::forward",
            "Gemma4::forward",
        );
        check("batch::lay_out", "batch::lay_out");
        check("main", "main");
    }

    #[test]
    fn a_tensor_comes_with_the_function_that_shows_it() {
        let mut tap = Last::default();
        Part.forward(&mut tap);
        let origin = tap.0.unwrap();
        assert_eq!(origin.short_function(), "Part::forward");
        assert_eq!(origin.function, "trace::tests::Part::forward");
        assert!(origin.file.ends_with("pyrex-core/src/trace.rs"), "{origin}");
    }
}
