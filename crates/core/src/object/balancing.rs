//! `portico.dev/balance`, `portico.dev/weight` and `portico.dev/weights`: how connections are spread over endpoints.
//! Owns the values' forms and defaults; acting on them belongs to [`crate::balance`].

use std::{collections::BTreeMap, net::IpAddr};

use super::{
    annotations::{BALANCE, WEIGHT, WEIGHTS},
    meta::Labels,
};

/// What the value of `portico.dev/balance` must look like.
pub const POLICIES: &str = "must be round-robin, random, least-request, peak-ewma or maglev";
/// What the value of `portico.dev/weight` must look like.
pub const WEIGHT_FORM: &str = "must be a whole number from 0 to 256";
/// What the value of `portico.dev/weights` must look like.
pub const WEIGHTS_FORM: &str =
    "must be ADDRESS=WEIGHT pairs with weights from 0 to 256, as in 10.0.0.1=3,10.0.0.2=1";

/// How an endpoint is chosen for a new connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum BalancePolicy {
    /// Each in turn, exactly; with weights a smooth cycle that is exact over its length.
    #[default]
    RoundRobin,
    /// By chance, in proportion to the weights.
    Random,
    /// Of two that chance picks, the one with fewer connections for its weight; of an HTTP port, with fewer requests.
    LeastRequest,
    /// The same, each request counted as long as the endpoint takes to answer lately. Of a port that is not HTTP, where no
    /// answers are seen, as [`BalancePolicy::LeastRequest`].
    PeakEwma,
    /// The same endpoint for the same client address, with little change when endpoints come and go.
    Maglev,
}

impl BalancePolicy {
    /// Every policy.
    pub const ALL: [Self; 5] = [
        Self::RoundRobin,
        Self::Random,
        Self::LeastRequest,
        Self::PeakEwma,
        Self::Maglev,
    ];

    /// As the annotation spells it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::RoundRobin => "round-robin",
            Self::Random => "random",
            Self::LeastRequest => "least-request",
            Self::PeakEwma => "peak-ewma",
            Self::Maglev => "maglev",
        }
    }

    /// Reads a value; `None` when it has none of [`POLICIES`].
    pub fn parse(value: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|policy| policy.as_str() == value)
    }

    /// What these annotations of a Service ask for; round robin if they do not do so readably.
    pub fn of(annotations: &Labels) -> Self {
        let value = annotations.get(BALANCE);
        value
            .and_then(|value| Self::parse(value))
            .unwrap_or_default()
    }
}

/// An endpoint's share beside others': 0 to 256, default 1. One of weight 0 gets no new connection while another has
/// more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Weight(u16);

impl Weight {
    /// The largest.
    pub const MAX: Self = Self(256);

    /// `None` above 256.
    pub const fn new(weight: u16) -> Option<Self> {
        if weight <= Self::MAX.0 {
            Some(Self(weight))
        } else {
            None
        }
    }

    /// The number.
    pub const fn get(self) -> u16 {
        self.0
    }

    /// Reads a value; `None` when it has not the form of [`WEIGHT_FORM`].
    pub fn parse(value: &str) -> Option<Self> {
        let is_number = value.bytes().all(|byte| byte.is_ascii_digit());
        let number = value.parse().ok().filter(|_| is_number)?;
        Self::new(number)
    }

    /// The weight that these annotations of a Pod give, if they do so readably.
    pub fn of(annotations: &Labels) -> Option<Self> {
        Self::parse(annotations.get(WEIGHT)?)
    }
}

impl Default for Weight {
    fn default() -> Self {
        Self(1)
    }
}

/// Weights that an EndpointSlice or Endpoints gives to its addresses.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Weights {
    all: Weight,
    by_address: BTreeMap<IpAddr, Weight>,
}

impl Weights {
    /// What these annotations ask for, as far as they do so readably: `portico.dev/weights` for the addresses that
    /// it names, `portico.dev/weight` for the others.
    pub fn of(annotations: &Labels) -> Self {
        let named = annotations.get(WEIGHTS).and_then(|text| Self::parse(text));
        Self {
            all: Weight::of(annotations).unwrap_or_default(),
            by_address: named.unwrap_or_default(),
        }
    }

    /// Reads a list of pairs; `None` when it has not the form of [`WEIGHTS_FORM`] or names an address twice.
    pub fn parse(value: &str) -> Option<BTreeMap<IpAddr, Weight>> {
        let mut weights = BTreeMap::new();
        for pair in value.split(',') {
            let (address, weight) = pair.split_once('=')?;
            let address = address.trim().parse().ok()?;
            let weight = Weight::parse(weight.trim())?;
            if weights.insert(address, weight).is_some() {
                return None;
            }
        }
        Some(weights)
    }

    /// The weight of an endpoint.
    pub fn weight(&self, address: Option<IpAddr>) -> Weight {
        let named = address.and_then(|address| self.by_address.get(&address));
        named.copied().unwrap_or(self.all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parse_reads_the_documented_forms_and_nothing_else() {
        for policy in BalancePolicy::ALL {
            assert_eq!(BalancePolicy::parse(policy.as_str()), Some(policy));
        }
        assert_eq!(BalancePolicy::parse("Random"), None);
        for (text, weight) in [
            ("0", Some(0)),
            ("1", Some(1)),
            ("256", Some(256)),
            ("257", None),
            ("-1", None),
            ("+1", None),
            ("1.5", None),
            ("", None),
        ] {
            assert_eq!(Weight::parse(text).map(Weight::get), weight, "{text:?}");
        }
    }

    #[test]
    fn weights_name_addresses_and_leave_the_rest_to_the_slice() {
        let annotations = Labels::from([
            (WEIGHT.into(), "5".into()),
            (WEIGHTS.into(), "10.0.0.1=3, fd00::1=0".into()),
        ]);
        let weights = Weights::of(&annotations);
        let weight = |text: &str| weights.weight(Some(text.parse().unwrap())).get();
        assert_eq!(
            (weight("10.0.0.1"), weight("fd00::1"), weight("10.0.0.2")),
            (3, 0, 5)
        );
        for wrong in [
            "",
            "10.0.0.1",
            "10.0.0.1=",
            "x=1",
            "10.0.0.1=300",
            "10.0.0.1=1,",
            "10.0.0.1=1,10.0.0.1=2",
        ] {
            assert_eq!(Weights::parse(wrong), None, "{wrong:?}");
        }
    }
}
