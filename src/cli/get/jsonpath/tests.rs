//! Tests of what templates mean. The same templates are run beside a real kubectl in `tests/it/kubectl_get.rs`.

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn object() -> Value {
    let mut object = json!({
        "kind": "Pod",
        "metadata": {"name": "web", "labels": {"app.kubernetes.io/name": "web", "tier": "front"}},
        "items": [
            {"name": "a", "n": 1, "ports": [{"p": 80}, {"p": 443}], "on": true},
            {"name": "b", "n": 2},
            {"name": "c", "n": 3, "f": 1.5},
        ],
        "nothing": null,
        "text": "a<b\u{1b}",
    });
    object.sort_all_objects();
    object
}

fn text(template: &str) -> String {
    let parsed = Template::parse(template).and_then(|template| template.text(&object()));
    parsed.unwrap_or_else(|error| format!("error: {error}"))
}

#[test]
fn text_of_a_path_is_its_value() {
    for (template, expected) in [
        ("{.metadata.name}", "web"),
        ("name: {.metadata.name}!", "name: web!"),
        ("{$.kind} {@.kind} { .kind }", "Pod Pod Pod"),
        ("{.metadata.labels.app\\.kubernetes\\.io/name}", "web"),
        ("{.metadata.labels['app\\.kubernetes\\.io/name']}", "web"),
        ("{['metadata']['name']}", "web"),
        ("{.nope.deeper}", ""),
        ("{.nothing}", "null"),
        ("{.items[0].ports}", r#"[{"p":80},{"p":443}]"#),
        ("{.metadata.labels.*}", "web front"),
        ("{.items[2].f} {.items[0].on} {.items[0].n}", "1.5 true 1"),
        ("{\"\\n\"}{'x'}{\"\\u00e9\\x41\\101\"}", "\nx\u{e9}AA"),
        ("{}", &gofmt::compact_json(&object())),
        ("plain", "plain"),
        ("", ""),
    ] {
        assert_eq!(text(template), expected, "{template}");
    }
}

#[test]
fn text_of_indices_slices_and_unions_picks_items() {
    for (template, expected) in [
        ("{.items[0].name}", "a"),
        ("{.items[-1].name}", "c"),
        ("{.items[*].name}", "a b c"),
        ("{.items[:].name}", "a b c"),
        ("{.items[0:2].name}", "a b"),
        ("{.items[1:].name}", "b c"),
        ("{.items[:-1].name}", "a b"),
        ("{.items[::2].name}", "a c"),
        ("{.items[0,2].name}", "a c"),
        ("{.items[1]['name','n']}", "b 2"),
        ("{..p}", "80 443"),
        ("{.items[1:1].name}", ""),
    ] {
        assert_eq!(text(template), expected, "{template}");
    }
}

#[test]
fn text_of_a_filter_keeps_what_passes() {
    for (template, expected) in [
        ("{.items[?(@.name==\"b\")].n}", "2"),
        ("{.items[?(@.name != 'b')].n}", "1 3"),
        ("{.items[?(@.n>1)].name}", "b c"),
        ("{.items[?(@.n<=2)].name}", "a b"),
        ("{.items[?(@.ports)].name}", "a"),
        ("{.items[?(@.on==true)].name}", "a"),
        ("{.items[?(@.ports[0].p==80)].name}", "a"),
        ("{.items[?(@.nope==1)].name}", ""),
    ] {
        assert_eq!(text(template), expected, "{template}");
    }
}

#[test]
fn text_of_ranges_repeats_what_is_inside() {
    for (template, expected) in [
        (
            "{range .items[*]}{.name}={.n} {end}done",
            "a=1 b=2 c=3 done",
        ),
        (
            "{range .items[*]}{.name}{range .ports[*]}:{.p}{end};{end}",
            "a:80:443;b;c;",
        ),
        ("{range .none[*]}{.name}{end}after", "after"),
        ("{range .items[*]}{.name}", "abc"),
    ] {
        assert_eq!(text(template), expected, "{template}");
    }
}

#[test]
fn text_of_a_wrong_template_says_what_is_wrong() {
    for (template, expected) in [
        ("{.kind", "unclosed action"),
        ("{.items[abc]}", "invalid array index abc"),
        ("{.items[0}", "unterminated array"),
        ("{.items[?(@.name)}", "unclosed array expect ]"),
        ("{.items[?(@.name==\"c\"]}", "unterminated filter"),
        ("{\"x}", "unterminated quoted string"),
        ("{....name}", "invalid multiple recursive descent"),
        ("{.a,.b}", "unrecognized character in action: U+002C ','"),
        ("{foo}", "unrecognized identifier foo"),
        ("{end}", "not in range, nothing to end"),
        (
            "{.items[7].name}",
            "array index out of bounds: index 7, length 3",
        ),
        (
            "{.items[-4].name}",
            "array index out of bounds: index -1, length 3",
        ),
        (
            "{.items[2:1].name}",
            "starting index 2 is greater than ending index 1",
        ),
        ("{.items[0:2:0].name}", "step must be > 0"),
        (
            "{.metadata[0]}",
            "map[string]interface {} is not array or slice",
        ),
        (
            "{.items[?(@.name==1)].n}",
            "incompatible types for comparison",
        ),
    ] {
        assert_eq!(text(template), format!("error: {expected}"), "{template}");
    }
}

#[test]
fn json_of_a_template_is_an_array_for_each_expression() {
    let template = Template::parse("{.items[*].n}{.nope}").unwrap();
    let expected = "[\n    1,\n    2,\n    3\n]\n[]\n";
    assert_eq!(template.json(&object()).unwrap(), expected);
}

#[test]
fn relaxed_takes_paths_without_braces() {
    for text in [
        "metadata.name",
        ".metadata.name",
        "{metadata.name}",
        "{.metadata.name}",
    ] {
        assert_eq!(relaxed(text).unwrap(), "{.metadata.name}", "{text}");
    }
    for wrong in ["{.a}{.b}", "", "{}", "{a"] {
        assert!(relaxed(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn parse_of_deep_nesting_is_refused() {
    let deep = format!("{{{}{}}}", "[?(@".repeat(100), ")]".repeat(100));
    assert!(Template::parse(&deep).is_err());
    assert!(Template::parse(&"x".repeat(MAX_LENGTH + 1)).is_err());
}

#[test]
fn text_of_an_explosion_is_an_error() {
    let many = "{range ..}".repeat(20) + "{..}";
    let error = Template::parse(&many).unwrap().text(&object()).unwrap_err();
    assert_eq!(error.to_string(), "template takes too many steps");
}

proptest! {
    #[test]
    fn template_of_any_text_does_not_panic(text in "[{}\\[\\].,:*@$?()'\"=<>! \\\\a0-9\\n-]{0,40}") {
        if let Ok(template) = Template::parse(&text) {
            let _ = template.text(&object());
        }
    }

    #[test]
    fn template_of_pieces_does_not_panic(pieces in prop::collection::vec(prop::sample::select(vec![
        "{", "}", ".items", "[0]", "[*]", "[-9:9]", "[?(@.n>1)]", "..", "range ", "end", ".name", "'x'", "[0,1]", "-5", "{end}",
        "{range .items[*]}",
    ]), 0..12)) {
        if let Ok(template) = Template::parse(&pieces.concat()) {
            let _ = template.text(&object());
        }
    }
}
