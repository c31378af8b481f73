//! [`Shutdown`]: how a server is told to stop.

use tokio::sync::watch;

/// Tells a [`Server`](crate::Server) to stop, from anywhere. A clone is another handle to the same.
///
/// Once it has begun, requests under way are answered to their end and new ones are told to come back later; when none is
/// under way any more, or when `limits.drain_timeout_ms` is over, the server closes.
#[derive(Clone, Debug)]
pub struct Shutdown {
    stage: watch::Sender<Stage>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd)]
enum Stage {
    Serving,
    Draining,
    Cut,
}

impl Default for Shutdown {
    fn default() -> Self {
        Self { stage: watch::Sender::new(Stage::Serving) }
    }
}

impl Shutdown {
    /// A handle that has told nobody anything.
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets requests under way end, and takes no new ones.
    pub fn begin(&self) {
        self.reach(Stage::Draining);
    }

    /// Ends everything at once.
    pub fn cut(&self) {
        self.reach(Stage::Cut);
    }

    /// Whether it has begun: whoever answers requests refuses new ones then, with 503 and `Retry-After`.
    pub fn is_begun(&self) -> bool {
        *self.stage.borrow() >= Stage::Draining
    }

    /// Waits until it has begun.
    pub async fn begun(&self) {
        self.wait(Stage::Draining).await;
    }

    /// Waits until everything is to end at once.
    pub(crate) async fn is_cut(&self) {
        self.wait(Stage::Cut).await;
    }

    async fn wait(&self, stage: Stage) {
        let mut told = self.stage.subscribe();
        // This handle keeps the channel open.
        let _ = told.wait_for(|reached| *reached >= stage).await;
    }

    fn reach(&self, stage: Stage) {
        self.stage.send_if_modified(|reached| {
            let further = *reached < stage;
            if further {
                *reached = stage;
            }
            further
        });
    }
}
