//! Memory that a recording shares with the run before it, so that it takes none itself: what a recording takes and gives back are steps
//! of it, done anew each time it is replayed.

use crate::error::Result;
use candle_core::{DType, Shape, Tensor};
use std::cell::RefCell;

thread_local! {
    /// Of the run that is under way on this thread.
    static SHARED: RefCell<Shared> = const { RefCell::new(Shared::Nothing) };
}

enum Shared {
    Nothing,
    /// What was taken so far.
    Noted(Vec<Tensor>),
    /// What is left to be taken again.
    Again(Vec<Tensor>),
}

/// Ends sharing, also where `work` fails or panics.
struct Scope;

impl Scope {
    fn begin(shared: Shared) -> Self {
        SHARED.replace(shared);
        Self
    }
}

impl Drop for Scope {
    fn drop(&mut self) {
        SHARED.replace(Shared::Nothing);
    }
}

/// Does `work`, and returns every tensor that it took, in order.
pub(super) fn noted(work: impl FnOnce() -> Result<()>) -> Result<Vec<Tensor>> {
    let _scope = Scope::begin(Shared::Noted(Vec::new()));
    work()?;
    match SHARED.replace(Shared::Nothing) {
        Shared::Noted(tensors) => Ok(tensors),
        Shared::Nothing | Shared::Again(_) => Ok(Vec::new()),
    }
}

/// Does `work` with the tensors that it took before. Whoever has them must not let go of them before what was launched has run.
pub(super) fn again(tensors: &[Tensor], work: impl FnOnce() -> Result<()>) -> Result<()> {
    let _scope = Scope::begin(Shared::Again(tensors.iter().rev().cloned().collect()));
    work()
}

/// The tensor of this shape that was taken here before, or a new one.
pub(super) fn taken(shape: &Shape, dtype: DType, new: impl FnOnce() -> Result<Tensor>) -> Result<Tensor> {
    SHARED.with_borrow_mut(|shared| match shared {
        Shared::Nothing => new(),
        Shared::Noted(tensors) => {
            let tensor = new()?;
            tensors.push(tensor.clone());
            Ok(tensor)
        }
        // Something that is made once and kept, say a table, is not asked for again: then what follows it is.
        Shared::Again(tensors) => {
            match tensors.iter().rposition(|known| known.shape() == shape && known.dtype() == dtype) {
                Some(idx) => {
                    tensors.truncate(idx + 1);
                    tensors.pop().map_or_else(new, Ok)
                }
                None => new(),
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;
    use candle_core::Device;

    fn take(len: usize) -> Tensor {
        let new = || Ok(Tensor::zeros(len, DType::F32, &Device::Cpu)?);
        taken(&Shape::from(len), DType::F32, new).expect("there is room")
    }

    #[test]
    fn what_was_taken_once_is_taken_again_in_order() {
        let mut first = Vec::new();
        let noted = noted(|| {
            first.extend([take(3), take(5), take(3)]);
            Ok(())
        });
        let noted = noted.expect("it runs");
        assert_eq!(noted.len(), 3);
        again(&noted, || {
            // The second is not asked for, and one more than before is new.
            let ids = [take(3), take(3), take(3)].map(|tensor| tensor.id());
            assert_eq!(ids[..2], [first[0].id(), first[2].id()]);
            assert!(first.iter().all(|tensor| tensor.id() != ids[2]));
            Ok(())
        })
        .expect("it runs");
        assert!(first.iter().all(|tensor| tensor.id() != take(3).id()), "nothing is shared afterwards");
    }

    #[test]
    fn a_run_that_fails_shares_nothing() {
        assert!(noted(|| Err(Error::internal("no"))).is_err());
        let (one, other) = (take(2), take(2));
        assert_ne!(one.id(), other.id());
    }
}
