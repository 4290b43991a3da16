//! From a tree to a typed object: decode and default, in the API server's order. Owns field names, defaults and
//! shapes; value rules belong to `validate`.

mod canonical;
pub(crate) mod cursor;
mod endpoints;
mod fields;
mod findings;
mod kinds;
mod marks;
mod pod;
mod service;
mod shape;
mod workload;

use std::sync::Arc;

use super::{
    Object, ObjectKey, Spec,
    diagnostic::Diagnostic,
    meta::{Kind, Meta, Origin},
    tree::Node,
    validate,
};
use cursor::Cursor;
use findings::{Findings, Path};
use kinds::{Known, Resolved};
use marks::Marks;
pub use shape::closest;

/// What decoding depends on beside the document.
#[derive(Debug, Clone)]
pub struct DecodeSettings {
    /// Namespace of objects that name none.
    pub namespace: Arc<str>,
}

/// What a document turned out to be. Findings are reported beside it.
#[derive(Debug, Clone, PartialEq)]
pub enum Decoded {
    /// A good object.
    Object(Arc<Object>),
    /// An object that is understood but breaks a rule: a last good version of it stays in force.
    Invalid(ObjectKey),
    /// Something that does not have the shape of its kind, or has no kind: everything last loaded from its file
    /// stays in force.
    Undecodable,
    /// A kind that nothing acts on.
    Inert {
        /// `apiVersion` and `kind`.
        api_version_kind: Arc<str>,
    },
}

/// Decodes, defaults and validates one document; a `List` gives several results, an empty document none.
pub fn decode(
    document: &Node,
    file: &Arc<str>,
    settings: &DecodeSettings,
    diagnostics: &mut Vec<Diagnostic>,
) -> Vec<Decoded> {
    let mut results = Vec::new();
    Decoding {
        file,
        settings,
        diagnostics,
        results: &mut results,
    }
    .document(document, None);
    results
}

/// Reports wrong types and unknown fields of a document that is broken elsewhere, so that all its problems are seen
/// at once. Says nothing about what is missing: that may be lost with the broken part.
pub fn check_shapes(document: &Node, file: &Arc<str>, diagnostics: &mut Vec<Diagnostic>) {
    let findings = Findings::new(Arc::clone(file));
    let root = Cursor::root(document, &findings);
    let quiet = Findings::new(Arc::clone(file));
    let resolved = kinds::resolve(&Cursor::root(document, &quiet), None);
    match resolved {
        Some(Resolved::Known(known)) => {
            shape::check(document, known.shape(), &Path::ROOT, &findings);
        }
        Some(Resolved::Inert { .. } | Resolved::List { .. }) => {}
        None => {
            let shape = shape::Shape::Object(&fields::OBJECT_META);
            let meta = root.field("metadata");
            if let Some(meta) = meta.node() {
                shape::check(meta, shape, &Path::ROOT.field("metadata"), &findings);
            }
        }
    }
    findings.drain_into(diagnostics, || None);
}

/// The way of one document through decoding.
struct Decoding<'d> {
    file: &'d Arc<str>,
    settings: &'d DecodeSettings,
    diagnostics: &'d mut Vec<Diagnostic>,
    results: &'d mut Vec<Decoded>,
}

