//! `mainspring tail`.

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use mainspring::daemon::Chain;
use mainspring::pubsub::driver::Url;
use mainspring::pubsub::{Brokers, Delivery, ErrorKind, Subscriber};
use tokio::time::{Instant, sleep, timeout};

use crate::args::TailArgs;
use crate::exit::{Exit, complain, warn_of_memory};
use crate::settings::Settings;
use crate::show;
use crate::stop::Stop;

/// How long closing may take.
const CLOSE: Duration = Duration::from_secs(5);

/// How long it may take to be rid of a group that nobody needs.
const FORGET: Duration = Duration::from_secs(2);

/// How long to wait after an error that may pass.
const PAUSE: Duration = Duration::from_secs(1);

/// Prints messages until told to stop, or until there were enough.
pub(crate) async fn run(settings: &Settings, args: TailArgs, mut stop: Stop) -> Result<ExitCode, Exit> {
    let url = in_a_group(&args.url)?;
    let own = url != args.url;
    let brokers = settings.brokers()?;
    let mut subscriber = tokio::select! {
        biased;
        () = &mut stop => return Ok(ExitCode::SUCCESS),
        opened = brokers.subscriber(&url) => opened?,
    };
    warn_of_memory(subscriber.capabilities().volatile);
    let mut out = io::stdout();
    let result = tokio::select! {
        () = &mut stop => Ok(()),
        result = show_all(&mut subscriber, &args, &mut out) => result,
    };
    let deadline = Instant::now() + CLOSE;
    if let Ok(Err(error)) = timeout(CLOSE, subscriber.close(deadline)).await {
        complain(&Chain(&error).to_string());
    }
    if own {
        forget(&brokers, &url).await;
    }
    result.map(|()| ExitCode::SUCCESS)
}

/// Nobody comes back to a group that was made for this one time.
async fn forget(brokers: &Brokers, url: &str) {
    let why = match timeout(FORGET, brokers.delete_group(url)).await {
        Ok(Ok(())) => return,
        Ok(Err(error)) if error.kind() == ErrorKind::Unsupported => return,
        Ok(Err(error)) => Chain(&error).to_string(),
        Err(_) => "no answer in time".to_owned(),
    };
    complain(&format!("the group of this command is left behind: {why}"));
}

/// Ends after `args.count` messages, when the subscriber is closed, or when nobody reads any more.
async fn show_all(subscriber: &mut Subscriber, args: &TailArgs, out: &mut impl Write) -> Result<(), Exit> {
    let mut left = args.count;
    while left != Some(0) {
        match subscriber.next().await {
            Ok(Some(delivery)) => {
                if let Err(error) = show(&delivery, args.json, out) {
                    // It was not seen, so somebody else of its group may see it.
                    drop(delivery.release());
                    return match error.kind() {
                        io::ErrorKind::BrokenPipe => Ok(()),
                        _ => Err(Exit { code: 1, message: format!("cannot write: {error}") }),
                    };
                }
                drop(delivery.ack());
                left = left.map(|left| left - 1);
            }
            Ok(None) => return Ok(()),
            Err(error) if error.is_retryable() => {
                complain(&format!("{}; trying again", Chain(&error)));
                sleep(PAUSE).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn show(delivery: &Delivery, json: bool, out: &mut impl Write) -> io::Result<()> {
    if json {
        writeln!(out, "{}", show::object(delivery))?;
    } else {
        writeln!(out, "{}", show::line(delivery))?;
    }
    out.flush()
}

/// The URL with a group of our own, unless it names one: so that nothing is taken from a group that is at work.
fn in_a_group(url: &str) -> Result<String, Exit> {
    let parsed = Url::parse(url)?;
    if parsed.option("group").is_some() {
        return Ok(url.to_owned());
    }
    let join = if url.contains('?') { '&' } else { '?' };
    Ok(format!("{url}{join}group=mainspring-tail-{:016x}", fastrand::u64(..)))
}

#[cfg(test)]
mod tests {
    use mainspring::pubsub::{Message, memory};

    use super::*;

    fn args(count: u64, json: bool) -> TailArgs {
        TailArgs { url: String::new(), count: Some(count), json }
    }

    #[tokio::test]
    async fn messages_are_printed_and_acked_as_many_as_were_asked_for() {
        let broker = memory::Broker::new(memory::Config::default());
        let publisher = broker.publisher("t");
        let mut subscriber = broker.subscriber("t", "tail");
        for body in [&b"one"[..], b"two\n", b"\xff", b"more"] {
            let message = Message::new(body).with_key("k 1").with_attribute("a", "b");
            publisher.publish(message).await.unwrap();
        }
        let mut out = Vec::new();
        show_all(&mut subscriber, &args(2, false), &mut out).await.unwrap();
        let shown = String::from_utf8(out).unwrap();
        let lines: Vec<_> = shown.lines().map(|line| line.split_once(' ').unwrap().1).collect();
        assert_eq!(lines, ["0/0 key=k 1 a=b | one", "0/1 key=k 1 a=b | two\\n"]);

        let mut out = Vec::new();
        show_all(&mut subscriber, &args(1, true), &mut out).await.unwrap();
        let object: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!((&object["body"], &object["body_base64"]), (&serde_json::Value::Null, &"/w==".into()));
        assert_eq!(
            (&object["key"], &object["attributes"]["a"], &object["offset"]),
            (&"k 1".into(), &"b".into(), &2.into())
        );
        let next = subscriber.next().await.unwrap().unwrap();
        assert_eq!((next.message().body.as_ref(), next.attempt()), (&b"more"[..], Some(1)), "no message was skipped");
    }

    /// A pipe whose reader has left.
    struct Broken;

    impl Write for Broken {
        fn write(&mut self, _buf: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn what_nobody_could_read_is_handed_back() {
        let broker = memory::Broker::new(memory::Config::default());
        let mut subscriber = broker.subscriber("t", "tail");
        broker.publisher("t").publish(Message::new("unread")).await.unwrap();
        show_all(&mut subscriber, &args(5, false), &mut Broken).await.unwrap();
        let again = subscriber.next().await.unwrap().unwrap();
        assert_eq!((again.message().body.as_ref(), again.attempt()), (&b"unread"[..], Some(1)));
    }

    #[test]
    fn a_group_of_its_own_unless_the_url_has_one() {
        assert_eq!(in_a_group("kafka://t?group=g").unwrap(), "kafka://t?group=g");
        let own = in_a_group("kafka://t?auto_offset_reset=latest").unwrap();
        assert!(own.starts_with("kafka://t?auto_offset_reset=latest&group=mainspring-tail-"), "{own}");
        assert_ne!(own, in_a_group("kafka://t?auto_offset_reset=latest").unwrap());
        assert_eq!(in_a_group("orders").unwrap_err().code, 78);
    }
}
