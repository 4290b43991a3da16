//! Where a run took place: the machine's facts that change its figures. Owns where they are read.

use super::report::Provenance;

/// This machine, as far as it can be read; what cannot is empty.
pub(super) fn of_this_machine(known: Provenance) -> Provenance {
    let uname = rustix::system::uname();
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    Provenance {
        kernel: format!(
            "{} {}",
            uname.sysname().to_string_lossy(),
            uname.release().to_string_lossy()
        ),
        cpu: cpu_model(),
        cores: std::thread::available_parallelism().map_or(0, usize::from),
        open_files: limit.current.unwrap_or(u64::MAX),
        port_range: read("/proc/sys/net/ipv4/ip_local_port_range"),
        somaxconn: read("/proc/sys/net/core/somaxconn"),
        clock_source: read("/sys/devices/system/clocksource/clocksource0/current_clocksource"),
        ..known
    }
}

fn read(path: &str) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Its first core's name (`proc_cpuinfo(5)`).
fn cpu_model() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = text
        .lines()
        .find_map(|line| line.strip_prefix("model name"));
    let model = model.and_then(|rest| rest.split_once(':'));
    model.map_or_else(String::new, |(_, model)| model.trim().to_owned())
}
