//! `portico resolve --trace`: the search list of a pod, step by step. Owns the candidates, their order and the account;
//! must not know where answers come from.

use std::{
    io::{self, Write},
    net::IpAddr,
    process::ExitCode,
};

use portico_core::dns::{Name, RecordType};
use serde::Serialize;
use serde_json::Value;

use super::{ResolveOutput, explain, section, text};

/// As in the resolv.conf of a pod (Kubernetes `dnsPolicy: ClusterFirst`; resolv.conf(5)).
const NDOTS: usize = 5;

/// The way of a stub resolver through its search list.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Trace {
    name: String,
    #[serde(rename = "type")]
    rtype: String,
    search: Vec<String>,
    ndots: usize,
    /// Why the candidates come in this order.
    order: String,
    steps: Vec<Step>,
    /// The candidate that has records.
    answered_by: Option<String>,
}

#[derive(Debug, Serialize)]
struct Step {
    name: String,
    /// What the running program or the manifests say to it.
    answer: Value,
}

/// Asks for candidates until one has records, and prints each; the code is 0 if one has.
pub(super) fn run(
    (name, rtype): (&str, RecordType),
    search: Vec<String>,
    ask: &dyn Fn(Name, RecordType) -> anyhow::Result<Value>,
    (output, out): (ResolveOutput, &mut impl Write),
) -> anyhow::Result<ExitCode> {
    let (candidates, order) = candidates(name, &search);
    let mut trace = Trace {
        name: name.to_owned(),
        rtype: rtype.to_string(),
        search,
        ndots: NDOTS,
        order,
        steps: Vec::new(),
        answered_by: None,
    };
    for candidate in candidates {
        let answer = ask(candidate.clone(), rtype)?;
        let has_records =
            text(&answer, "rcode") == "NOERROR" && !section(&answer, "answers").is_empty();
        let name = candidate.to_string();
        trace.answered_by = has_records.then(|| name.clone());
        trace.steps.push(Step { name, answer });
        if has_records {
            break;
        }
    }
    if output == ResolveOutput::Json {
        serde_json::to_writer(&mut *out, &trace)?;
        writeln!(out)?;
    } else {
        print(&trace, out)?;
    }
    Ok(if trace.answered_by.is_some() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// What is asked for in turn, and why in this order. A candidate that would be too long is passed over, as resolvers do.
fn candidates(name: &str, search: &[String]) -> (Vec<Name>, String) {
    let as_it_is = || Name::parse(name).ok();
    if let Ok(addr) = name.parse::<IpAddr>() {
        let order = "an address has one name to ask for".to_owned();
        return (vec![Name::reverse(addr)], order);
    }
    if name.ends_with('.') {
        let order = "the dot at the end makes it a whole name: there is no search".to_owned();
        return (as_it_is().into_iter().collect(), order);
    }
    let dots = name.matches('.').count();
    let searched = search
        .iter()
        .filter_map(|suffix| Name::parse(&format!("{name}.{suffix}")).ok());
    if dots < NDOTS {
        let counted = if dots == 1 {
            "1 dot is".to_owned()
        } else {
            format!("{dots} dots are")
        };
        let order = format!("{counted} fewer than {NDOTS}: the search list comes first");
        return (searched.chain(as_it_is()).collect(), order);
    }
    let order = format!("{dots} dots are not fewer than {NDOTS}: the name as it is comes first");
    (as_it_is().into_iter().chain(searched).collect(), order)
}

fn print(trace: &Trace, out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "search {}", trace.search.join(" "))?;
    writeln!(out, "options ndots:{} ({})", trace.ndots, trace.order)?;
    let width = trace.steps.iter().map(|step| step.name.len()).max();
    for (number, step) in (1..).zip(&trace.steps) {
        let (name, width) = (&step.name, width.unwrap_or_default());
        writeln!(out, "{number}. {name:width$}  {}", said(&step.answer))?;
    }
    match &trace.answered_by {
        Some(name) => writeln!(out, "The application gets the records of {name}"),
        None => writeln!(
            out,
            "The application gets no {} record: no candidate has one",
            trace.rtype
        ),
    }
}

fn said(answer: &Value) -> String {
    let records = section(answer, "answers");
    match text(answer, "rcode") {
        "NOERROR" if records.is_empty() => {
            "NODATA: it exists without such records (musl ends its search here, glibc goes on)"
                .to_owned()
        }
        "NOERROR" => {
            let records = records.iter();
            let shown =
                records.map(|record| format!("{} {}", text(record, "type"), text(record, "data")));
            format!("NOERROR: {}", shown.collect::<Vec<_>>().join(", "))
        }
        rcode => format!("{rcode}: {}", explain(answer)),
    }
}
