//! Which core a program that is started may use. Owns the calling thread's set meanwhile: a child has that of the thread
//! that starts it (`sched_setaffinity(2)`).

use anyhow::Context as _;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// One of the cores that this program may use.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Core {
    /// The server's.
    First,
    /// The generator's: another one if there are two.
    Last,
}

/// The calling thread stays on one core until the value goes, on the same thread.
pub(crate) struct Pinned {
    before: CpuSet,
}

impl Pinned {
    /// From now on.
    ///
    /// # Errors
    /// The kernel does not tell or take the set.
    pub(crate) fn to(core: Core) -> anyhow::Result<Self> {
        let before = sched_getaffinity(None).context("cannot see the cores")?;
        let mut cores = (0..CpuSet::MAX_CPU).filter(|core| before.is_set(*core));
        let chosen = match core {
            Core::First => cores.next(),
            Core::Last => cores.next_back(),
        };
        let mut set = CpuSet::new();
        set.set(chosen.context("there is no core")?);
        sched_setaffinity(None, &set).context("cannot choose a core")?;
        Ok(Self { before })
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // It was allowed before.
        let _ = sched_setaffinity(None, &self.before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pinned_thread_has_one_core_until_the_value_goes() {
        let cores = || std::thread::available_parallelism().unwrap().get();
        let before = cores();
        let pinned = Pinned::to(Core::Last).unwrap();
        assert_eq!(cores(), 1);
        drop(pinned);
        assert_eq!(cores(), before);
    }
}
