//! The README's first page is true. Its commands are run in their order by a user without privileges and print what it
//! says; each of its sentences has tests that hold it, in `first_page.tsv`.
//!
//! A row there is a sentence, a tab, and the names of tests with a space between them, or `-` for what claims nothing
//! about the program. A command has a row where it is not run here, for the tests that run it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc,
};

use crate::{
    support::{
        PATIENCE,
        host::Host,
        is_installed,
        namespace::in_namespace,
        page::{chapter, check, commands, first_page, is_said, said, sentences, serves},
        program::portico,
    },
    transcripts::Step,
};

/// Beside the command of the page: sooner over, however busy the machine is.
const BENCH: &str = "-N 40 --rate 100 --max-lag 1h --no-overhead";
/// What a folder named k8s has in it.
const MANIFESTS: &str = "config/demo";
/// A manifest with the mistakes that the page shows.
const MISTAKES: &str = "apiVersion: v1\nkind: Service\nmetadata:\n  name: web\nspec:\n  typ: NodePort\n  ports:\n    - port: 99999\n";
/// Reaches the Service by its variables, or by its name through a proxy.
const PROGRAM: &str = "#!/bin/sh\nexec curl -sf \"http://${WEB_SERVICE_HOST:-web}:8080/\"\n";

/// Sentences and commands with the tests that hold them.
fn rows() -> BTreeMap<String, Vec<String>> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/first_page.tsv");
    let text = fs::read_to_string(file).unwrap();
    let rows = text.lines().map(|row| {
        let (said, tests) = row
            .split_once('\t')
            .unwrap_or_else(|| panic!("no tab in {row:?}"));
        let tests = tests.split(' ').map(str::to_owned).collect();
        (said.to_owned(), tests)
    });
    rows.collect()
}

/// The commands of the page but for the chapter that `containers` plays.
fn steps() -> Vec<Step> {
    let containers = chapter("### From a container");
    let page = first_page();
    assert!(page.contains(&containers));
    commands(&page.replace(&containers, ""))
}

/// A command as its row has it.
fn command(step: &Step) -> String {
    said(step).join(" ")
}

#[test]
fn sentences_of_the_first_page_have_tests() {
    let rows = rows();
    let mut said: BTreeSet<String> = sentences(first_page()).into_iter().collect();
    let mut missing = String::new();
    for sentence in said.iter().filter(|sentence| !rows.contains_key(*sentence)) {
        let _ = writeln!(missing, "{sentence}\tTESTS");
    }
    assert!(
        missing.is_empty(),
        "tests/it/first_page.tsv lacks these rows:\n{missing}"
    );
    said.extend(steps().iter().map(command));
    let idle: Vec<_> = rows.keys().filter(|row| !said.contains(*row)).collect();
    assert!(
        idle.is_empty(),
        "the page does not say this any more: {idle:#?}"
    );
}

#[test]
fn tests_of_the_first_page_exist() {
    let mut sources = String::new();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut folders: Vec<PathBuf> = ["src", "crates", "tests", "loadtest"]
        .map(|name| root.join(name))
        .into();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                sources += &fs::read_to_string(path).unwrap();
            }
        }
    }
    for (sentence, tests) in rows() {
        for test in tests.iter().filter(|test| *test != "-") {
            let is_there = sources.contains(&format!("fn {test}("));
            assert!(
                is_there,
                "there is no test {test}, which is to hold: {sentence}"
            );
        }
    }
}

#[test]
fn links_of_the_readme_lead_to_what_there_is() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let pages = [
        "README.md",
        "docs/addresses.md",
        "docs/containers.md",
        "docs/fields.md",
        "docs/operation.md",
    ];
    for page in pages.map(|page| root.join(page)) {
        let text = fs::read_to_string(&page).unwrap();
        let links = text
            .split("](")
            .skip(1)
            .filter_map(|rest| rest.split(')').next());
        for link in links.filter(|link| !link.starts_with("http")) {
            let path = link.split('#').next().unwrap_or_default();
            assert!(
                page.parent().unwrap().join(path).exists(),
                "{}: {link}",
                page.display()
            );
        }
    }
}

#[test]
fn bench_asks_as_often_as_the_page_says_and_exits_with_3_if_it_was_late() {
    let folder = tempfile::tempdir().unwrap();
    let help = portico(folder.path())
        .args(["bench", "--help"])
        .output()
        .unwrap();
    let help = String::from_utf8_lossy(&help.stdout).into_owned();
    for default in ["Requests a second", "[default: 1000]", "[default: 10s"] {
        assert!(help.contains(default), "{help}");
    }
    let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let target = format!("tcp://{}", server.local_addr().unwrap());
    // Ends with the tests.
    std::thread::spawn(move || {
        for mut stream in server.incoming().map_while(Result::ok) {
            let _ = stream.write_all(b"a\n");
        }
    });
    let late = ["bench", "--target", &target, "-N", "20", "--max-lag", "0s"];
    let late = portico(folder.path()).args(late).output().unwrap();
    assert_eq!(
        late.status.code(),
        Some(3),
        "{}",
        String::from_utf8_lossy(&late.stdout)
    );
}

