//! Networks whose members are believed about whom they speak for.

use ipnet::IpNet;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::net::IpAddr;

/// A list of networks, written as `10.0.0.0/8` or `2001:db8::/32`; a single address is a network of
/// its own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Networks(Vec<IpNet>);

impl Networks {
    /// Reads a list.
    ///
    /// # Errors
    /// What is no network.
    pub fn parse<T: AsRef<str>>(list: &[T]) -> Result<Self, String> {
        let one = |text: &T| {
            let text = text.as_ref();
            let address = text.parse::<IpAddr>().map(|address| address.to_canonical());
            match address {
                Ok(address) => Ok(address.into()),
                Err(_) => text.parse::<IpNet>().map_err(|_| {
                    format!("{text:?} is no network: expected one like 10.0.0.0/8 or 2001:db8::/32")
                }),
            }
        };
        list.iter().map(one).collect::<Result<_, _>>().map(Self)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether an address is in one of them.
    pub fn contain(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(&address))
    }
}

impl Serialize for Networks {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(self.0.iter().map(ToString::to_string))
    }
}

impl<'de> Deserialize<'de> for Networks {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let list = Vec::<String>::deserialize(from)?;
        Self::parse(&list).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_address_is_in_a_network_whichever_way_it_is_written() {
        let networks = Networks::parse(&["10.0.0.0/8", "192.168.1.7", "2001:db8::/32"]).unwrap();
        for (address, there) in [
            ("10.255.0.1", true),
            ("::ffff:10.1.2.3", true),
            ("11.0.0.1", false),
            ("192.168.1.7", true),
            ("192.168.1.8", false),
            ("2001:db8:1::5", true),
            ("2001:db9::5", false),
            ("::1", false),
        ] {
            assert_eq!(
                networks.contain(address.parse().unwrap()),
                there,
                "{address}"
            );
        }
        assert!(!Networks::default().contain("127.0.0.1".parse().unwrap()));
    }

    #[test]
    fn what_is_no_network_is_named() {
        for wrong in ["10.0.0.0/33", "proxy", "10.0.0.0/", ""] {
            let error = Networks::parse(&[wrong]).unwrap_err();
            assert!(
                error.starts_with(&format!("{wrong:?} is no network")),
                "{error}"
            );
        }
    }
}
