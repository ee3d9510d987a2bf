//! Whose a connection is: the address that connected, or the one that a trusted proxy forwards for.
//!
//! What a client writes into `X-Forwarded-For` itself never counts: only what trusted proxies appended does.
//!
//! Start reading in [`forwarded_address`].

use http::{HeaderMap, HeaderName};
use ipnet::IpNet;
use std::net::IpAddr;

/// Where proxies append the address that connected to them.
static FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Whether `address` is of one of these networks.
pub fn is_of(address: IpAddr, networks: &[IpNet]) -> bool {
    let address = address.to_canonical();
    networks.iter().any(|network| network.contains(&address))
}

/// The client that a request of a trusted proxy is forwarded for: the last address in its headers that is no `trusted`
/// proxy itself; `None` where there is none, or something else than an address.
pub fn forwarded_address(headers: &HeaderMap, trusted: &[IpNet]) -> Option<IpAddr> {
    let lists = headers.get_all(&FORWARDED_FOR).iter().rev();
    let mut last_first = lists.flat_map(|list| list.as_bytes().rsplit(|byte| *byte == b','));
    let client = last_first.find_map(|text| {
        let address = std::str::from_utf8(text).ok().and_then(|text| text.trim().parse::<IpAddr>().ok());
        // What is no address ends the search: nothing before it can be relied on.
        address.map_or(Some(None), |address| (!is_of(address, trusted)).then_some(Some(address.to_canonical())))
    });
    client.flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_address_that_is_no_proxy_is_the_clients() {
        let trusted: Vec<IpNet> = ["10.0.0.0/8", "::1/128"].map(|network| network.parse().unwrap()).into();
        let check = |lists: &[&str], expected: Option<&str>| {
            let mut all = HeaderMap::new();
            for list in lists {
                all.append(&FORWARDED_FOR, list.parse().unwrap());
            }
            let address = forwarded_address(&all, &trusted).map(|address| address.to_string());
            assert_eq!(address.as_deref(), expected, "{lists:?}");
        };
        check(&[], None);
        check(&["192.0.2.1"], Some("192.0.2.1"));
        check(&["198.51.100.9, 192.0.2.1"], Some("192.0.2.1"));
        check(&["192.0.2.1, 10.1.2.3,10.0.0.1 , ::1"], Some("192.0.2.1"));
        check(&["192.0.2.1", "10.1.2.3"], Some("192.0.2.1"));
        check(&["10.1.2.3"], None);
        check(&["192.0.2.1, unknown"], None);
        check(&["192.0.2.1, unknown, 10.1.2.3"], None);
        check(&["192.0.2.1:80"], None);
        check(&["::ffff:10.1.2.3, ::ffff:192.0.2.1"], Some("192.0.2.1"));
        check(&["2001:db8::1"], Some("2001:db8::1"));
    }
}
