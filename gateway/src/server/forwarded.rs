//! Whose connection it is where a proxy stands in between: the address that limits count by.
//!
//! Only what comes from a listed proxy is believed, and of that only what proxies wrote: the list is read from its right end,
//! where the nearest proxy put whom it saw, to the first address that is none of ours. What a client wrote further left, or
//! sent by itself, counts for nothing.

use crate::config::Config;
use http::header::{FORWARDED, HeaderName};
use http::{HeaderMap, HeaderValue};
use ipnet::IpNet;
use std::net::{IpAddr, SocketAddr};

/// The proxies that are believed, and where they write whom they saw.
#[derive(Debug)]
pub struct TrustedProxies {
    networks: Vec<IpNet>,
    header: HeaderName,
}

impl TrustedProxies {
    /// As configured.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        let networks = config.server.trusted_proxies.iter().filter_map(|text| network(text));
        Self {
            networks: networks.collect(),
            header: match config.server.forwarded_header.as_str() {
                "forwarded" => FORWARDED,
                _ => HeaderName::from_static("x-forwarded-for"),
            },
        }
    }

    /// Whether this is one of them.
    #[must_use]
    pub fn trusts(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.networks.iter().any(|network| network.contains(&address))
    }

    /// Who is behind a request that came from the proxy `from`. A proxy that does not say whom it saw answers for it itself.
    #[must_use]
    pub fn client(&self, from: IpAddr, headers: &HeaderMap) -> IpAddr {
        let mut nearest = from.to_canonical();
        let mut said = headers
            .get_all(&self.header)
            .iter()
            .flat_map(|value| split(value, self.header == FORWARDED))
            .collect::<Vec<_>>();
        while self.trusts(nearest)
            && let Some(address) = said.pop().flatten()
        {
            nearest = address;
        }
        nearest
    }
}

/// A network in CIDR notation, or one address.
#[must_use]
pub(crate) fn network(text: &str) -> Option<IpNet> {
    text.parse().ok().or_else(|| {
        let address: IpAddr = text.parse().ok()?;
        Some(address.to_canonical().into())
    })
}

/// What the entries of one header say, left to right; `None`: nothing that is understood.
fn split(value: &HeaderValue, pairs: bool) -> Vec<Option<IpAddr>> {
    let Ok(text) = value.to_str() else {
        return vec![None];
    };
    let entries = text.split(',').map(str::trim);
    entries
        .map(|entry| if pairs { seen_for(entry) } else { address(entry) })
        .collect()
}

/// RFC 7239: `for=192.0.2.60;proto=http`. A comma inside quotes cuts an entry in two that are not understood.
fn seen_for(entry: &str) -> Option<IpAddr> {
    let mut found = None;
    for pair in entry.split(';') {
        let Some((name, value)) = pair.trim().split_once('=') else {
            continue;
        };
        if name.eq_ignore_ascii_case("for") {
            let value = value.strip_prefix('"').map_or(Some(value), |v| v.strip_suffix('"'))?;
            // Two are none.
            if found.replace(value).is_some() {
                return None;
            }
        }
    }
    address(found?)
}

