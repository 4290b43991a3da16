//! Which files and folders the given paths stand for at this moment, symbolic links resolved. Owns the walk and what
//! has to be watched for it; must not read a manifest.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    ffi::OsString,
    fs, io,
    path::{Component, Path, PathBuf},
};

use crate::source::walk::{is_ignored, is_manifest_name};

/// Symbolic links in one path before it counts as a loop: the kernel's limit (`path_resolution(7)`).
const MAX_LINKS: usize = 40;

/// One manifest file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    /// The path as the user's naming leads to it.
    pub(super) path: PathBuf,
    /// Where it really is: its own place first (the link, if it is one), then the file that a link ends at.
    pub(super) places: Vec<PathBuf>,
}

/// A folder or root that could not be read.
#[derive(Debug)]
pub(super) struct Failure {
    /// As the user's naming leads to it.
    pub(super) path: PathBuf,
    /// Why.
    pub(super) error: io::Error,
}

/// Everything found.
#[derive(Debug, Default)]
pub(super) struct Survey {
    /// Manifest files, each place once.
    pub(super) files: Vec<Found>,
    /// Folders whose manifests count, by real path, with the path that the user's naming gives them.
    pub(super) folders: BTreeMap<PathBuf, PathBuf>,
    /// Real paths of the folders in which a change can matter.
    pub(super) watch: BTreeSet<PathBuf>,
    /// Places whose coming, going or switching changes more than one file: links, roots, missing parts of a path.
    pub(super) joints: BTreeSet<PathBuf>,
    /// What could not be read.
    pub(super) failures: Vec<Failure>,
}

/// Walks `roots`.
pub(super) fn survey(roots: &[PathBuf]) -> Survey {
    let mut walk = Walk::default();
    for root in roots {
        walk.root(root);
    }
    walk.survey
}

#[derive(Debug, Default)]
struct Walk {
    survey: Survey,
    seen_files: BTreeSet<PathBuf>,
}

impl Walk {
    fn root(&mut self, root: &Path) {
        let real = match self.resolve(root) {
            Ok(real) => real,
            Err(error) => return self.failed(root, error),
        };
        match fs::metadata(&real) {
            Ok(metadata) if metadata.is_dir() => self.folder(root.to_owned(), real),
            Ok(_) => self.file(root.to_owned(), vec![real]),
            Err(error) => self.failed(root, error),
        }
    }

    /// Walks a folder: what is really inside before what links lead to, so that a file that both reach is named by
    /// its own path.
    fn folder(&mut self, path: PathBuf, real: PathBuf) {
        let mut queue = VecDeque::from([(path, real)]);
        while let Some((path, real)) = queue.pop_front() {
            self.survey.watch.insert(real.clone());
            if self.survey.folders.contains_key(&real) {
                continue;
            }
            self.survey.folders.insert(real.clone(), path.clone());
            match list(&real) {
                Ok(names) => {
                    for (name, file_type) in names {
                        self.entry((path.join(&name), real.join(&name)), file_type, &mut queue);
                    }
                }
                Err(error) => self.failed(&path, error),
            }
        }
    }

    fn entry(
        &mut self,
        (path, place): (PathBuf, PathBuf),
        file_type: fs::FileType,
        queue: &mut VecDeque<(PathBuf, PathBuf)>,
    ) {
        let is_manifest = place.file_name().is_some_and(is_manifest_name);
        if file_type.is_dir() {
            queue.push_front((path, place));
        } else if file_type.is_file() && is_manifest {
            self.file(path, vec![place]);
        } else if file_type.is_symlink() {
            match self.resolve(&place) {
                Ok(target) if target.is_dir() => queue.push_back((path, target)),
                Ok(target) if is_manifest => self.file(path, vec![place, target]),
                // A link that leads nowhere is no file; its missing part is watched.
                Ok(_) | Err(_) => {}
            }
        }
    }

    fn file(&mut self, path: PathBuf, places: Vec<PathBuf>) {
        let is_new = places
            .first()
            .is_some_and(|place| self.seen_files.insert(place.clone()));
        for folder in places.iter().filter_map(|place| place.parent()) {
            self.survey.watch.insert(folder.to_owned());
        }
        if is_new {
            self.survey.files.push(Found { path, places });
        }
    }