/// A program that goes on until the next one of its kind.
struct Server {
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Drop for Server {
    fn drop(&mut self) {
        // As a user ends it: it takes back what it made.
        let id = self.child.id().to_string();
        let _ = Command::new("kill").args(["-TERM", &id]).status();
        let _ = self.child.wait();
    }
}

impl Server {
    fn start(mut command: Command) -> Self {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let (line, lines) = mpsc::channel();
        // Goes on reading, so that the program never waits for us; ends with it.
        std::thread::spawn(move || {
            for text in output.lines().map_while(Result::ok) {
                let _ = line.send(text);
            }
        });
        Self { child, lines }
    }

    /// What it prints up to a line that contains `last`.
    fn until(&self, last: &str) -> Vec<String> {
        let mut printed: Vec<String> = Vec::new();
        while !printed.last().is_some_and(|line| line.contains(last)) {
            let line = self.lines.recv_timeout(PATIENCE);
            printed.push(line.unwrap_or_else(|_| panic!("no {last:?} in {printed:#?}")));
        }
        printed
    }
}

/// A terminal in a folder with what the page takes for granted.
struct Terminal {
    folder: tempfile::TempDir,
    /// The page's name for the demo's folder, and the real one.
    demo: Option<(String, String)>,
    servers: BTreeMap<&'static str, Server>,
}

impl Terminal {
    fn open() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        fs::create_dir(path.join("k8s")).unwrap();
        for entry in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(MANIFESTS)).unwrap() {
            let entry = entry.unwrap();
            fs::copy(entry.path(), path.join("k8s").join(entry.file_name())).unwrap();
        }
        fs::write(path.join("web.yaml"), MISTAKES).unwrap();
        fs::write(path.join("program"), PROGRAM).unwrap();
        let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(path.join("program"), executable).unwrap();
        Self {
            folder,
            demo: None,
            servers: BTreeMap::new(),
        }
    }

    /// A command as it is typed there.
    fn shell(&self, line: &str) -> Command {
        let program = portico(self.folder.path());
        let binary = Path::new(program.get_program()).parent().unwrap();
        let path = std::env::var("PATH").unwrap_or_default();
        let mut command = Command::new("sh");
        for (name, value) in program.get_envs() {
            command.env(name, value.unwrap_or_default());
        }
        command
            .env("PATH", format!("{}:{path}", binary.display()))
            .current_dir(self.folder.path())
            .args(["-c", line]);
        command
    }

    /// Starts a program in the place of the one of its kind, and compares what it says until it is there.
    fn serve(&mut self, kind: &'static str, step: &Step, last: &str) -> Vec<String> {
        self.servers.remove(kind);
        let line = said(step).join(" ");
        let command = self.shell(&format!("exec {}", line.trim_end_matches('&')));
        let server = Server::start(command);
        let printed = server.until(last);
        assert!(
            is_said(step, &printed),
            "$ {}\n{printed:#?}\n--- the page says\n{:#?}",
            step.command,
            step.wanted
        );
        self.servers.insert(kind, server);
        printed
    }

    /// The command as it is meant here.
    fn meant(&self, command: &str) -> String {
        let mut meant = command.to_owned();
        if let Some((page, real)) = &self.demo {
            meant = meant.replace(page, real);
        }
        if meant.starts_with("portico bench ") {
            meant = format!("{meant} {BENCH}");
        }
        meant
    }

    fn run(&mut self, step: &Step) {
        let words = said(step);
        if words == ["portico", "demo"] {
            let printed = self.serve("up", step, "Ctrl-C ends it.");
            let folder = |lines: &[String]| {
                let line = lines
                    .iter()
                    .find_map(|line| line.strip_prefix("Manifests: "));
                line.unwrap().to_owned()
            };
            let page = first_page().lines().map(str::to_owned).collect::<Vec<_>>();
            self.demo = Some((folder(&page), folder(&printed)));
        } else if serves(&words).is_some() {
            self.serve("up", step, " is ready: ");
        } else if words.last() == Some(&"&") {
            self.serve("proxy", step, "in a browser");
        } else {
            check(
                step,
                &self.shell(&self.meant(&step.command)).output().unwrap(),
            );
        }
    }
}

#[test]
fn commands_of_the_first_page_print_what_it_says() {
    in_namespace!(Nobody);
    if !is_installed("curl") || !is_installed("dig") {
        return;
    }
    let rows = rows();
    let mut terminal = Terminal::open();
    for step in steps() {
        if !rows.contains_key(&command(&step)) {
            terminal.run(&step);
        }
    }
    terminal.servers.clear();
    let (_, demo) = terminal.demo.unwrap();
    assert!(!Path::new(&demo).exists(), "{demo} is left");
}

#[test]
fn up_says_where_other_machines_reach_it() {
    in_namespace!(Root);
    let _there = Host::join();
    let terminal = Terminal::open();
    let up = Server::start(terminal.shell("exec portico up --simulate ./k8s"));
    let printed = up.until(" is ready: ");
    let outside = "Reachable from other machines: 10.77.0.1:30080".to_owned();
    assert!(printed.contains(&outside), "{printed:#?}");
}
