//! Each key at its limit and one past it.

use super::super::{Config, Sources, load, validate};
use std::io::Write as _;

const SECRET: &str = "0123456789abcdef0123456789abcdef";

fn alone(change: impl FnOnce(&mut Config)) -> Result<(), String> {
    let mut config = Config::default();
    change(&mut config);
    validate(&config).map_err(|error| error.to_string())
}

fn member(change: impl FnOnce(&mut Config)) -> Result<(), String> {
    alone(|config| {
        config.cluster.expect = 3;
        config.cluster.join = vec!["10.0.0.1:7401".to_owned()];
        config.cluster.secret = SECRET.to_owned();
        change(config);
    })
}

/// It is refused by this key, with this in the message.
#[track_caller]
fn refused(result: Result<(), String>, key: &str, says: &str) {
    let message = result.expect_err("refused");
    assert!(message.starts_with(&format!("{key}: ")), "{message}");
    assert!(message.contains(says), "{message}");
}

fn file(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    file.write_all(text.as_bytes()).expect("written");
    file
}

fn path(file: &tempfile::NamedTempFile) -> String {
    file.path().to_str().expect("text").to_owned()
}

#[test]
fn a_node_that_is_alone_needs_none_of_this() {
    assert!(!Config::default().is_clustered());
    assert_eq!(alone(|_| {}), Ok(()));
    assert_eq!(
        alone(|config| config.server.node_listen = "0.0.0.0:7401".to_owned()),
        Ok(())
    );
}

#[test]
fn one_three_or_five_nodes_form_a_cluster() {
    for expect in [1, 3, 5] {
        assert_eq!(member(|config| config.cluster.expect = expect), Ok(()), "{expect}");
    }
    for expect in [0, 2, 4, 6, 7] {
        refused(
            member(|config| config.cluster.expect = expect),
            "cluster.expect",
            "3 (one may fail) or 5",
        );
    }
}

#[test]
fn a_lease_is_half_a_second_to_a_minute() {
    for fine in [500, 60_000] {
        assert_eq!(alone(|config| config.cluster.lease_ms = fine), Ok(()));
    }
    for wrong in [0, 499, 60_001] {
        refused(
            alone(|config| config.cluster.lease_ms = wrong),
            "cluster.lease_ms",
            "from 500 to 60000",
        );
    }
}

#[test]
fn copies_moves_fills_and_patience_have_bounds() {
    type Set = fn(&mut Config, u64);
    let keys: [(&str, Set, &[u64], &[u64]); 7] = [
        (
            "cluster.copies",
            |config, to| config.cluster.copies = to,
            &[1, 3],
            &[0, 4],
        ),
        (
            "cluster.moves",
            |config, to| config.cluster.moves = to,
            &[0, 256],
            &[257],
        ),
        (
            "cluster.fills",
            |config, to| config.cluster.fills = to,
            &[1, 64],
            &[0, 65],
        ),
        (
            "owner.copy_window_bytes",
            |config, to| config.owner.copy_window_bytes = to,
            &[65_536, 16_777_216],
            &[65_535, 16_777_217],
        ),
        (
            "owner.copy_queue_bytes",
            |config, to| config.owner.copy_queue_bytes = to,
            &[1_048_576, 41_943_040],
            &[1_048_575, 41_943_041],
        ),
        (
            "cluster.replace_voter_ms",
            |config, to| config.cluster.replace_voter_ms = to,
            &[5_000, 86_400_000],
            &[4_999, 86_400_001],
        ),
        (
            "cluster.forget_node_ms",
            |config, to| config.cluster.forget_node_ms = to,
            &[10_000, 2_592_000_000],
            &[9_999, 2_592_000_001],
        ),
    ];
    for (key, set, fine, wrong) in keys {
        for value in fine {
            assert_eq!(alone(|config| set(config, *value)), Ok(()), "{key} {value}");
        }
        for value in wrong {
            refused(alone(|config| set(config, *value)), key, "must be from");
        }
    }
}

