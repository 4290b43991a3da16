//! Manifests read once: what offline commands see. Owns reading files, folders and standard input in one go; what a
//! text means belongs to [`super::manifest`].

use std::{
    collections::BTreeMap,
    io::Read as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use portico_core::world::SourceView;

use super::{
    manifest::{self, ManifestSettings},
    walk,
};

/// Why nothing could be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {}", path.display())]
pub struct ReadError {
    path: PathBuf,
    #[source]
    source: std::io::Error,
}

/// What was read.
#[derive(Debug, Default)]
pub struct Read {
    /// Objects and findings, a shard a file.
    pub view: SourceView,
    /// The texts, to show lines of.
    pub texts: BTreeMap<Arc<str>, String>,
    /// Kinds that nothing acts on, with the number of their objects.
    pub inert: BTreeMap<Arc<str>, usize>,
}

/// Reads `paths`: files, folders with all below them, `-` for standard input.
///
/// # Errors
/// Names the first path that cannot be read.
pub fn read(paths: &[PathBuf], settings: &ManifestSettings) -> Result<Read, ReadError> {
    let mut all = Read::default();
    for path in paths {
        let failed = |source| ReadError {
            path: path.clone(),
            source,
        };
        if path.as_os_str() == "-" {
            let mut bytes = Vec::new();
            std::io::stdin().read_to_end(&mut bytes).map_err(failed)?;
            all.take("<stdin>", &bytes, settings);
            continue;
        }
        // What is neither file nor folder (a pipe) is read like a file.
        let files = if path.is_dir() {
            walk::manifest_files(path).map_err(failed)?
        } else {
            vec![path.clone()]
        };
        for file in files {
            let bytes = std::fs::read(&file).map_err(|source| ReadError {
                path: file.clone(),
                source,
            })?;
            all.take(&name_of(&file), &bytes, settings);
        }
    }
    Ok(all)
}

impl Read {
    fn take(&mut self, name: &str, bytes: &[u8], settings: &ManifestSettings) {
        let file: Arc<str> = name.into();
        if self.view.shards.contains_key(&file) {
            return;
        }
        let text = String::from_utf8_lossy(bytes).into_owned();
        let loaded = manifest::load(&file, &text, settings, None);
        for (kind, count) in loaded.inert {
            *self.inert.entry(kind).or_default() += count;
        }
        self.view
            .shards
            .insert(Arc::clone(&file), Arc::new(loaded.shard));
        self.texts.insert(file, text);
    }
}

fn name_of(path: &Path) -> String {
    path.display().to_string()
}
