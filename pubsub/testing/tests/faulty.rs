//! The suite notices what is wrong with a broker: the memory broker, with one fault at a time.

use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use mainspring_config::ByteSize;
use mainspring_pubsub::driver::{self, Capabilities, Endpoint, Lease, Opener, Outcome, Outgoing, Receipt, Url};
use mainspring_pubsub::{
    Brokers, BrokersConfig, Confirmation, Delivery, Error, ErrorKind, Message, MessageId, Position, Publisher,
    Subscriber, memory,
};
use mainspring_testing::conformance::{self, Backend, Options, Outcome as Came};
use tokio::time::Instant;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    ForgetsEveryFiftieth,
    SendsTwice,
    AnswersTheBatchInReverse,
    NewIds,
    LosesTheKey,
    BodiesAsText,
    LowersAttributes,
    TrimsAttributes,
    IgnoresLimits,
    IgnoresOptions,
    ChecksTooMuch,
    ShowsTheUrl,
    AcksDoNotLand,
    NacksAreAcks,
    DropsAreAcks,
    RejectsComeAgain,
    DelaysAreIgnored,
    AttemptsAreAlwaysOne,
    ReleasesCount,
    ClaimsItCannotNack,
    LateAcksAreFine,
    CloseHangs,
    CloseIsIgnored,
    CancelLoses,
    OneGroupForAll,
    OneTopicForAll,
    KeysAreIgnored,
    TracesAreLost,
    ForgetsTheOutbox,
}

#[derive(Debug)]
struct Faulty {
    broker: memory::Broker,
    brokers: Brokers,
    fault: Fault,
    lease: bool,
    topics: std::sync::atomic::AtomicUsize,
}

impl Faulty {
    fn new(fault: Fault, lease: bool) -> Self {
        let mut config = memory::Config { volatile: false, ..memory::Config::default() };
        if lease {
            config.visibility_timeout = Duration::from_millis(400).into();
        }
        if fault == Fault::IgnoresLimits {
            config.max_message_bytes = ByteSize::mib(8);
        }
        let broker = memory::Broker::new(config);
        let opener = FaultyOpener { broker: broker.clone(), fault };
        let brokers = Brokers::new(&BrokersConfig::default()).unwrap().register("memory", opener);
        Self { broker, brokers, fault, lease, topics: Default::default() }
    }
}

#[async_trait::async_trait]
impl Backend for Faulty {
    fn name(&self) -> String {
        format!("{:?} on {:?}", self.fault, self.broker)
    }

    async fn connect(&self) -> Result<Brokers, Error> {
        Ok(self.brokers.clone())
    }

    async fn topic(&self, case: &str) -> Result<String, Error> {
        Ok(format!("memory://{case}-{}", self.topics.fetch_add(1, std::sync::atomic::Ordering::Relaxed)))
    }

    fn patience(&self) -> Duration {
        Duration::from_secs(2)
    }

    fn quiet(&self) -> Duration {
        Duration::from_millis(50)
    }

    fn leased(&self) -> Result<(Arc<dyn Backend>, Duration), String> {
        match self.lease {
            true => Err("is leased already".to_owned()),
            false => Ok((Arc::new(Self::new(self.fault, true)), Duration::from_millis(400))),
        }
    }
}

#[derive(Debug)]
struct FaultyOpener {
    broker: memory::Broker,
    fault: Fault,
}

#[async_trait::async_trait]
impl Opener for FaultyOpener {
    fn check(&self, url: &Url) -> Result<(), Error> {
        match url.option("group") {
            None if self.fault == Fault::ChecksTooMuch => {
                Err(Error::new(ErrorKind::Config, "check", "there is no group"))
            }
            _ => self.opens(url),
        }
    }

    async fn publisher(&self, url: &Url) -> Result<Box<dyn driver::Publisher>, Error> {
        self.opens(url)?;
        let topic = self.topic(url).to_owned();
        let inner = self.broker.publisher(&topic);
        Ok(Box::new(FaultyPublisher { inner, topic, fault: self.fault, count: Default::default() }))
    }

