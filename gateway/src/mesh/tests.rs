//! Connections over real sockets: who gets in, what arrives, and how one ends.

use super::dial::{Backoff, answer, connect};
use super::handshake::{Connection, HandshakeError};
use super::sealed::{Came, OpenError};
use super::session::{End, Outbox, run};
use super::{ClusterKey, Identity, Keys, Limits};
use std::time::Duration;
use tidings_protocol::mesh::{Class, Hello, MAX_FRAME_BYTES};
use tidings_protocol::{ClusterId, NodeId};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

fn identity(node: u64) -> Identity {
    Identity::new(ClusterId(7), NodeId(node), 100 + node, ClusterKey::new([3; 32]))
}

fn quick() -> Limits {
    Limits {
        handshake: Duration::from_secs(10),
        heartbeat: Duration::from_millis(20),
        silence: Duration::from_millis(800),
        ..Limits::default()
    }
}

type Shaken = Result<Connection, HandshakeError>;

/// What both ends make of each other.
async fn shake(dialler: &Identity, dialled: &Identity, wanted: Option<u64>) -> (Shaken, Shaken) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let limits = quick();
    let answering = async {
        let (stream, _) = listener.accept().await.unwrap();
        answer(stream, dialled, &limits).await
    };
    tokio::join!(
        connect(&address, dialler, Class::Links, wanted.map(NodeId), &limits),
        answering
    )
}

async fn pair() -> (Connection, Connection) {
    let (dialled, answered) = shake(&identity(1), &identity(2), Some(2)).await;
    (dialled.unwrap(), answered.unwrap())
}

#[tokio::test]
async fn two_nodes_of_a_cluster_know_each_other_and_agree_on_a_version() {
    let (mut old, mut new) = (identity(1), identity(2));
    (old.versions, new.versions) = ((1, 3), (2, 9));
    let (dialled, answered) = shake(&old, &new, None).await;
    let (dialled, answered) = (dialled.unwrap().peer, answered.unwrap().peer);
    assert_eq!(
        (dialled.node, dialled.incarnation, dialled.version),
        (NodeId(2), 102, 3)
    );
    assert_eq!(
        (answered.node, answered.incarnation, answered.version),
        (NodeId(1), 101, 3)
    );
    assert_eq!((dialled.class, answered.class), (Class::Links, Class::Links));
}

#[tokio::test]
async fn a_node_of_another_cluster_is_named_at_both_ends() {
    let mut other = identity(2);
    other.cluster = ClusterId(8);
    let (dialled, answered) = shake(&identity(1), &other, None).await;
    let text = dialled.unwrap_err().to_string();
    assert_eq!(
        text,
        "the other end is node 0000000000000002 of another cluster (0000000000000008, ours is 0000000000000007)"
    );
    assert!(matches!(answered, Err(HandshakeError::OtherCluster { theirs: 7, .. })));
}

#[tokio::test]
async fn who_does_not_know_the_key_gets_nowhere() {
    let mut other = identity(2);
    other.keys = ClusterKey::new([4; 32]).into();
    let (dialled, answered) = shake(&identity(1), &other, None).await;
    assert!(matches!(dialled, Err(HandshakeError::WrongKey { node: NodeId(2) })));
    assert!(matches!(answered, Err(HandshakeError::WrongKey { node: NodeId(1) })));
}

#[tokio::test]
async fn versions_without_overlap_are_named() {
    let (mut old, mut new) = (identity(1), identity(2));
    (old.versions, new.versions) = ((1, 1), (2, 3));
    let (dialled, answered) = shake(&old, &new, None).await;
    let text = dialled.unwrap_err().to_string();
    assert!(
        text.ends_with("speaks versions 2 to 3 of the protocol between nodes, this one 1 to 1"),
        "{text}"
    );
    assert!(matches!(
        answered,
        Err(HandshakeError::NoCommonVersion { theirs: (1, 1), .. })
    ));
}

