//! Who is really calling.

use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;

use http::{HeaderMap, HeaderName};
use ipnet::IpNet;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");

/// The proxies whose word about a client's address is believed. By default: none.
///
/// Anyone can send `X-Forwarded-For`, so an entry counts only when the address that added it is one of
/// ours: the entries are read from the right, and the first that is not a trusted proxy is the client.
#[derive(Clone, Debug, Default)]
pub struct TrustedProxies(Arc<[IpNet]>);

/// Text that is neither an address nor a network.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("trusted proxy `{0}`: is no network; write `10.0.0.0/8`, `fd00::/8` or a single address")]
pub struct InvalidNetwork(String);

impl TrustedProxies {
    /// Trusts the addresses in `networks`, each `10.0.0.0/8`, `fd00::/8` or a single address.
    pub fn new<N: AsRef<str>>(networks: impl IntoIterator<Item = N>) -> Result<Self, InvalidNetwork> {
        networks.into_iter().map(|network| parse(network.as_ref())).collect::<Result<_, _>>().map(Self)
    }

    /// Whether `address` is one of the proxies.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(&address))
    }

    /// The address of the client behind `peer`, the other end of the connection.
    ///
    /// With a trusted peer it is the rightmost address in `X-Forwarded-For` that is no trusted proxy, or,
    /// without that header, the one in `X-Real-IP`. An entry that is no address ends the search: what is
    /// left of it was not written by a proxy of ours. An IPv4 address mapped into IPv6 is given as IPv4.
    pub fn client_ip(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let mut client = peer.to_canonical();
        if !self.contains(client) {
            return client;
        }
        let name = if headers.contains_key(FORWARDED_FOR) { FORWARDED_FOR } else { REAL_IP };
        // Proxies may add a line of their own instead of appending to the last one.
        for line in headers.get_all(name).iter().rev() {
            let Ok(line) = line.to_str() else { return client };
            for entry in line.rsplit(',') {
                let Some(address) = address(entry.trim()) else { return client };
                client = address;
                if !self.contains(client) {
                    return client;
                }
            }
        }
        client
    }
}

fn parse(text: &str) -> Result<IpNet, InvalidNetwork> {
    let network = IpNet::from_str(text).or_else(|_| IpAddr::from_str(text).map(IpNet::from));
    network.map(|network| network.trunc()).map_err(|_| InvalidNetwork(text.to_owned()))
}

/// Reads an address that may have a port: `1.2.3.4`, `1.2.3.4:5`, `::1`, `[::1]`, `[::1]:5`.
fn address(text: &str) -> Option<IpAddr> {
    let bare = match text.strip_prefix('[') {
        Some(rest) => {
            let (address, port) = rest.split_once(']')?;
            let port = port.strip_prefix(':').map_or(port.is_empty(), is_port);
            port.then_some(address)?
        }
        None => match text.split_once(':') {
            Some((address, port)) if address.contains('.') && is_port(port) => address,
            _ => text,
        },
    };
    bare.parse::<IpAddr>().ok().map(|address| address.to_canonical())
}

fn is_port(text: &str) -> bool {
    text.parse::<u16>().is_ok() && text.bytes().all(|b| b.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(peer: &str, forwarded: &[&str]) -> String {
        let mut headers = HeaderMap::new();
        for line in forwarded {
            headers.append(FORWARDED_FOR, http::HeaderValue::from_bytes(line.as_bytes()).unwrap());
        }
        let proxies = TrustedProxies::new(["10.0.0.0/8", "fd00::/8", "192.0.2.1"]).unwrap();
        proxies.client_ip(peer.parse().unwrap(), &headers).to_string()
    }

    #[test]
    fn a_stranger_is_never_believed() {
        assert_eq!(client("203.0.113.9", &["1.1.1.1"]), "203.0.113.9");
        let none = TrustedProxies::default();
        let headers = HeaderMap::from_iter([(FORWARDED_FOR, "1.1.1.1".parse().unwrap())]);
        assert_eq!(none.client_ip("127.0.0.1".parse().unwrap(), &headers).to_string(), "127.0.0.1");
    }

    #[test]
    fn the_rightmost_stranger_is_the_client() {
        assert_eq!(client("10.0.0.1", &["1.1.1.1"]), "1.1.1.1");
        assert_eq!(client("10.0.0.1", &["6.6.6.6, 1.1.1.1, 10.9.9.9"]), "1.1.1.1");
        assert_eq!(client("10.0.0.1", &["6.6.6.6", "1.1.1.1", "10.9.9.9"]), "1.1.1.1");
        assert_eq!(client("::ffff:10.0.0.1", &["1.1.1.1"]), "1.1.1.1");
    }

    #[test]
    fn proxies_all_the_way_give_the_farthest_one() {
        assert_eq!(client("10.0.0.1", &["10.0.0.3, 192.0.2.1"]), "10.0.0.3");
        assert_eq!(client("10.0.0.1", &[]), "10.0.0.1");
    }

    #[test]
    fn ports_and_brackets_are_understood() {
        assert_eq!(client("10.0.0.1", &["1.1.1.1:4711"]), "1.1.1.1");
        assert_eq!(client("10.0.0.1", &["[2001:db8::1]:4711"]), "2001:db8::1");
        assert_eq!(client("10.0.0.1", &["2001:db8::1"]), "2001:db8::1");
        assert_eq!(client("10.0.0.1", &["::ffff:1.1.1.1"]), "1.1.1.1");
    }

    #[test]
    fn rubbish_ends_the_search_at_the_last_address_known() {
        for rubbish in ["unknown", "", ",", "1.1.1.1;", "[::1", "[::1]x", "1.1.1.1:http", "127.1", "é", "1.1.1.1:+5"] {
            assert_eq!(client("10.0.0.1", &["6.6.6.6", rubbish]), "10.0.0.1", "{rubbish}");
        }
    }

    #[test]
    fn x_real_ip_counts_only_from_a_proxy_that_says_nothing_else() {
        let proxies = TrustedProxies::new(["10.0.0.0/8"]).unwrap();
        let mut headers = HeaderMap::from_iter([(REAL_IP, "6.6.6.6".parse().unwrap())]);
        let ip = |headers: &HeaderMap, peer: &str| proxies.client_ip(peer.parse().unwrap(), headers).to_string();
        assert_eq!(ip(&headers, "10.0.0.1"), "6.6.6.6");
        assert_eq!(ip(&headers, "203.0.113.9"), "203.0.113.9");
        headers.insert(FORWARDED_FOR, "1.1.1.1".parse().unwrap());
        assert_eq!(ip(&headers, "10.0.0.1"), "1.1.1.1");
    }

    #[test]
    fn a_wrong_network_is_refused_by_name() {
        let error = TrustedProxies::new(["10.0.0.0/33"]).unwrap_err();
        assert!(error.to_string().contains("10.0.0.0/33"));
    }
}
