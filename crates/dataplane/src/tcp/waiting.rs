//! Waiting in turn for a place that a limit keeps back. Owns what wakes those who wait; whose turn it is belongs to
//! [`portico_core::balance::Line`], and for how long they wait to their caller.

use std::pin::pin;

use portico_core::balance::{Line, PortState};
use tokio::sync::Notify;

/// What a look came to: what was looked for, if there was one, and whether there may be more for others.
pub(crate) struct Looked<T> {
    pub(crate) found: Option<T>,
    pub(crate) is_more: bool,
}

/// Stands in `line`, which is served before that `behind` it, and lets `look` whenever it is called, until it has found something. When Snapshots have `changed` there may
/// be room, too.
///
/// # Cancel safety
/// Cancel safe: what is found is returned at once.
pub(crate) async fn in_turn<T>(
    changed: &Notify,
    (line, behind): (&Line, Option<&Line>),
    mut look: impl FnMut() -> Looked<T>,
) -> T {
    let mut change = pin!(changed.notified());
    let mut place = line.join(behind);
    loop {
        tokio::select! {
            biased;
            () = place.called() => {}
            () = change.as_mut() => {
                change.set(changed.notified());
                line.call();
                continue;
            }
        }
        let Looked { found, is_more } = look();
        if is_more {
            place.call_next();
        }
        if let Some(found) = found {
            return found;
        }
    }
}

/// Waits for a place of a Service port, and takes it.
///
/// # Cancel safety
/// As for [`in_turn`].
pub(crate) async fn enter(changed: &Notify, port: &PortState) {
    let look = || Looked {
        found: port.enter().then_some(()),
        is_more: port.has_room(),
    };
    in_turn(changed, (&port.entrance, None), look).await;
}

#[cfg(test)]
mod tests;