#[test]
fn names_have_one_to_64_bytes() {
    assert_eq!(alone(|config| config.cluster.name = "n".repeat(64)), Ok(()));
    refused(
        alone(|config| config.cluster.name = "n".repeat(65)),
        "cluster.name",
        "at most 64",
    );
    refused(alone(|config| config.cluster.name.clear()), "cluster.name", "empty");
    refused(
        alone(|config| config.cluster.name = "a\u{7}".to_owned()),
        "cluster.name",
        "control",
    );
    assert_eq!(alone(|config| config.server.zone = "z".repeat(64)), Ok(()));
    refused(
        alone(|config| config.server.zone = "z".repeat(65)),
        "server.zone",
        "at most 64",
    );
    assert_eq!(alone(|config| config.server.name = "n".repeat(64)), Ok(()));
    refused(
        alone(|config| config.server.name = "n".repeat(65)),
        "server.name",
        "at most 64",
    );
}

#[test]
fn a_cluster_needs_a_secret_of_32_characters() {
    assert_eq!(member(|_| {}), Ok(()));
    refused(
        member(|config| config.cluster.secret.clear()),
        "cluster.secret",
        "cluster.secret_file",
    );
    let short = member(|config| _ = config.cluster.secret.pop());
    refused(short.clone(), "cluster.secret", "31 characters, at least 32");
    assert!(
        !short.expect_err("refused").contains(&SECRET[..8]),
        "a secret is never shown"
    );
    // Also of a node that is alone: it was meant for something.
    refused(
        alone(|config| config.cluster.secret = "short".to_owned()),
        "cluster.secret",
        "at least 32",
    );
}

#[test]
fn a_secret_may_be_in_a_file_whose_line_break_does_not_count() {
    let of = |text: &str| {
        let file = file(text);
        member(|config| {
            config.cluster.secret.clear();
            config.cluster.secret_file = path(&file);
            if let Ok(secret) = config.cluster_secret() {
                assert_eq!(secret, SECRET);
            }
        })
    };
    assert_eq!(of(SECRET), Ok(()));
    assert_eq!(of(&format!("{SECRET}\r\n")), Ok(()));
    refused(
        of(&format!("{}\n", &SECRET[1..])),
        "cluster.secret_file",
        "31 characters",
    );
    refused(of("\n"), "cluster.secret_file", "a cluster needs a secret");
    refused(of(&"x".repeat(65_537)), "cluster.secret_file", "at most 65536");
    let gone = member(|config| {
        config.cluster.secret.clear();
        config.cluster.secret_file = "no/such/file".to_owned();
    });
    refused(gone, "cluster.secret_file", "cannot read the file no/such/file");
    let both = member(|config| config.cluster.secret_file = "no/such/file".to_owned());
    refused(both, "cluster.secret_file", "only one of them");
}

#[test]
fn nodes_to_join_are_hosts_with_ports() {
    let longest = format!("{}:65535", "a".repeat(253));
    for fine in [
        "10.0.0.1:1",
        "[::1]:7401",
        "node-1.example:7401",
        "my_node:7401",
        &longest,
    ] {
        assert_eq!(
            member(|config| config.cluster.join = vec![fine.to_owned()]),
            Ok(()),
            "{fine}"
        );
    }
    let too_long = format!("{}:1", "a".repeat(254));
    let wrong = [
        "node",
        "node:",
        ":7401",
        "node:0",
        "node:65536",
        "node:+1",
        "::1:7401",
        "[::1]",
        "[10.0.0.1]:1",
        "http://a:1",
        "a b:1",
        "",
        &too_long,
    ];
    for wrong in wrong {
        refused(
            member(|config| config.cluster.join = vec![wrong.to_owned()]),
            "cluster.join",
            &format!("`{wrong}` is not host:port"),
        );
    }
}

#[test]
fn a_file_of_nodes_has_one_a_line_and_is_read_each_time() {
    let mut nodes = file("10.0.0.1:7401\n\n  # these fail together\n10.0.0.2:7401 # the second\n");
    let mut config = Config::default();
    config.cluster.join = vec![format!("@{}", path(&nodes)), "10.0.0.9:1".to_owned()];
    let seeds = config.seeds().expect("fine");
    assert_eq!(seeds, ["10.0.0.1:7401", "10.0.0.2:7401", "10.0.0.9:1"]);
    nodes.write_all(b"10.0.0.3:7401\n").expect("written");
    assert_eq!(config.seeds().expect("fine").len(), 4);
    nodes.write_all(b"nonsense\n").expect("written");
    let error = config.seeds().expect_err("refused").to_string();
    assert!(error.contains("`nonsense` is not host:port"), "{error}");
    refused(
        member(|config| config.cluster.join = vec!["@".to_owned()]),
        "cluster.join",
        "no file",
    );
    refused(
        member(|config| config.cluster.join = vec!["@no/such/file".to_owned()]),
        "cluster.join",
        "cannot read the file no/such/file",
    );
}

