//! One set of objects out of all Sources. Owns who wins when two declare the same object, and what changed since the
//! last round. Must not know what the objects mean.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::report::{Layer, Shard, SourceReport};
use crate::object::{
    Kind, Object, ObjectKey,
    diagnostic::{Diagnostic, Severity},
};

/// Where a declaration stands: source, shard, place in the shard. The lowest rank wins.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank {
    source: usize,
    shard: Arc<str>,
    place: usize,
}

type Shards = BTreeMap<Arc<str>, Arc<Shard>>;

/// Objects that a round looks at, with what was in force of them before it.
type Touched = BTreeMap<ObjectKey, Option<(Rank, Arc<Object>)>>;

/// The merged objects.
#[derive(Debug, Clone, Default)]
pub struct Merge {
    seen: Vec<Shards>,
    /// Sources whose objects are changed versions of others.
    overriding: BTreeSet<usize>,
    declared: BTreeMap<ObjectKey, BTreeMap<Rank, Arc<Object>>>,
}

/// An object before and after a round; both `Some` means that it was edited, or that its rank changed.
#[derive(Debug, Clone)]
pub struct Change {
    /// The object.
    pub key: ObjectKey,
    /// What was in force.
    pub before: Option<Arc<Object>>,
    /// What is in force.
    pub after: Option<Arc<Object>>,
}

impl Merge {
    /// Takes the newest reports, one a source in order of precedence. A source that has never reported a view, or
    /// whose view is gone, contributes what it did before: nothing.
    pub fn update(&mut self, reports: &[SourceReport]) -> Vec<Change> {
        self.seen
            .resize_with(self.seen.len().max(reports.len()), Shards::new);
        let mut touched = Touched::new();
        for (source, report) in reports.iter().enumerate() {
            let Some(view) = report.view() else { continue };
            let Some(seen) = self.seen.get_mut(source) else {
                continue;
            };
            if view.layer == Layer::Override {
                self.overriding.insert(source);
            }
            let replaced = replaced_shards(seen, &view.shards);
            if replaced.is_empty() {
                continue;
            }
            seen.clone_from(&view.shards);
            for (name, before, after) in replaced {
                self.replace_shard(source, &name, (before, after), &mut touched);
            }
        }
        touched
            .into_iter()
            .filter_map(|(key, before)| {
                let after = self.standing(&key);
                let same = match (&before, &after) {
                    (Some((rank, before)), Some((new_rank, after))) => {
                        Arc::ptr_eq(before, after) && rank == new_rank
                    }
                    (None, None) => true,
                    _ => false,
                };
                let object = |(_, object)| object;
                let (before, after) = (before.map(object), after.map(object));
                (!same).then_some(Change { key, before, after })
            })
            .collect()
    }

    fn replace_shard(
        &mut self,
        source: usize,
        name: &Arc<str>,
        (before, after): (Option<Arc<Shard>>, Option<Arc<Shard>>),
        touched: &mut Touched,
    ) {
        let rank = |place| Rank {
            source,
            shard: Arc::clone(name),
            place,
        };
        for (place, object) in before
            .iter()
            .flat_map(|shard| shard.objects.iter().enumerate())
        {
            touched
                .entry(object.key.clone())
                .or_insert_with(|| self.standing(&object.key));
            if let Some(declared) = self.declared.get_mut(&object.key) {
                declared.remove(&rank(place));
                if declared.is_empty() {
                    self.declared.remove(&object.key);
                }
            }
        }
        for (place, object) in after
            .iter()
            .flat_map(|shard| shard.objects.iter().enumerate())
        {
            touched
                .entry(object.key.clone())
                .or_insert_with(|| self.standing(&object.key));
            self.declared
                .entry(object.key.clone())
                .or_default()
                .insert(rank(place), Arc::clone(object));
        }
    }

    fn standing(&self, key: &ObjectKey) -> Option<(Rank, Arc<Object>)> {
        let (rank, object) = self.declared.get(key)?.first_key_value()?;
        Some((rank.clone(), Arc::clone(object)))
    }

