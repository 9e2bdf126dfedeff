//! The library's own tests of a store, on ours.

use crate::machine::Machine;
use crate::store::Store;
use crate::types::Types;
use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};
use tidings_protocol::{ClusterId, ShardCount};
use tidings_router::control::map::Map;

struct OnDisk;

impl StoreBuilder<Types, Store, Machine, tempfile::TempDir> for OnDisk {
    async fn build(&self) -> Result<(tempfile::TempDir, Store, Machine), StorageError<Types>> {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(Some(&folder.path().join("raft.redb"))).unwrap();
        let fresh = Map::new(ClusterId(1), ShardCount::new(8).unwrap(), 2);
        let (machine, _) = Machine::new(store.clone(), fresh);
        Ok((folder, store, machine))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_store_passes_the_librarys_own_suite() {
    Suite::test_all(OnDisk).await.unwrap();
}
