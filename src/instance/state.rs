//! What survives a restart: only where addresses and ports deviate from what their names hash to. Owns the file;
//! losing it costs nothing but those deviations, so damage is never fatal.

use std::{
    collections::BTreeMap,
    fs, io,
    net::IpAddr,
    path::{Path, PathBuf},
};

use tracing::warn;

use crate::durable;

/// The content of the state file. Keys are `namespace/name`, with `:port` after it where a port is meant.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct State {
    /// The share of the address ranges, if it is not the default one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slot: Option<u8>,
    /// By Service: its ClusterIP.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub cluster_ips: BTreeMap<String, IpAddr>,
    /// By Service port: its NodePort.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub node_ports: BTreeMap<String, u16>,
    /// By Service: its load balancer address.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub load_balancer_ips: BTreeMap<String, IpAddr>,
}

/// The state file of one instance, which only that instance writes.
#[derive(Debug)]
pub struct StateFile {
    path: PathBuf,
    /// What the file says, if that is known.
    saved: Option<State>,
}

impl StateFile {
    /// The file `state.json` in `folder`; nothing is read or made.
    pub fn new(folder: &Path) -> Self {
        Self {
            path: folder.join("state.json"),
            saved: None,
        }
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads the file. One that is missing is an empty state; one that is damaged is moved aside with a warning, and
    /// is an empty state too. Unknown fields are ignored.
    pub fn load(&mut self) -> State {
        let read =
            fs::read(&self.path).and_then(|bytes| Ok(serde_json::from_slice::<State>(&bytes)?));
        let state = match read {
            Ok(state) => state,
            Err(error) if error.kind() == io::ErrorKind::NotFound => State::default(),
            Err(error) => {
                self.put_aside(&error);
                // What is on disk is unknown, so the next save writes in any case.
                self.saved = None;
                return State::default();
            }
        };
        self.saved = Some(state.clone());
        state
    }

    /// What the file says, without moving a damaged one aside: for commands that only look.
    pub fn peek(&self) -> State {
        let bytes = fs::read(&self.path).unwrap_or_default();
        serde_json::from_slice(&bytes).unwrap_or_default()
    }

    /// Writes the file, as a whole or not at all, if `state` is not what it says already. Returns whether it wrote.
    ///
    /// # Errors
    /// When the folder cannot be made or written; the file is as it was.
    pub fn save(&mut self, state: &State) -> io::Result<bool> {
        if self.saved.as_ref() == Some(state) {
            return Ok(false);
        }
        let folder = self.path.parent().unwrap_or(Path::new("/"));
        fs::create_dir_all(folder)?;
        let mut text = serde_json::to_vec_pretty(state)?;
        text.push(b'\n');
        durable::replace(&self.path, &text, None)?;
        self.saved = Some(state.clone());
        Ok(true)
    }

    fn put_aside(&self, error: &io::Error) {
        let aside = self.path.with_extension("json.damaged");
        match fs::rename(&self.path, &aside) {
            Ok(()) => {
                warn!(file = %self.path.display(), moved_to = %aside.display(), %error, "state is damaged");
            }
            Err(failure) => {
                warn!(file = %self.path.display(), %error, %failure, "state cannot be read");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some_state() -> State {
        State {
            slot: Some(3),
            cluster_ips: BTreeMap::from([(
                "default/web".to_owned(),
                "127.99.0.7".parse().unwrap(),
            )]),
            node_ports: BTreeMap::from([("default/web:80".to_owned(), 30080)]),
            load_balancer_ips: BTreeMap::from([("default/web".to_owned(), "::1".parse().unwrap())]),
        }
    }

    #[test]
    fn save_then_load_gives_the_same_and_leaves_no_other_file() {
        let folder = tempfile::tempdir().unwrap();
        let deep = folder.path().join("a/b");
        assert!(StateFile::new(&deep).save(&some_state()).unwrap());
        assert_eq!(StateFile::new(&deep).load(), some_state());
        assert_eq!(fs::read_dir(deep).unwrap().count(), 1);
    }

    #[test]
    fn save_unchanged_state_writes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let mut file = StateFile::new(folder.path());
        assert_eq!(file.load(), State::default());
        assert!(!file.save(&State::default()).unwrap());
        assert!(file.save(&some_state()).unwrap());
        assert!(!file.save(&some_state()).unwrap());
        let mut again = StateFile::new(folder.path());
        again.load();
        assert!(!again.save(&some_state()).unwrap());
    }

    #[test]
    fn save_refused_leaves_the_old_file() {
        let folder = tempfile::tempdir().unwrap();
        let mut file = StateFile::new(folder.path());
        fs::create_dir_all(file.path().join("in the way")).unwrap();
        file.save(&some_state()).unwrap_err();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn load_damaged_text_is_moved_aside() {
        for damage in ["{\"slot\": 3", "", "\u{0}\u{0}", "{\"slot\": 300}", "7"] {
            let folder = tempfile::tempdir().unwrap();
            let mut file = StateFile::new(folder.path());
            fs::write(file.path(), damage).unwrap();
            assert_eq!(file.load(), State::default(), "{damage:?}");
            assert_eq!(
                fs::read_to_string(folder.path().join("state.json.damaged")).unwrap(),
                damage
            );
            assert!(file.save(&State::default()).unwrap());
        }
    }

    #[test]
    fn load_unknown_fields_are_ignored() {
        let folder = tempfile::tempdir().unwrap();
        let mut file = StateFile::new(folder.path());
        fs::write(file.path(), r#"{"slot": 3, "colour": "blue"}"#).unwrap();
        assert_eq!(
            file.load(),
            State {
                slot: Some(3),
                ..State::default()
            }
        );
    }
}
