//! The arguments that say how an answer is chosen.

use crate::fail::Failure;
use crate::options::at_least_one;
use clap::Args;
use pyrex_core::SamplingParams;

/// How an answer is chosen.
#[derive(Args)]
pub(crate) struct SamplingArguments {
    /// The most tokens to generate [default: as many as fit]
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    max_tokens: Option<usize>,
    /// 0 always takes the likeliest token
    #[arg(long, value_name = "T", default_value_t = 0.0, allow_negative_numbers = true)]
    temperature: f32,
    /// Keep the likeliest tokens up to this mass
    #[arg(long, value_name = "P", requires = "temperature", allow_negative_numbers = true)]
    top_p: Option<f32>,
    /// Keep the K likeliest tokens
    #[arg(long, value_name = "K", requires = "temperature")]
    top_k: Option<usize>,
    /// Keep tokens at least this likely, relative to the likeliest
    #[arg(long, value_name = "P", requires = "temperature", allow_negative_numbers = true)]
    min_p: Option<f32>,
    /// The same seed gives the same answer [default: a fresh one]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Text that ends the answer; may be given several times
    #[arg(long, value_name = "S")]
    stop: Vec<String>,
}

impl SamplingArguments {
    /// As the core calls them.
    ///
    /// # Errors
    /// A usage error that names the wrong one.
    pub(crate) fn params(&self) -> Result<SamplingParams, Failure> {
        let params = SamplingParams {
            temperature: self.temperature,
            top_k: self.top_k,
            top_p: self.top_p,
            min_p: self.min_p,
            seed: self.seed,
            max_tokens: self.max_tokens,
            stop: self.stop.clone(),
            ..SamplingParams::default()
        };
        params.validate().map_err(|error| Failure::Usage(error.to_string()))?;
        Ok(params)
    }
}