impl Decoding<'_> {
    /// One document or one item of a list, whose kind the list may imply.
    fn document(&mut self, node: &Node, implied: Option<(&str, &str)>) {
        let findings = Findings::new(Arc::clone(self.file));
        let root = Cursor::root(node, &findings);
        match kinds::resolve(&root, implied) {
            Some(Resolved::Known(known)) => {
                shape::check(node, known.shape(), &Path::ROOT, &findings);
                let result = self.object(&root, known, &findings);
                self.results.push(result);
            }
            Some(Resolved::Inert { api_version_kind }) => {
                self.results.push(Decoded::Inert { api_version_kind });
            }
            Some(Resolved::List { implied }) => {
                shape::check(
                    node,
                    shape::Shape::Object(&fields::LIST),
                    &Path::ROOT,
                    &findings,
                );
                if findings.errors() > 0 {
                    self.results.push(Decoded::Undecodable);
                }
                let items = root.field("items");
                for item in items.items().filter_map(|item| item.node()) {
                    self.document(
                        item,
                        implied
                            .as_ref()
                            .map(|(version, kind)| (&**version, &**kind)),
                    );
                }
            }
            None => self.results.push(Decoded::Undecodable),
        }
        let settings = self.settings;
        findings.drain_into(self.diagnostics, || described(node, implied, settings));
    }

    fn object(&self, root: &Cursor<'_>, known: Known, findings: &Findings) -> Decoded {
        if findings.errors() > 0 {
            // What else is wrong is worth knowing at once, as far as it does not follow from this.
            let before = findings.len();
            let meta = root.field("metadata");
            validate::meta::check(&meta, known.kind);
            read_spec(root, known, &mut Marks::default());
            findings.forget_consequences(before);
            return Decoded::Undecodable;
        }
        if let Some(warning) = known.deprecation() {
            root.field("apiVersion").warn(&warning);
        }
        let meta = root.field("metadata");
        let mut marks = Marks::default();
        marks.add(&meta.field("name"));
        let key = key_of(&meta, known.kind, self.settings);
        validate::meta::check(&meta, known.kind);
        let spec = read_spec(root, known, &mut marks);
        let Some(key) = key else {
            return Decoded::Undecodable;
        };
        if findings.errors() > 0 {
            return Decoded::Invalid(key);
        }
        let position = root.node().map(|node| node.position).unwrap_or_default();
        let origin = Origin {
            file: Arc::clone(self.file),
            position,
            marks: marks.finish(),
        };
        let meta = Meta {
            labels: meta.field("labels").labels(),
            annotations: meta.field("annotations").labels(),
        };
        Decoded::Object(Arc::new(Object {
            key,
            meta,
            origin,
            manifest: root.node().map(canonical::json).unwrap_or_default().into(),
            spec,
        }))
    }
}

fn read_spec(root: &Cursor<'_>, known: Known, marks: &mut Marks) -> Spec {
    match known.kind {
        Kind::Service => Spec::Service(Arc::new(service::read(root, marks))),
        Kind::Endpoints => Spec::Endpoints(Arc::new(endpoints::read_endpoints(root))),
        Kind::EndpointSlice => Spec::EndpointSlice(Arc::new(endpoints::read_slice(root, marks))),
        Kind::Pod => Spec::Pod(Arc::new(pod::read(root))),
        Kind::Deployment | Kind::ReplicaSet | Kind::DaemonSet | Kind::StatefulSet => {
            Spec::Workload(Arc::new(workload::read(
                root,
                known.kind,
                known.workload_version,
            )))
        }
        Kind::Namespace => Spec::Namespace,
        Kind::Node => Spec::Node,
    }
}

/// The identity; reports when there is none.
fn key_of(meta: &Cursor<'_>, kind: Kind, settings: &DecodeSettings) -> Option<ObjectKey> {
    let name = meta.field("name");
    let Some(text) = name.non_empty() else {
        let generated = meta.field("generateName");
        if generated.non_empty().is_some() {
            generated.forbidden("names cannot be generated here: give the object a name");
        } else {
            name.required("name or generateName is required");
        }
        return None;
    };
    let namespace = if kind.is_cluster_scoped() {
        Arc::default()
    } else {
        meta.field("namespace")
            .non_empty()
            .unwrap_or(&settings.namespace)
            .clone()
    };
    Some(ObjectKey {
        kind,
        namespace,
        name: Arc::clone(text),
    })
}

/// `Kind namespace/name`, as far as it can be read.
fn described(
    node: &Node,
    implied: Option<(&str, &str)>,
    settings: &DecodeSettings,
) -> Option<String> {
    let quiet = Findings::new(Arc::default());
    let root = Cursor::root(node, &quiet);
    let (kind, meta) = (root.field("kind"), root.field("metadata"));
    let kind = kind
        .non_empty()
        .map(AsRef::as_ref)
        .or(implied.map(|(_, kind)| kind))?;
    let (name, namespace) = (meta.field("name"), meta.field("namespace"));
    let Some(name) = name.non_empty() else {
        return Some(kind.to_owned());
    };
    if matches!(kind, "Namespace" | "Node") {
        return Some(format!("{kind} {name}"));
    }
    let namespace = namespace.non_empty().unwrap_or(&settings.namespace);
    Some(format!("{kind} {namespace}/{name}"))
}
