//! Claiming instances in folders and under slot names of the test's own.

use std::{
    os::unix::fs::{PermissionsExt, symlink},
    sync::atomic::{AtomicU32, Ordering},
};

use super::*;

fn surroundings(folder: &Path) -> Surroundings {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let none = InstanceDirs::default();
    Surroundings {
        runtime_dirs: Vec::new(),
        xdg_state_home: Some(folder.join("state")),
        temporary: folder.to_owned(),
        slot_prefix: format!("portico-test/{}/{number}", std::process::id()),
        ..Surroundings::of_process(&none)
    }
}

/// The same machine, another user's folders.
fn elsewhere(around: &Surroundings, folder: &Path) -> Surroundings {
    Surroundings {
        slot_prefix: around.slot_prefix.clone(),
        ..surroundings(folder)
    }
}

fn acquire(name: &str, around: &Surroundings) -> Result<Instance, InstanceError> {
    Instance::acquire_in(name, around, SlotGuard::Exclusive)
}

#[test]
fn acquire_second_start_names_the_holder_until_it_ends() {
    let folder = tempfile::tempdir().unwrap();
    let around = surroundings(folder.path());
    let first = acquire("default", &around).unwrap();
    let error = acquire("default", &around).unwrap_err().to_string();
    assert!(
        error.contains(&format!("pid {}", std::process::id())),
        "{error}"
    );
    assert!(error.contains("--instance"), "{error}");
    drop(first);
    acquire("default", &around).unwrap();
}

#[test]
fn acquire_folders_and_socket_are_where_they_should_be() {
    let folder = tempfile::tempdir().unwrap();
    let around = surroundings(folder.path());
    let instance = acquire("default", &around).unwrap();
    let runtime = folder
        .path()
        .join(format!("portico-{}/default", around.uid));
    assert_eq!(
        (instance.name(), instance.slot(), instance.runtime_dir()),
        ("default", 0, &*runtime)
    );
    assert_eq!(instance.socket_path(), runtime.join("api.sock"));
    assert_eq!(
        instance.state_dir(),
        folder.path().join("state/portico/default")
    );
    assert_eq!(
        fs::metadata(&runtime).unwrap().permissions().mode() & 0o777,
        0o700
    );
    assert_eq!(around.find_runtime_dir("default").unwrap(), runtime);
}

#[test]
fn acquire_stale_socket_is_removed() {
    let folder = tempfile::tempdir().unwrap();
    let around = surroundings(folder.path());
    let path = acquire("default", &around).unwrap().socket_path();
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let instance = acquire("default", &around).unwrap();
    std::os::unix::net::UnixListener::bind(instance.socket_path()).unwrap();
}

#[test]
fn instance_that_ends_leaves_no_socket() {
    let folder = tempfile::tempdir().unwrap();
    let instance = acquire("default", &surroundings(folder.path())).unwrap();
    let sockets = [instance.socket_path(), instance.run_socket_path()];
    let bind = |path| std::os::unix::net::UnixListener::bind(path).unwrap();
    let _bound = sockets.each_ref().map(bind);
    drop(instance);
    assert!(sockets.iter().all(|path| !path.exists()));
}

#[test]
fn acquire_default_of_another_user_fails_and_names_them() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let around = surroundings(one.path());
    let _first = acquire("default", &around).unwrap();
    let other = elsewhere(&around, two.path());
    let error = acquire("default", &other).unwrap_err().to_string();
    let holder = format!("pid {} of uid {}", std::process::id(), around.uid);
    assert!(
        error.contains(&holder) && error.contains("--instance"),
        "{error}"
    );
    assert_eq!(
        Instance::acquire_in("default", &other, SlotGuard::Unguarded)
            .unwrap()
            .slot(),
        0
    );
}

#[test]
fn acquire_named_instances_have_slots_of_their_own_until_none_is_left() {
    let folder = tempfile::tempdir().unwrap();
    let around = surroundings(folder.path());
    let held: Vec<_> = (0..15)
        .map(|number| acquire(&format!("run-{number}"), &around).unwrap())
        .collect();
    let mut slots: Vec<_> = held.iter().map(Instance::slot).collect();
    slots.sort_unstable();
    assert_eq!(slots, (1..16).collect::<Vec<_>>());
    assert!(matches!(
        acquire("one-more", &around),
        Err(InstanceError::NoSlot)
    ));
}

#[test]
fn acquire_slot_that_was_displaced_is_remembered() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let around = surroundings(one.path());
    let first = acquire("blue", &around).unwrap();
    let displaced = elsewhere(&around, two.path());
    let second = acquire("blue", &displaced).unwrap();
    let slot = second.slot();
    assert_ne!(slot, first.slot());
    drop((first, second));
    assert_eq!(acquire("blue", &displaced).unwrap().slot(), slot);
}

#[test]
fn acquire_state_folder_that_cannot_be_made_is_no_obstacle() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("state"), "a file").unwrap();
    let around = surroundings(folder.path());
    let instance = acquire("blue", &around).unwrap();
    assert!(
        instance
            .state_file()
            .save(&State {
                slot: Some(1),
                ..State::default()
            })
            .is_err()
    );
}

