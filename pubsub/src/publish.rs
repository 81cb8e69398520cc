//! One message on its way to a broker.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::task::coop;

use crate::Error;
use crate::driver::AtOnce;
use crate::message::Message;
use crate::publisher::{Receipt, Shared};
use crate::window::Permit;
use crate::within::within;

type Answer<'a> = Pin<Box<dyn Future<Output = Result<Receipt, Error>> + Send + 'a>>;

/// What [`Publisher::publish`](crate::Publisher::publish) waits for. Thousands wait at once, and each is moved a few times, so
/// it holds the message only until the broker's driver has it, and a timer only where the driver has none.
pub(crate) struct Publish<'a> {
    shared: &'a Shared,
    step: Step<'a>,
}

enum Step<'a> {
    Begin(Message),
    /// The driver has it, and answers in time.
    Sent {
        answer: Answer<'a>,
        _permit: Permit<'a>,
    },
    /// The window is full, or the driver does not look at the clock.
    Timed(Answer<'a>),
    Done,
}

impl<'a> Publish<'a> {
    pub(crate) fn new(shared: &'a Shared, message: Message) -> Self {
        Self { shared, step: Step::Begin(message) }
    }
}

impl Future for Publish<'_> {
    type Output = Result<Receipt, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        if let Step::Begin(_) = this.step {
            // Whoever publishes in a loop and never has to wait must still let others run.
            ready!(coop::poll_proceed(cx)).made_progress();
            if let Step::Begin(message) = std::mem::replace(&mut this.step, Step::Done) {
                match this.shared.begin(message) {
                    Ok(step) => this.step = step,
                    Err(answer) => return Poll::Ready(this.shared.counted(answer)),
                }
            }
        }
        let answer = match &mut this.step {
            Step::Sent { answer, .. } | Step::Timed(answer) => ready!(answer.as_mut().poll(cx)),
            Step::Begin(_) | Step::Done => panic!("a publish is awaited once"),
        };
        // The room in the window is given back with this.
        this.step = Step::Done;
        Poll::Ready(this.shared.counted(answer))
    }
}

impl Shared {
    /// Sends a message, if that is possible now; the answer, where it is known at once, is the error.
    fn begin(&self, mut message: Message) -> Result<Step<'_>, Result<Receipt, Error>> {
        self.prepare(&mut message).map_err(Err)?;
        // Whoever waits for room goes first. What is published at once takes up none: it is not on its way for any time.
        if !self.window.is_waited_for() {
            match self.driver.publish_at_once(message) {
                AtOnce::Answered(answer) => return Err(answer),
                AtOnce::Waits(back) => message = back,
            }
        }
        let Some(permit) = self.window.try_enter(message.size()) else {
            return Ok(Step::Timed(Box::pin(self.publish_in_turn(message))));
        };
        let deadline = self.window.deadline();
        let answer = self.driver.publish(message, deadline);
        if self.keeps_deadlines {
            return Ok(Step::Sent { answer, _permit: permit });
        }
        Ok(Step::Timed(Box::pin(async move {
            let _permit = permit;
            within(deadline, answer).await.unwrap_or_else(|| Err(self.unconfirmed()))
        })))
    }

    /// Publishes a message when there is room for it. The time that this takes is the message's, too.
    async fn publish_in_turn(&self, message: Message) -> Result<Receipt, Error> {
        let deadline = self.window.deadline();
        let permit = within(deadline, self.window.enter(1, message.size())).await;
        let _permit = permit.ok_or_else(|| self.window_full())?;
        within(deadline, self.driver.publish(message, deadline)).await.unwrap_or_else(|| Err(self.unconfirmed()))
    }

    fn counted(&self, answer: Result<Receipt, Error>) -> Result<Receipt, Error> {
        self.sent.count(answer.as_ref().map(|_| ()));
        answer
    }
}
