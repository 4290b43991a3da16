//! A fresh user and network namespace for a test, without root (`user_namespaces(7)`): the test binary runs itself
//! again inside, for that one test.

use std::process::{Command, Stdio};

use super::is_installed;

/// Set inside the namespace.
const INSIDE: &str = "PORTICO_TEST_INSIDE";

/// Who the test is inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum User {
    /// Root of the namespace: may bind ports below 1024 there.
    Root,
    /// The same, with a copy of /etc that may be changed, empty /run and /var/lib, and no processes but its own: the
    /// machine's resolver may be one.
    OwnFiles,
    /// Nobody in particular: no capability at all.
    Unprivileged,
    /// The same with a number of its own, which is not root's either: `/proc/sys/net` is not writable, for example.
    Nobody,
    /// Root of the machine, with interfaces and mounts of its own, which is what container engines want.
    Machine,
}

impl User {
    /// What `unshare(1)` is told.
    fn flags(self) -> &'static [&'static str] {
        match self {
            Self::Root | Self::Unprivileged | Self::Nobody => &["-Urn"],
            Self::OwnFiles => &["-Urnmpf", "--mount-proc"],
            Self::Machine => &["-nm"],
        }
    }
}

/// How a namespace is made in which there are several users: by real root just a network of its own, by others with the
/// numbers that `/etc/subuid` gives them (newuidmap(1)).
fn with_users() -> Option<&'static [&'static str]> {
    const WAYS: [&[&str]; 2] = [&["-n"], &["-Urn", "--map-auto"]];
    WAYS.into_iter().find(|way| {
        // Becoming somebody else is the proof.
        let probe = Command::new("unshare")
            .args(*way)
            .args(["setpriv", "--reuid=65534", "--clear-groups", "true"])
            .output();
        probe.is_ok_and(|output| output.status.success())
    })
}

/// As [`enter`], as root in a namespace with several users.
pub(crate) fn enter_with_users(test: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    if !is_installed("ip") {
        return false;
    }
    let Some(way) = with_users() else {
        eprintln!(
            "skipped {test}: no second user in a namespace here: not root, and no /etc/subuid"
        );
        return false;
    };
    go_inside(test, way, r#"ip link set lo up && exec "$0" "$@""#);
    false
}

/// True inside the namespace: go on with the test. False outside: the test has run inside and passed, or cannot run
/// here, which is printed.
pub(crate) fn enter(test: &str, user: User) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    if !is_installed("ip") || !is_installed("setpriv") {
        return false;
    }
    let probe = Command::new("unshare")
        .args(user.flags())
        .arg("true")
        .stderr(Stdio::piped())
        .output();
    match probe {
        Ok(output) if output.status.success() => {}
        Ok(output) => {
            eprintln!(
                "skipped {test}: no namespaces here: {}",
                String::from_utf8_lossy(&output.stderr).trim()
            );
            return false;
        }
        Err(error) => {
            eprintln!("skipped {test}: unshare(1) is missing: {error}");
            return false;
        }
    }
    let script = match user {
        User::Root | User::Machine => r#"ip link set lo up && exec "$0" "$@""#,
        // What cannot be read is not copied. The last file proves to the test that it is not the machine's own.
        User::OwnFiles => {
            r#"ip link set lo up && mount -t tmpfs etc /mnt &&
            { cp -dR /etc/. /mnt 2>/dev/null; rm -f /mnt/resolv.conf; touch /mnt/portico-test; } &&
            mount --bind /mnt /etc && umount /mnt && mount -t tmpfs run /run && mount -t tmpfs lib /var/lib && exec "$0" "$@""#
        }
        User::Nobody => {
            r#"ip link set lo up && exec unshare -U --map-user=1000 --map-group=1000 -- "$0" "$@""#
        }
        User::Unprivileged => {
            r#"ip link set lo up && exec setpriv --bounding-set=-all --inh-caps=-all --no-new-privs "$0" "$@""#
        }
    };
    go_inside(test, user.flags(), script);
    false
}

/// What a caller may have, and no test: a proxy that is nowhere in the namespace, and files that nobody else may read.
const FORGET: &str =
    "umask 022 && unset http_proxy HTTP_PROXY https_proxy HTTPS_PROXY all_proxy ALL_PROXY";

/// Runs the test, and nothing else, behind `script` in a namespace that is made in this way. Signals have their defaults
/// there: a shell cannot trap what the caller ignores.
fn go_inside(test: &str, way: &[&str], script: &str) {
    let script = format!("{FORGET} && {script}");
    let inside = Command::new("unshare")
        .args(way)
        .args(["--", "env", "--default-signal", "sh", "-c", &script])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(INSIDE, "1")
        .output()
        .unwrap();
    // By the runner's own streams: it shows what belongs to a test that fails, and nothing comes between its lines.
    print!("{}", String::from_utf8_lossy(&inside.stdout));
    eprint!("{}", String::from_utf8_lossy(&inside.stderr));
    assert!(inside.status.success(), "{test} failed in its namespace");
}

/// Opens a test that needs a namespace: returns from the test unless it is inside.
macro_rules! in_namespace {
    ($user:ident) => {
        let name = $crate::support::namespace::test_name(module_path!(), {
            fn here() {}
            std::any::type_name_of_val(&here)
        });
        if !$crate::support::namespace::enter(&name, $crate::support::namespace::User::$user) {
            return;
        }
    };
}
pub(crate) use in_namespace;

/// Opens a test that needs root and another user in a namespace: returns from the test unless it is inside.
macro_rules! in_users_namespace {
    () => {
        let name = $crate::support::namespace::test_name(module_path!(), {
            fn here() {}
            std::any::type_name_of_val(&here)
        });
        if !$crate::support::namespace::enter_with_users(&name) {
            return;
        }
    };
}
pub(crate) use in_users_namespace;

/// `module::test` as the test runner knows it, from the path of a function inside the test.
pub(crate) fn test_name(_module: &str, inner: &str) -> String {
    let path = inner.trim_end_matches("::here");
    path.split_once("::")
        .map_or(path, |(_, rest)| rest)
        .to_owned()
}
