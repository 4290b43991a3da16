//! One question to servers that stand for each other. Owns whose turn it is, and when it is over.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use portico_core::{
    dns::Rcode,
    dns_cache::message::{Message, Relayed},
};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep_until},
};

use super::{
    Failure, LOOP,
    upstream::{Upstream, in_order},
};

/// How long all servers together may take: less than the 5 s after which glibc and musl ask again.
const OVERALL: Duration = Duration::from_millis(4500);
/// How long one server is waited for before the next one is asked beside it.
const HEDGE: Duration = Duration::from_millis(800);
/// How often each server is asked for one query.
const ROUNDS: usize = 2;

/// Servers that stand for each other, in their order.
#[derive(Debug, Clone)]
pub(super) struct Group {
    pub(super) upstreams: Arc<[Arc<Upstream>]>,
    /// Why none of them is asked; empty if one is.
    pub(super) problem: Arc<str>,
}

/// Asks the servers of `group`, one after the other: the next one when one fails, and beside it when it is slow. An
/// answer that says no more than that the server cannot or will not help counts only if no other has a better one, as
/// with glibc.
pub(super) async fn ask_all(group: Group, query: Relayed) -> Result<Message, Failure> {
    let query = Arc::new(query);
    let order = in_order(&group.upstreams, Instant::now());
    if order.is_empty() {
        // There were some, that lead back.
        let problem = Some(group.problem).filter(|problem| !problem.is_empty());
        return Err(Failure::NoUpstream(problem.unwrap_or_else(|| LOOP.into())));
    }
    let mut next = (0..ROUNDS).flat_map(|_| &order);
    let mut helpless: Vec<SocketAddr> = Vec::new();
    let mut poor = None;
    let mut tries = JoinSet::new();
    let deadline = Instant::now() + OVERALL;
    let mut hedge = Instant::now();
    loop {
        if hedge <= Instant::now() {
            if let Some(upstream) = next.find(|upstream| !helpless.contains(&upstream.addr)) {
                let (upstream, query) = (Arc::clone(upstream), Arc::clone(&query));
                tries.spawn(async move { (upstream.addr, upstream.ask(&query, HEDGE).await) });
                hedge = Instant::now() + HEDGE;
            } else {
                hedge = deadline;
            }
        }
        // Both branches are cancel safe: tries go on, and times are absolute.
        tokio::select! {
            biased;
            done = tries.join_next() => match done {
                Some(Ok((_, Ok(message)))) if is_useful(&message) => return Ok(message),
                Some(Ok((addr, Ok(message)))) => {
                    helpless.push(addr);
                    poor.get_or_insert(message);
                    hedge = Instant::now();
                }
                Some(Ok((addr, Err(error)))) => {
                    tracing::debug!(target: "dns", upstream = %addr, %error, "no answer");
                    hedge = Instant::now();
                }
                Some(Err(_)) => hedge = Instant::now(),
                None => break,
            },
            () = sleep_until(hedge.min(deadline)) => if deadline <= Instant::now() { break },
        }
    }
    let who = || {
        let addrs = order.iter().map(|upstream| upstream.addr.to_string());
        addrs.collect::<Vec<_>>().join(", ")
    };
    poor.ok_or_else(|| Failure::Silent(who()))
}

/// Whether asking another server could not do better.
pub(super) fn is_useful(message: &Message) -> bool {
    let rcode = Rcode::from_number(message.rcode());
    !matches!(
        rcode,
        Some(Rcode::ServFail | Rcode::Refused | Rcode::NotImp | Rcode::FormErr)
    )
}
