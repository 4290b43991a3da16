//! What help says beside the options: examples for each command, and the groups of commands. Owns both tables; what a
//! command does belongs to it.

use std::fmt::Write as _;

use clap::{
    Command,
    builder::{Resettable, StyledStr},
};

/// Examples of each command, by its path: what is typed, and what comes of it. A command may also bring its own in
/// `before_help`.
#[rustfmt::skip]
const EXAMPLES: &[(&str, &[(&str, &str)])] = &[
    ("", &[
        ("portico demo", "a first minute, no files of your own needed"),
        ("portico up ./k8s", "serve the Services of a folder of manifests"),
        ("portico up --simulate ./k8s", "and run stand-ins for their pods"),
        ("portico up --map web:80=127.0.0.1:3000", "a Service for a local process"),
        ("portico validate ./k8s", "what the API server would say, offline"),
        ("portico resolve web.default.svc.cluster.local", "ask the running program's DNS"),
        ("portico explain service web", "why it is served, or why not and what to change"),
        ("portico status", "addresses and endpoints, as they are now"),
        ("portico run -- curl http://web:8080/", "a program for which Services are at their own names and ports"),
        ("portico doctor", "which ways in work on this machine, and what to type"),
    ]),
    ("up", &[
        ("portico up ./k8s", "serve a folder, and follow its changes"),
        ("portico up --simulate service.yaml deployment.yaml", "with stand-ins for the pods"),
        ("portico up --map web:80=127.0.0.1:3000", "a Service for a local process"),
        ("helm template . | portico up -", "from standard input"),
        ("portico up --instance blue ./k8s", "beside another one, with addresses of its own"),
    ]),
    ("validate", &[
        ("portico validate ./k8s", "every problem, with its line; exit status 1 if there is an error"),
        ("portico validate --strict -o json ./k8s", "warnings count, for a pipeline"),
        ("kustomize build | portico validate -", "from standard input"),
    ]),
    ("resolve", &[
        ("portico resolve web.default.svc.cluster.local", "ask the running program"),
        ("portico resolve web -n shop", "as a pod in namespace shop would write it"),
        ("portico resolve _http._tcp.web.default.svc.cluster.local SRV", "ports"),
        ("portico resolve -f ./k8s web.default.svc.cluster.local", "from manifests, without a program"),
    ]),
    ("status", &[
        ("portico status", "tables"),
        ("portico status -o json", "everything, with the counters of every endpoint"),
    ]),
    ("doctor", &[
        ("portico doctor", "each way in: works, or why not and the command that helps"),
        ("portico doctor -f ./k8s", "before a start: can these manifests' ports be had"),
        ("portico doctor -o json", "for a script; exit status 1 if anything does not work"),
    ]),
    ("stat", &[
        ("portico stat", "a row a Service port: rates, failures, and whether it is even"),
        ("portico stat service/web", "each endpoint's share beside the expected one, and why"),
        ("portico stat --mark", "begin the window `mark`, the one that shares are shown over"),
        ("portico stat web --window 1m -o json", "everything, for a script"),
    ]),
    ("top", &[
        ("portico top", "the busiest Services of the namespace, every second"),
        ("portico top endpoints -A --sort-by active", "endpoints of all namespaces"),
        ("portico top --once", "one table, for a script"),
    ]),
    ("dns", &[
        ("portico dns install --dry-run", "what would be written, and where"),
        ("sudo portico dns install", "every program of this machine knows the names of Services"),
        ("portico dns status", "whether it does"),
    ]),
    ("dns install", &[
        ("portico dns install --dry-run", "what would be written, and where"),
        ("sudo portico dns install -n shop", "bare names are those of namespace shop"),
    ]),
    ("dns uninstall", &[
        ("sudo portico dns uninstall", "the former files, byte for byte"),
    ]),
    ("dns status", &[
        ("portico dns status", "whether it is installed, and whether a lookup works"),
        ("portico dns status -o json", "for a script"),
    ]),
    ("map", &[
        ("portico map web:80=127.0.0.1:3000,127.0.0.1:3001 > k8s/web.yaml", "a manifest to keep"),
        ("portico map web.shop=:3000 -o json", "in namespace shop, on the port of the process"),
    ]),
    ("bench", &[
        ("portico bench service/web", "ten seconds: is it even, how fast, what does it cost"),
        ("portico bench web -N 30000 -r 5000 --html report.html", "so many, so fast, as a page with plots"),
        ("portico bench web --keep-alive -o json", "kept connections, for a script"),
        ("portico bench --target http://127.0.0.1:8000/ --identify header:x-pod", "any other proxy, by the same measure"),
        ("portico bench compare a.json b.json", "two reports that were written with `-o json`"),
    ]),
    ("bench compare", &[
        ("portico bench compare a.json b.json", "what has changed from the first to the second"),
    ]),
    ("demo", &[
        ("portico demo", "write a small folder, serve it, say what to try"),
        ("portico demo --dir ./demo", "into a folder that stays"),
        ("portico demo --check", "prove that every way in is balanced evenly"),
    ]),
    ("completion", &[
        ("portico completion bash > ~/.local/share/bash-completion/completions/portico", "for every new bash"),
        ("source <(portico completion bash)", "for this bash"),
        ("portico completion zsh > ~/.zfunc/_portico", "in a folder of $fpath, before compinit"),
        ("portico completion fish > ~/.config/fish/completions/portico.fish", "for fish"),
    ]),
    ("man", &[
        ("portico man | man -l -", "the main page"),
        ("portico man up | man -l -", "the page of a command"),
        ("portico man --dir ~/.local/share/man/man1", "all pages, where man finds them"),
    ]),
    ("settings", &[
        ("portico settings", "what `portico up` would run with, and who says so"),
        ("portico settings --drain-timeout 5s -o json", "with a flag, for a program"),
    ]),
    ("get", &[
        ("portico get services", "as a table"),
        ("portico get pods -o wide --show-labels", "with nodes, addresses and labels"),
        ("portico get svc,endpointslices -A", "several kinds, of all namespaces"),
        ("portico get deployment/web -o yaml", "one object"),
        ("portico get pods -w", "and every change"),
    ]),
    ("describe", &[
        ("portico describe service web", "with its endpoints, listeners and events"),
        ("portico describe pods -l app=web", "by label"),
    ]),
    ("set", &[
        ("portico set image deployment/web web=nginx:1.27", "starts a rolling update"),
    ]),
    ("rollout", &[
        ("portico rollout status deployment/web", "waits until it is done"),
        ("portico rollout undo deployment/web", "back to the revision before"),
    ]),
    ("pod", &[
        ("portico pod fail web-5d8c-x2x1z ready", "its readiness probe fails from now on"),
        ("portico pod heal web-5d8c-x2x1z ready", "and succeeds again"),
    ]),
];

