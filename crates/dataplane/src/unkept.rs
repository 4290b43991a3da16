//! Says that a client's address was not kept. Owns the count and the log line, for TCP and UDP.

use std::net::{IpAddr, SocketAddr};

use portico_core::{balance::Unkept, snapshot::PortView};

/// Counts a client whose address was not kept, and says so for the first one with that reason.
pub(crate) fn tell(port: &PortView, client: IpAddr, endpoint: SocketAddr, why: Unkept) {
    if port.state.source_not_kept.count(why) {
        tracing::warn!(
            service = %port.name,
            %client,
            %endpoint,
            because = why.phrase(),
            fix = why.fix(),
            "an endpoint sees our address and not its client's; said once for each Service port and reason"
        );
    } else {
        tracing::debug!(service = %port.name, %client, %endpoint, why = why.as_str(), "source address not kept");
    }
}
