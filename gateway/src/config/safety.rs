//! What a configuration lets strangers do: what is refused, and what is only said.

use super::ConfigError;
use super::checks::address;
use super::schema::Config;
use std::net::SocketAddr;

/// Refuses to serve strangers by oversight.
pub(super) fn validate(config: &Config, listen: SocketAddr) -> Result<(), ConfigError> {
    let invalid = |key: &'static str, reason: String| Err(ConfigError::Invalid { key, reason });
    let fine = config.has_auth() || config.server.insecure;
    if !listen.ip().is_loopback() && !fine {
        return invalid(
            "server.listen",
            format!(
                "{listen} is reachable from other machines, and nobody would have to authenticate: every page and host that \
                 reaches it could publish and listen. Say who is let in (auth.policy_file), or set server.insecure = true (or \
                 --insecure) if that is what you want"
            ),
        );
    }
    if !config.server.admin_listen.is_empty() {
        let admin = address("server.admin_listen", &config.server.admin_listen)?;
        if !admin.ip().is_loopback() && !fine {
            let reason = format!(
                "{admin} is reachable from other machines, and nobody would have to authenticate: say who is let in \
                 (auth.policy_file), or set server.insecure = true"
            );
            return invalid("server.admin_listen", reason);
        }
    }
    if config.server.tls_cert_file.is_empty() != config.server.tls_key_file.is_empty() {
        return invalid(
            "server.tls_key_file",
            "goes together with server.tls_cert_file".to_owned(),
        );
    }
    for text in &config.server.trusted_proxies {
        if crate::server::network(text).is_none() {
            let reason = format!("`{text}` is neither an address nor a network such as 10.0.0.0/8");
            return invalid("server.trusted_proxies", reason);
        }
    }
    if !matches!(config.server.forwarded_header.as_str(), "x-forwarded-for" | "forwarded") {
        return invalid(
            "server.forwarded_header",
            "must be `x-forwarded-for` or `forwarded`".to_owned(),
        );
    }
    if config.server.proxy_protocol && config.server.trusted_proxies.is_empty() {
        return invalid(
            "server.proxy_protocol",
            "is for the proxies that server.trusted_proxies names, and there are none".to_owned(),
        );
    }
    let in_a_name = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if !config.auth.cookie.bytes().all(in_a_name) {
        return invalid("auth.cookie", "is not the name of a cookie".to_owned());
    }
    Ok(())
}

/// Every choice that makes the server less safe than it could be, one sentence each with its key. None of them is refused.
#[must_use]
pub fn warnings(config: &Config) -> Vec<String> {
    let public = |text: &str| {
        text.parse::<SocketAddr>()
            .is_ok_and(|address| !address.ip().is_loopback())
    };
    let (server, auth) = (&config.server, &config.auth);
    let listens = public(&server.listen);
    let mut found = Vec::new();
    let mut say = |when: bool, text: String| {
        if when {
            found.push(text);
        }
    };
    say(
        server.insecure && !config.has_auth(),
        "server.insecure: everybody who reaches the port may publish, listen, and do what operators do".to_owned(),
    );
    say(
        server.insecure && config.has_auth(),
        "server.insecure: it changes nothing beside auth.policy_file; take it out, lest it counts when that is gone"
            .to_owned(),
    );
    say(
        !config.has_auth() && !listens,
        "auth.policy_file: nobody has to authenticate; every program of this machine may publish and listen".to_owned(),
    );
    say(
        listens && !config.has_tls(),
        "server.tls_cert_file: tokens and changes cross the network in the clear, unless a proxy in front speaks TLS"
            .to_owned(),
    );
    say(
        listens && server.admin_listen.is_empty(),
        "server.admin_listen: metrics and operators' routes are on the public listener (they ask for `admin` where \
         auth.policy_file is set)"
            .to_owned(),
    );
    say(
        public(&server.admin_listen),
        "server.admin_listen: it speaks no TLS and is reachable from other machines".to_owned(),
    );
    say(
        auth.token_lifetime_s > 7 * 86_400,
        format!(
            "auth.token_lifetime_s: a stolen token may be used for {} days",
            auth.token_lifetime_s / 86_400
        ),
    );
    say(
        auth.grace_ms > 60_000,
        format!(
            "auth.grace_ms: connections outlive their tokens by {} seconds",
            auth.grace_ms / 1000
        ),
    );
    say(
        !auth.cookie.is_empty() && !auth.cookie.starts_with("__Host-"),
        "auth.cookie: without `__Host-` at the beginning of its name, other hosts of the same site may set it"
            .to_owned(),
    );
    say(
        server
            .allowed_origins
            .iter()
            .any(|origin| origin.starts_with("http://") && !is_local(origin)),
        "server.allowed_origins: a page that came over plain http can be changed by anybody on its way".to_owned(),
    );
    say(
        server
            .trusted_proxies
            .iter()
            .filter_map(|text| crate::server::network(text))
            .any(|network| network.prefix_len() == 0),
        "server.trusted_proxies: everybody is believed about their address, so limits by address bind nobody"
            .to_owned(),
    );
    say(
        !config.cluster.secret.is_empty(),
        "cluster.secret: it stands in the configuration; cluster.secret_file can be read by fewer".to_owned(),
    );
    found
}

