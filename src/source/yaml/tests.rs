//! The front end held to kubectl's scalar rules, exact positions and its limits.

use portico_core::object::tree::Value;

use super::*;

fn one(text: &str) -> Document {
    let mut documents = parse(text, &Limits::default());
    assert_eq!(documents.len(), 1, "{text}");
    documents.remove(0)
}

fn good(text: &str) -> Node {
    let document = one(text);
    assert_eq!(document.problems, []);
    document.root.unwrap()
}

/// The only problem of `text`: line, column, message.
fn problem(text: &str) -> (u32, u32, String) {
    let mut document = one(text);
    assert_eq!(document.problems.len(), 1, "{:?}", document.problems);
    let Problem { position, message } = document.problems.remove(0);
    let Position { line, column } = position.unwrap();
    (line, column, message)
}

#[test]
fn parse_of_a_text_that_ends_too_early_points_at_its_last_line() {
    for text in ["a:\n  - {b:", "a:\n  - {b:\n", "a:\n  - {b:\n\n\n"] {
        let (line, column, _) = problem(text);
        assert_eq!((line, column), (2, 8), "{text:?}");
    }
    let documents = parse("a: [\n---\nb: 1\n", &Limits::default());
    let first = documents[0].problems[0].position.unwrap();
    assert_eq!((first.line, first.column), (1, 5));
}

/// The tree in a notation that tells strings from other scalars.
fn shape(node: &Node) -> String {
    match &node.value {
        Value::Null => "null".into(),
        Value::Bool(value) => value.to_string(),
        Value::Int(value) => value.to_string(),
        Value::Float(value) => format!("{value}f"),
        Value::String(text) => format!("{text:?}"),
        Value::List(items) => format!(
            "[{}]",
            items.iter().map(shape).collect::<Vec<_>>().join(",")
        ),
        Value::Map(entries) => {
            let pairs: Vec<_> = entries
                .iter()
                .map(|entry| format!("{}:{}", entry.key, shape(&entry.node)))
                .collect();
            format!("{{{}}}", pairs.join(","))
        }
    }
}

fn check(text: &str, expected: &str) {
    assert_eq!(shape(&good(text)), expected, "{text}");
}

#[test]
fn parse_of_scalars_follows_kubectl() {
    check(
        "[yes, 'yes', \"on\", y, 0644, 1.5, 1.0.0, ~, '', 0x10]",
        "[true,\"yes\",\"on\",\"y\",420,1.5f,\"1.0.0\",null,\"\",16]",
    );
    check(
        "a: |\n  80\nb: >-\n  yes\n  no\n",
        "{a:\"80\\n\",b:\"yes no\"}",
    );
    check("[!!str 80, !!int '80', !!str yes]", "[\"80\",80,\"yes\"]");
    check(
        "{80: a, yes: b, 'no': c, 1.5: d}",
        "{80:\"a\",true:\"b\",no:\"c\",1.5:\"d\"}",
    );
}

#[test]
fn parse_of_json_with_tabs_reads_it() {
    check(
        "{\n\t\"a\": [1, true, null, \"x\\n\\u00e9\\/\"],\n\t\"b\": {}\n}",
        "{a:[1,true,null,\"x\\né/\"],b:{}}",
    );
}

#[test]
fn parse_of_aliases_and_merge_keys_copies_values() {
    check("a: &x {p: 1, q: 2}\nb: *x\n", "{a:{p:1,q:2},b:{p:1,q:2}}");
    check(
        "a: &x {p: 1, q: 2}\nb: {<<: *x, q: 3}\n",
        "{a:{p:1,q:2},b:{q:3,p:1}}",
    );
    check(
        "- &x {p: 1}\n- &y {p: 2, r: 3}\n- <<: [*x, *y]\n",
        "[{p:1},{p:2,r:3},{p:1,r:3}]",
    );
    check("{'<<': 1}", "{<<:1}");
}

