//! `traceparent`: what is read is valid, and is what is sent on.

use mainspring_observe::trace::TraceContext;

pub(crate) fn run(bytes: &[u8]) {
    let Some(context) = TraceContext::parse(bytes) else {
        assert!(!is_valid(bytes), "a valid traceparent is refused");
        return;
    };
    assert!(is_valid(bytes), "an invalid traceparent is read");
    let sent = context.traceparent();
    assert_eq!(sent[..3], *b"00-");
    assert_eq!(sent[3..53], bytes[3..53], "the ids are passed on as they came");
    assert_eq!(TraceContext::parse(&sent), Some(context));
    assert_eq!(context.to_string().as_bytes(), sent);
    assert_eq!(context.is_sampled(), digit(bytes[54]) & 1 == 1);
    let child = context.child();
    assert_eq!((child.trace_id(), child.is_sampled()), (context.trace_id(), context.is_sampled()));
    assert_eq!(TraceContext::parse(&child.traceparent()), Some(child));
}

/// The specification's rules, one after another.
fn is_valid(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(&bytes[..bytes.len().min(55)]) else { return false };
    let parts: Vec<&str> = text.splitn(4, '-').collect();
    let &[version, trace, span, flags] = &parts[..] else { return false };
    let lengths = [version, trace, span, flags].map(str::len) == [2, 32, 16, 2];
    let hex = parts.concat().bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    let named = [trace, span].iter().all(|id| id.bytes().any(|byte| byte != b'0'));
    let ends = bytes.len() == 55 || (version != "00" && bytes.get(55) == Some(&b'-'));
    lengths && hex && named && ends && version != "ff"
}

fn digit(byte: u8) -> u32 {
    char::from(byte).to_digit(16).expect("a hexadecimal digit")
}