    async fn subscriber(&self, url: &Url) -> Result<Box<dyn driver::Subscriber>, Error> {
        self.opens(url)?;
        let group = if self.fault == Fault::OneGroupForAll { "all" } else { url.option("group").unwrap_or("default") };
        let topic = self.topic(url).to_owned();
        let inner = self.broker.subscriber(&topic, group);
        Ok(Box::new(FaultySubscriber { inner, topic, fault: self.fault, delivered: false }))
    }
}

impl FaultyOpener {
    fn opens(&self, url: &Url) -> Result<(), Error> {
        match self.fault {
            Fault::IgnoresOptions => Ok(()),
            Fault::ShowsTheUrl => url.expect_options(&["group"]).map_err(|error| {
                let shown = url.option("password").unwrap_or_default().to_owned();
                error.with_source(mainspring_config::Error::one("url", "url", format!("nonsense {shown}"), ""))
            }),
            _ => url.expect_options(&["group"]),
        }
    }

    fn topic<'a>(&self, url: &'a Url) -> &'a str {
        if self.fault == Fault::OneTopicForAll { "all" } else { url.name() }
    }
}

#[derive(Debug)]
struct FaultyPublisher {
    inner: Publisher,
    topic: String,
    fault: Fault,
    count: std::sync::atomic::AtomicUsize,
}

#[async_trait::async_trait]
impl driver::Publisher for FaultyPublisher {
    async fn publish(&self, mut message: Message, _deadline: Instant) -> Result<Receipt, Error> {
        let receipt = Receipt::new(message.id.clone());
        let count = self.count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        match self.fault {
            Fault::ForgetsEveryFiftieth if count % 50 == 49 => return Ok(receipt),
            Fault::SendsTwice if count == 0 => drop(self.inner.publish(message.clone()).await?),
            Fault::NewIds => message.id = MessageId::new(),
            Fault::LosesTheKey | Fault::KeysAreIgnored if count % 2 == 1 => message.key = None,
            Fault::BodiesAsText => message.body = String::from_utf8_lossy(&message.body).into_owned().into(),
            Fault::LowersAttributes => {
                let attributes = std::mem::take(&mut message.attributes);
                message.attributes = attributes.into_iter().map(|(name, v)| (name, v.to_lowercase())).collect();
            }
            Fault::TrimsAttributes => {
                let attributes = std::mem::take(&mut message.attributes);
                message.attributes = attributes.into_iter().map(|(name, v)| (name, v.trim().to_owned())).collect();
            }
            Fault::TracesAreLost => drop(message.attributes.remove("traceparent")),
            _ => {}
        }
        self.inner.publish(message).await?;
        Ok(receipt)
    }

    async fn publish_all(&self, batch: Vec<Message>, deadline: Instant) -> Vec<Result<Receipt, Error>> {
        let mut results = Vec::new();
        for message in batch {
            results.push(self.publish(message, deadline).await);
        }
        if self.fault == Fault::AnswersTheBatchInReverse {
            results.reverse();
        }
        results
    }

    async fn flush(&self, deadline: Instant) -> Result<(), Error> {
        self.inner.flush(deadline).await
    }

    fn capabilities(&self) -> Capabilities {
        let mut can = self.inner.capabilities().clone();
        if self.fault == Fault::IgnoresLimits {
            can.limits.attributes = Some(50);
            can.limits.key_bytes = Some(10_000);
        }
        can
    }

    fn endpoint(&self) -> Endpoint {
        Endpoint::new("faulty", &self.topic)
    }
}

#[derive(Debug)]
struct FaultySubscriber {
    inner: Subscriber,
    topic: String,
    fault: Fault,
    delivered: bool,
}

#[async_trait::async_trait]
impl driver::Subscriber for FaultySubscriber {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Delivery>, Error>> {
        let next = ready!(pin!(self.inner.next()).poll(cx))?;
        let Some(inner) = next else { return Poll::Ready(Ok(None)) };
        if self.fault == Fault::CancelLoses
            && inner.attempt() == Some(1)
            && inner.position().is_some_and(|p| p.offset == 7)
        {
            drop(inner.ack());
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let attempt = match self.fault {
            Fault::AttemptsAreAlwaysOne => Some(1),
            _ => inner.attempt(),
        };
        let (message, position) = (inner.shared(), inner.position().unwrap_or(Position::new(0, 0)));
        let lease = FaultyLease { inner, fault: self.fault };
        self.delivered = true;
        let delivery = Delivery::new(message, Box::new(lease)).with_position(position);
        Poll::Ready(Ok(Some(delivery.with_attempt(attempt.unwrap_or(1)))))
    }