#[test]
fn parse_of_several_documents_counts_lines_through() {
    let text = "\u{feff}# first\na: 1\n---\n# nothing\n--- \nb:\n  c: 2\n...\n---\n- d\n";
    let documents = parse(text, &Limits::default());
    let roots: Vec<&Node> = documents
        .iter()
        .filter_map(|document| document.root.as_ref())
        .collect();
    let lines: Vec<u32> = roots.iter().map(|root| root.position.line).collect();
    assert_eq!(lines, [2, 6, 10]);
    let c = roots[1].get("b").and_then(|b| b.get("c")).unwrap();
    assert_eq!(c.position, Position { line: 7, column: 6 });
}

#[test]
fn parse_of_a_broken_document_spoils_only_itself() {
    let documents = parse(
        "a: 1\n---\nb: [1\n---\nc: \"x\n---\nd: 2\n",
        &Limits::default(),
    );
    let broken: Vec<bool> = documents
        .iter()
        .map(|document| !document.problems.is_empty())
        .collect();
    assert_eq!(broken, [false, true, true, false]);
    assert_eq!(shape(documents[3].root.as_ref().unwrap()), "{d:2}");
}

#[test]
fn parse_of_a_broken_document_keeps_its_readable_part() {
    let document = one("a:\n  b: 1\nc: x\n  - d: 2\n");
    assert_eq!(document.problems.len(), 1);
    assert!(document.root.unwrap().get("a").is_some());
}

#[test]
fn parse_of_dashes_in_a_block_scalar_takes_only_column_one() {
    let documents = parse("a: |\n  ---\n  x\n---\nb: 1\n", &Limits::default());
    let shapes: Vec<String> = documents
        .iter()
        .filter_map(|document| document.root.as_ref())
        .map(shape)
        .collect();
    assert_eq!(shapes, ["{a:\"---\\nx\\n\"}", "{b:1}"]);
}

#[test]
fn parse_of_a_duplicate_key_names_both_places() {
    let (line, column, message) = problem("a: 1\nb:\n  c: 1\n  d: 2\n  c: 3\n");
    assert_eq!((line, column), (5, 3));
    assert_eq!(
        message,
        "yaml: key \"c\" is already set in this mapping at line 3, column 3"
    );
    let many = (0..100).fold(String::new(), |text, index| {
        text + &format!("k{index}: 1\n")
    });
    assert_eq!(problem(&format!("{many}k99: 2\n")).0, 101);
    assert_eq!(problem(&format!("{many}k3: 2\n")).0, 101);
}

#[test]
fn parse_of_an_absent_value_points_at_its_key() {
    let root = good("a: 1\nports:\nb: 2\n");
    assert_eq!(
        root.get("ports").unwrap().position,
        Position { line: 2, column: 1 }
    );
}

#[test]
fn parse_beyond_a_limit_says_which() {
    let limits = Limits {
        bytes: 100,
        documents: 2,
        depth: 3,
        copied_nodes: 5,
    };
    let check = |text: &str, expected: &str| {
        let documents = parse(text, &limits);
        let problem = documents
            .iter()
            .flat_map(|document| &document.problems)
            .next();
        assert!(
            problem.is_some_and(|problem| problem.message.contains(expected)),
            "{text}: {problem:?}"
        );
    };
    check(&"x".repeat(101), "larger than the limit of 100");
    check("a\n---\nb\n---\nc\n", "more than 2 documents");
    check("[[[[1]]]]", "deeper than 3 levels");
    check("{a: &a [1, 2], b: *a, c: *a}", "more than 5 values");
    check("&a [*a]", "contains it");
}

#[test]
fn parse_of_very_deep_text_does_not_overflow() {
    for text in [
        "[".repeat(100_000),
        "- ".repeat(100_000),
        "{a: ".repeat(50_000),
    ] {
        assert!(
            parse(&text, &Limits::default())
                .iter()
                .any(|document| !document.problems.is_empty())
        );
    }
}

#[test]
fn parse_of_empty_text_gives_nothing() {
    for text in [
        "",
        "\n",
        "# only a comment\n",
        "---\n---\n",
        "\u{feff}",
        "...\n",
    ] {
        assert_eq!(parse(text, &Limits::default()), [], "{text:?}");
    }
}
