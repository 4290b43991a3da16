//! Overrides over a Deployment that is declared in a file.

use portico_core::object::{Spec, Workload};

use super::*;

const WEB: &str = "\
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, labels: {app: web}}
spec:
  replicas: 3
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: nginx, image: 'nginx:1.12', env: [{name: A, value: b}]}]}
";

fn declared(text: &str) -> Arc<Object> {
    let settings = ManifestSettings {
        namespace: "default".into(),
        strictness: Strictness::Lenient,
    };
    let loaded = manifest::load(&Arc::from("web.yaml"), text, &settings, None);
    assert!(
        loaded.shard.diagnostics.is_empty(),
        "{:?}",
        loaded.shard.diagnostics
    );
    Arc::clone(&loaded.shard.objects[0])
}

fn workload(object: &Object) -> &Workload {
    match &object.spec {
        Spec::Workload(workload) => workload,
        other => panic!("{other:?}"),
    }
}

fn at(second: u64) -> Timestamp {
    Timestamp::from_millis(second * 1000)
}

#[test]
fn apply_scale_and_image_add_up_and_the_last_of_each_counts() {
    let web = declared(WEB);
    let mut overrides = Overrides::new();
    let image = |image: &str| Edit::Image {
        container: "nginx".into(),
        image: image.into(),
    };
    overrides.apply(&web, Edit::Replicas(5), at(1)).unwrap();
    overrides.apply(&web, image("nginx:1.13"), at(2)).unwrap();
    overrides.apply(&web, image("nginx:1.14"), at(3)).unwrap();
    let object = overrides.apply(&web, Edit::Replicas(4), at(4)).unwrap();
    assert_eq!(workload(&object).replicas, 4);
    assert_eq!(
        &*workload(&object).template.spec.containers[0].image,
        "nginx:1.14"
    );
    assert!(
        object
            .manifest
            .contains(r#""env":[{"name":"A","value":"b"}]"#)
    );
    assert_eq!(object.origin, web.origin);
    let lines: Vec<String> = overrides
        .lines()
        .into_iter()
        .map(|line| line.change)
        .collect();
    assert_eq!(lines, ["image nginx=nginx:1.14", "replicas=4"]);
    assert_eq!(
        object.meta.annotations.get(OVERRIDES).map(AsRef::as_ref),
        Some("image nginx=nginx:1.14, replicas=4")
    );
}

#[test]
fn apply_former_template_makes_the_same_hash() {
    let first = declared(WEB);
    let second = declared(&WEB.replace("1.12", "1.13"));
    let mut overrides = Overrides::new();
    let undo = Edit::Template {
        manifest: Arc::clone(&workload(&first).template.manifest),
        revision: 1,
        change_cause: Some("first".into()),
    };
    let object = overrides.apply(&second, undo, at(1)).unwrap();
    assert_eq!(
        workload(&object).template.hash,
        workload(&first).template.hash
    );
    assert_eq!(
        object.meta.annotations.get(CHANGE_CAUSE).map(AsRef::as_ref),
        Some("first")
    );
}

#[test]
fn apply_what_the_api_refuses_changes_nothing() {
    let web = declared(WEB);
    let mut overrides = Overrides::new();
    let label = |value: &str| Edit::Labels([("tier".to_owned(), Some(value.to_owned()))].into());
    let error = overrides
        .apply(&web, label("not valid!"), at(1))
        .unwrap_err();
    assert!(error.to_string().contains("metadata.labels"), "{error}");
    let missing = Edit::Image {
        container: "apache".into(),
        image: "x".into(),
    };
    let error = overrides.apply(&web, missing, at(1)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "error: unable to find container named \"apache\" in deployment \"web\""
    );
    assert!(overrides.lines().is_empty());
}

#[test]
fn refresh_after_an_edit_drops_the_override_and_after_a_comment_keeps_it() {
    let web = declared(WEB);
    let mut overrides = Overrides::new();
    overrides.apply(&web, Edit::Replicas(5), at(1)).unwrap();
    let commented = declared(&format!("# a comment\n{WEB}"));
    assert!(overrides.refresh(|_| Some(&commented)).is_empty());
    let edited = declared(&WEB.replace("replicas: 3", "replicas: 2"));
    assert_eq!(
        overrides.refresh(|_| Some(&edited)),
        std::slice::from_ref(&web.key)
    );
    assert!(
        overrides
            .report()
            .view()
            .is_some_and(|view| view.shards.is_empty())
    );
}

#[test]
fn reset_takes_back_one_or_all() {
    let web = declared(WEB);
    let other = declared(&WEB.replace("name: web,", "name: other,"));
    let mut overrides = Overrides::new();
    overrides.apply(&web, Edit::Replicas(5), at(1)).unwrap();
    overrides.apply(&other, Edit::Paused(true), at(1)).unwrap();
    assert_eq!(
        overrides.reset(Some(&web.key)),
        std::slice::from_ref(&web.key)
    );
    assert_eq!(overrides.reset(None), std::slice::from_ref(&other.key));
    assert!(overrides.reset(None).is_empty());
}
