//! Which address endpoints see their clients at, where the Service asks for more than the default. Owns the words for
//! it; the reasons and their fixes are the core's.

use portico_core::object::{SourceAddress, annotations::SOURCE_ADDRESS, diagnostic::Severity};

use super::{
    model::{Cause, Problem},
    subject::{Subject, problem},
    verdicts,
};

/// What is kept, and how often it could not be.
pub(super) fn notes(subject: Subject<'_>) -> Vec<Problem> {
    let keeping = |port: &&_| -> bool {
        let port: &portico_core::snapshot::PortView = port;
        port.source == SourceAddress::Keep
    };
    let mut ports = subject.service.ports.iter().map(AsRef::as_ref);
    let ports: Vec<_> = ports.by_ref().filter(keeping).collect();
    if ports.is_empty() {
        return Vec::new();
    }
    let text = format!(
        "annotation {SOURCE_ADDRESS}: endpoints see their clients' addresses; of other machines only with CAP_NET_RAW and routes that bring answers back"
    );
    let mut notes = vec![problem(Severity::Note, Cause::Field, text)];
    for port in ports {
        let label = verdicts::label(&port.name.port, port.number, port.name.protocol);
        let counted = port.state.source_not_kept.load();
        notes.extend(counted.filter(|(_, count)| *count > 0).map(|(why, count)| {
            let text = format!(
                "port {label}: {count} clients' addresses were not kept and ours used, because {}",
                why.phrase()
            );
            Problem {
                fix: Some(why.fix().to_owned()),
                ..problem(Severity::Note, Cause::Field, text)
            }
        }));
    }
    notes
}
