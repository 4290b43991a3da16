//! Each rule with a text that keeps it and one that breaks it.

use super::{check, paths, rules, source::Source};

const HEAD: &str = "//! Owns something.\n";

/// The messages about `text` as file `name`, below a proper first line.
fn messages(name: &str, text: &str) -> Vec<String> {
    check(name, &format!("{HEAD}{text}"))
        .iter()
        .map(ToString::to_string)
        .collect()
}

fn fine(name: &str, text: &str) {
    assert_eq!(messages(name, text), Vec::<String>::new());
}

fn broken(name: &str, text: &str, part: &str) {
    let messages = messages(name, text);
    assert!(
        messages.iter().any(|message| message.contains(part)),
        "expected '{part}' in {messages:?}"
    );
}

#[test]
fn opening_absent_is_found() {
    let found = check("src/app.rs", "fn main() {}\n");
    assert_eq!(found.len(), 1);
    assert!(
        found[0]
            .to_string()
            .starts_with("src/app.rs:1: a file opens with"),
        "{found:?}"
    );
}

#[test]
fn imports_not_in_the_table_are_found_inside_braces_too() {
    broken(
        "src/source/file.rs",
        "use crate::{\n    clock,\n    dns::query,\n};\n",
        "src/source/file.rs:4: source::file must not use crate::dns::query",
    );
    broken(
        "src/dns/cache.rs",
        "fn f() { crate::admin::bind() }\n",
        "crate::admin::bind",
    );
    broken(
        "src/admin.rs",
        "use crate::control::Reconciler;\n",
        "must not use crate::control::Reconciler",
    );
    broken(
        "src/cli/up.rs",
        "use crate::dns::query;\n",
        "crate::dns::query",
    );
}

#[test]
fn imports_in_the_table_are_fine() {
    fine(
        "src/source/file.rs",
        "use crate::{clock, source::manifest};\n",
    );
    fine("src/app/parts.rs", "use crate::{dns, simulate::host};\n");
    fine("src/cli/demo/check.rs", "use crate::{app::App, bench};\n");
    fine(
        "src/dns.rs",
        "#[cfg(test)]\nmod tests {\n    use crate::app;\n}\n",
    );
}

#[test]
fn core_impure_paths_are_found() {
    broken(
        "crates/core/src/world.rs",
        "use std::{net::{IpAddr, TcpStream}, sync::Arc};\n",
        "std::net::TcpStream",
    );
    broken(
        "crates/core/src/world.rs",
        "fn f() { let _ = std::fs::read(\"x\"); }\n",
        "the core has no files",
    );
    broken(
        "crates/core/src/world.rs",
        "use std::time::{Duration, Instant};\n",
        "time is an argument",
    );
    fine(
        "crates/core/src/world.rs",
        "use std::{net::IpAddr, time::Duration};\n",
    );
}

#[test]
fn calls_are_found_outside_their_files_comments_and_strings() {
    broken(
        "src/dns.rs",
        "fn f() { std::thread::sleep(D); }\n",
        "src/dns.rs:2: thread::sleep",
    );
    broken(
        "src/dns.rs",
        "fn f() { tokio::spawn(g()); }\n",
        "a task needs an owner",
    );
    fine(
        "src/dns.rs",
        "// thread::sleep would do\nconst A: &str = \"thread::sleep\";\nconst B: &str = r#\"\"unsafe\"#;\n",
    );
    fine("src/app.rs", "fn f() { tokio::spawn(g()); }\n");
}

#[test]
fn unsafe_is_found_as_a_word() {
    broken(
        "src/dns.rs",
        "fn f() { unsafe { g() } }\n",
        "unsafe belongs to",
    );
    fine("src/dns.rs", "#![deny(unsafe_code)]\n");
    fine("src/source/file/lease.rs", "fn f() { unsafe { g() } }\n");
}

#[test]
fn todo_needs_an_issue() {
    broken(
        "src/dns.rs",
        concat!("// TO", "DO: later\n"),
        "without an issue",
    );
    broken(
        "src/dns.rs",
        concat!("// TO", "DO(#): later\n"),
        "without an issue",
    );
    fine("src/dns.rs", concat!("// TO", "DO(#12): later\n"));
}

#[test]
fn length_counts_lines_outside_tests() {
    fine("src/dns.rs", &"fn f() {}\n".repeat(499));
    broken(
        "src/dns.rs",
        &"fn f() {}\n".repeat(500),
        "warning: 501 lines",
    );
    broken(
        "src/dns.rs",
        &"fn f() {}\n".repeat(800),
        "src/dns.rs: 801 lines",
    );
    let tests = format!(
        "fn f() {{}}\n#[cfg(test)]\nmod tests {{\n{}}}\n",
        "fn f() {}\n".repeat(900)
    );
    fine("src/dns.rs", &tests);
    fine("src/dns/tests.rs", &"fn f() {}\n".repeat(900));
}

#[test]
fn dependencies_of_the_pure_packages_are_found_outside_tests() {
    let text =
        "[dependencies]\nserde.workspace = true\n\n[dev-dependencies]\nclap.workspace = true\n";
    let found = rules::of_package("crates/dataplane/Cargo.toml", text);
    assert_eq!(
        found.iter().map(|finding| finding.line).collect::<Vec<_>>(),
        [2]
    );
    assert_eq!(rules::of_package("crates/core/Cargo.toml", text), []);
}

#[test]
fn words_of_one_machine_are_found_in_any_text() {
    let found = check("README.md", concat!("see /ho", "me/me/portico\n"));
    assert_eq!(found.len(), 1, "{found:?}");
}

#[test]
fn source_keeps_lifetimes_and_lines_apart_from_literals() {
    let source = Source::read(
        "fn f<'a>(x: &'a str) -> char { /* a /* b */ c */ '\\'' }\n\"two\nlines\"; g();\n",
    );
    assert!(
        source.code.contains("fn f<'a>(x: &'a str) -> char {"),
        "{}",
        source.code
    );
    assert_eq!(source.code.lines().nth(2).map(str::trim), Some("; g();"));
    assert_eq!(source.comments.trim(), "/* a /* b */ c */");
}

#[test]
fn paths_unfold_nested_groups_with_lines() {
    let found = paths::below(
        "crate",
        "use crate::{\n    a::{b, c as d},\n    e,\n};\nfn f(x: my_crate::y) { crate::g::h() }\n",
    );
    let names: Vec<_> = found
        .iter()
        .map(|path| (path.line, path.name.as_str()))
        .collect();
    assert_eq!(names, [(2, "a::b"), (2, "a::c"), (3, "e"), (5, "g::h")]);
}