fn is_local(origin: &str) -> bool {
    let host = origin.trim_start_matches("http://");
    ["localhost", "127.0.0.1", "[::1]"]
        .iter()
        .any(|local| host == *local || host.strip_prefix(local).is_some_and(|rest| rest.starts_with(':')))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(change: impl FnOnce(&mut Config)) -> Vec<String> {
        let mut config = Config::default();
        config.auth.policy_file = "policy.toml".to_owned();
        change(&mut config);
        let key = |text: String| text.split(':').next().unwrap_or_default().to_owned();
        warnings(&config).into_iter().map(key).collect()
    }

    #[test]
    fn a_policy_on_loopback_leaves_nothing_to_say() {
        assert_eq!(named(|_| {}), <[String; 0]>::default());
    }

    #[test]
    fn every_insecure_choice_is_named_by_its_key() {
        assert_eq!(named(|c| c.auth.policy_file.clear()), ["auth.policy_file"]);
        assert_eq!(named(|c| c.server.insecure = true), ["server.insecure"]);
        assert_eq!(
            named(|c| c.server.listen = "0.0.0.0:7400".to_owned()),
            ["server.tls_cert_file", "server.admin_listen"]
        );
        assert_eq!(
            named(|c| {
                c.server.listen = "[::]:7400".to_owned();
                c.server.tls_cert_file = "c".to_owned();
                c.server.admin_listen = "127.0.0.1:7402".to_owned();
            }),
            <[String; 0]>::default()
        );
        assert_eq!(
            named(|c| c.server.admin_listen = "10.0.0.1:7402".to_owned()),
            ["server.admin_listen"]
        );
        assert_eq!(
            named(|c| c.auth.token_lifetime_s = 30 * 86_400),
            ["auth.token_lifetime_s"]
        );
        assert_eq!(named(|c| c.auth.grace_ms = 61_000), ["auth.grace_ms"]);
        assert_eq!(named(|c| c.cluster.secret = "x".repeat(32)), ["cluster.secret"]);
        assert_eq!(
            named(|c| c.server.trusted_proxies = vec!["0.0.0.0/0".to_owned()]),
            ["server.trusted_proxies"]
        );
        assert!(named(|c| c.server.trusted_proxies = vec!["10.0.0.0/8".to_owned()]).is_empty());
        assert_eq!(named(|c| c.auth.cookie = "tidings".to_owned()), ["auth.cookie"]);
        assert!(named(|c| c.auth.cookie = "__Host-tidings".to_owned()).is_empty());
        let origins = |text: &str| named(|c| c.server.allowed_origins = vec![text.to_owned()]);
        assert_eq!(origins("http://app.example"), ["server.allowed_origins"]);
        assert_eq!(origins("http://localhost.evil.example"), ["server.allowed_origins"]);
        assert!(origins("http://localhost:5173").is_empty() && origins("https://app.example").is_empty());
    }

    #[test]
    fn what_would_serve_strangers_by_oversight_is_refused() {
        let refused = |change: &dyn Fn(&mut Config)| {
            let mut config = Config::default();
            change(&mut config);
            match super::super::validate(&config) {
                Err(ConfigError::Invalid { key, .. }) => Some(key),
                _ => None,
            }
        };
        let public = |c: &mut Config| c.server.listen = "0.0.0.0:7400".to_owned();
        assert_eq!(refused(&public), Some("server.listen"));
        assert_eq!(
            refused(&|c| {
                public(c);
                c.server.insecure = true
            }),
            None
        );
        assert_eq!(
            refused(&|c| {
                public(c);
                c.auth.policy_file = "p".to_owned()
            }),
            None
        );
        assert_eq!(
            refused(&|c| c.server.admin_listen = "10.0.0.1:1".to_owned()),
            Some("server.admin_listen")
        );
        assert_eq!(refused(&|c| c.server.admin_listen = "127.0.0.1:1".to_owned()), None);
        assert_eq!(
            refused(&|c| c.server.admin_listen = "nowhere".to_owned()),
            Some("server.admin_listen")
        );
        assert_eq!(
            refused(&|c| c.server.tls_cert_file = "c".to_owned()),
            Some("server.tls_key_file")
        );
        assert_eq!(
            refused(&|c| c.server.tls_key_file = "k".to_owned()),
            Some("server.tls_key_file")
        );
        for proxy in ["10.0.0.0/33", "localhost", ""] {
            let named = |c: &mut Config| c.server.trusted_proxies = vec![proxy.to_owned()];
            assert_eq!(refused(&named), Some("server.trusted_proxies"), "{proxy}");
        }
        assert_eq!(
            refused(&|c| c.server.forwarded_header = "x-real-ip".to_owned()),
            Some("server.forwarded_header")
        );
        assert_eq!(
            refused(&|c| c.server.proxy_protocol = true),
            Some("server.proxy_protocol")
        );
        for name in ["a b", "a=b", "a;b", "é"] {
            assert_eq!(
                refused(&|c| c.auth.cookie = name.to_owned()),
                Some("auth.cookie"),
                "{name}"
            );
        }
        assert_eq!(refused(&|c| c.auth.leeway_s = 31), Some("auth.leeway_s"));
        assert_eq!(refused(&|c| c.auth.leeway_s = 30), None);
        assert_eq!(
            refused(&|c| c.auth.token_lifetime_s = 59),
            Some("auth.token_lifetime_s")
        );
        assert_eq!(refused(&|c| c.auth.token_lifetime_s = 60), None);
    }
}
