//! Where load may go. Owns the one safety rule: this machine's loopback network and nothing else.

use std::{
    net::{IpAddr, SocketAddr},
    str::FromStr,
};

/// An address in 127.0.0.0/8 (RFC 1122, section 3.2.1.3: it never leaves the host).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Target(SocketAddr);

impl Target {
    /// The address.
    pub(crate) const fn addr(self) -> SocketAddr {
        self.0
    }
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let addr: SocketAddr = text
            .parse()
            .map_err(|_| format!("'{text}' is not ADDR:PORT such as 127.0.0.1:30080"))?;
        match addr.ip() {
            IpAddr::V4(ip) if ip.is_loopback() && addr.port() != 0 => Ok(Self(addr)),
            IpAddr::V4(ip) if ip.is_loopback() => Err("port 0 cannot be connected to".into()),
            _ => Err(format!(
                "{} is not in 127.0.0.0/8: load goes to this machine only",
                addr.ip()
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn target_outside_loopback_is_refused() {
        for text in [
            "10.0.0.1:80",
            "0.0.0.0:80",
            "[::1]:80",
            "[::ffff:127.0.0.1]:80",
            "128.0.0.1:80",
        ] {
            assert!(
                text.parse::<Target>().unwrap_err().contains("127.0.0.0/8"),
                "{text}"
            );
        }
        assert!(
            "localhost:80"
                .parse::<Target>()
                .unwrap_err()
                .contains("ADDR:PORT")
        );
        assert!(
            "127.0.0.1:0"
                .parse::<Target>()
                .unwrap_err()
                .contains("port 0")
        );
    }

    #[test]
    fn target_on_loopback_is_taken() {
        let target: Target = "127.96.0.77:8080".parse().unwrap();
        assert_eq!(target.addr().to_string(), "127.96.0.77:8080");
    }
}
