//! What the keys of a cluster node mean together: who it is to others, how it finds them, and what proves that it belongs.
//!
//! Files that keys name (`cluster.secret_file`, `@FILE` in `cluster.join`) are read here and nowhere else. Names are not
//! resolved here, and nothing is derived from the secret.

use super::{Config, ConfigError};
use std::net::{IpAddr, SocketAddr};
use tidings_membership::Roles;

/// The shortest secret: 32 characters of hexadecimal digits are 128 bits.
const SECRET_CHARACTERS: usize = 32;
/// The longest file of a secret or of nodes that is read.
const FILE_BYTES: u64 = 64 * 1024;
/// Nodes to find the others by at most. Each is asked again and again until it answers.
const SEEDS: usize = 256;
/// Of names, zones and URLs, as members tell each other.
const NAME_BYTES: usize = 64;
const URL_BYTES: usize = 200;

impl Config {
    /// Whether this node is one of a cluster by what is configured. A cluster in its data directory makes it one too.
    #[must_use]
    pub fn is_clustered(&self) -> bool {
        !self.cluster.join.is_empty() || self.cluster.expect > 1
    }

    /// Checks what only a cluster node needs.
    ///
    /// # Errors
    /// The first key that is missing or makes no sense, and why.
    pub fn check_cluster(&self) -> Result<(), ConfigError> {
        self.cluster_secret()?;
        self.seeds()?;
        let listen = self.node_listen()?;
        require(
            !listen.ip().is_unspecified() || !self.server.node_advertise.is_empty(),
            "server.node_advertise",
            || {
                format!(
                    "server.node_listen is {listen}, all addresses of this machine: say which of them (or which name) other \
                     nodes reach it by, as host:port"
                )
            },
        )
    }

    /// The secret that all nodes of the cluster share, read from its file if it is in one. While it is changed there are two, a line
    /// each.
    ///
    /// # Errors
    /// If there is none, it is too short, or its file cannot be read.
    pub fn cluster_secret(&self) -> Result<String, ConfigError> {
        let (key, secret) = if self.cluster.secret_file.is_empty() {
            ("cluster.secret", self.cluster.secret.clone())
        } else {
            let text = read("cluster.secret_file", &self.cluster.secret_file)?;
            let line = text.trim_end_matches(['\r', '\n']);
            ("cluster.secret_file", line.to_owned())
        };
        require(!secret.is_empty(), key, || {
            "a cluster needs a secret that all of its nodes know, at least 32 characters, better in a file \
             (cluster.secret_file): `head -c 32 /dev/urandom | base64 > secret`"
                .to_owned()
        })?;
        for line in secret.lines().filter(|line| !line.is_empty()) {
            check_secret(key, line)?;
        }
        Ok(secret)
    }

    /// The nodes to find the others by, `host:port` each. Files are read each time, so that a change of them is noticed.
    ///
    /// # Errors
    /// If a file cannot be read or an entry is no `host:port`.
    pub fn seeds(&self) -> Result<Vec<String>, ConfigError> {
        let key = "cluster.join";
        let mut seeds = Vec::new();
        for entry in &self.cluster.join {
            match entry.strip_prefix('@') {
                None => seeds.push(entry.clone()),
                Some(path) => {
                    let text = read(key, path)?;
                    let lines = text
                        .lines()
                        .map(|line| line.split('#').next().unwrap_or_default().trim());
                    seeds.extend(lines.filter(|line| !line.is_empty()).map(str::to_owned));
                }
            }
        }
        require(seeds.len() <= SEEDS, key, || {
            format!(
                "{} nodes to find the others by, at most {SEEDS} make sense",
                seeds.len()
            )
        })?;
        seeds.iter().try_for_each(|seed| host_and_port(key, seed))?;
        Ok(seeds)
    }

    /// The address for other nodes.
    ///
    /// # Errors
    /// Says what is wrong with `server.node_listen`.
    pub fn node_listen(&self) -> Result<SocketAddr, ConfigError> {
        super::checks::address("server.node_listen", &self.server.node_listen)
    }

    /// Where other nodes reach this one, `host:port`. `bound` is where it listens for them, with the true port.
    #[must_use]
    pub fn node_advertise(&self, bound: SocketAddr) -> String {
        match self.server.node_advertise.as_str() {
            "" => bound.to_string(),
            said => said.to_owned(),
        }
    }

    /// What people call this node. `bound` is where it listens for clients, with the true port.
    #[must_use]
    pub fn node_name(&self, bound: SocketAddr) -> String {
        match self.server.name.as_str() {
            "" => format!("node-{}", bound.port()),
            said => said.to_owned(),
        }
    }

    /// Where clients reach this node: the base of a URL. Empty if nobody could use what is known: it listens on all
    /// addresses of the machine and nothing was said. `bound` is where it listens for clients, with the true port.
    #[must_use]
    pub fn client_url(&self, bound: SocketAddr) -> String {
        match self.server.client_url.as_str() {
            "" if bound.ip().is_unspecified() => String::new(),
            "" => format!("http://{bound}"),
            said => said.trim_end_matches('/').to_owned(),
        }
    }

    /// What this node does in a cluster.
    #[must_use]
    pub fn roles(&self) -> Roles {
        let has = |role: &str| self.server.roles.iter().any(|known| known == role);
        Roles {
            edge: has("edge"),
            owner: has("owner"),
            voter: has("voter"),
        }
    }
}

