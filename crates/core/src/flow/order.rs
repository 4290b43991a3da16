//! Least recently used first. Owns doubly linked lists threaded through slot numbers, so that a datagram costs the same
//! however many flows there are; must not know what is in a slot.

/// No slot.
const NONE: u32 = u32::MAX;

/// The neighbours of a slot in the one list it is in.
#[derive(Debug, Clone, Copy)]
struct Link {
    before: u32,
    after: u32,
}

/// The links of all slots; shared by the lists, for a slot is in at most one.
#[derive(Debug, Default)]
pub(super) struct Links(Vec<Link>);

impl Links {
    fn get(&self, slot: u32) -> Link {
        let link = usize::try_from(slot).ok().and_then(|slot| self.0.get(slot));
        link.copied().unwrap_or(Link {
            before: NONE,
            after: NONE,
        })
    }

    fn set(&mut self, slot: u32, link: Link) {
        let Ok(place) = usize::try_from(slot) else {
            return;
        };
        if place >= self.0.len() {
            self.0.resize(
                place + 1,
                Link {
                    before: NONE,
                    after: NONE,
                },
            );
        }
        if let Some(entry) = self.0.get_mut(place) {
            *entry = link;
        }
    }
}

/// A list in the order of use.
#[derive(Debug)]
pub(super) struct Order {
    oldest: u32,
    newest: u32,
}

impl Default for Order {
    fn default() -> Self {
        Self {
            oldest: NONE,
            newest: NONE,
        }
    }
}

impl Order {
    /// The slot that was used longest ago.
    pub(super) fn oldest(&self) -> Option<u32> {
        (self.oldest != NONE).then_some(self.oldest)
    }

    /// Enters a slot that is in no list as the one used last.
    pub(super) fn push(&mut self, links: &mut Links, slot: u32) {
        let before = self.newest;
        links.set(
            slot,
            Link {
                before,
                after: NONE,
            },
        );
        if before == NONE {
            self.oldest = slot;
        } else {
            let link = links.get(before);
            links.set(
                before,
                Link {
                    after: slot,
                    ..link
                },
            );
        }
        self.newest = slot;
    }

    /// Takes out a slot that is in this list.
    pub(super) fn remove(&mut self, links: &mut Links, slot: u32) {
        let Link { before, after } = links.get(slot);
        if before == NONE {
            self.oldest = after;
        } else {
            let link = links.get(before);
            links.set(before, Link { after, ..link });
        }
        if after == NONE {
            self.newest = before;
        } else {
            let link = links.get(after);
            links.set(after, Link { before, ..link });
        }
    }

    /// Makes a slot of this list the one used last.
    pub(super) fn touch(&mut self, links: &mut Links, slot: u32) {
        if self.newest != slot {
            self.remove(links, slot);
            self.push(links, slot);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(order: &mut Order, links: &mut Links) -> Vec<u32> {
        std::iter::from_fn(|| {
            let slot = order.oldest()?;
            order.remove(links, slot);
            Some(slot)
        })
        .collect()
    }

    #[test]
    fn order_touched_and_removed_slots_leaves_the_rest_in_order_of_use() {
        let (mut links, mut order) = (Links::default(), Order::default());
        (0..5).for_each(|slot| order.push(&mut links, slot));
        order.touch(&mut links, 0);
        order.touch(&mut links, 3);
        order.touch(&mut links, 3);
        order.remove(&mut links, 2);
        assert_eq!(drain(&mut order, &mut links), [1, 4, 0, 3]);
        assert_eq!(order.oldest(), None);
        order.push(&mut links, 2);
        assert_eq!(drain(&mut order, &mut links), [2]);
    }
}
