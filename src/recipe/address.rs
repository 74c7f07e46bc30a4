//! An address to listen on, as people write it: `ADDR:PORT`, or the port alone for this machine's own programs.

use crate::error::{Error, Result};
use std::fmt;

/// Where only programs of this machine connect.
const LOOPBACK: &str = "127.0.0.1";

/// A host and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// A number or a name of this machine, without brackets.
    pub host: String,
    /// The port; 0: any that is free.
    pub port: u16,
}

/// Reads an address: `0.0.0.0:9464`, `[::1]:9464`, `localhost:9464`, and `:9464` or `9464` for 127.0.0.1.
///
/// # Errors
/// The text is none.
pub fn parse(text: &str) -> Result<Address> {
    let (host, port) = text.rsplit_once(':').unwrap_or(("", text));
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    // Without brackets the last group of an IPv6 address would be taken for a port.
    let plain = |host: &&str| !host.contains([':', '[', ']', '/', ' ']);
    let host = bare.or(Some(host).filter(plain));
    // `parse` would take a sign.
    let port = port.bytes().all(|byte| byte.is_ascii_digit()).then(|| port.parse().ok()).flatten();
    match (host, port) {
        (Some(host), Some(port)) => {
            let host = if host.is_empty() { LOOPBACK } else { host };
            Ok(Address { host: host.to_owned(), port })
        }
        _ => Err(Error::usage(format!(
            "`{text}` is no address to listen on; write ADDR:PORT, like 0.0.0.0:9464, or :9464 for this machine alone"
        ))),
    }
}

impl fmt::Display for Address {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') { write!(formatter, "[{host}]:{port}") } else { write!(formatter, "{host}:{port}") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_alone_is_for_this_machine() {
        for (text, shown) in [
            (":9464", "127.0.0.1:9464"),
            ("9464", "127.0.0.1:9464"),
            ("0", "127.0.0.1:0"),
            ("0.0.0.0:80", "0.0.0.0:80"),
            ("[::1]:9464", "[::1]:9464"),
            ("localhost:65535", "localhost:65535"),
        ] {
            assert_eq!(parse(text).unwrap().to_string(), shown);
        }
    }

    #[test]
    fn what_is_no_address_is_named() {
        for text in ["", ":", "host", "host:", "host:+80", "::1", "::1:80", "1.2.3.4:65536", "http://a:80", "[::1"] {
            let said = parse(text).unwrap_err().to_string();
            assert!(said.starts_with(&format!("`{text}` is no address to listen on; write ADDR:PORT")), "{said}");
        }
    }
}