#[tokio::test]
async fn a_node_that_dials_itself_or_finds_another_than_it_wants_says_so() {
    let (dialled, answered) = shake(&identity(1), &identity(1), None).await;
    assert!(matches!(dialled, Err(HandshakeError::Ourselves)));
    assert!(matches!(answered, Err(HandshakeError::Ourselves)));
    let (dialled, _) = shake(&identity(1), &identity(2), Some(3)).await;
    assert!(matches!(
        dialled,
        Err(HandshakeError::OtherNode {
            found: NodeId(2),
            wanted: NodeId(3)
        })
    ));
}

/// One that has only what edges have.
fn edge(node: u64, secret: [u8; 32]) -> Identity {
    let (edges, public) = ClusterKey::new(secret).for_edges();
    let name = NodeId(node).with_edge(true);
    Identity::new(ClusterId(7), name, 100 + node, ClusterKey::of_edge(edges, public))
}

#[tokio::test]
async fn an_edge_and_another_node_know_each_other_whoever_dials_and_edges_do_not() {
    for (one, other) in [(edge(1, [3; 32]), identity(2)), (identity(2), edge(1, [3; 32]))] {
        let (dialled, answered) = shake(&one, &other, Some(other.node.0)).await;
        assert_eq!(dialled.unwrap().peer.node, other.node);
        assert_eq!(answered.unwrap().peer.node, one.node);
    }
    let (dialled, answered) = shake(&edge(1, [3; 32]), &edge(2, [3; 32]), None).await;
    assert!(matches!(dialled, Err(HandshakeError::BothEdges { .. })), "{dialled:?}");
    assert!(
        matches!(answered, Err(HandshakeError::BothEdges { .. })),
        "{answered:?}"
    );
}

#[tokio::test]
async fn who_has_only_what_edges_have_passes_for_nothing_else() {
    let (edges, public) = ClusterKey::new([3; 32]).for_edges();
    // All that they could put in place of what they lack.
    for made_up in [edges, public, [9; 32]] {
        let key = ClusterKey::full(made_up, made_up, edges).unwrap();
        let forged = Identity::new(ClusterId(7), NodeId(5), 1, key);
        for honest in [identity(2), edge(1, [3; 32])] {
            let (dialled, answered) = shake(&forged, &honest, None).await;
            assert!(dialled.is_err() && answered.is_err(), "{dialled:?} {answered:?}");
            let (dialled, answered) = shake(&honest, &forged, None).await;
            assert!(dialled.is_err() && answered.is_err(), "{dialled:?} {answered:?}");
        }
    }
    // Under another node's name an edge's key opens nothing.
    let forged = Identity::new(ClusterId(7), NodeId(5), 1, ClusterKey::of_edge(edges, public));
    let (dialled, answered) = shake(&forged, &identity(2), None).await;
    assert!(matches!(dialled, Err(HandshakeError::OurKey)), "{dialled:?}");
    assert!(answered.is_err());
}

#[tokio::test]
async fn while_the_secret_is_changed_both_are_accepted_and_the_first_is_used() {
    let key = |byte| ClusterKey::new([byte; 32]);
    let with = |node, first, second: Option<u8>| {
        let mut one = identity(node);
        one.keys = Keys::new(key(first), second.map(key));
        one
    };
    // As it goes: (old), (old, new), (new, old), (new); neighbours of one step.
    let steps = [(3, None), (3, Some(4)), (4, Some(3)), (4, None)];
    for pair in steps.windows(2) {
        for (one, other) in [(pair[0], pair[1]), (pair[1], pair[0])] {
            let (dialled, answered) = shake(&with(1, one.0, one.1), &with(2, other.0, other.1), None).await;
            assert!(dialled.is_ok() && answered.is_ok(), "{one:?} dials {other:?}");
        }
    }
    // Two steps at once are one too many.
    let (dialled, answered) = shake(&with(1, 3, None), &with(2, 4, None), None).await;
    assert!(dialled.is_err() && answered.is_err());
    // A change counts for connections that are made after it, on all clones.
    let one = with(1, 3, None);
    let clone = one.clone();
    one.keys.turn(key(4), None);
    let (dialled, _) = shake(&clone, &with(2, 4, None), None).await;
    assert!(dialled.is_ok());
    // Likewise for edges.
    let (dialled, _) = shake(&edge(1, [4; 32]), &with(2, 3, Some(4)), None).await;
    assert!(dialled.is_ok());
    let (dialled, _) = shake(&edge(1, [4; 32]), &with(2, 3, None), None).await;
    assert!(dialled.is_err());
}