/// Groups of commands in the main help; a command that is in none comes last.
const GROUPS: &[(&str, &[&str])] = &[
    ("Serve", &["up", "demo", "map"]),
    (
        "Look",
        &[
            "get",
            "describe",
            "status",
            "stat",
            "top",
            "logs",
            "resolve",
            "url",
            "overrides",
        ],
    ),
    ("Reach", &["run", "proxy", "dns", "port-forward", "env"]),
    (
        "Change",
        &[
            "scale", "set", "rollout", "delete", "label", "annotate", "edit", "pod", "reset",
        ],
    ),
    (
        "Understand",
        &["explain", "doctor", "bench", "validate", "settings"],
    ),
    ("Set up", &["completion", "man"]),
];

/// The command with its examples first and, at the top, its commands in groups.
pub(crate) fn dress(command: Command) -> Command {
    let template = template(&command);
    with_examples(command, "").help_template(template)
}

fn with_examples(command: Command, path: &str) -> Command {
    // Whoever wrote them last wanted them first.
    let own = command.get_before_help().or(command.get_after_help());
    let own = own
        .map(ToString::to_string)
        .filter(|text| text.starts_with("Example"));
    let is_behind = command
        .get_after_help()
        .is_some_and(|text| text.to_string().starts_with("Example"));
    let mut command = match own.or_else(|| examples(path)) {
        Some(text) => command.before_help(text),
        None => command,
    };
    if is_behind {
        command = command.after_help(Resettable::<StyledStr>::Reset);
    }
    let path = path.to_owned();
    command.mut_subcommands(move |sub| {
        let below = format!("{path} {}", sub.get_name());
        with_examples(sub, below.trim_start())
    })
}

