//! Screens of several sizes.

use clap::Parser as _;

use super::*;
use crate::cli::stat::tests::port;

#[derive(clap::Parser)]
struct Line {
    #[command(flatten)]
    args: TopArgs,
}

fn frame_of(services: usize, rows: usize, columns: usize) -> String {
    let names = (0..services).map(|index| format!("web-{index}"));
    let ports: Vec<_> = names.map(|name| port(&name, 1.0, &[1])).collect();
    let windows = table::Windows {
        rates: WindowName::TenSeconds,
        shares: WindowName::Mark,
    };
    let table = table::services(&ports, windows, table::Namespace::Hidden);
    let place = Line::parse_from(["top"]).args.place;
    let screen = Screen { rows, columns };
    let rows = (table.len() > 0).then_some(table);
    frame(rows.as_ref(), "now", &place, screen)
}

fn lines(frame: &str) -> Vec<String> {
    let body = frame.strip_prefix("\x1b[H").unwrap();
    let body = body.strip_suffix("\x1b[J").unwrap();
    let lines = body.lines();
    lines
        .map(|line| line.strip_suffix("\x1b[K").unwrap().to_owned())
        .collect()
}

#[test]
fn frame_never_fills_the_last_line_and_says_how_many_are_left_out() {
    for rows in [5, 10, 24] {
        for services in [1, rows - 4, rows - 3, rows - 2, 100] {
            let lines = lines(&frame_of(services, rows, 200));
            assert!(lines.len() < rows, "{services} in {rows}: {lines:?}");
            let shown = lines.iter().filter(|line| line.starts_with("web-")).count();
            let left_out = services - shown;
            let said = lines.last().unwrap().starts_with("and ");
            assert_eq!(said, left_out > 0, "{lines:?}");
            if said {
                let expected = format!("and {left_out} more, further down by this order");
                assert_eq!(*lines.last().unwrap(), expected);
            }
        }
    }
}

#[test]
fn frame_cuts_lines_that_would_wrap() {
    let lines = lines(&frame_of(3, 24, 20));
    assert!(lines.iter().all(|line| line.chars().count() <= 20));
}

#[test]
fn frame_of_nothing_says_so() {
    let lines = lines(&frame_of(0, 24, 80));
    assert_eq!(lines, ["now", "No resources found in default namespace."]);
}