#[test]
fn there_are_at_most_256_nodes_to_join() {
    let many = |count: usize| member(|config| config.cluster.join = vec!["a:1".to_owned(); count]);
    assert_eq!(many(256), Ok(()));
    refused(many(257), "cluster.join", "at most 256");
}

#[test]
fn roles_are_known_ones_once_each_and_at_least_one() {
    let with =
        |roles: &[&str]| alone(|config| config.server.roles = roles.iter().map(|&role| role.to_owned()).collect());
    assert_eq!(with(&["voter"]), Ok(()));
    refused(with(&["edge", "king"]), "server.roles", "`king` is none of");
    refused(with(&["edge", "edge"]), "server.roles", "twice");
    refused(with(&[]), "server.roles", "at least one");
    let mut config = Config::default();
    config.server.roles = vec!["edge".to_owned()];
    let roles = config.roles();
    assert!(roles.edge && !roles.owner && !roles.voter);
}

#[test]
fn a_cluster_node_says_where_others_reach_it() {
    let listen = |listen: &str, advertise: &str| {
        member(|config| {
            config.server.node_listen = listen.to_owned();
            config.server.node_advertise = advertise.to_owned();
        })
    };
    assert_eq!(listen("10.0.0.1:7401", ""), Ok(()));
    assert_eq!(listen("0.0.0.0:7401", "node-1.example:7401"), Ok(()));
    for all in ["0.0.0.0:7401", "[::]:7401"] {
        refused(listen(all, ""), "server.node_advertise", "say which of them");
    }
    refused(
        listen("10.0.0.1:7401", "0.0.0.0:7401"),
        "server.node_advertise",
        "no address that others could reach",
    );
    refused(
        listen("10.0.0.1:7401", "node-1"),
        "server.node_advertise",
        "is not host:port",
    );
    refused(listen("nonsense", ""), "server.node_listen", "not an address and port");
}

#[test]
fn a_node_says_where_clients_reach_it_or_what_it_listens_on_or_nothing() {
    let mut config = Config::default();
    let bound = "127.0.0.1:7400".parse().expect("an address");
    let all = "0.0.0.0:7400".parse().expect("an address");
    assert_eq!(config.client_url(bound), "http://127.0.0.1:7400");
    assert_eq!(config.client_url(all), "");
    config.server.client_url = "https://a.example/".to_owned();
    assert_eq!(config.client_url(all), "https://a.example");
    assert_eq!(validate(&config).map_err(|error| error.to_string()), Ok(()));
    let longest = format!("http://{}", "a".repeat(193));
    assert_eq!(alone(|config| config.server.client_url = longest.clone()), Ok(()));
    refused(
        alone(|config| config.server.client_url = longest + "a"),
        "server.client_url",
        "at most 200",
    );
    for wrong in [
        "a.example",
        "ftp://a",
        "http://",
        "http:///a",
        "http://a b",
        "http://a/?b",
        "http://u@a",
    ] {
        let result = alone(|config| config.server.client_url = wrong.to_owned());
        refused(result, "server.client_url", "not the base of a URL");
    }
}

#[test]
fn what_is_said_is_where_others_reach_it() {
    let mut config = Config::default();
    let bound = "127.0.0.1:41234".parse().expect("an address");
    assert_eq!(config.node_advertise(bound), "127.0.0.1:41234");
    config.server.node_advertise = "node-1.example:7401".to_owned();
    assert_eq!(config.node_advertise(bound), "node-1.example:7401");
}

#[test]
fn nodes_to_join_come_as_a_list_from_a_flag() {
    let config = load(&Sources {
        flags: vec![
            ("cluster.join", "10.0.0.1:7401,node-2.example:7401".to_owned()),
            ("cluster.expect", "3".to_owned()),
            ("cluster.secret", SECRET.to_owned()),
        ],
        ..Sources::default()
    })
    .expect("fine");
    assert_eq!(config.cluster.join, ["10.0.0.1:7401", "node-2.example:7401"]);
    assert!(config.is_clustered());
}
