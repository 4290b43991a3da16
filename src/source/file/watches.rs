//! The kernel's watches on folders. Owns which folder is watched under which identity; must not know why.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use notify::{ErrorKind, RecommendedWatcher, RecursiveMode, Watcher};

use super::inbox::Inbox;

/// What [`Watches::follow`] came to.
#[derive(Debug, Default)]
pub(super) struct Followed {
    /// Folders are watched that were not before: what happened in them until now is unknown.
    pub(super) added: bool,
    /// Why folders are not watched that should be, and what helps; everything has to be looked at by time instead.
    pub(super) limit: Option<String>,
}

/// Watches on folders, none of them recursive: which folders count is decided by the survey.
pub(super) struct Watches {
    watcher: notify::Result<RecommendedWatcher>,
    /// Device and inode by real path.
    watched: BTreeMap<PathBuf, (u64, u64)>,
}

impl Watches {
    pub(super) fn new(inbox: &Arc<Inbox>) -> Self {
        let inbox = Arc::clone(inbox);
        let watcher = notify::recommended_watcher(move |event| inbox.event(event));
        Self {
            watcher,
            watched: BTreeMap::new(),
        }
    }

    /// Watches in a system that gives none.
    #[cfg(test)]
    pub(super) fn refused() -> Self {
        Self {
            watcher: Err(notify::Error::new(ErrorKind::MaxFilesWatch)),
            watched: BTreeMap::new(),
        }
    }

    /// Whether the folder is watched.
    pub(super) fn contains(&self, folder: &Path) -> bool {
        self.watched.contains_key(folder)
    }

    /// The name now stands for something else, or for nothing: watches on it and below are no longer trusted.
    pub(super) fn forget(&mut self, folder: &Path) {
        let below: Vec<_> = self
            .watched
            .keys()
            .filter(|path| path.starts_with(folder))
            .cloned()
            .collect();
        for path in below {
            self.remove(&path);
        }
    }

    /// Trusts no watch any more.
    pub(super) fn forget_all(&mut self) {
        self.forget(Path::new("/"));
    }

    /// Watches exactly `wanted`.
    pub(super) fn follow(&mut self, wanted: &BTreeSet<PathBuf>) -> Followed {
        let surplus: Vec<_> = self
            .watched
            .keys()
            .filter(|path| !wanted.contains(*path))
            .cloned()
            .collect();
        for path in surplus {
            self.remove(&path);
        }
        let mut followed = Followed::default();
        for folder in wanted {
            // A folder that vanished meanwhile has an event of its own.
            let Ok(identity) =
                fs::metadata(folder).map(|metadata| (metadata.dev(), metadata.ino()))
            else {
                continue;
            };
            if self.watched.get(folder) == Some(&identity) {
                continue;
            }
            self.remove(folder);
            match self.add(folder) {
                Ok(()) => {
                    followed.added = true;
                    self.watched.insert(folder.clone(), identity);
                }
                Err(limit) => followed.limit = limit.or(followed.limit),
            }
        }
        followed
    }

    /// Watches one folder; the error is what helps, if it concerns more than this folder.
    fn add(&mut self, folder: &Path) -> Result<(), Option<String>> {
        let watcher = self
            .watcher
            .as_mut()
            .map_err(|error| Some(limit_of(error)))?;
        watcher
            .watch(folder, RecursiveMode::NonRecursive)
            .map_err(|error| match error.kind {
                ErrorKind::MaxFilesWatch => Some(limit_of(&error)),
                _ => None,
            })
    }

    fn remove(&mut self, folder: &Path) {
        if self.watched.remove(folder).is_some()
            && let Ok(watcher) = &mut self.watcher
        {
            // Fails when the kernel has dropped the watch with its folder.
            let _ = watcher.unwatch(folder);
        }
    }
}

/// The limits of inotify(7) by their names under /proc/sys.
fn limit_of(error: &notify::Error) -> String {
    if let ErrorKind::MaxFilesWatch = error.kind {
        "the limit of watched folders is reached; raise it with \
         `sudo sysctl fs.inotify.max_user_watches=524288`"
            .to_owned()
    } else {
        format!(
            "the kernel gives no file system events ({error}); `sudo sysctl fs.inotify.max_user_instances=512` \
             helps when its limit is reached"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limit_of_watches_used_up_names_the_setting() {
        let text = limit_of(&notify::Error::new(ErrorKind::MaxFilesWatch));
        assert!(text.contains("fs.inotify.max_user_watches"), "{text}");
    }

    #[test]
    fn follow_folder_replaced_under_its_name_is_watched_anew() {
        let folder = tempfile::tempdir().unwrap();
        let one = folder.path().join("one");
        let two = folder.path().join("two");
        fs::create_dir(&one).unwrap();
        fs::create_dir(&two).unwrap();
        let wanted = BTreeSet::from([one.clone()]);
        let mut watches = Watches::new(&Arc::default());
        assert!(watches.follow(&wanted).added);
        assert!(!watches.follow(&wanted).added);

        fs::rename(&one, folder.path().join("old")).unwrap();
        fs::rename(&two, &one).unwrap();

        assert!(watches.follow(&wanted).added);
        assert!(watches.contains(&one));
    }
}
