//! Limits and text form of names.

use proptest::prelude::*;

use crate::dns::{Name, NameError};

#[test]
fn name_parse_keeps_escapes_and_case() {
    for (text, shown) in [
        ("Web.Shop", "Web.Shop."),
        ("web.shop.", "web.shop."),
        (".", "."),
        ("", "."),
        ("a\\.b.c", "a\\.b.c."),
        ("a\\032b", "a\\032b."),
        ("a\\200\\\\", "a\\200\\\\."),
    ] {
        assert_eq!(
            Name::parse(text).map(|name| name.to_string()),
            Ok(shown.to_owned()),
            "{text}"
        );
    }
}

#[test]
fn name_parse_beyond_limits_says_which() {
    let label = "a".repeat(63);
    let long = [&*label; 4].join(".");
    for (text, error) in [
        ("a..b", NameError::EmptyLabel),
        (".a", NameError::EmptyLabel),
        (&*format!("{label}a"), NameError::LabelTooLong),
        (&*long, NameError::TooLong),
        ("a\\", NameError::Escape),
        ("a\\25", NameError::Escape),
        ("a\\256", NameError::Escape),
    ] {
        assert_eq!(Name::parse(text).err(), Some(error), "{text}");
    }
    let longest = format!("{label}.{label}.{label}.{}", "a".repeat(61));
    assert_eq!(
        Name::parse(&longest).map(|name| name.as_wire().len()),
        Ok(255)
    );
}

#[test]
fn name_compare_ignores_case_but_not_structure() {
    let name = |text| Name::parse(text).unwrap();
    assert_eq!(name("WEB.shop"), name("web.SHOP"));
    assert_ne!(name("a\\.b"), name("a.b"));
    assert!(name("x.Cluster.LOCAL").is_within(&name("cluster.local")));
    assert!(!name("xcluster.local").is_within(&name("cluster.local")));
    assert!(name("x").is_within(&Name::root()));
}

#[test]
fn name_reverse_writes_both_families() {
    assert_eq!(
        Name::reverse("10.96.1.2".parse().unwrap()).to_string(),
        "2.1.96.10.in-addr.arpa."
    );
    let six = Name::reverse("fd00::21".parse().unwrap()).to_string();
    assert!(
        six.starts_with("1.2.0.0.") && six.ends_with(".0.0.d.f.ip6.arpa."),
        "{six}"
    );
    assert_eq!(six.matches('.').count(), 34);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn name_text_form_reads_back_exactly(labels in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..20), 0..8)) {
        let name = Name::from_labels(labels.iter().map(Vec::as_slice)).unwrap();
        let read = Name::parse(&name.to_string()).unwrap();
        prop_assert_eq!(read.as_wire(), name.as_wire());
    }
}
