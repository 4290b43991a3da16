//! What is to be written, from facts alone. Owns the texts of our files and when none of them would do.

use std::{net::SocketAddr, path::PathBuf};

use super::{
    Wanted,
    detect::{self, Writer},
    facts::{Facts, RESOLVED_FILE},
    recipe,
};
use crate::dns::{INSTALLED, ResolvConf};

/// The first version of systemd-resolved that takes a port with an address (resolved.conf(5); NEWS of systemd 246).
const TAKES_PORTS: u32 = 246;
/// The port that resolv.conf(5) means.
const PORT: u16 = 53;

/// How the machine's resolver is led to portico.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Way {
    /// A file of settings beside the others: names in our zones go to portico.
    #[serde(rename = "systemd-resolved")]
    Resolved,
    /// The file that every program reads: all names go to portico.
    #[serde(rename = "resolv.conf")]
    ResolvConf,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// By which way.
    pub way: Way,
    /// The file that is written.
    pub path: PathBuf,
    /// What is written.
    pub content: String,
    /// What tells a program of it.
    pub command: Option<Vec<String>>,
    /// What people should know.
    pub warnings: Vec<String>,
}

/// Nothing that is written here would do; what does.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}\n{recipe}")]
pub struct Refusal {
    /// Why.
    pub reason: String,
    /// What people type instead.
    pub recipe: String,
}

/// What to do on a machine like this.
pub(super) fn plan(facts: &Facts, wanted: &Wanted) -> Result<Plan, Refusal> {
    let sources = detect::host_sources(facts);
    let is_asked = |sources: &Vec<&str>| ["dns", "resolve"].iter().any(|one| sources.contains(one));
    if let Some(sources) = sources.filter(|sources| !is_asked(sources)) {
        return Err(Refusal {
            reason: format!(
                "no program of this machine asks a DNS server: /etc/nsswitch.conf says 'hosts: {}'",
                sources.join(" ")
            ),
            recipe: "  add 'dns' at the end of that line, and type this again".to_owned(),
        });
    }
    let plan = if detect::uses_resolved(facts) {
        by_resolved(facts, wanted)
    } else {
        by_resolv_conf(facts, wanted)
    }?;
    let mut warnings = plan.warnings;
    warnings.extend(multicast_warning(facts, wanted));
    Ok(Plan { warnings, ..plan })
}

fn by_resolved(facts: &Facts, wanted: &Wanted) -> Result<Plan, Refusal> {
    if !facts.resolved_runs {
        return Err(Refusal {
            reason: "names are looked up through systemd-resolved, which does not run".to_owned(),
            recipe: "  sudo systemctl start systemd-resolved.service".to_owned(),
        });
    }
    let old = facts.systemd.filter(|version| *version < TAKES_PORTS);
    if let Some(version) = old.filter(|_| wanted.dns.port() != PORT) {
        return Err(Refusal {
            reason: format!(
                "portico answers DNS at {}, and systemd-resolved takes a port since systemd {TAKES_PORTS}: this one is \
                 {version}",
                wanted.dns
            ),
            recipe: recipe::port_53(wanted),
        });
    }
    let domains: Vec<String> = wanted
        .asked_zones()
        .map(|zone| format!("~{zone}"))
        .collect();
    let content = format!(
        "{INSTALLED}; `portico dns uninstall` takes it away. See resolved.conf(5).\n\
         [Resolve]\nDNS={}\nDomains={}\n",
        server(wanted.dns),
        domains.join(" ")
    );
    // Not a reload, which systemd-resolved understands since systemd 256 only, and which keeps what it has in its cache.
    let command = ["systemctl", "restart", "systemd-resolved.service"];
    Ok(Plan {
        way: Way::Resolved,
        path: RESOLVED_FILE.into(),
        content,
        command: Some(command.map(str::to_owned).to_vec()),
        warnings: global_warning(facts).into_iter().collect(),
    })
}

/// Without a port where that is the usual one, for older versions.
fn server(addr: SocketAddr) -> String {
    match addr.port() {
        PORT => addr.ip().to_string(),
        _ => addr.to_string(),
    }
}

/// All servers of one scope count as equal.
fn global_warning(facts: &Facts) -> Option<String> {
    let mut found = None;
    for (file, text) in &facts.resolved_settings {
        let mut values = text.lines().filter_map(|line| line.strip_prefix("DNS="));
        if let Some(value) = values.next_back() {
            let value = value.trim();
            found = (!value.is_empty()).then(|| (file, value.to_owned()));
        }
    }
    let (file, value) = found?;
    Some(format!(
        "{} has DNS={value}: systemd-resolved takes those servers and portico for equal, so that names of Services may be \
         asked there and not be found; let these be servers of a link instead (`resolvectl dns LINK {value}`)",
        file.display()
    ))
}

/// nss-mdns, but for its `minimal` modules, keeps all names below `local` to itself.
fn multicast_warning(facts: &Facts, wanted: &Wanted) -> Option<String> {
    let is_below_local = |zone: &String| {
        zone.strip_suffix("local")
            .is_some_and(|rest| rest.ends_with('.'))
    };
    let below_local = wanted.zones.iter().any(is_below_local);
    let sources = detect::host_sources(facts)?;
    let mut full = sources
        .iter()
        .filter(|source| ["mdns", "mdns4", "mdns6"].contains(*source));
    let module = full.next().filter(|_| below_local)?;
    Some(format!(
        "/etc/nsswitch.conf has '{module}', which may keep names below 'local' to itself; '{module}_minimal' takes those of \
         two labels only"
    ))
}

fn by_resolv_conf(facts: &Facts, wanted: &Wanted) -> Result<Plan, Refusal> {
    let writer = detect::writer(facts);
    if writer != Writer::Nobody {
        return Err(recipe::instead(writer, facts, wanted));
    }
    if wanted.dns.port() != PORT {
        return Err(Refusal {
            reason: format!(
                "portico answers DNS at {}, and /etc/resolv.conf cannot name a port: it has to be {PORT}",
                wanted.dns
            ),
            recipe: recipe::port_53(wanted),
        });
    }
    let mut search: Vec<&str> = wanted.search.iter().map(String::as_str).collect();
    for domain in detect::search(&facts.resolv_conf) {
        if !search.contains(&domain) {
            search.push(domain);
        }
    }
    let content = format!(
        "{INSTALLED}; `portico dns uninstall` brings the former file back.\n\
         # It names one server: others would be asked for names of Services, and say that there are none.\n\
         nameserver {}\nsearch {}\noptions ndots:2 timeout:2 attempts:2\n",
        wanted.dns.ip(),
        search.join(" ")
    );
    let warning = "while portico does not run, no name resolves on this machine: type `sudo portico dns uninstall` before you \
                   stop it for longer";
    Ok(Plan {
        way: Way::ResolvConf,
        path: ResolvConf::default().path,
        content,
        command: None,
        warnings: vec![warning.to_owned()],
    })
}

#[cfg(test)]
mod tests;
