//! Cut off after each step, and undone, on files of the test's own.

use std::os::unix::fs::{PermissionsExt as _, symlink};

use super::*;
use crate::resolver::plan::Way;

const CONTENT: &str = "# Written by `portico dns install`\nnameserver 127.96.0.10\n";
const FORMER: &[u8] = b"nameserver 10.0.0.1\n# \xff not UTF-8, and no line break at the end";

struct Machine {
    folder: tempfile::TempDir,
    record: Record,
    journal: Journal,
}

impl Machine {
    /// `former` makes what is there.
    fn new(former: impl Fn(&Path)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("state");
        let path = folder.path().join("etc/resolv.conf");
        fs::create_dir(folder.path().join("etc")).unwrap();
        fs::create_dir(&state).unwrap();
        former(&path);
        let record = Record {
            state: State::Changing,
            way: Way::ResolvConf,
            dns: "127.96.0.10:53".parse().unwrap(),
            name: "ns.dns.cluster.local".into(),
            had_former: path.symlink_metadata().is_ok(),
            made_folder: false,
            path,
            content: CONTENT.into(),
            command: None,
        };
        Self {
            folder,
            record,
            journal: Journal::at(&state),
        }
    }

    /// Every name with what identifies it.
    fn files(&self) -> Vec<(String, u64, u32, Vec<u8>)> {
        let entries = fs::read_dir(self.folder.path().join("etc"))
            .unwrap()
            .flatten();
        let mut files: Vec<_> = entries
            .map(|entry| {
                let file = entry.path().symlink_metadata().unwrap();
                let text = fs::read(entry.path()).unwrap_or_default();
                (
                    entry.file_name().into_string().unwrap(),
                    file.ino(),
                    file.mode(),
                    text,
                )
            })
            .collect();
        files.sort();
        files
    }

    fn undo(&self) -> Result<Undone, ResolverError> {
        let record = self.journal.load().unwrap().unwrap();
        undo(&self.journal, &record).map(|undone| undone.file)
    }

    /// Does steps up to one, and undoes them.
    fn check(&self, steps: &[fn(&Self)], expected: &Undone) {
        let before = self.files();
        self.journal.save(&self.record).unwrap();
        for step in steps {
            step(self);
        }
        assert_eq!(self.undo().unwrap(), *expected);
        assert_eq!(self.files(), before, "after {} steps", steps.len());
        assert_eq!(self.journal.load().unwrap(), None);
    }
}

fn second_name(machine: &Machine) {
    keep(&machine.record).unwrap();
}

fn temporary(machine: &Machine) {
    fs::write(durable::temporary(&machine.record.path), "half").unwrap();
}

fn replaced(machine: &Machine) {
    begin(&machine.journal, &machine.record).unwrap();
    assert_eq!(fs::read_to_string(&machine.record.path).unwrap(), CONTENT);
}

#[test]
fn undo_after_any_step_gives_the_very_file_back() {
    let machine = Machine::new(|path| {
        fs::write(path, FORMER).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o640)).unwrap();
    });
    machine.check(&[], &Undone::Untouched);
    machine.check(&[second_name], &Undone::Untouched);
    machine.check(&[second_name, temporary], &Undone::Untouched);
    machine.check(&[replaced], &Undone::Restored);
    machine.check(&[replaced, temporary], &Undone::Restored);
    // Twice, as after a crash of the undoing itself.
    machine.check(
        &[replaced, |machine| drop(put_back(&machine.record).unwrap())],
        &Undone::Untouched,
    );
}

#[test]
fn undo_gives_a_link_back_that_leads_where_it_did() {
    let machine = Machine::new(|path| {
        fs::write(path.with_file_name("office"), FORMER).unwrap();
        symlink("office", path).unwrap();
    });
    machine.check(&[second_name], &Undone::Untouched);
    machine.check(&[replaced], &Undone::Restored);
    begin(&machine.journal, &machine.record).unwrap();
    assert_eq!(
        fs::read(machine.record.former().unwrap()).unwrap(),
        FORMER,
        "through the link"
    );
    assert_eq!(
        fs::read(machine.record.path.with_file_name("office")).unwrap(),
        FORMER
    );
}

