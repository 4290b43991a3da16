//! Rules of `metadata` and label selectors. Owns those; identity is made from them by the decoder.

use super::syntax::{self, Broken};
use crate::object::{
    annotations::{self, Place, READINESS_PROBE},
    decode::cursor::Cursor,
    endpoint_probe::{EndpointProbe, FORMS},
    meta::Kind,
};

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
    let written = meta.field("annotations");
    check_annotations(&written);
    our_annotations(&written, Place::Object(kind));
    if matches!(kind, Kind::Service | Kind::EndpointSlice | Kind::Endpoints) {
        endpoint_probe(&meta.field("annotations"));
    }
}

/// Of those that another program may have written, an annotation that cannot be read is no reason to refuse.
fn endpoint_probe(annotations: &Cursor<'_>) {
    let probe = annotations.field(READINESS_PROBE);
    if let Some(text) = probe.text()
        && EndpointProbe::parse(text).is_none()
    {
        let message = format!("Invalid value: {text:?}: {FORMS}; nothing is probed");
        probe.warn(&message);
    }
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

/// Warns of our own annotations that do nothing.
pub(crate) fn our_annotations(annotations: &Cursor<'_>, place: Place) {
    for (key, at_key, _) in annotations.pairs() {
        if let Some(problem) = annotations::problem(key, place) {
            at_key.warn(&problem);
        }
    }
}

fn check_annotations(annotations: &Cursor<'_>) {
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
