//! A publisher that keeps what it is given.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mainspring_pubsub::driver::{self, Capabilities, Endpoint, Position, Receipt};
use mainspring_pubsub::{Error, ErrorKind, Message, Publisher};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until, timeout};

const SYSTEM: &str = "recorder";

/// Records what is published, and fails as told. Cheap to clone; clones share the record.
///
/// ```
/// use mainspring_pubsub::{ErrorKind, Message};
/// use mainspring_testing::Recorder;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let recorder = Recorder::new();
/// recorder.fail_next(ErrorKind::Unavailable);
/// let events = recorder.publisher();          // what the code under test is given
/// assert!(events.publish(Message::new("a")).await.is_err());
/// events.publish(Message::new("b")).await.unwrap();
/// assert_eq!(recorder.messages()[0].body, "b");
/// # }
/// ```
#[derive(Clone)]
pub struct Recorder {
    shared: Arc<Shared>,
    capabilities: Capabilities,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    recorded: Notify,
}

#[derive(Default)]
struct State {
    messages: Vec<Message>,
    tried: usize,
    script: VecDeque<Step>,
}

/// What becomes of one publish.
#[derive(Debug)]
enum Step {
    Succeed,
    Fail(ErrorKind),
    LoseAnswer,
    Hang,
    Delay(Duration),
}

impl Recorder {
    /// A recorder whose publisher accepts everything at once.
    pub fn new() -> Self {
        Self { shared: Arc::default(), capabilities: Capabilities::default() }
    }

    /// Has its publishers claim these capabilities; limits among them are enforced before anything is recorded.
    pub fn with_capabilities(mut self, capabilities: Capabilities) -> Self {
        self.capabilities = capabilities;
        self
    }

    /// A publisher that records here.
    pub fn publisher(&self) -> Publisher {
        Publisher::new(Recording { shared: Arc::clone(&self.shared), capabilities: self.capabilities.clone() })
    }

    /// The next publish that has no other fate yet succeeds: for scripts in which a later one fails.
    pub fn succeed_next(&self) {
        self.script(Step::Succeed);
    }

    /// The next publish that has no other fate yet fails with this kind of error; its message is not recorded.
    pub fn fail_next(&self, kind: ErrorKind) {
        self.script(Step::Fail(kind));
    }

    /// The next publish that has no other fate yet is recorded, and its answer lost: it fails with
    /// [`ErrorKind::Timeout`], as when a broker's confirmation does not arrive.
    pub fn lose_next_answer(&self) {
        self.script(Step::LoseAnswer);
    }

    /// The next publish that has no other fate yet is not answered until its deadline. Its message is not recorded.
    pub fn hang_next(&self) {
        self.script(Step::Hang);
    }

    /// The next publish that has no other fate yet succeeds after a pause.
    pub fn delay_next(&self, pause: Duration) {
        self.script(Step::Delay(pause));
    }

    /// What was recorded, in order.
    pub fn messages(&self) -> Vec<Message> {
        self.state().messages.clone()
    }

    /// How many messages were published, those that failed included.
    pub fn tried(&self) -> usize {
        self.state().tried
    }

    /// Waits until `count` messages are recorded, and answers all of them.
    ///
    /// # Panics
    /// When that takes longer than 30 s of tokio's clock.
    pub async fn wait_for(&self, count: usize) -> Vec<Message> {
        let recorded = async {
            loop {
                let mut more = std::pin::pin!(self.shared.recorded.notified());
                more.as_mut().enable();
                let messages = self.messages();
                if messages.len() >= count {
                    return messages;
                }
                more.await;
            }
        };
        let recorded = timeout(Duration::from_secs(30), recorded).await;
        recorded.unwrap_or_else(|_| panic!("{} of {count} messages were published in 30 s", self.messages().len()))
    }

    fn script(&self, step: Step) {
        self.state().script.push_back(step);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state()
    }
}

impl Default for Recorder {
    fn default() -> Self {
        Self::new()
    }
}

/// The driver behind a recorder's publishers.
struct Recording {
    shared: Arc<Shared>,
    capabilities: Capabilities,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn record(&self, message: Message) -> Receipt {
        let mut state = self.state();
        let offset = state.messages.len() as u64;
        let receipt = Receipt::new(message.id.clone()).with_position(Position::new(0, offset));
        state.messages.push(message);
        drop(state);
        self.recorded.notify_waiters();
        receipt
    }
}

#[async_trait::async_trait]
impl driver::Publisher for Recording {
    async fn publish(&self, message: Message, deadline: Instant) -> Result<Receipt, Error> {
        let step = {
            let mut state = self.shared.state();
            state.tried += 1;
            state.script.pop_front()
        };
        match step.unwrap_or(Step::Succeed) {
            Step::Succeed => {}
            Step::Fail(kind) => return Err(Error::new(kind, "publish", "as the script says").with_backend(SYSTEM)),
            Step::LoseAnswer => {
                self.shared.record(message);
                let what = "the answer was lost, as the script says; the message was published";
                return Err(Error::new(ErrorKind::Timeout, "publish", what).with_backend(SYSTEM));
            }
            Step::Hang => {
                sleep_until(deadline).await;
                let what = "no answer by the deadline, as the script says";
                return Err(Error::new(ErrorKind::Timeout, "publish", what).with_backend(SYSTEM));
            }
            Step::Delay(pause) => sleep(pause).await,
        }
        Ok(self.shared.record(message))
    }

    async fn flush(&self, _deadline: Instant) -> Result<(), Error> {
        Ok(())
    }

    fn capabilities(&self) -> Capabilities {
        self.capabilities.clone()
    }

    fn endpoint(&self) -> Endpoint {
        Endpoint::new(SYSTEM, "recorder")
    }
}

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Recorder({} messages)", self.state().messages.len())
    }
}

impl fmt::Debug for Recording {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recording").finish_non_exhaustive()
    }
}