#[test]
fn undo_where_nothing_was_removes_file_and_folder() {
    let machine = Machine::new(|_| ());
    machine.check(&[], &Undone::Untouched);
    machine.check(&[replaced], &Undone::Removed);
    let mut machine = Machine::new(|path| fs::remove_dir(path.parent().unwrap()).unwrap());
    machine.record.made_folder = true;
    begin(&machine.journal, &machine.record).unwrap();
    assert_eq!(machine.undo().unwrap(), Undone::Removed);
    assert!(!machine.folder.path().join("etc").exists());
}

#[test]
fn undo_leaves_what_others_wrote_and_keeps_what_was_there() {
    let machine = Machine::new(|path| fs::write(path, FORMER).unwrap());
    begin(&machine.journal, &machine.record).unwrap();
    let theirs = b"# Generated by NetworkManager\n";
    fs::write(&machine.record.path, theirs).unwrap();
    let former = dns::former(&machine.record.path);
    assert_eq!(machine.undo().unwrap(), Undone::Theirs(former.clone()));
    assert_eq!(fs::read(&machine.record.path).unwrap(), theirs);
    assert_eq!(fs::read(&former).unwrap(), FORMER);
    // The next install keeps what is there then.
    begin(&machine.journal, &machine.record).unwrap();
    assert_eq!(fs::read(&former).unwrap(), theirs);
}

#[test]
fn undo_of_our_file_with_changes_says_what_to_type_and_goes_on_after_that() {
    let machine = Machine::new(|path| fs::write(path, FORMER).unwrap());
    begin(&machine.journal, &machine.record).unwrap();
    machine
        .journal
        .save(&machine.record.in_state(State::Installed))
        .unwrap();
    let edited = format!("{CONTENT}options edns0\n");
    fs::write(&machine.record.path, &edited).unwrap();
    let error = machine.undo().unwrap_err().to_string();
    let former = dns::former(&machine.record.path);
    let fix = format!(
        "sudo mv {} {}",
        former.display(),
        machine.record.path.display()
    );
    assert!(error.contains(&fix), "{error}");
    assert_eq!(fs::read_to_string(&machine.record.path).unwrap(), edited);
    assert_eq!(
        machine.journal.load().unwrap().unwrap().state,
        State::Installed
    );
    fs::rename(former, &machine.record.path).unwrap();
    assert_eq!(machine.undo().unwrap(), Undone::Untouched);
    assert_eq!(fs::read(&machine.record.path).unwrap(), FORMER);
}

#[test]
fn begin_with_a_command_that_fails_says_what_it_said() {
    let mut machine = Machine::new(|path| fs::write(path, FORMER).unwrap());
    let script = ["sh", "-c", "echo no such unit >&2; exit 5"];
    machine.record.command = Some(script.map(str::to_owned).to_vec());
    let error = begin(&machine.journal, &machine.record)
        .unwrap_err()
        .to_string();
    assert!(error.ends_with("failed: no such unit"), "{error}");
    assert_eq!(machine.undo().unwrap(), Undone::Restored);
}

#[test]
fn journal_that_is_damaged_is_an_error_and_a_lock_is_held_once() {
    let machine = Machine::new(|_| ());
    let lock = machine.journal.lock().unwrap();
    assert!(matches!(machine.journal.lock(), Err(ResolverError::Busy)));
    drop(lock);
    machine.journal.lock().unwrap();
    fs::write(machine.folder.path().join("state/dns.json"), "{").unwrap();
    let error = machine.journal.load().unwrap_err().to_string();
    assert!(error.starts_with("cannot read "), "{error}");
}
