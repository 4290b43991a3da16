//! The resolver of this machine's operating system: lets it ask portico for names, and gives it back as it was. Owns what
//! is written to its files and when that is undone; must not answer a question itself.
//!
//! - `facts`: what the machine's files say
//! - `detect`: who writes them, from that alone
//! - `plan`: what is to be written; `recipe`: what people type instead where that would not last
//! - `journal`: what was begun, on disk before it is
//! - `change`: doing it, and undoing it from the journal after any crash
//! - `lookup`: asking as every program does

mod change;
mod detect;
mod facts;
mod journal;
mod lookup;
mod plan;
mod recipe;

use std::{
    io,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
};

use facts::Facts;
use journal::{Journal, Record, State};

pub use change::Undone;
pub use detect::Writer;
pub use lookup::{Lookup, ask, look_up};
pub use plan::{Plan, Refusal, Way};

/// Where the journal is: of the machine, not of an instance or a user, since the machine has one resolver. Users' programs
/// read it.
const STATE: &str = "/var/lib/portico";
/// A name of somebody else's, that every public resolver knows (RFC 2606).
const FOREIGN: &str = "example.com";

/// What the machine's resolver is to ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Where DNS is answered.
    pub dns: SocketAddr,
    /// What is answered there, the primary cluster domain first.
    pub zones: Vec<String>,
    /// What bare names are tried under, in front of what the machine has.
    pub search: Vec<String>,
}

impl Wanted {
    /// The zones that resolvers of machines ask for: of addresses in 127/8 systemd-resolved never asks anybody
    /// (`dns_scope_good_domain`), and few others do.
    fn asked_zones(&self) -> impl Iterator<Item = &str> {
        let zones = self.zones.iter().map(String::as_str);
        zones.filter(|zone| !zone.ends_with("127.in-addr.arpa"))
    }

    /// A name that leads to where DNS is answered, whatever Services there are.
    fn own_name(&self) -> String {
        format!("ns.dns.{}", self.zones.first().map_or("", String::as_str))
    }
}

/// Why the machine's resolver is not as wanted.
#[derive(Debug, thiserror::Error)]
pub enum ResolverError {
    /// Here it cannot be done, and what can.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Another one is at it.
    #[error("another `portico dns install` or `uninstall` runs")]
    Busy,
    /// The system refused.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A command failed.
    #[error("`{command}` failed: {said}")]
    Command {
        /// As it would be typed.
        command: String,
        /// What it said.
        said: String,
    },
    /// Names do not resolve as they should.
    #[error("{0}")]
    Lookup(String),
    /// The file that we wrote was changed and still names portico.
    #[error(
        "{} was changed after portico wrote it: it is left as it is\n  take what you need of it, then: {fix}",
        path.display()
    )]
    Edited {
        /// Which.
        path: PathBuf,
        /// What brings the former state back.
        fix: String,
    },
    /// It was begun, failed, and could not be undone.
    #[error("{failure}\nand it could not be undone: {undo}")]
    Stuck {
        /// Why it failed.
        failure: Box<ResolverError>,
        /// Why it stays.
        undo: Box<ResolverError>,
    },
}

/// What [`install`] did.
#[derive(Debug)]
pub struct Installed {
    /// It was so before.
    pub already: bool,
    /// By which way.
    pub way: Way,
    /// The file that sends questions to portico.
    pub path: PathBuf,
    /// Where what was there is, if there was anything.
    pub former: Option<PathBuf>,
    /// What people should know.
    pub warnings: Vec<String>,
    /// What was looked up in the end, and found.
    pub lookups: Vec<Lookup>,
}

/// What [`install`] would do.
#[derive(Debug)]
pub struct Preview {
    /// It is so already.
    pub is_same: bool,
    /// What would be undone before, in words.
    pub undone: Vec<String>,
    /// What would be written.
    pub plan: Plan,
    /// What would be looked up then.
    pub lookups: Vec<String>,
}