/// The examples of the table, explained at one column.
fn examples(path: &str) -> Option<String> {
    let (_, examples) = EXAMPLES.iter().find(|(of, _)| *of == path)?;
    let width = examples.iter().map(|(line, _)| line.len()).max()?;
    let mut text = String::from("Examples:");
    for (line, meaning) in *examples {
        // Writing to a String cannot fail.
        let _ = write!(text, "\n  {line:width$}  {meaning}");
    }
    Some(text)
}

fn template(command: &Command) -> String {
    let style = command.get_styles().get_header();
    let literal = command.get_styles().get_literal();
    let visible: Vec<&Command> = command
        .get_subcommands()
        .filter(|sub| !sub.is_hide_set())
        .collect();
    let width = visible.iter().map(|sub| sub.get_name().len()).max();
    let width = width.unwrap_or_default();
    let in_some = |name: &str| GROUPS.iter().any(|(_, names)| names.contains(&name));
    let rest: Vec<&str> = visible
        .iter()
        .map(|sub| sub.get_name())
        .filter(|name| !in_some(name))
        .collect();
    let mut text = String::from("{before-help}{about-with-newline}\n{usage-heading} {usage}\n");
    for (title, names) in GROUPS.iter().copied().chain([("More", rest.as_slice())]) {
        let named = |name: &&str| visible.iter().find(|sub| sub.get_name() == *name);
        let group: Vec<&&Command> = names.iter().filter_map(named).collect();
        if group.is_empty() {
            continue;
        }
        let _ = write!(text, "\n{style}{title}:{style:#}");
        for sub in group {
            let about = sub.get_about().map(ToString::to_string).unwrap_or_default();
            let name = sub.get_name();
            let _ = write!(text, "\n  {literal}{name:width$}{literal:#}  {about}");
        }
        text.push('\n');
    }
    let _ = write!(
        text,
        "\n{style}Options:{style:#}\n{{options}}{{after-help}}"
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::command;

    /// Every visible command with its path.
    fn all() -> Vec<(String, Command)> {
        fn walk(command: &Command, path: &str, found: &mut Vec<(String, Command)>) {
            for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set()) {
                let path = format!("{path} {}", sub.get_name()).trim().to_owned();
                walk(sub, &path, found);
                found.push((path, sub.clone()));
            }
        }
        let mut command = command();
        command.build();
        let mut found = vec![(String::new(), command.clone())];
        walk(&command, "", &mut found);
        found
    }

    #[test]
    fn every_command_has_examples_and_all_its_options_have_help() {
        for (path, command) in all() {
            let before = command.get_before_help().map(ToString::to_string);
            let before = before.unwrap_or_default();
            assert!(
                before.starts_with("Example"),
                "portico {path} has no example"
            );
            assert!(before.contains("portico "), "portico {path}: {before}");
            assert!(
                command.get_about().is_some(),
                "portico {path} says nothing of itself"
            );
            for arg in command.get_arguments().filter(|arg| !arg.is_hide_set()) {
                let id = arg.get_id();
                assert!(arg.get_help().is_some(), "portico {path}: {id} has no help");
            }
        }
    }

    #[test]
    fn examples_of_commands_that_there_are_can_be_typed() {
        let (commands, mut typed) = (all(), 0);
        for (path, examples) in EXAMPLES {
            if !commands.iter().any(|(known, _)| known == path) {
                continue;
            }
            for (line, _) in *examples {
                let parts = line.split(['|', '>', '<', '(', ')']).map(str::trim);
                for part in parts.filter(|part| part.starts_with("portico ")) {
                    let parsed = command().try_get_matches_from(part.split_whitespace());
                    assert!(parsed.is_ok(), "{part}: {}", parsed.unwrap_err());
                    typed += 1;
                }
            }
        }
        assert!(typed > 20, "{typed}");
    }

    #[test]
    fn main_help_has_each_command_in_one_group() {
        let help = command().term_width(100).render_help().to_string();
        assert!(help.starts_with("Examples:\n  portico demo"), "{help}");
        for (path, _) in all()
            .iter()
            .filter(|(path, _)| !path.is_empty() && !path.contains(' '))
        {
            let lines = help
                .lines()
                .filter(|line| line.starts_with(&format!("  {path} ")));
            assert_eq!(lines.count(), 1, "{path}: {help}");
        }
        let titles: Vec<&str> = help.lines().filter(|line| line.ends_with(':')).collect();
        assert!(
            titles.starts_with(&["Examples:", "Serve:", "Look:"]),
            "{titles:?}"
        );
    }
}
