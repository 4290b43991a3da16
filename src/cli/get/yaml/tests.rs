//! Tests of the form. The expected texts are kubectl's, which `tests/it/kubectl_get.rs` compares with the real one.

use portico_core::object::tree::Value as Node;
use proptest::prelude::*;
use serde_json::json;

use super::*;

/// `text` as the value of the key `k`.
fn value(text: &str) -> String {
    let document = document(&json!({"k": text}));
    document
        .strip_prefix("k: ")
        .unwrap()
        .trim_end_matches('\n')
        .to_owned()
}

#[test]
fn document_of_nested_blocks_has_lists_below_their_key() {
    let object = json!({
        "b": [1, {"x": 1, "y": [true]}, [2, [3]], [], {}],
        "a": {"empty": {}, "none": null},
    });
    let expected = "\
a:
  empty: {}
  none: null
b:
- 1
- x: 1
  \"y\":
  - true
- - 2
  - - 3
- []
- {}
";
    assert_eq!(document(&object), expected);
}

#[test]
fn document_of_text_that_reads_as_something_else_is_quoted() {
    for text in [
        "true",
        "123",
        "",
        "null",
        "~",
        "y",
        "No",
        "1.5",
        "1e3",
        "0x1f",
        "017",
        "1_000",
        ".5",
        "12:30",
        "2024-01-01",
        "2024-01-01T00:00:00Z",
        "+1",
        ".nan",
        "-.Inf",
    ] {
        assert_eq!(value(text), format!("\"{text}\""), "{text}");
    }
    for text in [
        "web",
        "a:b",
        "a#b",
        "1a",
        "127.0.0.1",
        "10.96.0.0/12",
        "FaLSe",
        "<nil>",
        "-a",
        "a]",
        "1.2.3",
        "0xg",
    ] {
        assert_eq!(value(text), text);
    }
    for text in [
        "- a", "a: b", "#x", "a #b", "*x", " lead", "trail ", "a:", "{a", "@x", "?",
    ] {
        assert_eq!(value(text), format!("'{text}'"), "{text}");
    }
    assert_eq!(value("'q'"), "'''q'''");
    assert_eq!(value("tab\there"), "\"tab\\there\"");
    assert_eq!(value("\u{1f600}"), "\"\\U0001F600\"");
}

#[test]
fn document_of_several_lines_is_a_block() {
    for (text, expected) in [
        ("a\nb", "|-\n  a\n  b"),
        ("a\nb\n", "|\n  a\n  b"),
        ("a\n\n", "|+\n  a"),
        ("  a\nb", "|2-\n    a\n  b"),
        ("a \nb", "\"a \\nb\""),
    ] {
        assert_eq!(value(text), expected, "{text:?}");
    }
}

#[test]
fn document_of_a_long_text_is_folded() {
    let text = "word ".repeat(40);
    let found = value(text.trim_end());
    assert!(found.lines().all(|line| line.len() < 90), "{found}");
    assert_eq!(found.replace("\n  ", " "), text.trim_end());
}

#[test]
fn document_of_keys_sorts_numbers_by_value() {
    let object =
        json!({"a10": 1, "a2": 1, "a": 1, "a-b": 1, "ab": 1, "true": 1, "k".repeat(130): 1});
    let expected = format!(
        "a: 1\na-b: 1\na2: 1\na10: 1\nab: 1\n? {}\n: 1\n\"true\": 1\n",
        "k".repeat(130)
    );
    assert_eq!(document(&object), expected);
}

proptest! {
    /// Another reader gets back what was written.
    #[test]
    fn document_of_any_text_reads_back(text in "[ -~\\n\\té]{0,30}", key in "[a-z .:#'-]{1,8}") {
        let written = document(&json!({key.clone(): [text.clone()]}));
        let documents = crate::source::yaml::parse(&written, &crate::source::yaml::Limits::default());
        let root = documents.into_iter().next().and_then(|document| document.root).unwrap();
        let Node::Map(entries) = root.value else { panic!("no map: {written}") };
        prop_assert_eq!(&*entries[0].key, key.as_str(), "{}", written);
        let Node::List(items) = &entries[0].node.value else { panic!("no list: {written}") };
        let Node::String(read) = &items[0].value else { panic!("no text: {written}") };
        prop_assert_eq!(&**read, text.as_str(), "{}", written);
    }
}