    async fn close(&mut self, deadline: Instant) -> Result<(), Error> {
        match self.fault {
            // The suite closes one to see what the broker can do, before any case.
            Fault::CloseHangs if self.delivered => std::future::pending().await,
            Fault::CloseIsIgnored => Ok(()),
            _ => self.inner.close(deadline).await,
        }
    }

    async fn begin_transactions(&mut self, deadline: Instant) -> Result<(), Error> {
        self.inner.begin_transactions(deadline).await
    }

    fn capabilities(&self) -> Capabilities {
        let mut can = self.inner.capabilities();
        if self.fault == Fault::ClaimsItCannotNack {
            can.nack = false;
        }
        can
    }

    fn endpoint(&self) -> Endpoint {
        Endpoint::new("faulty", &self.topic).with_group("g")
    }
}

#[derive(Debug)]
struct FaultyLease {
    inner: Delivery,
    fault: Fault,
}

impl Lease for FaultyLease {
    fn settle(self: Box<Self>, outcome: Outcome) -> Confirmation {
        let Self { inner, fault } = *self;
        match (fault, outcome) {
            (Fault::AcksDoNotLand, Outcome::Ack) => {
                drop(inner.nack());
                Confirmation::settled()
            }
            (Fault::NacksAreAcks | Fault::DropsAreAcks, Outcome::Nack { after: None }) => inner.ack(),
            (Fault::RejectsComeAgain, Outcome::Reject { .. }) => inner.nack(),
            (Fault::DelaysAreIgnored, Outcome::Nack { .. }) => inner.nack(),
            (Fault::ReleasesCount, Outcome::Return) => inner.nack(),
            (Fault::LateAcksAreFine, Outcome::Ack) => {
                drop(inner.ack());
                Confirmation::settled()
            }
            (_, outcome) => inner.settle(outcome),
        }
    }

    fn commit(self: Box<Self>, mut outbox: Vec<Outgoing>) -> Confirmation {
        if self.fault == Fault::ForgetsTheOutbox {
            outbox.clear();
        }
        self.inner.commit(outbox)
    }

    fn extend(&self, by: Duration) -> Confirmation {
        self.inner.extend(by)
    }

    fn expires(&self) -> Option<Instant> {
        self.inner.lease()
    }
}

/// Runs one case against a faulty broker: it has to fail, and to say something like this.
async fn fails(fault: Fault, case: &str, says: &str) {
    let case = conformance::find(case).unwrap_or_else(|| panic!("there is no case {case}"));
    let backend = Arc::new(Faulty::new(fault, false));
    let report = conformance::run(backend, &Options::default().only([case]), |_| {}).await.unwrap();
    match &report.cases[0].outcome {
        Came::Failed(why) => assert!(why.contains(says), "{fault:?} fails {} for another reason: {why}", case.name),
        other => panic!("{fault:?} should fail {}: {other:?}", case.name),
    }
}

macro_rules! faults {
    ($($name:ident: $fault:ident fails $case:literal with $says:literal;)*) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            fails(Fault::$fault, $case, $says).await;
        }
    )*};
}

