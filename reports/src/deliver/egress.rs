//! Where a delivery may go: names are resolved, addresses filtered, and the connection is made to the address that was
//! checked, so that a name cannot point elsewhere a moment later (SSRF, DNS rebinding).
//!
//! It is not a firewall: what a public receiver does with a message is outside it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

/// What a target may be connected to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EgressPolicy {
    /// Public addresses only, https only.
    Public,
    /// Also private and loopback addresses, and there also plain http. Never metadata services or multicast.
    AllowPrivate,
}

/// What an address is, as far as egress is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Routed on the internet.
    Public,
    /// Loopback, RFC 1918, RFC 6598, unique local.
    Private,
    /// Nothing an alert should ever be sent to: link-local (metadata services), multicast, unspecified, reserved.
    Never,
}

/// Classifies an address; addresses that carry an IPv4 address inside count as that one.
#[must_use]
pub const fn reach(address: IpAddr) -> Reach {
    match address {
        IpAddr::V4(address) => reach_v4(address),
        IpAddr::V6(address) => reach_v6(address),
    }
}

const fn reach_v4(address: Ipv4Addr) -> Reach {
    let octets = address.octets();
    match octets {
        // 0/8 "this network", 169.254/16 link-local and metadata, 224/4 multicast, 240/4 reserved and broadcast.
        [0 | 224..=255, ..] | [169, 254, ..] => Reach::Never,
        // IETF protocol assignments, documentation (RFC 5737), 6to4 relay, benchmarking (RFC 2544).
        [192, 0, 0 | 2, _] | [198, 51, 100, _] | [203, 0, 113, _] | [192, 88, 99, _] | [198, 18 | 19, ..] => {
            Reach::Never
        }
        // Alibaba Cloud's metadata service sits in shared address space.
        [100, 100, 100, 200] => Reach::Never,
        [10 | 127, ..] | [172, 16..=31, ..] | [192, 168, ..] | [100, 64..=127, ..] => Reach::Private,
        _ => Reach::Public,
    }
}

const fn reach_v6(address: Ipv6Addr) -> Reach {
    let segments = address.segments();
    let [.., high, low] = segments;
    let [a, b] = high.to_be_bytes();
    let [c, d] = low.to_be_bytes();
    let embedded = Ipv4Addr::new(a, b, c, d);
    match segments {
        // AWS's metadata service over IPv6.
        [0xfd00, 0x0ec2, 0, 0, 0, 0, 0, 0x0254] => Reach::Never,
        [0, 0, 0, 0, 0, 0, 0, 1] => Reach::Private,
        // Unspecified and IPv4-compatible (deprecated).
        [0, 0, 0, 0, 0, 0, _, _] => Reach::Never,
        // IPv4-mapped, and NAT64 (RFC 6052).
        [0, 0, 0, 0, 0, 0xffff, _, _] | [0x64, 0xff9b, 0, 0, 0, 0, _, _] => reach_v4(embedded),
        // Local-use NAT64 (RFC 8215), discard, Teredo and other 2001::/23, documentation, 6to4, link-local,
        // site-local, multicast.
        [0x64, 0xff9b, 1, ..] | [0x100, ..] | [0x2001, 0..=0x1ff, ..] | [0x2001, 0xdb8, ..] | [0x2002, ..] => {
            Reach::Never
        }
        [0xfe80..=0xffff, ..] => Reach::Never,
        [0xfc00..=0xfdff, ..] => Reach::Private,
        [0x2000..=0x3fff, ..] => Reach::Public,
        _ => Reach::Never,
    }
}

impl EgressPolicy {
    /// Whether a connection to `address` may be made; `plain` says that it would not be encrypted.
    #[must_use]
    pub const fn allows(self, address: IpAddr, plain: bool) -> bool {
        match (self, reach(address)) {
            (_, Reach::Never) | (Self::Public, Reach::Private) => false,
            (Self::AllowPrivate, Reach::Private) => true,
            (_, Reach::Public) => !plain,
        }
    }
}

