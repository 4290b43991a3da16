//! Another machine for a test in a namespace: a network namespace of its own at the other end of a cable (`veth(4)`).

use std::{
    fs::File,
    io::{BufRead as _, BufReader},
    os::fd::AsFd as _,
    process::{Child, Command, Stdio},
};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// The test's own side of the cable.
pub(crate) const HERE: [u8; 4] = [10, 77, 0, 1];
/// The other machine's.
pub(crate) const THERE: [u8; 4] = [10, 77, 0, 2];

/// The other machine.
pub(crate) struct Host {
    /// Keeps the namespace.
    holder: Child,
    namespace: File,
}

impl Host {
    /// Sets up the machine and the cable. Once in a test, which must be inside a namespace.
    pub(crate) fn join() -> Self {
        Self::join_by(["near", "far"], "10.77.0")
    }

    /// The same by another cable with the names of its ends and the network (`10.78.0`) that 1 and 2 are in.
    pub(crate) fn join_by([near, far]: [&str; 2], network: &str) -> Self {
        let mut holder = Command::new("unshare")
            .args(["-n", "sh", "-c", "ip link set lo up; echo up; read end"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut up = String::new();
        let output = holder.stdout.take().unwrap();
        BufReader::new(output).read_line(&mut up).unwrap();
        assert_eq!(up, "up\n");
        let id = holder.id().to_string();
        let namespace = File::open(format!("/proc/{id}/ns/net")).unwrap();
        ip(&format!(
            "link add {near} type veth peer name {far} netns {id}"
        ));
        ip(&format!("address add {network}.1/24 dev {near}"));
        ip(&format!("link set {near} up"));
        let host = Self { holder, namespace };
        host.run(|| {
            ip(&format!("address add {network}.2/24 dev {far}"));
            ip(&format!("link set {far} up"));
        });
        host
    }

    /// Does something on the other machine: sockets opened and programs started in there are there.
    pub(crate) fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let there = scope.spawn(|| {
                // Of this thread alone (setns(2)).
                let network = Some(LinkNameSpaceType::Network);
                move_into_link_name_space(self.namespace.as_fd(), network).unwrap();
                work()
            });
            there.join().unwrap()
        })
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// A call of ip(8).
pub(crate) fn ip(words: &str) {
    let status = Command::new("ip").args(words.split(' ')).status().unwrap();
    assert!(status.success(), "ip {words}");
}
