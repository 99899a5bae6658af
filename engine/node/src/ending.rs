//! How the cores of a node end together: on request, or because one of them cannot go on.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};

use link::guarded;

use proto::ids::CoreId;

use crate::error::NodeError;
use crate::stop::StopHandle;

/// What every core looks at, at least once a tick. Clones are one.
#[derive(Clone, Debug)]
pub(crate) struct Ending {
    asked: StopHandle, // by the owner of the node
    ours: StopHandle,  // by one of its cores
    failure: Arc<Mutex<Option<NodeError>>>,
}

impl Ending {
    pub(crate) fn new(asked: StopHandle) -> Ending {
        Ending { asked, ours: StopHandle::new(), failure: Arc::default() }
    }

    /// Whether the node is to end.
    pub(crate) fn is_due(&self) -> bool {
        self.ours.is_stopped() || self.asked.is_stopped()
    }

    /// Ends the node without a failure.
    pub(crate) fn end(&self) {
        self.ours.stop();
    }

    /// Ends the node. The first failure is the one that is told; what follows is mostly its consequence.
    pub(crate) fn fail(&self, error: NodeError) {
        let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        tracing::error!(%error, "the node ends");
        failure.get_or_insert(error);
        drop(failure);
        self.ours.stop();
    }

    /// Runs something on a core that others wait for: a panic in it ends the node.
    pub(crate) async fn unless_it_panics(self, core: CoreId, what: &'static str, future: impl Future<Output = ()>) {
        if guarded(what, future).await.is_none() {
            let text = format!("a panic in {what}: see the log above; start the node again");
            self.fail(NodeError::Fatal { core: core.0, text });
        }
    }

    /// Why it ended, if it was not asked to.
    pub(crate) fn take_failure(&self) -> Option<NodeError> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proto::ids::CoreId;

    use super::Ending;
    use crate::error::NodeError;
    use crate::stop::StopHandle;

    fn fatal(core: u16) -> NodeError {
        NodeError::Fatal { core, text: "the disk is gone".to_owned() }
    }

    #[test]
    fn first_failure_ends_the_node_and_is_told() {
        let ending = Ending::new(StopHandle::new());
        let other_core = ending.clone();
        assert!(!ending.is_due());
        other_core.fail(fatal(1));
        ending.fail(fatal(2));
        assert!(ending.is_due());
        assert!(matches!(ending.take_failure(), Some(NodeError::Fatal { core: 1, .. })));
    }

    #[test]
    fn panic_of_one_task_ends_the_whole_node() {
        let ending = Ending::new(StopHandle::new());
        let of_core = ending.clone();
        executor::run("ending", async move {
            of_core.clone().unless_it_panics(CoreId(3), "good work", async {}).await;
            assert!(!of_core.is_due());
            of_core.unless_it_panics(CoreId(3), "bad work", async { panic!("for the test") }).await;
        })
        .unwrap();
        assert!(ending.is_due());
        let failure = ending.take_failure().unwrap();
        assert!(failure.to_string().contains("core 3 ended the node: a panic in bad work"), "{failure}");
    }

    #[test]
    fn node_ends_when_it_is_asked_to_and_that_is_no_failure() {
        let stop = StopHandle::new();
        let ending = Ending::new(stop.clone());
        stop.stop();
        assert!(ending.is_due());
        assert!(ending.take_failure().is_none());
    }
}