/// Checks the keys of a cluster by themselves, whether or not this is a node of one; then together, if it is.
pub(super) fn validate(config: &Config) -> Result<(), ConfigError> {
    let (cluster, server) = (&config.cluster, &config.server);
    require(!cluster.name.is_empty(), "cluster.name", || {
        "must not be empty".to_owned()
    })?;
    short("cluster.name", &cluster.name)?;
    short("server.zone", &server.zone)?;
    short("server.name", &server.name)?;
    require(matches!(cluster.expect, 1 | 3 | 5), "cluster.expect", || {
        format!(
            "{} nodes cannot form a cluster: 3 (one may fail) or 5 (two may), or 1 for a node that is alone or joins a \
             cluster that is there",
            cluster.expect
        )
    })?;
    require(
        cluster.secret.is_empty() || cluster.secret_file.is_empty(),
        "cluster.secret_file",
        || "cluster.secret is set too: only one of them can count".to_owned(),
    )?;
    if !cluster.secret.is_empty() {
        check_secret("cluster.secret", &cluster.secret)?;
    }
    for entry in &cluster.join {
        match entry.strip_prefix('@') {
            Some(path) => require(!path.is_empty(), "cluster.join", || "`@` names no file".to_owned())?,
            None => host_and_port("cluster.join", entry)?,
        }
    }
    check_roles(&server.roles)?;
    if !server.node_advertise.is_empty() {
        host_and_port("server.node_advertise", &server.node_advertise)?;
        let all = server.node_advertise.parse::<SocketAddr>();
        require(
            !all.is_ok_and(|address| address.ip().is_unspecified()),
            "server.node_advertise",
            || format!("{} is no address that others could reach", server.node_advertise),
        )?;
    }
    check_url(&server.client_url)?;
    if config.is_clustered() {
        config.check_cluster()?;
    }
    Ok(())
}

fn require(fine: bool, key: &'static str, reason: impl FnOnce() -> String) -> Result<(), ConfigError> {
    if fine {
        Ok(())
    } else {
        Err(ConfigError::Invalid { key, reason: reason() })
    }
}

/// A text that members tell each other.
fn short(key: &'static str, text: &str) -> Result<(), ConfigError> {
    require(text.len() <= NAME_BYTES, key, || {
        format!("{} bytes, at most {NAME_BYTES} are allowed", text.len())
    })?;
    require(!text.contains(char::is_control), key, || {
        "control characters are not allowed".to_owned()
    })
}

fn check_secret(key: &'static str, secret: &str) -> Result<(), ConfigError> {
    let count = secret.chars().count();
    // It is never shown, not even when it is wrong.
    require(count >= SECRET_CHARACTERS, key, || {
        format!("the secret has {count} characters, at least {SECRET_CHARACTERS} are needed")
    })
}

fn check_roles(roles: &[String]) -> Result<(), ConfigError> {
    let key = "server.roles";
    for (place, role) in roles.iter().enumerate() {
        require(matches!(role.as_str(), "edge" | "owner" | "voter"), key, || {
            format!("`{role}` is none of `edge`, `owner` and `voter`")
        })?;
        require(!roles[..place].contains(role), key, || {
            format!("`{role}` is there twice")
        })?;
    }
    require(!roles.is_empty(), key, || {
        "at least one of `edge`, `owner` and `voter` is needed".to_owned()
    })
}

fn check_url(url: &str) -> Result<(), ConfigError> {
    let key = "server.client_url";
    require(url.len() <= URL_BYTES, key, || {
        format!("{} bytes, at most {URL_BYTES} are allowed", url.len())
    })?;
    let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
    let fine = rest.is_some_and(|rest| {
        !rest.is_empty() && !rest.starts_with('/') && rest.bytes().all(|byte| byte.is_ascii_graphic())
    });
    require(url.is_empty() || (fine && !url.contains(['?', '#', '@'])), key, || {
        format!("`{url}` is not the base of a URL such as https://node-1.example:7400")
    })
}

/// `host:port`, where the host is a name, an IPv4 address or an IPv6 address in brackets.
fn host_and_port(key: &'static str, text: &str) -> Result<(), ConfigError> {
    let split = text.rsplit_once(':');
    let fine = split.is_some_and(|(host, port)| {
        let port = port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|port| port > 0);
        let bracketed = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        let host = match bracketed {
            Some(address) => address.parse::<IpAddr>().is_ok_and(|address| address.is_ipv6()),
            None => is_name(host),
        };
        port && host
    });
    require(fine, key, || {
        format!("`{text}` is not host:port such as node-1.example:7401, 10.0.0.1:7401 or [fd00::1]:7401")
    })
}

fn is_name(host: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    (1..=253).contains(&host.len()) && host.bytes().all(allowed)
}

fn read(key: &'static str, path: &str) -> Result<String, ConfigError> {
    let refuse = |cause: String| ConfigError::Invalid {
        key,
        reason: format!("cannot read the file {path}: {cause}"),
    };
    let length = std::fs::metadata(path)
        .map_err(|error| refuse(error.to_string()))?
        .len();
    if length > FILE_BYTES {
        return Err(refuse(format!("it has {length} bytes, at most {FILE_BYTES} are read")));
    }
    std::fs::read_to_string(path).map_err(|error| refuse(error.to_string()))
}

#[cfg(test)]
mod tests;
