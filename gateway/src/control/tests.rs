//! Control planes of several nodes in one process, over real sockets: they form, join, survive, and refuse strangers.

mod stage;

use stage::{PATIENCE, Stage};
use tidings_protocol::Epoch;

#[tokio::test]
async fn three_nodes_form_a_cluster_and_own_its_shards() {
    let mut stage = Stage::new();
    for _ in 0..3 {
        stage.start(3, |_| {});
    }
    stage.all_formed().await;
    stage
        .all_see("every shard has an owner, and every owner a lease", |view| {
            let owned = view.map.shards().all(|(_, shard)| shard.epoch >= Epoch(1));
            owned && view.until_us > 0 && view.confirmed && view.peers.len() == 2
        })
        .await;
    let identity = stage.identity(0);
    let view = stage.view(0);
    for node in 0..3 {
        assert_eq!(stage.identity(node), identity);
        let me = stage.view(node).me;
        let owned = view.map.shards().filter(|(_, shard)| shard.owner == Some(me)).count();
        assert!((5..=6).contains(&owned), "16 shards over three nodes: {owned}");
    }
    _ = PATIENCE;
}