faults! {
    a_forgotten_message_is_noticed: ForgetsEveryFiftieth fails "published_messages_are_received" with "of 100 came";
    a_message_sent_twice_is_noticed: SendsTwice fails "published_messages_are_received" with "came twice";
    a_batch_answered_in_another_order_is_noticed: AnswersTheBatchInReverse fails "batches_are_answered_entry_by_entry" with "order";
    new_ids_are_noticed: NewIds fails "ids_keys_and_times_are_kept" with "the id";
    a_lost_key_is_noticed: LosesTheKey fails "ids_keys_and_times_are_kept" with "the key";
    bodies_made_text_are_noticed: BodiesAsText fails "bodies_are_exact" with "came as";
    attributes_in_lower_case_are_noticed: LowersAttributes fails "attributes_are_exact_or_refused" with "came as";
    trimmed_attributes_are_noticed: TrimsAttributes fails "attributes_are_exact_or_refused" with "came as";
    a_limit_that_does_not_hold_is_noticed: IgnoresLimits fails "a_key_over_the_limit_is_refused" with "limit";
    a_check_that_refuses_too_much_is_noticed: ChecksTooMuch fails "checking_a_url_agrees_with_opening_it" with "no group";
    options_that_are_ignored_are_noticed: IgnoresOptions fails "unknown_options_are_refused" with "was accepted";
    a_password_that_is_shown_is_noticed: ShowsTheUrl fails "errors_hide_credentials" with "shows the password";
    an_ack_that_does_not_land_is_noticed: AcksDoNotLand fails "acked_messages_never_come_again" with "came";
    a_nack_that_acks_is_noticed: NacksAreAcks fails "nacked_messages_come_again" with "of 100 came";
    a_drop_that_acks_is_noticed: DropsAreAcks fails "dropped_deliveries_come_again" with "of 10 came";
    a_rejected_message_that_comes_again_is_noticed: RejectsComeAgain fails "rejected_messages_do_not_come_again" with "came";
    a_delay_that_is_ignored_is_noticed: DelaysAreIgnored fails "a_nack_delay_is_a_floor" with "the delay was";
    a_retry_that_is_overtaken_is_noticed: DelaysAreIgnored fails "a_retry_holds_back_its_key" with "they came as";
    attempts_that_do_not_count_are_noticed: AttemptsAreAlwaysOne fails "attempts_count_deliveries" with "attempt Some(1)";
    a_release_that_counts_is_noticed: ReleasesCount fails "released_messages_come_again" with "attempts";
    a_false_claim_is_noticed: ClaimsItCannotNack fails "unsupported_outcomes_are_honest" with "cannot nack";
    a_late_ack_that_says_ok_is_noticed: LateAcksAreFine fails "a_lease_that_runs_out_is_lost" with "Ok";
    a_close_that_hangs_is_noticed: CloseHangs fails "closing_is_bounded" with "longer";
    a_close_that_is_ignored_is_noticed: CloseIsIgnored fails "a_closed_subscriber_answers_none" with "handed out";
    a_receive_that_loses_is_noticed: CancelLoses fails "cancelled_receives_lose_nothing" with "of 200";
    groups_that_share_are_noticed: OneGroupForAll fails "each_group_sees_everything" with "came";
    topics_that_mix_are_noticed: OneTopicForAll fails "topics_do_not_mix" with "came from";
    keys_that_are_ignored_are_noticed: KeysAreIgnored fails "a_message_that_is_out_holds_back_its_key" with "came";
    a_lost_trace_is_noticed: TracesAreLost fails "trace_context_survives" with "traceparent";
    a_router_on_a_forgetful_broker_is_noticed: ForgetsEveryFiftieth fails "the_router_handles_everything_once" with "of 300";
    an_early_ack_that_does_not_land_is_noticed: AcksDoNotLand fails "settling_out_of_order_keeps_the_earlier_ones" with "came";
    an_unawaited_ack_that_does_not_land_is_noticed: AcksDoNotLand fails "confirmations_need_not_be_awaited" with "came";
    a_last_ack_that_does_not_land_is_noticed: AcksDoNotLand fails "closing_keeps_what_was_settled" with "came";
    an_ack_after_a_close_that_does_not_land_is_noticed: AcksDoNotLand fails "settling_after_a_close_is_honest" with "came";
    dead_letters_with_new_ids_are_noticed: NewIds fails "poison_does_not_harm_its_neighbours" with "dead letter";
    a_large_dead_letter_with_a_new_id_is_noticed: NewIds fails "the_largest_message_becomes_a_dead_letter" with "another message";
    a_batch_on_a_forgetful_broker_is_noticed: ForgetsEveryFiftieth fails "each_message_of_a_batch_has_its_outcome" with "no message came";
    a_forgotten_outbox_is_noticed: ForgetsTheOutbox fails "outputs_are_seen_once" with "of 50 came";
    a_forgotten_outbox_of_a_second_life_is_noticed: ForgetsTheOutbox fails "outputs_of_an_aborted_handler_are_not_seen" with "of 1 came";
    a_takeover_on_a_broker_that_loses_acks_is_noticed: AcksDoNotLand fails "a_takeover_loses_and_repeats_nothing" with "duplicated";
    members_on_a_broker_that_loses_acks_are_noticed: AcksDoNotLand fails "coming_and_going_loses_and_repeats_nothing" with "duplicated";
}
