//! The Host field, which RFC 9112 has us insist on (section 3.2).

use http::{HeaderValue, Version};

/// The Host fields of one request.
#[derive(Default)]
pub(super) struct Host<'a> {
    value: Option<&'a HeaderValue>,
    is_repeated: bool,
}

impl<'a> Host<'a> {
    pub(super) fn also(&mut self, value: &'a HeaderValue) {
        self.is_repeated |= self.value.replace(value).is_some();
    }

    /// Whether the request says where it goes as its version demands: in HTTP/1.1 once, in words that a host may
    /// have. Otherwise it may mean one thing to a proxy before us and another to us.
    pub(super) fn is_fit_for(&self, version: Version) -> bool {
        let says = |host: &HeaderValue| host.as_bytes().iter().all(|byte| ALLOWED[usize::from(*byte)]);
        version != Version::HTTP_11 || (!self.is_repeated && self.value.is_some_and(says))
    }
}

/// What a host and its port are made of (RFC 3986, section 3.2.2).
static ALLOWED: [bool; 256] = {
    let mut allowed = [false; 256];
    let marks = b"-._~%!$&'()*+,;=:[]";
    let mut byte = 0;
    while byte < 256 {
        allowed[byte] = (byte as u8).is_ascii_alphanumeric();
        byte += 1;
    }
    let mut mark = 0;
    while mark < marks.len() {
        allowed[marks[mark] as usize] = true;
        mark += 1;
    }
    allowed
};

#[cfg(test)]
mod tests {
    use super::*;

    fn fits(version: Version, hosts: &[&'static str]) -> bool {
        let values: Vec<_> = hosts.iter().map(|host| HeaderValue::from_static(host)).collect();
        let mut host = Host::default();
        values.iter().for_each(|value| host.also(value));
        host.is_fit_for(version)
    }

    #[test]
    fn http_1_1_needs_one_host_that_could_be_one() {
        for host in ["localhost:8080", "[::1]:80", "shop.example", "", "a%20b", "1.2.3.4"] {
            assert!(fits(Version::HTTP_11, &[host]), "{host}");
        }
        for hosts in [&[][..], &["a", "b"], &["a", "a"], &["a b"], &["a/.."], &["user@a"], &["a?"]] {
            assert!(!fits(Version::HTTP_11, hosts), "{hosts:?}");
        }
        assert!(fits(Version::HTTP_10, &[]) && fits(Version::HTTP_2, &[]));
    }
}