#[test]
fn acquire_runtime_folder_that_is_not_ours_alone_is_refused() {
    let check = |prepare: &dyn Fn(&Path), expected: &str| {
        let folder = tempfile::tempdir().unwrap();
        let around = surroundings(folder.path());
        prepare(&folder.path().join(format!("portico-{}", around.uid)));
        let error = acquire("default", &around).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    };
    check(&|path| symlink("/tmp", path).unwrap(), "symbolic link");
    check(&|path| fs::write(path, "").unwrap(), "not a folder");
    let open = |path: &Path| {
        fs::create_dir(path).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o750)).unwrap();
    };
    check(&open, "mode 0750");
}

#[test]
fn acquire_runtime_folder_of_another_user_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let mut around = surroundings(folder.path());
    let owner = around.uid;
    around.uid = owner + 1;
    let error = acquire("default", &around).unwrap_err().to_string();
    assert!(
        error.contains(&format!("belongs to uid {owner}")),
        "{error}"
    );
}

#[test]
fn check_name_labels_only() {
    for name in ["default", "a", "a-1", "0"] {
        check_name(name).unwrap();
    }
    for name in ["", "-a", "a-", "A", "a/b", "..", "a.b", &"x".repeat(64)] {
        check_name(name).unwrap_err();
    }
}

#[test]
fn surroundings_given_folders_win_and_foreign_runtime_folder_is_not_used() {
    let folder = tempfile::tempdir().unwrap();
    let mut around = surroundings(folder.path());
    around.runtime_dirs = vec![folder.path().join("missing")];
    let fallback = folder
        .path()
        .join(format!("portico-{}/default", around.uid));
    assert_eq!(around.find_runtime_dir("default").unwrap(), fallback);
    around.runtime_dirs = vec![folder.path().join("missing"), folder.path().to_owned()];
    assert_eq!(
        around.find_runtime_dir("default").unwrap(),
        folder.path().join("portico/default")
    );
    around.dirs = InstanceDirs {
        runtime_dir: Some("/r".into()),
        state_dir: Some("/s".into()),
    };
    assert_eq!(around.find_runtime_dir("default").unwrap(), Path::new("/r"));
    assert_eq!(
        around.state_dir("default", Path::new("/r")),
        Path::new("/s")
    );
}

#[test]
fn acquire_another_slot_than_last_time_forgets_its_addresses() {
    let folder = tempfile::tempdir().unwrap();
    let around = surroundings(folder.path());
    let first = acquire("blue", &around).unwrap();
    let slot = first.slot();
    let addresses = [("default/a".to_owned(), [127, 97, 1, 1].into())].into();
    let state = State {
        slot: Some(slot),
        cluster_ips: addresses,
        ..State::default()
    };
    first.state_file().save(&state).unwrap();
    drop(first);
    assert_eq!(
        acquire("blue", &around).unwrap().state_file().load(),
        state,
        "the same slot keeps them"
    );
    let squatter = slot::claim("other", &around, SlotGuard::Exclusive, Some(slot)).unwrap();
    assert_eq!(squatter.0, slot);
    let moved = acquire("blue", &around).unwrap();
    assert_ne!(moved.slot(), slot);
    assert_eq!(
        moved.state_file().load(),
        State {
            slot: Some(moved.slot()),
            ..State::default()
        }
    );
}

#[test]
fn find_socket_as_root_by_sudo_finds_the_callers_unless_there_is_an_own_one() {
    let folder = tempfile::tempdir().unwrap();
    let caller = surroundings(folder.path());
    let instance = acquire("default", &caller).unwrap();
    let socket = instance.socket_path();
    fs::write(&socket, "").unwrap();
    // Nobody has this number, so nothing is there.
    let root = Surroundings {
        uid: u32::MAX - 7,
        caller: Some(caller.uid),
        ..caller.clone()
    };
    let find = |around: &Surroundings| Instance::find_socket_in("default", around).unwrap();
    // The usual folder of a user who is logged in comes first; elsewhere it is the one in /tmp.
    let usual = Path::new("/run/user").join(caller.uid.to_string());
    let found = find(&root);
    assert!(found == socket || found.starts_with(usual), "{found:?}");
    let without = Surroundings {
        caller: None,
        ..root
    };
    assert_ne!(find(&without), socket);
    let both = Surroundings {
        caller: Some(u32::MAX - 8),
        ..caller
    };
    assert_eq!(find(&both), socket, "its own");
}

#[test]
fn folder_too_long_for_a_socket_is_refused_with_what_to_give() {
    let folder = tempfile::tempdir().unwrap();
    let long = folder.path().join("d".repeat(90));
    fs::create_dir(&long).unwrap();
    let around = surroundings(&long);
    let refusals = [
        acquire("default", &around).unwrap_err(),
        around.find_runtime_dir("default").unwrap_err(),
    ];
    for refusal in refusals.map(|error| error.to_string()) {
        assert!(refusal.contains("--runtime-dir"), "{refusal}");
    }
}
