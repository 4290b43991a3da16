//! From a file's text to what is in force: its good objects, and last good versions of the others. Owns the
//! last-good rules; must not read files.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use portico_core::{
    object::{
        Object, ObjectKey,
        decode::{self, DecodeSettings, Decoded},
        diagnostic::{Diagnostic, Severity},
    },
    world::Shard,
};

use super::yaml::{self, Document, Limits};

/// What loading depends on beside the text.
#[derive(Debug, Clone)]
pub struct ManifestSettings {
    /// Namespace of objects that name none.
    pub namespace: Arc<str>,
    /// What becomes of warnings.
    pub strictness: Strictness,
}

/// What becomes of warnings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Strictness {
    /// They stay warnings.
    #[default]
    Lenient,
    /// They are errors, and invalidate the object.
    Strict,
}

/// What a file's text gives.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Loaded {
    /// What is in force, and all findings sorted by position.
    pub shard: Shard,
    /// Kinds that nothing acts on, with the number of their objects.
    pub inert: BTreeMap<Arc<str>, usize>,
}

/// Reads the text of `file`. `previous` is what was in force of it until now: objects that did not change are the
/// same `Arc` again, rejected ones keep their last good version, and while a document cannot be decoded all of
/// `previous` stays. Without `previous` the good documents serve.
pub fn load(
    file: &Arc<str>,
    text: &str,
    settings: &ManifestSettings,
    previous: Option<&Shard>,
) -> Loaded {
    let mut loading = Loading::new(file, settings, previous);
    yaml::for_each(text, &Limits::default(), |document| {
        loading.document(&document);
    });
    loading.finish()
}

/// A file on its way.
struct Loading<'l> {
    file: &'l Arc<str>,
    decode: DecodeSettings,
    strictness: Strictness,
    previous: Option<&'l Shard>,
    by_key: HashMap<&'l ObjectKey, &'l Arc<Object>>,
    objects: Vec<Arc<Object>>,
    diagnostics: Vec<Diagnostic>,
    inert: BTreeMap<Arc<str>, usize>,
    /// A document could not be decoded.
    spoilt: bool,
}

impl<'l> Loading<'l> {
    fn new(file: &'l Arc<str>, settings: &ManifestSettings, previous: Option<&'l Shard>) -> Self {
        let objects: &[Arc<Object>] = previous.map_or(&[], |shard| &shard.objects);
        Self {
            file,
            decode: DecodeSettings {
                namespace: Arc::clone(&settings.namespace),
            },
            strictness: settings.strictness,
            previous,
            by_key: objects.iter().map(|object| (&object.key, object)).collect(),
            objects: Vec::new(),
            diagnostics: Vec::new(),
            inert: BTreeMap::new(),
            spoilt: false,
        }
    }

    fn document(&mut self, document: &Document) {
        let before = self.diagnostics.len();
        if !document.problems.is_empty() {
            self.spoilt = true;
            self.broken(document);
        } else if let Some(root) = &document.root {
            let results = decode::decode(root, self.file, &self.decode, &mut self.diagnostics);
            let rejected = self.apply_strictness(before);
            for result in results {
                self.take(result, &rejected);
            }
            return;
        }
        self.apply_strictness(before);
    }

    /// A document with syntax errors: they are reported, and what else can be seen in the readable part.
    fn broken(&mut self, document: &Document) {
        for problem in &document.problems {
            self.diagnostics.push(Diagnostic {
                file: Arc::clone(self.file),
                position: problem.position,
                severity: Severity::Error,
                object: None,
                path: String::new(),
                message: problem.message.clone(),
            });
        }
        if let Some(root) = &document.root {
            decode::check_shapes(root, self.file, &mut self.diagnostics);
        }
    }

    /// Makes the warnings from index `from` on errors if that is asked for; what they are about.
    fn apply_strictness(&mut self, from: usize) -> Vec<String> {
        if self.strictness == Strictness::Lenient {
            return Vec::new();
        }
        let mut rejected = Vec::new();
        for finding in self.diagnostics.iter_mut().skip(from) {
            if finding.severity == Severity::Warning {
                finding.severity = Severity::Error;
                rejected.extend(finding.object.clone());
            }
        }
        rejected
    }

    fn take(&mut self, result: Decoded, rejected: &[String]) {
        match result {
            Decoded::Object(object) => {
                let is_rejected =
                    !rejected.is_empty() && rejected.contains(&object.key.to_string());
                match self.by_key.get(&object.key) {
                    Some(&last) if is_rejected || **last == *object => {
                        self.objects.push(Arc::clone(last));
                    }
                    None if is_rejected => {}
                    _ => self.objects.push(object),
                }
            }
            Decoded::Invalid(key) => self
                .objects
                .extend(self.by_key.get(&key).map(|last| Arc::clone(last))),
            Decoded::Undecodable => self.spoilt = true,
            Decoded::Inert { api_version_kind } => {
                let kind = api_version_kind.rsplit(' ').next().unwrap_or_default();
                *self.inert.entry(kind.into()).or_default() += 1;
            }
        }
    }

    fn finish(self) -> Loaded {
        let Self {
            mut diagnostics,
            objects,
            previous,
            inert,
            spoilt,
            ..
        } = self;
        let objects = match previous {
            Some(previous) if spoilt => previous.objects.clone(),
            _ => objects,
        };
        diagnostics.sort_by(|a, b| {
            (a.position, a.severity, &a.path).cmp(&(b.position, b.severity, &b.path))
        });
        once_a_file(&mut diagnostics);
        Loaded {
            shard: Shard {
                objects,
                diagnostics,
            },
            inert,
        }
    }
}

/// Of notes with the same words, which concern the file rather than a place, the first stays.
fn once_a_file(diagnostics: &mut Vec<Diagnostic>) {
    let mut said: Vec<String> = Vec::new();
    diagnostics.retain(|finding| {
        let is_note = finding.severity == Severity::Note && finding.path.is_empty();
        if !is_note {
            return true;
        }
        let is_new = !said.contains(&finding.message);
        if is_new {
            said.push(finding.message.clone());
        }
        is_new
    });
}

#[cfg(test)]
mod tests;
