//! A deadline that costs a timer only when it comes to waiting.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;

use tokio::time::{Instant, Sleep, sleep_until};

/// What `future` answers; `None` when it has not by `deadline`.
pub(crate) async fn within<F: Future>(deadline: Instant, future: F) -> Option<F::Output> {
    let (mut future, mut timer) = (pin!(future), pin!(None::<Sleep>));
    poll_fn(|cx| {
        if let Poll::Ready(output) = future.as_mut().poll(cx) {
            return Poll::Ready(Some(output));
        }
        if timer.is_none() {
            timer.set(Some(sleep_until(deadline)));
        }
        match timer.as_mut().as_pin_mut() {
            Some(timer) => timer.poll(cx).map(|()| None),
            None => Poll::Pending,
        }
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_comes_in_time_is_answered_and_what_does_not_is_none() {
        let deadline = Instant::now() + Duration::from_secs(2);
        assert_eq!(within(deadline, std::future::ready(1)).await, Some(1));
        assert_eq!(within(deadline, tokio::time::sleep(Duration::from_secs(1))).await, Some(()));
        assert_eq!(within(deadline, std::future::pending::<()>()).await, None);
        assert_eq!(Instant::now(), deadline);
    }
}
