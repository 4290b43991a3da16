//! The service manager, as far as it speaks to us through the environment: sockets that it passes
//! (`sd_listen_fds(3)`), and what it wants to be told (`sd_notify(3)`). Owns both protocols; must not know what the
//! program does. Without a service manager nothing happens.

use std::{
    env,
    ffi::{OsStr, OsString},
    io,
    os::{
        linux::net::SocketAddrExt as _,
        unix::{
            ffi::OsStrExt as _,
            net::{SocketAddr, UnixDatagram},
        },
    },
    time::Duration,
};

use portico_dataplane::Inherited;

/// The sockets that the program was started with: none unless `LISTEN_PID` says that they are for this process. To be
/// called before anything else is opened.
pub fn inherited() -> Inherited {
    let variable = |name: &str| env::var(name).ok();
    let passed = passed(&variable, std::process::id());
    passed.map_or_else(Inherited::default, |(count, names)| {
        Inherited::take(count, &names)
    })
}

/// Number and names of the sockets that the environment passes to `pid`.
fn passed(variable: &dyn Fn(&str) -> Option<String>, pid: u32) -> Option<(u16, Vec<String>)> {
    let is_ours = variable("LISTEN_PID")?.parse::<u32>().ok()? == pid;
    let count = variable("LISTEN_FDS")?.parse::<u16>().ok()?;
    let names = variable("LISTEN_FDNAMES").unwrap_or_default();
    (is_ours && count > 0).then(|| (count, names.split(':').map(str::to_owned).collect()))
}

/// Whoever waits to hear how the program fares.
#[derive(Debug)]
pub struct Manager {
    socket: Option<(UnixDatagram, SocketAddr)>,
    watchdog: Option<Duration>,
}

impl Manager {
    /// The one that `NOTIFY_SOCKET` names; a silent one without.
    pub fn from_environment() -> Self {
        let socket = env::var_os("NOTIFY_SOCKET").and_then(|name| {
            let opened = open(&name);
            if let Err(error) = &opened {
                tracing::warn!(socket = ?name, %error, "cannot notify the service manager");
            }
            opened.ok()
        });
        let variable = |name: &str| env::var(name).ok();
        Self {
            watchdog: socket
                .as_ref()
                .and_then(|_| watchdog(&variable, std::process::id())),
            socket,
        }
    }

    /// Whether anybody listens.
    pub const fn is_there(&self) -> bool {
        self.socket.is_some()
    }

    /// How often it wants a sign of life: half of the time after which it would end the program (`WATCHDOG_USEC`).
    pub const fn beat(&self) -> Option<Duration> {
        self.watchdog
    }

    /// The program serves, with a line for people.
    pub fn ready(&self, status: &str) {
        self.send(&format!("READY=1\nSTATUS={status}"));
    }

    /// A line for people, shown by `systemctl status`.
    pub fn status(&self, status: &str) {
        self.send(&format!("STATUS={status}"));
    }

    /// The program reads everything again; [`ready`](Self::ready) is to follow (`Type=notify-reload`).
    pub fn reloading(&self) {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let microseconds = Duration::try_from(now).map_or(0, |now| now.as_micros());
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={microseconds}"));
    }

    /// The end has begun.
    pub fn stopping(&self) {
        self.send("STOPPING=1\nSTATUS=connections may finish");
    }

    /// A sign of life.
    pub fn alive(&self) {
        self.send("WATCHDOG=1");
    }

    /// Never waits: a manager that does not read misses a message.
    fn send(&self, text: &str) {
        let Some((socket, addr)) = &self.socket else {
            return;
        };
        if let Err(error) = socket.send_to_addr(text.as_bytes(), addr) {
            tracing::debug!(%error, "the service manager does not take a notification");
        }
    }
}

fn open(name: &OsStr) -> io::Result<(UnixDatagram, SocketAddr)> {
    let addr = match name.as_bytes() {
        [b'@', rest @ ..] => SocketAddr::from_abstract_name(rest)?,
        [b'/', ..] => SocketAddr::from_pathname(OsString::from(name))?,
        _ => {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "neither a path nor an abstract name",
            ));
        }
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    Ok((socket, addr))
}

/// Half of `WATCHDOG_USEC`, unless that is for another process.
fn watchdog(variable: &dyn Fn(&str) -> Option<String>, pid: u32) -> Option<Duration> {
    let is_ours = variable("WATCHDOG_PID").is_none_or(|of| of.parse() == Ok(pid));
    let microseconds: u64 = variable("WATCHDOG_USEC")?.parse().ok()?;
    let half = Duration::from_micros(microseconds / 2);
    (is_ours && !half.is_zero()).then_some(half)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(pairs: &[(&'static str, &'static str)]) -> impl Fn(&str) -> Option<String> {
        let pairs = pairs.to_vec();
        move |wanted| {
            let found = pairs.iter().find(|(name, _)| *name == wanted);
            found.map(|(_, value)| (*value).to_owned())
        }
    }

    #[test]
    fn passed_sockets_of_another_process_are_left_alone() {
        let environment = of(&[
            ("LISTEN_PID", "7"),
            ("LISTEN_FDS", "2"),
            ("LISTEN_FDNAMES", "web:dns"),
        ]);
        let names = vec!["web".to_owned(), "dns".to_owned()];
        assert_eq!(passed(&environment, 7), Some((2, names)));
        assert_eq!(passed(&environment, 8), None);
        assert_eq!(passed(&of(&[("LISTEN_FDS", "2")]), 7), None);
        assert_eq!(
            passed(&of(&[("LISTEN_PID", "7"), ("LISTEN_FDS", "many")]), 7),
            None
        );
    }

    #[test]
    fn watchdog_is_half_of_what_is_ours() {
        let environment = of(&[("WATCHDOG_PID", "7"), ("WATCHDOG_USEC", "3000000")]);
        assert_eq!(watchdog(&environment, 7), Some(Duration::from_millis(1500)));
        assert_eq!(watchdog(&environment, 8), None);
        assert_eq!(watchdog(&of(&[("WATCHDOG_USEC", "0")]), 7), None);
    }

    #[test]
    fn manager_under_an_abstract_name_hears_everything_in_order() {
        let name = format!("portico-test-{}", std::process::id());
        let addr = SocketAddr::from_abstract_name(&name).unwrap();
        let heard = UnixDatagram::bind_addr(&addr).unwrap();
        let manager = Manager {
            socket: Some(open(OsStr::new(&format!("@{name}"))).unwrap()),
            watchdog: None,
        };
        manager.ready("1 Service");
        manager.reloading();
        manager.stopping();
        let mut buffer = [0; 512];
        let mut next = || {
            let length = heard.recv(&mut buffer).unwrap();
            String::from_utf8_lossy(&buffer[..length]).into_owned()
        };
        assert_eq!(next(), "READY=1\nSTATUS=1 Service");
        let reloading = next();
        let time = reloading
            .strip_prefix("RELOADING=1\nMONOTONIC_USEC=")
            .unwrap();
        assert!(time.parse::<u64>().unwrap() > 0, "{reloading}");
        assert!(next().starts_with("STOPPING=1\n"));
    }

    #[test]
    fn open_of_a_relative_name_is_refused() {
        assert!(open(OsStr::new("somewhere")).is_err());
    }
}
