//! The document from the runner's words, and back.

use super::*;

/// One test for each row that must have one.
fn every_row() -> BTreeSet<String> {
    let rows = ROWS
        .iter()
        .filter(|row| matches!(row.state, State::Whole | State::Partly(_)));
    rows.map(|row| format!("some::module::row_{:02}_works", row.number))
        .collect()
}

fn all(outcome: Outcome) -> Outcomes {
    every_row()
        .into_iter()
        .map(|name| (name, outcome))
        .collect()
}

#[test]
fn rows_are_numbered_without_gaps() {
    let numbers: Vec<u8> = ROWS.iter().map(|row| row.number).collect();
    assert_eq!(numbers, (1..=37).collect::<Vec<u8>>());
}

#[test]
fn outcomes_are_the_worst_that_is_said_of_each_test() {
    let listed = ["a::row_01_x", "a::row_02_x", "a::row_03_x", "a::row_04_x"];
    let listed: BTreeSet<String> = listed.map(str::to_owned).into();
    let said = "running 4 tests\n\
        test a::row_01_x ... FAILED\n\
        test b::other ... ok\n\
        test a::row_02_x ... ok\n\
        test a::row_03_x ... ok\n\
        test a::row_04_x ... ignored, why\n\
        successes:\n\
        test a::row_02_x ... portico: ready\n\
        test a::row_01_x ... ok\n\
        skipped a::row_03_x: no namespaces here\n";
    let found = outcomes(&listed, said).unwrap();
    let words: Vec<&str> = found.values().map(|outcome| outcome.word()).collect();
    assert_eq!(words, ["FAILED", "ok", "skipped", "skipped"]);
    let lost = outcomes(&listed, "test a::row_01_x ... ok\n").unwrap_err();
    assert!(lost.to_string().contains("a::row_02_x"), "{lost}");
}

#[test]
fn document_has_every_row_and_is_read_back() {
    let outcomes = all(Outcome::Passed);
    let document = render(&outcomes).unwrap();
    assert_eq!(recorded(&document), outcomes);
    for row in ROWS {
        assert!(document.contains(&format!("\n| {} | {} |", row.number, row.behaviour)));
    }
    compare(&document, &every_row()).unwrap();
}

#[test]
fn document_out_of_date_says_what_is_missing() {
    let document = render(&all(Outcome::Passed)).unwrap();
    let mut more = every_row();
    more.insert("new::row_28_works".into());
    let error = compare(&document, &more).unwrap_err().to_string();
    assert!(error.contains("not in it: new::row_28_works"), "{error}");
    let mut fewer = every_row();
    let gone = fewer.pop_last().unwrap();
    let error = compare(&document, &fewer).unwrap_err().to_string();
    assert!(error.contains(&format!("no such test: {gone}")), "{error}");
    let edited = document.replace("Large requests", "Small requests");
    assert!(compare(&edited, &every_row()).is_err());
}

#[test]
fn document_of_tests_that_did_not_pass_is_no_proof() {
    for outcome in [Outcome::Failed, Outcome::Skipped] {
        let document = render(&all(outcome)).unwrap();
        assert!(compare(&document, &every_row()).is_err(), "{outcome:?}");
    }
}

#[test]
fn row_without_test_needs_a_reason_and_a_test_needs_its_row() {
    let mut outcomes = all(Outcome::Passed);
    outcomes.pop_first();
    let error = render(&outcomes).unwrap_err().to_string();
    assert_eq!(error, "row 1 has no test");
    for number in [13, 38] {
        let mut outcomes = all(Outcome::Passed);
        outcomes.insert(format!("a::row_{number}_x"), Outcome::Passed);
        assert!(render(&outcomes).is_err(), "{number}");
    }
}
