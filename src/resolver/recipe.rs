//! What people type where a file that we wrote would not last. Owns the words; each recipe ends in a resolver that asks
//! portico.

use std::{fmt::Write as _, net::IpAddr};

use super::{
    Wanted,
    detect::{self, Writer},
    facts::Facts,
    plan::Refusal,
};

/// Why not, and what instead.
pub(super) fn instead(writer: Writer, facts: &Facts, wanted: &Wanted) -> Refusal {
    let reason = match writer {
        Writer::ResolvedUplink => {
            "/etc/resolv.conf leads past systemd-resolved, to the servers that it would ask"
                .to_owned()
        }
        Writer::Engine => format!("/etc/resolv.conf belongs to {writer}"),
        Writer::Unknown => format!(
            "/etc/resolv.conf is written by a program, which would overwrite what portico writes. It says:\n{}",
            indented(&detect::preamble(&facts.resolv_conf))
        ),
        _ => format!(
            "/etc/resolv.conf is written by {writer}, which would overwrite what portico writes"
        ),
    };
    Refusal {
        reason,
        recipe: indented(&recipe(writer, facts, wanted)),
    }
}

fn recipe(writer: Writer, facts: &Facts, wanted: &Wanted) -> String {
    let ip = wanted.dns.ip();
    match writer {
        Writer::ResolvedUplink => {
            "sudo ln -sf /run/systemd/resolve/stub-resolv.conf /etc/resolv.conf\nsudo portico dns install"
                .to_owned()
        }
        Writer::NetworkManager => network_manager(facts, wanted),
        Writer::Wsl => {
            "printf '[network]\\ngenerateResolvConf = false\\n' | sudo tee -a /etc/wsl.conf\n\
             wsl.exe --shutdown, and open it again; write /etc/resolv.conf with the server that it has now, without its first \
             comment; then: sudo portico dns install\n\
             for programs of Windows itself, which portico's addresses in 127/8 do not reach, see docs/dns.md"
                .to_owned()
        }
        Writer::Tailscale => {
            "sudo tailscale set --accept-dns=false   # then: sudo portico dns install".to_owned()
        }
        Writer::Engine => format!(
            "give the container its server when it is made: --dns {ip} (Compose: `dns: {ip}`), an address that it reaches"
        ),
        _ => upstreams(facts, wanted) + &only_server(writer, ip),
    }
}

/// Makes a program that writes the file name portico alone.
fn only_server(writer: Writer, ip: IpAddr) -> String {
    match writer {
        Writer::Resolvconf => format!(
            "echo 'nameserver {ip}' | sudo resolvconf -a lo.portico   # resolvconf(8); back: sudo resolvconf -d lo.portico"
        ),
        Writer::Openresolv => format!(
            "echo 'nameserver {ip}' | sudo resolvconf -x -a lo.portico   # resolvconf(8); back: sudo resolvconf -d lo.portico"
        ),
        Writer::Dhclient => format!(
            "add to /etc/dhcp/dhclient.conf (dhclient.conf(5)) and renew the lease:\n  supersede domain-name-servers {ip};"
        ),
        Writer::Dhcpcd => format!(
            "add to /etc/dhcpcd.conf (dhcpcd.conf(5)), then sudo dhcpcd -n:\n  static domain_name_servers={ip}"
        ),
        Writer::Netconfig => format!(
            "in /etc/sysconfig/network/config, then sudo netconfig update -f (netconfig(8)):\n  \
             NETCONFIG_DNS_POLICY=\"STATIC\"\n  NETCONFIG_DNS_STATIC_SERVERS=\"{ip}\""
        ),
        _ => format!("make that program name {ip} as its only server"),
    }
}

/// `NetworkManager` runs dnsmasq, which asks portico for its zones only and takes a port (NetworkManager.conf(5), `dns`).
fn network_manager(facts: &Facts, wanted: &Wanted) -> String {
    let mut text = String::new();
    let mut lines = facts.network_manager.lines().map(str::trim);
    if !lines.any(|line| line == "dns=dnsmasq") {
        text.push_str(
            "printf '[main]\\ndns=dnsmasq\\n' | sudo tee /etc/NetworkManager/conf.d/portico.conf   # dnsmasq has to be installed\n",
        );
    }
    // Writing to a String cannot fail.
    let servers = wanted.asked_zones().fold(String::new(), |mut text, zone| {
        let _ = write!(
            text,
            "server=/{zone}/{}#{}\\n",
            wanted.dns.ip(),
            wanted.dns.port()
        );
        text
    });
    let domain = wanted.zones.first().map_or("", String::as_str);
    let _ = write!(
        text,
        "printf '{servers}rebind-domain-ok=/{domain}/\\n' | sudo tee /etc/NetworkManager/dnsmasq.d/portico.conf\n\
         sudo systemctl restart NetworkManager\n\
         portico dns status   # whether that works; back: remove these files and restart it again"
    );
    text
}

/// A file that names portico alone, without a port, leaves it nobody to ask unless it is told.
fn upstreams(facts: &Facts, wanted: &Wanted) -> String {
    let servers = detect::servers(&facts.resolv_conf);
    let own = wanted.dns.ip().to_string();
    let others = servers.iter().filter(|server| **server != own);
    let flags: String = others.fold(String::new(), |mut text, server| {
        // Writing to a String cannot fail.
        let _ = write!(text, " --dns-upstream {server}");
        text
    });
    let mut text = String::new();
    if !flags.is_empty() {
        let _ = writeln!(
            text,
            "start portico with the servers that the file names now, for it will name portico alone: portico up{flags} ..."
        );
    }
    if wanted.dns.port() != 53 {
        text.push_str(port_53(wanted).trim_start());
        text.push('\n');
    }
    text
}

/// How DNS comes to be answered at port 53.
pub(super) fn port_53(wanted: &Wanted) -> String {
    let program = std::env::current_exe().unwrap_or_else(|_| "portico".into());
    format!(
        "  portico has to answer at {}:53 (`portico status` says why it does not): sudo setcap cap_net_bind_service+ep {}, \
         or sudo sysctl -w net.ipv4.ip_unprivileged_port_start=53; then start it again",
        wanted.dns.ip(),
        program.display()
    )
}

fn indented(text: &str) -> String {
    let lines: Vec<String> = text.lines().map(|line| format!("  {line}")).collect();
    lines.join("\n")
}