/// Looks at what [`install`] would do.
///
/// # Errors
/// It would refuse.
pub fn preview(wanted: &Wanted) -> Result<Preview, ResolverError> {
    let standing = Journal::at(Path::new(STATE)).load()?;
    let plan = plan::plan(&Facts::read(), wanted)?;
    let lookups = [
        format!("{}, which has to be {}", wanted.own_name(), wanted.dns.ip()),
        format!("{FOREIGN}, if it is found now"),
    ];
    Ok(Preview {
        is_same: standing
            .as_ref()
            .is_some_and(|record| record.is_whole(&plan)),
        undone: standing.as_ref().map(Record::undoing).unwrap_or_default(),
        plan,
        lookups: lookups.to_vec(),
    })
}

/// What [`uninstall`] would do, in words.
///
/// # Errors
/// A file of ours was changed, or the journal cannot be read.
pub fn preview_uninstall() -> Result<Vec<String>, ResolverError> {
    let record = standing(&Journal::at(Path::new(STATE)))?;
    Ok(record.as_ref().map(Record::undoing).unwrap_or_default())
}

/// Lets the machine's resolver ask portico, and undoes that if names do not resolve then. Done twice it is done once.
///
/// # Errors
/// Everything is as it was, unless the error says otherwise.
pub fn install(wanted: &Wanted) -> Result<Installed, ResolverError> {
    let journal = Journal::at(Path::new(STATE));
    let _lock = journal.lock()?;
    let standing = journal.load()?;
    let facts = Facts::read();
    let plan = plan::plan(&facts, wanted)?;
    let whole = standing.as_ref().filter(|record| record.is_whole(&plan));
    let already = whole.is_some();
    let record = match (whole, &standing) {
        (Some(record), _) => record.clone(),
        (None, Some(record)) => {
            change::undo(&journal, record)?;
            Record::of(&plan, wanted)
        }
        (None, None) => Record::of(&plan, wanted),
    };
    let foreign = (!already && look_up(FOREIGN).is_found()).then_some(FOREIGN);
    let outcome = if already {
        check(&record, foreign)
    } else {
        change::begin(&journal, &record).and_then(|()| check(&record, foreign))
    };
    let finished = outcome.and_then(|lookups| {
        change::passed("lookup");
        journal.save(&record.in_state(State::Installed))?;
        change::passed("installed");
        Ok(lookups)
    });
    let lookups = match finished {
        Ok(lookups) => lookups,
        Err(failure) => return Err(give_up(&journal, &record, failure)),
    };
    Ok(Installed {
        already,
        way: plan.way,
        former: record.former(),
        path: plan.path,
        warnings: plan.warnings,
        lookups,
    })
}

fn give_up(journal: &Journal, record: &Record, failure: ResolverError) -> ResolverError {
    match change::undo(journal, record) {
        Ok(_) => failure,
        Err(undo) => ResolverError::Stuck {
            failure: Box::new(failure),
            undo: Box::new(undo),
        },
    }
}

/// Whether our own name leads to where DNS is answered, and a name of others that did somewhere.
fn check(record: &Record, foreign: Option<&str>) -> Result<Vec<Lookup>, ResolverError> {
    let ours = look_up(&record.name);
    if !ours.addresses.contains(&record.dns.ip()) {
        return Err(ResolverError::Lookup(format!(
            "the operating system's resolver does not lead to portico: {ours}, and should be {}; everything is as it \
             was before",
            record.dns.ip()
        )));
    }
    let mut lookups = vec![ours];
    if let Some(name) = foreign {
        let others = look_up(name);
        if !others.is_found() {
            return Err(ResolverError::Lookup(format!(
                "names of others do not resolve any more: {others}; everything is as it was before"
            )));
        }
        lookups.push(others);
    }
    Ok(lookups)
}

/// What [`uninstall`] did.
#[derive(Debug)]
pub struct Uninstalled {
    /// The file.
    pub path: PathBuf,
    /// What became of it.
    pub file: Undone,
    /// What did not go well and does not matter for the file.
    pub warning: Option<String>,
}

/// Gives the machine's resolver back as it was; `None` if nothing of ours is there.
///
/// # Errors
/// The file was changed and left, or the system refused.
pub fn uninstall() -> Result<Option<Uninstalled>, ResolverError> {
    let journal = Journal::at(Path::new(STATE));
    let Some(record) = standing(&journal)? else {
        return Ok(None);
    };
    let _lock = journal.lock()?;
    change::undo(&journal, &record).map(Some)
}

