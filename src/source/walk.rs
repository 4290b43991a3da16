//! Which files of a folder are manifests. Owns that choice; must not read them.

use std::{
    ffi::OsStr,
    fs, io,
    path::{Path, PathBuf},
};

/// Deepest nesting of folders that is followed: a symbolic link to a folder above would otherwise never end.
const MAX_DEPTH: usize = 32;

/// The manifest files under `root`, sorted by path: `.yaml`, `.yml` and `.json`, folders recursively, symbolic links
/// followed (a mounted `ConfigMap` consists of them). Hidden entries and editors' temporary files are left out. A
/// `root` that is a file is taken whatever its name.
///
/// # Errors
/// When `root` or a folder below it cannot be read. Entries that vanish meanwhile are left out.
pub fn manifest_files(root: &Path) -> io::Result<Vec<PathBuf>> {
    if !fs::metadata(root)?.is_dir() {
        return Ok(vec![root.to_owned()]);
    }
    let mut files = Vec::new();
    collect(root, 0, &mut files)?;
    files.sort();
    Ok(files)
}

/// Whether a file of this name is read as a manifest: by its extension, unless hidden or temporary.
pub fn is_manifest_name(name: &OsStr) -> bool {
    let Some(name) = name.to_str() else {
        return false;
    };
    let extension = Path::new(name)
        .extension()
        .and_then(OsStr::to_str)
        .unwrap_or_default();
    !is_ignored(name)
        && ["yaml", "yml", "json"]
            .iter()
            .any(|known| extension.eq_ignore_ascii_case(known))
}

/// Hidden entries (`.git`, `..data` of a mounted `ConfigMap`, `.#x`, `.x.swp`) and editors' temporary files (`x~`,
/// `#x#`, vim's `4913`).
pub(crate) fn is_ignored(name: &str) -> bool {
    name.starts_with('.') || name.ends_with('~') || name.starts_with('#') || name == "4913"
}

fn collect(folder: &Path, depth: usize, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        if is_ignored(&name.to_string_lossy()) {
            continue;
        }
        let path = entry.path();
        match fs::metadata(&path) {
            Ok(metadata) if metadata.is_dir() && depth < MAX_DEPTH => {
                ignore_vanished(collect(&path, depth + 1, files))?;
            }
            Ok(metadata) if metadata.is_file() && is_manifest_name(&name) => files.push(path),
            Ok(_) => {}
            Err(error) => ignore_vanished(Err(error))?,
        }
    }
    Ok(())
}

/// An entry that is gone by the time it is looked at, or a dangling link, is no entry.
fn ignore_vanished(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn touch(folder: &Path, names: &[&str]) {
        for name in names {
            let path = folder.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
    }

    #[test]
    fn manifest_files_of_a_folder_are_sorted_and_without_temporary_files() {
        let folder = tempfile::tempdir().unwrap();
        touch(
            folder.path(),
            &["b.yml", "a.yaml", "sub/c.JSON", "notes.txt"],
        );
        touch(
            folder.path(),
            &[
                ".#a.yaml",
                "a.yaml~",
                "#a.yaml#",
                ".a.yaml.swp",
                "4913",
                ".git/x.yaml",
            ],
        );
        let found = manifest_files(folder.path()).unwrap();
        let names: Vec<_> = found
            .iter()
            .map(|path| path.strip_prefix(folder.path()).unwrap())
            .collect();
        assert_eq!(
            names,
            [
                Path::new("a.yaml"),
                Path::new("b.yml"),
                Path::new("sub/c.JSON")
            ]
        );
    }

    #[test]
    fn manifest_files_of_a_file_is_that_file() {
        let folder = tempfile::tempdir().unwrap();
        touch(folder.path(), &["odd-name"]);
        let path = folder.path().join("odd-name");
        assert_eq!(manifest_files(&path).unwrap(), [path]);
    }

    #[test]
    fn manifest_files_of_nothing_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(
            manifest_files(&folder.path().join("no"))
                .unwrap_err()
                .kind(),
            io::ErrorKind::NotFound
        );
    }

    #[cfg(unix)]
    #[test]
    fn manifest_files_with_a_link_to_the_folder_above_ends() {
        let folder = tempfile::tempdir().unwrap();
        touch(folder.path(), &["a.yaml"]);
        std::os::unix::fs::symlink(folder.path(), folder.path().join("loop")).unwrap();
        assert!(
            manifest_files(folder.path())
                .unwrap()
                .contains(&folder.path().join("a.yaml"))
        );
    }
}
