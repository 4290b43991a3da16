//! `portico up --user`: started as root, it is somebody else before it serves anything, and may do no more than it needs.

use std::{
    collections::BTreeSet,
    io::Write as _,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::Path,
    process::{Command, Stdio},
};

use crate::support::{
    addr, get,
    namespace::{in_namespace, in_users_namespace},
    program::{Program, portico, way},
};

/// Whom every machine has, and who owns nothing.
const NOBODY: u32 = 65_534;
/// Its numbers, real, effective, saved and of files.
const FOUR_TIMES: &str = "65534 65534 65534 65534";
/// capabilities(7), by number.
const BIND: u64 = 1 << 10;
const ADMIN: u64 = 1 << 12;
const RAW: u64 = 1 << 13;

const WEB: &str = "
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {clusterIP: 127.96.0.80, selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: web, image: web, ports: [{containerPort: 8080}]}]}
";

/// The value of a line of `/proc/PID/task/TID/status`.
fn value(status: &str, key: &str) -> String {
    let mut lines = status.lines();
    let line = lines.find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("{key}: {status}"))
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
}

/// That every thread of the process is this user with exactly these capabilities, and can have no more.
#[track_caller]
fn is_nobody_with(pid: u32, capabilities: u64) {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let mut threads = 0;
    for task in tasks {
        let Ok(status) = std::fs::read_to_string(task.unwrap().path().join("status")) else {
            continue;
        };
        threads += 1;
        for key in ["Uid", "Gid"] {
            assert_eq!(value(&status, key), FOUR_TIMES, "{key}");
        }
        assert_eq!(value(&status, "Groups"), NOBODY.to_string());
        assert_eq!(value(&status, "NoNewPrivs"), "1");
        for (key, wanted) in [
            ("CapInh", 0),
            ("CapPrm", capabilities),
            ("CapEff", capabilities),
            ("CapBnd", capabilities),
            ("CapAmb", 0),
        ] {
            assert_eq!(value(&status, key), format!("{wanted:016x}"), "{key}");
        }
    }
    assert!(threads > 0);
}

fn threads(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/task"))
        .unwrap()
        .count()
}

/// Processes that this one started.
fn children(pid: u32) -> BTreeSet<u32> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let files = tasks.map(|task| task.unwrap().path().join("children"));
    let texts = files.filter_map(|file| std::fs::read_to_string(file).ok());
    texts
        .flat_map(|text| {
            text.split_whitespace()
                .map(|pid| pid.parse().unwrap())
                .collect::<Vec<_>>()
        })
        .collect()
}

#[test]
fn user_has_every_thread_and_low_ports_and_the_pods_have_nothing() {
    in_users_namespace!();
    let program = Program::up(
        &["--user", "nobody:65534", "--simulate"],
        &[("web.yaml", WEB)],
    );
    program.wait_for_endpoints("web", 1);
    assert!(get(addr("127.96.0.80:80")).unwrap().starts_with("web-"));
    assert!(threads(program.pid()) > 3, "control, workers, DNS, files");
    is_nobody_with(program.pid(), BIND);
    let pods = children(program.pid());
    assert_eq!(pods.len(), 1);
    for pod in pods {
        let status = std::fs::read_to_string(format!("/proc/{pod}/status")).unwrap();
        for key in ["CapPrm", "CapEff", "CapInh", "CapAmb"] {
            assert_eq!(value(&status, key), "0000000000000000", "{key}");
        }
        assert_eq!(value(&status, "Uid"), FOUR_TIMES);
        assert_eq!(value(&status, "NoNewPrivs"), "1");
    }
    // DNS, too, has its port.
    assert_eq!(program.status().dns[0].bound, Some(addr("127.96.0.10:53")));

    // A Service that comes later has its low port, after SIGHUP, too.
    let more = "apiVersion: v1\nkind: Service\nmetadata: {name: late}\nspec: {clusterIP: 127.96.0.81, selector: {app: \
         web}, ports: [{port: 443, targetPort: 8080}]}\n";
    program.write("late.yaml", more);
    program.signal("HUP");
    let late = program.wait_for_endpoints("late", 1);
    assert_eq!(way(&late, "ClusterIP"), addr("127.96.0.81:443"));
    assert!(get(addr("127.96.0.81:443")).unwrap().starts_with("web-"));
    is_nobody_with(program.pid(), BIND);
}

#[test]
fn folders_are_the_users_and_a_run_as_root_before_is_no_obstacle() {
    in_users_namespace!();
    let mut program = Program::up(&[], &[("web.yaml", WEB)]);
    let folder = program.manifests().parent().unwrap().to_owned();
    let owner = |name: &str| std::fs::symlink_metadata(folder.join(name)).unwrap().uid();
    assert_eq!((owner("run"), owner("run/lock")), (0, 0));
    program.restart_with(&["--user", "nobody:65534"]);
    for name in [
        "run",
        "run/lock",
        "run/api.sock",
        "state",
        "state/state.json",
    ] {
        if folder.join(name).exists() {
            assert_eq!(owner(name), NOBODY, "{name}");
        }
    }
    let mode = |name: &str| {
        std::fs::metadata(folder.join(name))
            .unwrap()
            .permissions()
            .mode()
            & 0o777
    };
    assert_eq!(mode("run"), 0o700);
    is_nobody_with(program.pid(), BIND);
}