/// What the dialled end makes of somebody who speaks these bytes.
async fn speak(bytes: &[u8]) -> HandshakeError {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    stream.shutdown().await.unwrap();
    let (accepted, _) = listener.accept().await.unwrap();
    answer(accepted, &identity(2), &quick()).await.unwrap_err()
}

#[tokio::test]
async fn strangers_and_torn_hellos_are_refused() {
    let http = b"GET /v1/events?object=a HTTP/1.1\r\nHost: here\r\n\r\n";
    assert!(matches!(speak(http).await, HandshakeError::NotTidings(_)));
    assert!(matches!(speak(&http[..9]).await, HandshakeError::Io(_)));
    assert!(matches!(speak(&[]).await, HandshakeError::Io(_)));
    let hello = identity(1).hello(Class::Control).encode();
    assert!(matches!(speak(&hello).await, HandshakeError::WrongKey { .. }));
    let noise = [&hello[..], &[9; 48]].concat();
    assert!(matches!(speak(&noise).await, HandshakeError::WrongKey { .. }));
}

#[tokio::test]
async fn who_says_nothing_is_hung_up_on_in_time() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let _stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (accepted, _) = listener.accept().await.unwrap();
    let limits = Limits {
        handshake: Duration::from_millis(100),
        ..quick()
    };
    assert!(matches!(
        answer(accepted, &identity(2), &limits).await,
        Err(HandshakeError::Slow)
    ));
}

/// Passes bytes on from one end to the other and lets `meddle` change the dialler's, by their place in the stream.
async fn through_a_meddler(meddle: impl Fn(usize, u8) -> u8) -> (Shaken, Shaken) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let middle = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = middle.local_addr().unwrap().to_string();
    let limits = quick();
    let passing = async {
        let (near, _) = middle.accept().await.unwrap();
        let far = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut near_from, mut near_to) = near.into_split();
        let (mut far_from, mut far_to) = far.into_split();
        let there = async {
            let mut at = 0;
            while let Ok(byte) = near_from.read_u8().await {
                if far_to.write_u8(meddle(at, byte)).await.is_err() {
                    break;
                }
                at += 1;
            }
            _ = far_to.shutdown().await;
        };
        let back = async {
            _ = tokio::io::copy(&mut far_from, &mut near_to).await;
            _ = near_to.shutdown().await;
        };
        tokio::join!(there, back);
    };
    let answering = async {
        let (stream, _) = listener.accept().await.unwrap();
        answer(stream, &identity(2), &limits).await
    };
    let us = identity(1);
    let shaking = async { tokio::join!(connect(&address, &us, Class::Links, None, &limits), answering) };
    tokio::select! {
        shaken = shaking => shaken,
        () = passing => panic!("the middle ended first"),
    }
}

#[tokio::test]
async fn a_hello_changed_on_the_way_ends_the_handshake() {
    let (dialled, answered) = through_a_meddler(|_, byte| byte).await;
    assert!(dialled.is_ok() && answered.is_ok());
    // The incarnation, the newest version, the class.
    for at in [31, 35, 36] {
        let flip = |place, byte| if place == at { byte ^ 2 } else { byte };
        let (_, answered) = through_a_meddler(flip).await;
        assert!(answered.is_err(), "byte {at}");
    }
}

#[tokio::test]
async fn the_first_message_of_another_handshake_repeated_is_not_believed() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    // What a true dialler says, overheard.
    let (us, limits) = (identity(1), quick());
    let address = listener.local_addr().unwrap().to_string();
    let hello = identity(2).hello(Class::Links);
    let overhear = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut said = vec![0; Hello::BYTES];
        stream.read_exact(&mut said).await.unwrap();
        stream.write_all(&[&[0][..], &hello.encode()].concat()).await.unwrap();
        let mut message = [0; 48];
        stream.read_exact(&mut message).await.unwrap();
        [said, message.to_vec()].concat()
    };
    let (_, said) = tokio::join!(connect(&address, &us, Class::Links, None, &limits), overhear);
    assert!(matches!(
        speak(&said).await,
        HandshakeError::WrongKey { node: NodeId(1) }
    ));
}