    /// The object in force.
    pub fn get(&self, key: &ObjectKey) -> Option<&Arc<Object>> {
        self.declared.get(key)?.values().next()
    }

    /// The first declaration of an object, without overrides.
    pub fn declared(&self, key: &ObjectKey) -> Option<&Arc<Object>> {
        self.declarations(self.declared.get(key)?).next()
    }

    fn declarations<'m>(
        &'m self,
        declared: &'m BTreeMap<Rank, Arc<Object>>,
    ) -> impl Iterator<Item = &'m Arc<Object>> {
        declared
            .iter()
            .filter(|(rank, _)| !self.overriding.contains(&rank.source))
            .map(|(_, object)| object)
    }

    /// The rank of the object in force.
    pub fn rank(&self, key: &ObjectKey) -> Option<&Rank> {
        self.declared.get(key)?.keys().next()
    }

    /// All objects in force, sorted by key.
    pub fn iter(&self) -> impl Iterator<Item = (&ObjectKey, &Arc<Object>)> {
        self.declared
            .iter()
            .filter_map(|(key, declared)| Some((key, declared.values().next()?)))
    }

    /// The objects of one kind in force, sorted by namespace and name.
    pub fn iter_kind(&self, kind: Kind) -> impl Iterator<Item = (&ObjectKey, &Arc<Object>)> {
        let first = ObjectKey {
            kind,
            namespace: "".into(),
            name: "".into(),
        };
        let of_kind = self
            .declared
            .range(first..)
            .take_while(move |(key, _)| key.kind == kind);
        of_kind.filter_map(|(key, declared)| Some((key, declared.values().next()?)))
    }

    /// One finding for every declaration that lost against an earlier one.
    pub fn duplicates(&self) -> impl Iterator<Item = Diagnostic> + '_ {
        self.declared
            .values()
            .filter(|declared| declared.len() > 1)
            .flat_map(|declared| {
                let first = self.declarations(declared).next();
                self.declarations(declared)
                    .skip(1)
                    .zip(std::iter::repeat(first))
                    .filter_map(|(second, first)| {
                        let first = &first?.origin;
                        let message = format!(
                            "already declared at {}:{}, which stays in force",
                            first.file, first.position.line
                        );
                        Some(Diagnostic::about(
                            Severity::Error,
                            &second.key,
                            &second.origin,
                            ("metadata.name", message),
                        ))
                    })
            })
    }

    /// Findings that the sources themselves reported.
    pub fn reported(&self) -> impl Iterator<Item = &Diagnostic> {
        self.seen
            .iter()
            .flat_map(BTreeMap::values)
            .flat_map(|shard| &shard.diagnostics)
    }
}

type Replaced = (Arc<str>, Option<Arc<Shard>>, Option<Arc<Shard>>);

/// Shards that are not the same `Arc` on both sides: one walk over both, for there may be a shard a file.
fn replaced_shards(before: &Shards, after: &Shards) -> Vec<Replaced> {
    let mut replaced: Vec<Replaced> = Vec::new();
    let mut gone = |name: &Arc<str>, shard: &Arc<Shard>| {
        replaced.push((Arc::clone(name), Some(Arc::clone(shard)), None));
    };
    let mut came: Vec<Replaced> = Vec::new();
    let mut old = before.iter().peekable();
    for (name, shard) in after {
        while let Some((old_name, old_shard)) = old.next_if(|(old_name, _)| *old_name < name) {
            gone(old_name, old_shard);
        }
        let kept = old
            .next_if(|(old_name, _)| *old_name == name)
            .map(|(_, shard)| shard);
        if !kept.is_some_and(|kept| Arc::ptr_eq(kept, shard)) {
            came.push((Arc::clone(name), kept.cloned(), Some(Arc::clone(shard))));
        }
    }
    for (name, shard) in old {
        gone(name, shard);
    }
    replaced.extend(came);
    replaced
}