#[test]
fn file_that_the_user_cannot_read_is_reported_and_the_others_are_served() {
    in_users_namespace!();
    let program = Program::up(&["--user", "nobody:65534"], &[("web.yaml", WEB)]);
    let secret = program.manifests().join("secret.yaml");
    let file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(&secret);
    let mut file = file.unwrap();
    file.set_permissions(std::fs::Permissions::from_mode(0o600))
        .unwrap();
    file.write_all(WEB.replace("name: web", "name: secret").as_bytes())
        .unwrap();
    drop(file);
    let status = program.wait_for("the finding", |status| {
        status.findings_text().contains("secret.yaml")
    });
    let said = status.findings_text();
    assert!(said.contains("Permission denied"), "{said}");
    assert!(status.services.iter().any(|service| service.name == "web"));
    assert!(
        status
            .services
            .iter()
            .all(|service| service.name != "secret")
    );
}

#[test]
fn routes_keep_the_capability_and_a_killed_run_is_cleaned_up_by_the_next() {
    in_users_namespace!();
    let web = WEB.replace("127.96.0.80", "10.96.0.80");
    let args = ["--user", "nobody:65534", "--service-cidr", "10.96.0.0/16"];
    let mut program = Program::up(&args, &[("web.yaml", &web)]);
    is_nobody_with(program.pid(), BIND | ADMIN);
    let routes = || {
        let output = Command::new("ip")
            .args(["route", "show", "table", "local", "proto", "150"])
            .output();
        String::from_utf8(output.unwrap().stdout).unwrap()
    };
    assert!(routes().contains("10.96.0.0/16"), "{}", routes());
    program.signal("KILL");
    program.ended();
    assert!(routes().contains("10.96.0.0/16"), "nobody took it away");
    program.restart_with(&["--user", "nobody:65534"]);
    assert_eq!(routes(), "", "{}", program.stderr());
    is_nobody_with(program.pid(), BIND | ADMIN);
    program.restart();
    is_nobody_with(program.pid(), BIND);
}

#[test]
fn clients_addresses_keep_the_capability_where_a_service_wants_them() {
    in_users_namespace!();
    let keep = WEB.replace(
        "{name: web}\nspec: {cluster",
        "{name: web, annotations: {portico.dev/source-address: keep}}\nspec: {cluster",
    );
    let program = Program::up(&["--user", "nobody:65534"], &[("web.yaml", &keep)]);
    is_nobody_with(program.pid(), BIND | RAW);
}

/// `portico up ARGS` that is to fail: its exit status, and what it says.
fn refused(folder: &Path, args: &[&str]) -> (Option<i32>, String) {
    let mut command = portico(folder);
    let output = command
        .arg("up")
        .args(args)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    (
        output.status.code(),
        String::from_utf8(output.stderr).unwrap(),
    )
}

#[test]
fn user_without_being_root_is_refused() {
    in_namespace!(Unprivileged);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("web.yaml");
    std::fs::write(&file, WEB).unwrap();
    // Root of a namespace without capabilities is root by its number; another number is not.
    let unmapped = Command::new("unshare")
        .args(["-U", "--"])
        .arg(portico(folder.path()).get_program())
        .args(["up", "--user", "nobody"])
        .arg(&file)
        .output()
        .unwrap();
    let said = String::from_utf8(unmapped.stderr).unwrap();
    assert!(
        said.contains("only root can become nobody: start with sudo"),
        "{said}"
    );
    assert_eq!(unmapped.status.code(), Some(1));
    let (code, said) = refused(folder.path(), &["--user", "nobody", file.to_str().unwrap()]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("only root can become nobody"), "{said}");
}

#[test]
fn user_that_is_unknown_is_an_error_of_usage_with_a_suggestion() {
    let folder = tempfile::tempdir().unwrap();
    let (code, said) = refused(folder.path(), &["--user", "nobdy", "."]);
    assert_eq!(code, Some(2));
    assert!(
        said.contains("there is no user 'nobdy' in /etc/passwd, did you mean 'nobody'?"),
        "{said}"
    );
}

#[test]
fn folder_of_somebody_else_is_refused_by_name() {
    in_users_namespace!();
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    std::fs::create_dir(&run).unwrap();
    std::os::unix::fs::chown(&run, Some(1), None).unwrap();
    let (code, said) = refused(folder.path(), &["--user", "nobody:65534", "."]);
    assert_eq!(code, Some(1));
    assert!(
        said.contains("run a folder of nobody: it belongs to uid 1"),
        "{said}"
    );
}
