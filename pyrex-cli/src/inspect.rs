//! stub
use crate::fail::Failure;
use clap::Args;
/// x
#[derive(Args)]
pub(crate) struct Arguments {}
/// x
pub(crate) fn run(_arguments: &Arguments) -> Result<(), Failure> {
    Err(Failure::Other("not yet".to_owned()))
}
