//! Endpoints that sit out for what their answers are. Owns how many may; the record of one is [`crate::health`]'s.

use super::{EndpointSet, EndpointState};
use crate::time::Timestamp;

impl EndpointSet {
    /// A request came to nothing at one of its endpoints, or got an answer that speaks against it. It sits out as after failed
    /// connections, but never the last one, nor more than half of them: what fails at most of them is rather the request's
    /// fault, or that of what they all need. A good answer is [`crate::health::Ejection::succeeded`].
    pub fn request_failed(&self, endpoint: &EndpointState, now: Timestamp) {
        let may_eject = || {
            let (mut all, mut out) = (0, 0);
            for other in self.open() {
                all += 1;
                out += usize::from(other.state.ejection.is_ejected(now));
            }
            (out + 1) * 2 <= all
        };
        endpoint.ejection.failed_where(now, may_eject);
    }
}