#[tokio::test]
async fn frames_of_every_size_arrive_in_order_with_heartbeats_between() {
    let (mut here, mut there) = pair().await;
    let sizes = [1, 2, 65_517, 65_518, 65_519, 131_036, 1_000_000, MAX_FRAME_BYTES, 3];
    let sending = async {
        for (n, size) in sizes.into_iter().enumerate() {
            here.sealer.seal(&vec![n as u8; size]);
            here.sealer.beat();
            here.sealer.flush().await.unwrap();
        }
        here
    };
    let receiving = async {
        let mut n = 0;
        while n < sizes.len() {
            if let Came::Frame(frame) = there.opener.next().await.unwrap() {
                assert_eq!(frame.len(), sizes[n]);
                assert!(frame.iter().all(|byte| *byte == n as u8));
                n += 1;
            }
        }
    };
    tokio::join!(sending, receiving);
}

#[tokio::test]
async fn a_frame_one_byte_over_the_limit_ends_the_connection_at_the_receiver() {
    let (mut here, mut there) = pair().await;
    let sending = async {
        here.sealer.seal(&vec![1; MAX_FRAME_BYTES + 1]);
        // It is cut off before all was written.
        _ = here.sealer.flush().await;
        here
    };
    let receiving = async {
        loop {
            match there.opener.next().await {
                Ok(Came::Life) => {}
                Ok(other) => panic!("{other:?}"),
                Err(error) => break error,
            }
        }
    };
    let (_here, error) = tokio::join!(sending, receiving);
    assert!(matches!(error, OpenError::TooLong));
}

/// Sends five frames through somebody who changes the stream of records after the handshake.
async fn tamper(change: impl Fn(Vec<Vec<u8>>) -> Vec<Vec<u8>>) -> (Vec<u8>, OpenError) {
    let (mut here, there) = pair().await;
    for n in 0..5 {
        here.sealer.seal(&[n; 10]);
    }
    let records = here.sealer.take_out();
    let records: Vec<Vec<u8>> = records.chunks(2 + 1 + 10 + 16).map(<[u8]>::to_vec).collect();
    assert_eq!(records.len(), 5);
    let changed = change(records).concat();
    let mut opener = there.opener.apart().1.joined(std::io::Cursor::new(changed));
    let mut heard = Vec::new();
    loop {
        match opener.next().await {
            Ok(Came::Frame(frame)) => heard.push(frame[0]),
            Ok(Came::Life) => {}
            Ok(Came::End) => return (heard, OpenError::Io(std::io::ErrorKind::UnexpectedEof.into())),
            Err(error) => return (heard, error),
        }
    }
}

#[tokio::test]
async fn a_record_changed_left_out_repeated_or_moved_ends_the_connection_there() {
    let (heard, _) = tamper(|records| records).await;
    assert_eq!(heard, [0, 1, 2, 3, 4]);
    type Change = fn(Vec<Vec<u8>>) -> Vec<Vec<u8>>;
    let changes: [Change; 5] = [
        |mut r| {
            r[2][9] ^= 1;
            r
        },
        |mut r| {
            r.remove(2);
            r
        },
        |mut r| {
            r.insert(2, r[1].clone());
            r
        },
        |mut r| {
            r.swap(2, 3);
            r
        },
        |mut r| {
            r[2] = vec![0, 16, 1];
            r
        },
    ];
    for change in changes {
        let (heard, error) = tamper(change).await;
        assert_eq!(heard, [0, 1]);
        assert!(matches!(error, OpenError::Forged), "{error}");
    }
    let (heard, error) = tamper(|mut r| {
        r[4].pop();
        r
    })
    .await;
    assert_eq!(heard, [0, 1, 2, 3]);
    assert!(matches!(error, OpenError::Io(_)), "{error}");
}