/// An address, with a port or without, IPv6 also in brackets.
fn address(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let plain = bare.unwrap_or(text).parse::<IpAddr>().ok();
    let with_port = || text.parse::<SocketAddr>().ok().map(|address| address.ip());
    plain.or_else(with_port).map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies(header: &str) -> TrustedProxies {
        let mut config = Config::default();
        config.server.trusted_proxies = ["10.0.0.0/8", "192.0.2.9", "2001:db8:aa::/48"]
            .map(str::to_owned)
            .to_vec();
        header.clone_into(&mut config.server.forwarded_header);
        TrustedProxies::new(&config)
    }

    fn client(of: &TrustedProxies, from: &str, name: &str, values: &[&str]) -> String {
        let mut headers = HeaderMap::new();
        for value in values {
            let value = HeaderValue::from_bytes(value.as_bytes()).expect("a value");
            headers.append(HeaderName::from_bytes(name.as_bytes()).expect("a name"), value);
        }
        of.client(from.parse().expect("an address"), &headers).to_string()
    }

    #[test]
    fn the_first_stranger_from_the_right_counts_whatever_stands_left_of_it() {
        let of = proxies("x-forwarded-for");
        for (values, expected) in [
            (&["198.51.100.7"][..], "198.51.100.7"),
            (&["1.1.1.1, 198.51.100.7"], "198.51.100.7"),
            (&["10.9.9.9, 198.51.100.7"], "198.51.100.7"),
            (&["garbage, 198.51.100.7"], "198.51.100.7"),
            (&["127.0.0.1", "198.51.100.7"], "198.51.100.7"),
            (&["198.51.100.7, 10.0.0.3"], "198.51.100.7"),
            (&["1.1.1.1, 198.51.100.7, 10.0.0.3", "192.0.2.9"], "198.51.100.7"),
            (&["198.51.100.7:4711"], "198.51.100.7"),
            (&[" 198.51.100.7 "], "198.51.100.7"),
            (&["[2001:db8::7]:4711"], "2001:db8::7"),
            (&["2001:db8::7"], "2001:db8::7"),
            (&["::ffff:198.51.100.7"], "198.51.100.7"),
            (&["198.51.100.7, 2001:db8:aa::1"], "198.51.100.7"),
        ] {
            assert_eq!(
                client(&of, "10.0.0.1", "x-forwarded-for", values),
                expected,
                "{values:?}"
            );
        }
    }

    #[test]
    fn a_proxy_that_does_not_say_whom_it_saw_answers_for_it() {
        let of = proxies("x-forwarded-for");
        for values in [
            &[][..],
            &[""],
            &["unknown"],
            &["1.1.1.1, unknown"],
            &["1.1.1.1,"],
            &["1.1.1.1, 198.51.100.7x"],
            &["198.51.100.256"],
            &["198.51.100.07"],
            &["1.1.1.1\t2.2.2.2"],
            &["1.1.1.1, é"],
            &["[198.51.100.7"],
            &["198.51.100.7:port"],
        ] {
            assert_eq!(
                client(&of, "10.0.0.1", "x-forwarded-for", values),
                "10.0.0.1",
                "{values:?}"
            );
        }
        let answers = client(&of, "10.0.0.1", "x-forwarded-for", &["unknown, 10.0.0.3"]);
        assert_eq!(answers, "10.0.0.3", "the proxy behind it");
        let chain = client(&of, "10.0.0.1", "x-forwarded-for", &["10.0.0.2, 10.0.0.3"]);
        assert_eq!(chain, "10.0.0.2", "nobody but proxies");
    }

    #[test]
    fn nobody_else_is_believed_and_no_other_header() {
        let of = proxies("x-forwarded-for");
        for from in ["192.0.2.8", "11.0.0.1", "2001:db8:ab::1", "127.0.0.1"] {
            assert_eq!(client(&of, from, "x-forwarded-for", &["198.51.100.7"]), from);
        }
        for other in ["forwarded", "x-real-ip", "x-forwarded", "forwarded-for"] {
            assert_eq!(
                client(&of, "10.0.0.1", other, &["for=198.51.100.7"]),
                "10.0.0.1",
                "{other}"
            );
        }
        let mapped = client(&of, "::ffff:10.0.0.1", "x-forwarded-for", &["198.51.100.7"]);
        assert_eq!(mapped, "198.51.100.7");
    }

    #[test]
    fn the_standard_header_is_read_where_it_is_chosen() {
        let of = proxies("forwarded");
        for (values, expected) in [
            (&["for=198.51.100.7"][..], "198.51.100.7"),
            (&["For=\"198.51.100.7:4711\";proto=https;by=10.0.0.1"], "198.51.100.7"),
            (&["proto=https;for=\"[2001:db8::7]:4711\""], "2001:db8::7"),
            (&["for=1.1.1.1, for=198.51.100.7, for=10.0.0.3"], "198.51.100.7"),
            (&["for=unknown"], "10.0.0.1"),
            (&["for=_hidden"], "10.0.0.1"),
            (&["for=1.1.1.1;for=2.2.2.2"], "10.0.0.1"),
            (&["for=\"1.1.1.1"], "10.0.0.1"),
            (&["host=a;for"], "10.0.0.1"),
            (&["for=1.1.1.1;host=\"a,b\""], "10.0.0.1"),
        ] {
            assert_eq!(client(&of, "10.0.0.1", "forwarded", values), expected, "{values:?}");
        }
        assert_eq!(client(&of, "10.0.0.1", "x-forwarded-for", &["1.1.1.1"]), "10.0.0.1");
    }

    #[test]
    fn a_network_is_written_as_one_or_as_an_address() {
        for good in ["10.0.0.0/8", "192.0.2.9", "::1", "2001:db8::/32", "0.0.0.0/0"] {
            assert!(network(good).is_some(), "{good}");
        }
        for bad in [
            "",
            "10.0.0.0/33",
            "10.0.0",
            "localhost",
            "10.0.0.1:80",
            "10.0.0.0/",
            "*",
            "[::1]",
        ] {
            assert!(network(bad).is_none(), "{bad}");
        }
    }
}
