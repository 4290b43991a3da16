//! Rules of `metadata` and label selectors. Owns those; identity is made from them by the decoder.

use super::syntax::{self, Broken};
use crate::object::{decode::cursor::Cursor, meta::Kind};

/// Total size of annotations, keys and values, that the API server takes.
const ANNOTATION_BYTES: usize = 256 * 1024;

/// `metadata` of an object of this kind, apart from whether it has a name at all.
pub(crate) fn check(meta: &Cursor<'_>, kind: Kind) {
    let rule: fn(&str) -> Broken = match kind {
        Kind::Service | Kind::Namespace => syntax::label,
        _ => syntax::subdomain,
    };
    meta.field("name").named(rule);
    let namespace = meta.field("namespace");
    if kind.is_cluster_scoped() && namespace.non_empty().is_some() {
        namespace.forbidden("not allowed on this type");
    } else {
        namespace.named(syntax::label);
    }
    labels(&meta.field("labels"));
    annotations(&meta.field("annotations"));
}

/// A mapping of labels: keys and values.
pub(crate) fn labels(labels: &Cursor<'_>) {
    for (key, at_key, value) in labels.pairs() {
        for why in syntax::qualified_name(key) {
            at_key.error(format!("Invalid value: {key:?}: {why}"));
        }
        value.named(syntax::label_value);
    }
}

fn annotations(annotations: &Cursor<'_>) {
    let mut bytes = 0;
    for (key, at_key, value) in annotations.pairs() {
        bytes += key.len() + value.text().map_or(0, |text| text.len());
        for why in syntax::qualified_name(&key.to_lowercase()) {
            at_key.error(format!("Invalid value: {key:?}: {why}"));
        }
    }
    if bytes > ANNOTATION_BYTES {
        annotations.error(format!(
            "Too long: may not be more than {ANNOTATION_BYTES} bytes"
        ));
    }
}
