//! Waiting for threads that let go of a device when the process ends.

use std::ffi::c_int;
use std::sync::{Mutex, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

/// Freeing a device's memory takes less; whoever hangs must not keep the process from ending.
const PATIENCE: Duration = Duration::from_secs(5);

/// What threads hold until they have let go. It is the process's, as its end is.
static LEAVING: Mutex<Vec<Weak<()>>> = Mutex::new(Vec::new());

unsafe extern "C" {
    fn atexit(body: extern "C" fn()) -> c_int;
}

/// Has the end of the process wait until nobody holds what `stay` points to.
pub(crate) fn wait_at_exit(stay: Weak<()>) {
    let mut leaving = LEAVING.lock().unwrap_or_else(PoisonError::into_inner);
    leaving.retain(|stay| stay.strong_count() > 0);
    leaving.push(stay);
    // What is registered last runs first: before all that the libraries registered while the device was used.
    // SAFETY: the function takes nothing, and does not unwind. If it cannot be registered, nobody waits.
    let _ = unsafe { atexit(wait) };
}

extern "C" fn wait() {
    let started = Instant::now();
    let is_alone = || {
        let leaving = LEAVING.lock().unwrap_or_else(PoisonError::into_inner);
        leaving.iter().all(|stay| stay.strong_count() == 0)
    };
    while !is_alone() && started.elapsed() < PATIENCE {
        thread::sleep(Duration::from_millis(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::mpsc::channel;

    #[test]
    fn the_end_waits_for_a_thread_that_leaves() {
        let (stay, (tell, told)) = (Arc::new(()), channel::<()>());
        let stays = Arc::downgrade(&stay);
        wait_at_exit(stays.clone());
        let leaving = thread::spawn(move || {
            told.recv().expect("it is told");
            drop(stay);
        });
        tell.send(()).expect("it listens");
        wait();
        assert_eq!(stays.strong_count(), 0);
        leaving.join().expect("it has left");
    }
}