/// Why a connection was not even tried.
#[derive(Debug, thiserror::Error)]
pub enum EgressError {
    /// Every address of the name is refused.
    #[error(
        "`{host}` resolves only to addresses that deliveries may not go to ({addresses}); set `allow_private: true` on the target if it is meant"
    )]
    Refused {
        /// The name.
        host: String,
        /// What it resolved to.
        addresses: String,
    },
}

/// Resolves names and keeps only the addresses the policy allows; what it returns is what is connected to.
#[derive(Clone, Copy, Debug)]
pub struct FilteringResolver {
    /// What is allowed.
    pub policy: EgressPolicy,
    /// Whether the target's URL is plain http.
    pub plain: bool,
}

impl FilteringResolver {
    /// The allowed ones of the addresses that `host` has.
    ///
    /// # Errors
    /// [`EgressError::Refused`] if none is left.
    pub fn filter(
        self,
        host: &str,
        found: impl IntoIterator<Item = SocketAddr>,
    ) -> Result<Vec<SocketAddr>, EgressError> {
        let (allowed, refused): (Vec<_>, Vec<_>) =
            found.into_iter().partition(|address| self.policy.allows(address.ip(), self.plain));
        if allowed.is_empty() {
            let refused: Vec<String> = refused.iter().map(|address| address.ip().to_string()).collect();
            let addresses = if refused.is_empty() { "none".to_owned() } else { refused.join(", ") };
            return Err(EgressError::Refused { host: host.to_owned(), addresses });
        }
        Ok(allowed)
    }
}

impl Resolve for FilteringResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let this = *self;
        Box::pin(async move {
            let host = name.as_str().to_owned();
            let found = tokio::net::lookup_host((host.as_str(), 0)).await?;
            let allowed = this.filter(&host, found)?;
            Ok(Box::new(allowed.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_classified_by_what_they_reach() {
        let never = [
            "0.0.0.0",
            "0.1.2.3",
            "169.254.169.254",
            "224.0.0.1",
            "255.255.255.255",
            "240.0.0.1",
            "192.0.2.1",
            "100.100.100.200",
            "198.18.0.1",
            "::",
            "fe80::1",
            "fd00:ec2::254",
            "ff02::1",
            "::ffff:169.254.169.254",
            "64:ff9b::a9fe:a9fe",
            "2002:7f00:1::",
            "2001::1",
            "::127.0.0.1",
            "fec0::1",
            "64:ff9b:1::1",
        ];
        let private = [
            "127.0.0.1",
            "127.255.255.255",
            "10.0.0.1",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "100.64.0.1",
            "::1",
            "fc00::1",
            "fdff::1",
            "::ffff:127.0.0.1",
            "64:ff9b::7f00:1",
        ];
        let public = [
            "1.1.1.1",
            "172.32.0.1",
            "100.128.0.1",
            "192.1.0.1",
            "2606:4700::1111",
            "::ffff:8.8.8.8",
            "64:ff9b::808:808",
        ];
        for (texts, expected) in
            [(&never[..], Reach::Never), (&private[..], Reach::Private), (&public[..], Reach::Public)]
        {
            for text in texts {
                let address: IpAddr = text.parse().unwrap();
                assert_eq!(reach(address), expected, "{text}");
                let allowed = EgressPolicy::Public.allows(address, false);
                assert_eq!(allowed, expected == Reach::Public, "{text}");
                assert!(!EgressPolicy::Public.allows(address, true), "{text} in plain text");
                assert_eq!(EgressPolicy::AllowPrivate.allows(address, true), expected == Reach::Private, "{text}");
            }
        }
    }

    #[test]
    fn a_name_with_one_bad_address_is_pinned_to_the_good_one() {
        let resolver = FilteringResolver { policy: EgressPolicy::Public, plain: false };
        let found = ["127.0.0.1:0", "1.1.1.1:0"].map(|text| text.parse().unwrap());
        assert_eq!(resolver.filter("h", found).unwrap(), ["1.1.1.1:0".parse().unwrap()]);
        let error = resolver.filter("h", ["127.0.0.1:0".parse().unwrap()]).unwrap_err();
        assert!(error.to_string().contains("127.0.0.1") && error.to_string().contains("allow_private"), "{error}");
        assert!(resolver.filter("h", []).is_err());
    }
}