/// What is recorded; a file of ours of which there is no record is an error that says what to type.
fn standing(journal: &Journal) -> Result<Option<Record>, ResolverError> {
    let record = journal.load()?;
    if record.is_none() {
        change::check_unrecorded()?;
    }
    Ok(record)
}

/// What stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Standing {
    /// Nothing of ours is there.
    NotInstalled,
    /// As it was written.
    Installed,
    /// An install or uninstall was cut off, or runs.
    HalfDone,
    /// The file was changed since and still is ours.
    Edited,
    /// Somebody wrote another file in its place.
    Replaced,
}

/// How the machine's resolver stands to portico.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// In one word.
    pub standing: Standing,
    /// By which way.
    pub way: Option<Way>,
    /// Where it asks portico.
    pub dns: Option<SocketAddr>,
    /// The file that sends questions there.
    pub file: Option<PathBuf>,
    /// What that file replaced.
    pub former: Option<PathBuf>,
    /// Who writes `/etc/resolv.conf` besides.
    pub writer: Writer,
    /// Our own name, looked up as every program does.
    pub lookup: Option<Lookup>,
    /// Whether that leads where it should.
    pub works: bool,
}

/// Looks at files and asks the resolver; changes nothing. `own` is a name of ours with its address, where a program that
/// runs says so.
///
/// # Errors
/// The journal cannot be read.
pub fn report(own: Option<(String, IpAddr)>) -> Result<Report, ResolverError> {
    let journal = Journal::at(Path::new(STATE));
    let record = journal.load()?;
    let standing = match &record {
        Some(record) => record.standing(),
        None if change::check_unrecorded().is_err() => Standing::Edited,
        None => Standing::NotInstalled,
    };
    let recorded = record
        .as_ref()
        .map(|record| (record.name.clone(), record.dns.ip()));
    let asked = recorded.or(own).map(|(name, addr)| (look_up(&name), addr));
    let works = asked
        .as_ref()
        .is_some_and(|(lookup, addr)| lookup.addresses.contains(addr));
    Ok(Report {
        standing,
        way: record.as_ref().map(|record| record.way),
        dns: record.as_ref().map(|record| record.dns),
        former: record.as_ref().and_then(Record::former),
        file: record.map(|record| record.path),
        writer: detect::writer(&Facts::read()),
        lookup: asked.map(|(lookup, _)| lookup),
        works,
    })
}

impl Wanted {
    /// The name that [`report`] looks up, with its address.
    pub fn own(&self) -> (String, IpAddr) {
        (self.own_name(), self.dns.ip())
    }
}

/// Undoes what a `portico dns install` or `uninstall` that was cut off has left. Without root it can only be told.
pub fn recover() {
    let journal = Journal::at(Path::new(STATE));
    let record = match journal.load() {
        Ok(record) => record,
        Err(error) => {
            tracing::warn!(target: "dns", error = said(error), "cannot tell whether the machine's resolver is set up");
            return;
        }
    };
    let Some(record) = record.filter(|record| record.state == State::Changing) else {
        return;
    };
    if !rustix::process::geteuid().is_root() {
        tracing::warn!(
            target: "dns",
            file = %record.path.display(),
            "a `portico dns install` was cut off, if none runs just now: sudo portico dns uninstall"
        );
        return;
    }
    let undone = journal
        .lock()
        .and_then(|_lock| change::undo(&journal, &record));
    match undone {
        Ok(undone) => {
            tracing::info!(target: "dns", file = %undone.path.display(), outcome = undone.file.words(), "undid a `portico dns install` that was cut off");
        }
        // It is being done.
        Err(ResolverError::Busy) => {}
        Err(error) => {
            tracing::warn!(target: "dns", error = said(error), "cannot undo a `portico dns install` that was cut off");
        }
    }
}

/// Where the machine's resolver asks portico, if it was told to.
pub fn installed_at() -> Option<SocketAddr> {
    let record = Journal::at(Path::new(STATE)).load().ok()??;
    (record.standing() == Standing::Installed).then_some(record.dns)
}

fn said(error: ResolverError) -> String {
    format!("{:#}", anyhow::Error::new(error))
}
