//! Completion as shells ask for it, with the names of a program that is played here.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    os::unix::{fs::PermissionsExt as _, net::UnixListener},
    path::Path,
    process::Command,
};

use crate::support::program::portico;

/// Folders with an admin socket that knows some objects; with [`Admin::Silent`] it takes requests and says nothing.
enum Admin {
    Answering,
    Silent,
}

fn folder(admin: &Admin) -> (tempfile::TempDir, Option<UnixListener>) {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    std::fs::create_dir(&run).unwrap();
    std::fs::set_permissions(&run, std::fs::Permissions::from_mode(0o700)).unwrap();
    let listener = UnixListener::bind(run.join("api.sock")).unwrap();
    match admin {
        Admin::Silent => (folder, Some(listener)),
        Admin::Answering => {
            // Ends with the process.
            std::thread::spawn(move || answer(&listener));
            (folder, None)
        }
    }
}

fn answer(listener: &UnixListener) {
    for stream in listener.incoming() {
        let mut stream = stream.unwrap();
        let mut head = String::new();
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        while !head.ends_with("\r\n\r\n") {
            reader.read_line(&mut head).unwrap();
        }
        let object = |namespace: &str, name: &str| serde_json::json!({"metadata": {"namespace": namespace, "name": name}});
        let body = match head.split(' ').nth(1).unwrap() {
            "/v1/objects/namespaces" => vec![object("", "default"), object("", "shop")],
            "/v1/objects/services" => vec![
                object("default", "web"),
                object("shop", "web"),
                object("shop", "db"),
            ],
            _ => Vec::new(),
        };
        let body = serde_json::to_string(&body).unwrap();
        let length = body.len();
        write!(
            stream,
            "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
        )
        .unwrap();
    }
}

/// What a shell's script prints; `None`, with a word about it, where there is no such shell.
fn shell(folder: &Path, name: &str, args: &[&str]) -> Option<String> {
    let program = portico(folder);
    let mut command = Command::new(name);
    for (variable, value) in program.get_envs() {
        command.env(variable, value.unwrap());
    }
    let binary = Path::new(program.get_program());
    let path = std::env::var("PATH").unwrap();
    command.env(
        "PATH",
        format!("{}:{path}", binary.parent().unwrap().display()),
    );
    command.env("HOME", folder);
    match command.args(args).output() {
        Ok(output) => Some(String::from_utf8_lossy(&output.stdout).into_owned()),
        Err(error) => {
            eprintln!("skipped: {name}: {error}");
            None
        }
    }
}

const BASH: &str = r#"source <(portico completion bash)
compopt() { :; }
COMP_LINE=$1 COMP_POINT=${#1}
_portico && printf '%s\n' "${COMPREPLY[@]}""#;

/// The system that shows what was found is not there without a terminal: each of its calls is printed instead.
const ZSH: &str = r#"compdef() { :; }
_describe() { print -l -- ${(P)3} }
source <(portico completion zsh)
words=("${(@s: :)1}") CURRENT=$#words
_portico"#;

const FISH: &str = "portico completion fish | source; complete -C $argv[1]";

/// What each shell offers for `line`.
fn check(folder: &Path, line: &str, bash: &str, described: &str) {
    let said = shell(folder, "bash", &["--norc", "-c", BASH, "bash", line]);
    assert_eq!(said.as_deref().unwrap_or(bash), bash, "bash: {line}");
    let zsh = described.replace('\t', ":");
    let said = shell(folder, "zsh", &["-f", "-c", ZSH, "zsh", line]);
    assert_eq!(said.as_deref().unwrap_or(&zsh), zsh, "zsh: {line}");
    let said = shell(folder, "fish", &["--no-config", "-c", FISH, line]);
    assert_eq!(
        said.as_deref().unwrap_or(described),
        described,
        "fish: {line}"
    );
}

#[test]
fn shells_offer_commands_and_names_of_the_running_program() {
    let (folder, _) = folder(&Admin::Answering);
    let check = |line, bash, described| check(folder.path(), line, bash, described);
    check(
        "portico statu",
        "status\n",
        "status\tShow Services, endpoints and sockets of the running program\n",
    );
    check("portico up -n ", "default\nshop\n", "default\nshop\n");
    check("portico up --namespace sh", "shop\n", "shop\n");
    check(
        "portico resolve w",
        "web.default\nweb.shop\n",
        "web.default\nweb.shop\n",
    );
    check("portico --color ne", "never\n", "never\tNowhere\n");
}

#[test]
fn bash_offers_the_part_after_an_equals_sign() {
    let (folder, _) = folder(&Admin::Answering);
    let line = "portico up --namespace=sh";
    let said = shell(folder.path(), "bash", &["--norc", "-c", BASH, "bash", line]);
    assert_eq!(said.as_deref().unwrap_or("shop\n"), "shop\n");
}

#[test]
fn names_of_a_program_that_does_not_answer_are_none() {
    let (silent, _listener) = folder(&Admin::Silent);
    let nobody = tempfile::tempdir().unwrap();
    for folder in [silent.path(), nobody.path()] {
        let words = ["__complete", "bash", "--", "portico", "up", "-n", ""];
        let output = portico(folder).args(words).output().unwrap();
        let said = (output.status.code(), &*output.stdout, &*output.stderr);
        assert_eq!(said, (Some(0), &b""[..], &b""[..]));
    }
}