    fn failed(&mut self, path: &Path, error: io::Error) {
        self.survey.failures.push(Failure {
            path: path.to_owned(),
            error,
        });
    }

    /// The real path, and everything on the way to it becomes watched.
    fn resolve(&mut self, path: &Path) -> io::Result<PathBuf> {
        let mut joints = Vec::new();
        let real = trace(path, &mut joints);
        for joint in joints {
            if let Some(folder) = joint.parent() {
                self.survey.watch.insert(folder.to_owned());
            }
            self.survey.joints.insert(joint);
        }
        real
    }
}

/// Names in a folder in order, hidden and temporary ones left out.
fn list(folder: &Path) -> io::Result<Vec<(OsString, fs::FileType)>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        if is_ignored(&name.to_string_lossy()) {
            continue;
        }
        // An entry that vanished meanwhile is announced by an event of its own.
        if let Ok(file_type) = entry.file_type() {
            names.push((name, file_type));
        }
    }
    names.sort_by(|(one, _), (other, _)| one.cmp(other));
    Ok(names)
}

/// Resolves `path` part by part. `joints` receives the place of every link on the way, of the first missing part, and
/// of the end.
fn trace(path: &Path, joints: &mut Vec<PathBuf>) -> io::Result<PathBuf> {
    let mut ahead = parts(&std::path::absolute(path)?);
    let mut real = PathBuf::from("/");
    let mut links = 0;
    while let Some(part) = ahead.pop_front() {
        if part == ".." {
            real.pop();
            continue;
        }
        let next = real.join(&part);
        let metadata = fs::symlink_metadata(&next).inspect_err(|_| joints.push(next.clone()))?;
        if !metadata.is_symlink() {
            real = next;
            continue;
        }
        links += 1;
        if links > MAX_LINKS {
            return Err(io::Error::other("too many levels of symbolic links"));
        }
        let target = fs::read_link(&next)?;
        joints.push(next);
        if target.is_absolute() {
            real = PathBuf::from("/");
        }
        let mut replaced = parts(&target);
        replaced.append(&mut ahead);
        ahead = replaced;
    }
    joints.push(real.clone());
    Ok(real)
}

/// The names in a path, `..` kept.
fn parts(path: &Path) -> VecDeque<OsString> {
    path.components()
        .filter(|part| matches!(part, Component::Normal(_) | Component::ParentDir))
        .map(|part| part.as_os_str().to_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn names(survey: &Survey, root: &Path) -> Vec<String> {
        let relative = |found: &Found| found.path.strip_prefix(root).unwrap().display().to_string();
        let mut names: Vec<_> = survey.files.iter().map(relative).collect();
        names.sort();
        names
    }

    #[test]
    fn survey_mounted_config_map_finds_visible_names_and_watches_the_switch() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        fs::create_dir(root.join("..v1")).unwrap();
        fs::write(root.join("..v1/a.yaml"), "").unwrap();
        symlink("..v1", root.join("..data")).unwrap();
        symlink("..data/a.yaml", root.join("a.yaml")).unwrap();

        let survey = survey(std::slice::from_ref(&root));

        assert_eq!(names(&survey, &root), ["a.yaml"]);
        assert!(survey.joints.contains(&root.join("..data")));
        assert_eq!(
            survey.files[0].places,
            [root.join("a.yaml"), root.join("..v1/a.yaml")]
        );
    }

    #[test]
    fn survey_links_to_parent_and_overlapping_roots_find_each_file_once() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        fs::create_dir(root.join("sub")).unwrap();
        fs::write(root.join("sub/a.yaml"), "").unwrap();
        symlink("..", root.join("sub/loop")).unwrap();
        symlink("sub", root.join("again")).unwrap();

        let survey = survey(&[root.clone(), root.join("sub"), root.join("sub/a.yaml")]);

        assert_eq!(names(&survey, &root), ["sub/a.yaml"]);
        assert!(survey.failures.is_empty());
    }

    #[test]
    fn survey_missing_root_fails_and_watches_for_it() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        let survey = survey(&[root.join("gone/deeper")]);
        assert_eq!(survey.failures.len(), 1);
        assert!(survey.joints.contains(&root.join("gone")));
        assert!(survey.watch.contains(&root));
    }
}
