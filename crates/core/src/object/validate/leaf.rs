//! Single values that are read and checked in one step, as methods of [`Cursor`]. A value that breaks its rule is
//! reported and read as absent; the caller goes on, so that every problem is found.

use std::{net::IpAddr, sync::Arc, time::Duration};

use super::syntax::{self, Broken};
use crate::object::{decode::cursor::Cursor, service::Protocol};

/// The API server's words for a port out of range.
pub(crate) const PORT_RANGE: &str = "must be between 1 and 65535, inclusive";

impl Cursor<'_> {
    /// A port number; absent, and 0 which Go reads in its place, are `None` without a complaint.
    pub(crate) fn optional_port(&self) -> Option<u16> {
        if self.int() == Some(0) {
            None
        } else {
            self.port()
        }
    }

    /// A port number; 0 is reported, absent is not.
    pub(crate) fn port(&self) -> Option<u16> {
        let value = self.int()?;
        let port = u16::try_from(value).ok().filter(|port| *port > 0);
        if port.is_none() {
            self.invalid(PORT_RANGE);
        }
        port
    }

    /// A protocol; TCP when absent.
    pub(crate) fn protocol(&self) -> Protocol {
        match self.non_empty().map(AsRef::as_ref) {
            None | Some("TCP") => Protocol::Tcp,
            Some("UDP") => Protocol::Udp,
            Some("SCTP") => Protocol::Sctp,
            Some(_) => {
                self.unsupported(&["SCTP", "TCP", "UDP"]);
                Protocol::Tcp
            }
        }
    }

    /// One of the values of a closed set; the first one's meaning when absent is the caller's.
    pub(crate) fn one_of<T: Copy>(&self, values: &[(&str, T)]) -> Option<T> {
        let text = self.non_empty()?;
        let found = values
            .iter()
            .find(|(name, _)| *name == &**text)
            .map(|(_, value)| *value);
        if found.is_none() {
            let names: Vec<&str> = values.iter().map(|(name, _)| *name).collect();
            self.unsupported(&names);
        }
        found
    }

    /// [`Self::one_of`] for a field that Go reads as `*string`: an empty text is a value there, and none of these.
    pub(crate) fn one_of_if_set<T: Copy>(&self, values: &[(&str, T)]) -> Option<T> {
        if self.text().is_some_and(|text| text.is_empty()) {
            let names: Vec<&str> = values.iter().map(|(name, _)| *name).collect();
            self.unsupported(&names);
        }
        self.one_of(values)
    }

    /// [`Self::named`] for a field that Go reads as `*string`: an empty text must follow `rule`, too.
    pub(crate) fn named_if_set(&self, rule: fn(&str) -> Broken) -> Option<Arc<str>> {
        let text = self.text()?;
        for why in rule(text) {
            self.invalid(why);
        }
        Some(Arc::clone(text))
    }

    /// A text that must follow `rule` when it is there and not empty.
    pub(crate) fn named(&self, rule: fn(&str) -> Broken) -> Option<Arc<str>> {
        let text = self.non_empty()?;
        for why in rule(text) {
            self.invalid(why);
        }
        Some(Arc::clone(text))
    }

    /// An address that traffic can be sent to; notes, once a file, that loopback is our own rule.
    pub(crate) fn reachable_address(&self) -> Option<IpAddr> {
        let addr = self.address()?;
        if let Some(why) = syntax::special_address(addr) {
            self.invalid(&why);
            return None;
        }
        if addr.is_loopback() {
            self.note(LOOPBACK_NOTE);
        }
        Some(addr)
    }

    /// An integer that must not be negative.
    pub(crate) fn count(&self) -> Option<u32> {
        let value = self.int()?;
        let count = u32::try_from(value)
            .ok()
            .filter(|count| i32::try_from(*count).is_ok());
        if count.is_none() {
            let why = if value < 0 {
                "must be greater than or equal to 0"
            } else {
                "must fit into 32 bits"
            };
            self.invalid(why);
        }
        count
    }

    /// Seconds that must not be negative.
    pub(crate) fn seconds(&self) -> Option<Duration> {
        self.count()
            .map(|seconds| Duration::from_secs(u64::from(seconds)))
    }
}

/// Said once a file about the one rule that is ours.
pub(crate) const LOOPBACK_NOTE: &str =
    "loopback endpoint addresses are accepted here; a cluster would reject them";
