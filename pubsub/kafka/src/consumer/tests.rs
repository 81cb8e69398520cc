//! The feed on its own, without a client: what is lent, settled, given up and committed.

use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Duration;

use mainspring_pubsub::driver::{Confirmation, Delivery};
use mainspring_pubsub::{ErrorKind, Message, Position};

use super::feed::{Feed, MAX_GAP, MAX_MESSAGES};
use super::lend::Nothing;
use super::state::Fetched;
use super::waiting::Halted;
use crate::error::error;
use crate::holes::Noted;

fn feed() -> Arc<Feed> {
    let feed = Arc::new(Feed::default());
    feed.assign([(0, Noted::default()), (1, Noted::default())].into_iter());
    feed
}

fn push(feed: &Feed, partition: i32, offsets: std::ops::Range<i64>) {
    feed.push(partition, offsets.map(|offset| Fetched::new(offset, Message::new(offset.to_string()))));
}

fn lend(feed: &Arc<Feed>) -> Option<Delivery> {
    feed.poll_lend(&mut Context::from_waker(Waker::noop())).ok()
}

fn kind(confirmation: Confirmation) -> Option<ErrorKind> {
    use futures_util::FutureExt;
    confirmation.now_or_never().unwrap().err().map(|error| error.kind())
}

#[test]
fn what_comes_again_comes_at_its_old_place() {
    let feed = feed();
    push(&feed, 0, 0..4);
    let (zero, one) = (lend(&feed).unwrap(), lend(&feed).unwrap());
    drop(one);
    drop(zero);
    let offsets = std::iter::from_fn(|| lend(&feed)).map(|delivery| {
        let place = (delivery.position().unwrap().offset, delivery.attempt());
        assert_eq!(kind(delivery.ack()), None);
        place
    });
    assert_eq!(offsets.collect::<Vec<_>>(), [(0, Some(2)), (1, Some(2)), (2, Some(1)), (3, Some(1))]);
}

#[test]
fn a_partition_that_comes_back_is_another() {
    let feed = feed();
    push(&feed, 0, 0..2);
    let (acked, late) = (lend(&feed).unwrap(), lend(&feed).unwrap());
    assert_eq!(kind(acked.ack()), None);
    assert_eq!(feed.drain(&[0], Duration::ZERO), 1);
    let commits = feed.forget(&[0]);
    assert_eq!((commits.len(), commits[0].position), (1, 1));
    feed.assign([(0, Noted::default())].into_iter());
    push(&feed, 0, 1..2);
    assert_eq!(kind(late.ack()), Some(ErrorKind::Lost));
    assert_eq!(feed.commits().len(), 0, "the late ack changed nothing");
    assert_eq!(lend(&feed).unwrap().position(), Some(Position::new(0, 1)));
}

#[test]
fn leaving_partitions_wait_for_what_is_out_and_hand_out_nothing_more() {
    let feed = feed();
    push(&feed, 0, 0..3);
    let (first, second) = (lend(&feed).unwrap(), lend(&feed).unwrap());
    let (drained, waits) = std::sync::mpsc::channel();
    let thread = std::thread::spawn({
        let feed = Arc::clone(&feed);
        move || drained.send(feed.drain(&[0], Duration::from_secs(60))).unwrap()
    });
    while feed.room(0).is_some() {
        std::thread::yield_now();
    }
    assert!(lend(&feed).is_none());
    assert_eq!(kind(first.ack()), None);
    assert!(waits.try_recv().is_err());
    // Given back and not done: it comes again elsewhere.
    drop(second);
    assert_eq!(waits.recv().unwrap(), 0);
    thread.join().unwrap();
    assert!(lend(&feed).is_none());
    assert_eq!(feed.forget(&[0])[0].position, 1);
}

#[test]
fn a_partition_that_leaves_takes_back_what_the_reader_has_not_handed_out() {
    let feed = feed();
    push(&feed, 0, 0..2);
    push(&feed, 1, 0..2);
    let out = lend(&feed).unwrap();
    assert_eq!(feed.drain(&[0], Duration::ZERO), 1, "one of its two");
    for offset in 0..2 {
        let other = lend(&feed).unwrap();
        assert_eq!(other.position(), Some(Position::new(1, offset)));
        assert_eq!(kind(other.ack()), None);
    }
    assert!(lend(&feed).is_none());
    drop(out);
    assert_eq!(feed.drain(&[0], Duration::ZERO), 0);
}

#[test]
fn fetching_pauses_when_much_waits_or_one_message_is_far_behind() {
    let feed = feed();
    push(&feed, 0, 0..MAX_MESSAGES as i64);
    assert!(feed.room(0).is_none() && feed.room(1).is_none());
    let stuck = lend(&feed).unwrap();
    let mut next = MAX_MESSAGES as i64;
    loop {
        while let Some(delivery) = lend(&feed) {
            assert_eq!(kind(delivery.ack()), None);
        }
        let Some(room) = feed.room(0) else { break };
        push(&feed, 0, next..next + room.messages as i64);
        next += room.messages as i64;
    }
    assert_eq!(next, MAX_GAP as i64);
    assert!(feed.room(1).is_some(), "only its own partition waits");
    assert_eq!(feed.halted(), [Halted { partition: 0, offset: 0, ahead: MAX_GAP }]);
    assert_eq!(kind(stuck.ack()), None);
    assert!(feed.halted().is_empty());
    assert!(feed.room(0).is_some());
}

#[test]
fn a_log_that_was_cut_begins_anew() {
    let feed = feed();
    push(&feed, 0, 100..103);
    let old = lend(&feed).unwrap();
    push(&feed, 0, 0..1);
    assert_eq!(kind(old.ack()), Some(ErrorKind::Lost));
    let new = lend(&feed).unwrap();
    assert_eq!(new.position(), Some(Position::new(0, 0)));
    assert_eq!(kind(new.ack()), None);
    assert_eq!(feed.commits()[0].position, 1);
}

#[test]
fn after_the_end_there_is_one_error_and_then_nothing() {
    let feed = feed();
    push(&feed, 0, 0..1);
    let out = lend(&feed).unwrap();
    feed.end(Some(error(ErrorKind::Other, "receive", "broken")));
    let mut cx = Context::from_waker(Waker::noop());
    assert!(matches!(feed.poll_lend(&mut cx), Err(Nothing::Failed(_))));
    assert!(matches!(feed.poll_lend(&mut cx), Err(Nothing::Closed)));
    assert_eq!(kind(out.ack()), Some(ErrorKind::Lost));
}