#[tokio::test]
async fn sessions_carry_frames_both_ways_and_end_when_one_is_dismissed() {
    let (here, there) = pair().await;
    let limits = quick();
    let (near, far) = (Outbox::new(1 << 20), Outbox::new(1 << 20));
    for n in 0_u32..2_000 {
        assert!(near.push(n.to_be_bytes().to_vec()));
    }
    let mut echoed = Vec::new();
    let running = run(here, &limits, &near, |_, frame| {
        echoed.push(u32::from_be_bytes(frame.try_into().unwrap()));
        if echoed.len() == 2_000 {
            near.dismiss();
        }
        Ok(())
    });
    let echoing = run(there, &limits, &far, |peer, frame| {
        assert_eq!(peer.node, NodeId(1));
        far.push(frame.to_vec());
        Ok(())
    });
    let (end, other) = tokio::join!(running, echoing);
    assert!(matches!(end, End::Dismissed), "{end}");
    assert!(
        matches!(other, End::Closed | End::Io(_) | End::Unreadable(_)),
        "{other}"
    );
    assert_eq!(echoed, (0..2_000).collect::<Vec<_>>());
    assert!(
        !near.push(vec![1]) && !far.push(vec![1]),
        "nothing is taken for a connection that ended"
    );
}

#[tokio::test]
async fn an_idle_session_lives_on_heartbeats_and_a_silent_one_ends() {
    let (here, there) = pair().await;
    let limits = quick();
    let (near, far) = (Outbox::new(100), Outbox::new(100));
    let ending = async {
        tokio::time::sleep(limits.silence * 2).await;
        near.dismiss();
    };
    let (end, _, ()) = tokio::join!(
        run(here, &limits, &near, |_, _| Ok(())),
        run(there, &limits, &far, |_, _| Ok(())),
        ending
    );
    assert!(
        matches!(end, End::Dismissed),
        "it lived for twice the silence allowed: {end}"
    );
    let (here, _there) = pair().await;
    let end = run(here, &limits, &Outbox::new(100), |_, _| Ok(())).await;
    assert!(matches!(end, End::Silent(_)), "{end}");
}

#[tokio::test]
async fn a_peer_that_takes_nothing_is_cut_when_too_much_waits_and_not_before() {
    let (here, there) = pair().await;
    let limits = Limits {
        silence: Duration::from_secs(60),
        ..quick()
    };
    let outbox = Outbox::new(1_000_000);
    let pushing = async {
        let mut pushed = 0_usize;
        loop {
            tokio::time::sleep(Duration::from_millis(1)).await;
            if !outbox.push(vec![5; 100_000]) {
                return pushed;
            }
            pushed += 100_000;
        }
    };
    let (end, pushed) = tokio::join!(run(here, &limits, &outbox, |_, _| Ok(())), pushing);
    drop(there);
    assert!(matches!(end, End::Full(1_000_000)), "{end}");
    assert!(pushed >= 1_000_000);
}

#[test]
fn an_outbox_takes_what_fits_to_the_byte() {
    let outbox = Outbox::new(10);
    assert!(outbox.push(vec![0; 10]));
    assert_eq!(outbox.bytes(), 10);
    let outbox = Outbox::new(10);
    assert!(!outbox.push(vec![0; 11]));
    assert!(
        !outbox.push(vec![0; 1]),
        "a connection that is to be cut takes nothing more"
    );
}

#[tokio::test]
async fn a_frame_that_makes_no_sense_ends_the_session() {
    let (here, there) = pair().await;
    let (limits, near, far) = (quick(), Outbox::new(100), Outbox::new(100));
    near.push(vec![1, 2, 3]);
    let (_, end) = tokio::join!(
        run(here, &limits, &near, |_, _| Ok(())),
        run(there, &limits, &far, |_, frame| Err(format!("{frame:?}")))
    );
    assert!(matches!(&end, End::BadFrame(why) if why == "[1, 2, 3]"), "{end}");
}

#[test]
fn pauses_double_up_to_the_longest_and_begin_anew_after_a_success() {
    let limits = Limits {
        retry_first: Duration::from_millis(100),
        retry_longest: Duration::from_millis(350),
        ..Limits::default()
    };
    let mut backoff = Backoff::new(&limits);
    let mut longest = || backoff.pause(u32::MAX).as_millis();
    assert_eq!([longest(), longest(), longest(), longest()], [100, 200, 350, 350]);
    assert_eq!(backoff.pause(0), Duration::ZERO);
    backoff.reset();
    assert!(backoff.pause(u32::MAX / 2).as_millis().abs_diff(50) <= 1);
}
