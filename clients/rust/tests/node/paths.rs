//! Bad paths to good nodes: narrow ones, and ones that break again and again.

use super::support::{TRANSPORTS, client, node, ready, up_to};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep, timeout_at};

/// Carries bytes to `to` and back: at most `bytes` every 10 ms, and no connection longer than `life`.
async fn path(to: SocketAddr, bytes: usize, life: Duration) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        while let Ok((near, _)) = listener.accept().await {
            tokio::spawn(async move {
                let Ok(far) = TcpStream::connect(to).await else { return };
                let end = Instant::now() + life;
                let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
                let both = async { tokio::join!(carry(near_in, far_out, bytes), carry(far_in, near_out, bytes)) };
                _ = timeout_at(end, both).await;
            });
        }
    });
    address
}

async fn carry(mut from: tokio::net::tcp::OwnedReadHalf, mut to: tokio::net::tcp::OwnedWriteHalf, bytes: usize) {
    let mut buffer = vec![0; bytes];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        if to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
        sleep(Duration::from_millis(10)).await;
    }
    _ = to.shutdown().await;
}

/// Watches over this path while much changes; hears the newest of everything, and nothing unknown.
async fn survives(bytes: usize, life: Duration, pause: Duration) {
    let node = node(|_| {});
    let names: Vec<String> = (0..30).map(|n| format!("object {n}")).collect();
    let near = client(&[node.addr]);
    for transport in TRANSPORTS {
        let narrow = client(&[path(node.addr, bytes, life).await]);
        let mut watch = narrow.watch(names.clone()).transport(transport).start().expect("IDs");
        ready(&watch).await;
        let publishing = async {
            let mut newest = BTreeMap::new();
            for n in 0..300 {
                let name = &names[n * 7 % names.len()];
                let change = tidings_client::NewChange::new(name).data("x".repeat(200));
                let published = near.publish(change).send().await.expect("published");
                newest.insert(name.clone(), published.version.expect("a version"));
                sleep(pause).await;
            }
            newest
        };
        let newest = publishing.await;
        let told = up_to(&mut watch, &newest).await;
        assert_eq!(told, newest, "{transport:?}");
    }
}

#[tokio::test]
async fn over_a_narrow_path_the_newest_of_everything_arrives() {
    survives(256, Duration::from_secs(600), Duration::ZERO).await;
}

#[tokio::test]
async fn over_a_path_that_breaks_again_and_again_nothing_is_missed() {
    survives(8192, Duration::from_millis(250), Duration::from_millis(5)).await;
}
