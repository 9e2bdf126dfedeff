//! The library's requests to other nodes, as bytes over whatever carries them.

use crate::promises::Promises;
use crate::types::{Snapshot, SnapshotMeta, Types, Vote, Voter};
use anyerror::AnyError;
use futures_util::future::BoxFuture;
use openraft::Raft;
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{RPCOption, RaftNetworkFactory, v2::RaftNetworkV2};
use openraft::raft::TransferLeaderResponse;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest, VoteRequest, VoteResponse,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;

/// Which connection a request should take: nothing large delays what is urgent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Urgency {
    /// Votes and signs of life.
    Heartbeat,
    /// Entries of the log.
    Log,
    /// A snapshot.
    Bulk,
}

/// Carries a request to a node and its answer back.
pub trait Transport: Send + Sync + 'static {
    /// Sends `request` to node `to` at `address` and waits for the answer, at most `within`.
    ///
    /// The answer is what [`crate::Consensus::answer`] returned there. An error says why there is none; the request may
    /// have arrived nevertheless.
    fn call(
        &self,
        to: u64,
        address: &str,
        urgency: Urgency,
        request: Vec<u8>,
        within: Duration,
    ) -> BoxFuture<'static, Result<Vec<u8>, String>>;
}

/// A request.
#[derive(Serialize, Deserialize)]
#[serde(bound = "")]
pub(crate) enum Request {
    Append(AppendEntriesRequest<Types>),
    Vote(VoteRequest<Types>),
    PreVote(VoteRequest<Types>),
    Snapshot(Vote, SnapshotMeta, Vec<u8>),
    Transfer(TransferLeaderRequest<Types>),
}

fn pack(value: &impl Serialize) -> Result<Vec<u8>, String> {
    rmp_serde::to_vec_named(value).map_err(|error| error.to_string())
}

fn unpack<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    rmp_serde::from_slice(bytes).map_err(|error| error.to_string())
}

/// Answers a request of another node. Bytes that are no request are answered with what is wrong about them.
pub(crate) async fn answer<M>(raft: &Raft<Types, M>, request: &[u8]) -> Vec<u8>
where
    M: openraft::storage::RaftStateMachine<Types, SnapshotData = Vec<u8>>,
{
    let answer = answer_or(raft, request).await;
    // An answer is made of plain values: it can always be written.
    pack(&answer).unwrap_or_default()
}

/// The answer's bytes, or what went wrong.
async fn answer_or<M>(raft: &Raft<Types, M>, request: &[u8]) -> Result<Vec<u8>, String>
where
    M: openraft::storage::RaftStateMachine<Types, SnapshotData = Vec<u8>>,
{
    let failed = |error: &dyn std::fmt::Display| error.to_string();
    match unpack::<Request>(request)? {
        Request::Append(request) => pack(&raft.append_entries(request).await.map_err(|e| failed(&e))?),
        Request::Vote(request) => pack(&raft.vote(request).await.map_err(|e| failed(&e))?),
        Request::PreVote(request) => pack(&raft.pre_vote(request).await.map_err(|e| failed(&e))?),
        Request::Snapshot(vote, meta, snapshot) => {
            let installed = raft.install_full_snapshot(vote, Snapshot { meta, snapshot }).await;
            pack(&installed.map_err(|e| failed(&e))?)
        }
        Request::Transfer(request) => pack(&raft.handle_transfer_leader(request).await.map_err(|e| failed(&e))?),
    }
}

/// Makes a client for each node.
pub(crate) struct Clients {
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) promises: Arc<Promises>,
}

/// One node's client.
pub(crate) struct Client {
    promises: Arc<Promises>,
    transport: Arc<dyn Transport>,
    to: u64,
    address: String,
    urgency: Urgency,
}

impl Clients {
    fn client(&self, to: u64, node: &Voter, urgency: Urgency) -> Client {
        Client {
            promises: Arc::clone(&self.promises),
            transport: Arc::clone(&self.transport),
            to,
            address: node.address.clone(),
            urgency,
        }
    }
}

impl RaftNetworkFactory<Types> for Clients {
    type Network = Client;

    async fn new_client(&mut self, target: u64, node: &Voter) -> Client {
        self.client(target, node, Urgency::Log)
    }

    async fn new_heartbeat_client(&mut self, target: u64, node: &Voter) -> Client {
        self.client(target, node, Urgency::Heartbeat)
    }

    async fn new_snapshot_client(&mut self, target: u64, node: &Voter) -> Client {
        self.client(target, node, Urgency::Bulk)
    }
}

/// Why a call gave nothing: nobody reached, or an answer that is none.
enum Failure {
    Unreachable(String),
    Answer(String),
}

impl Client {
    async fn call<T: DeserializeOwned>(
        &self,
        urgency: Urgency,
        request: &Request,
        within: Duration,
    ) -> Result<T, Failure> {
        let request = pack(request).map_err(Failure::Answer)?;
        let call = self.transport.call(self.to, &self.address, urgency, request, within);
        let answer = call.await.map_err(Failure::Unreachable)?;
        let answer: Result<Vec<u8>, String> = unpack(&answer).map_err(Failure::Answer)?;
        unpack(&answer.map_err(Failure::Answer)?).map_err(Failure::Answer)
    }

    async fn rpc<T: DeserializeOwned>(
        &self,
        urgency: Urgency,
        request: &Request,
        option: &RPCOption,
    ) -> Result<T, RPCError<Types>> {
        let called = self.call(urgency, request, option.hard_ttl()).await;
        called.map_err(|failure| match failure {
            Failure::Unreachable(why) => RPCError::Unreachable(Unreachable::new(&AnyError::error(why))),
            Failure::Answer(why) => RPCError::Network(NetworkError::new(&AnyError::error(why))),
        })
    }
}

impl RaftNetworkV2<Types> for Client {
    type SnapshotData = Vec<u8>;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<Types>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<Types>, RPCError<Types>> {
        let term = request.vote.leader_id.term;
        let before = self.promises.before(self.to, term);
        let prev = request.prev_log_id.as_ref().map_or(0, |id| id.index + 1);
        let upto = request.entries.last().map_or(prev, |entry| entry.log_id.index + 1);
        let answer = self.rpc(self.urgency, &Request::Append(request), &option).await?;
        match &answer {
            AppendEntriesResponse::Success => self.promises.acknowledged(self.to, term, upto),
            AppendEntriesResponse::PartialSuccess(at) => {
                let entries = at.as_ref().map_or(0, |id| id.index + 1);
                self.promises.acknowledged(self.to, term, entries);
            }
            AppendEntriesResponse::Conflict if self.promises.conflict(self.to, prev, before) => {
                let why = AnyError::error("its log went back");
                return Err(RPCError::Unreachable(Unreachable::new(&why)));
            }
            AppendEntriesResponse::Conflict | AppendEntriesResponse::HigherVote(_) => {}
        }
        Ok(answer)
    }

    async fn vote(
        &mut self,
        request: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        self.rpc(Urgency::Heartbeat, &Request::Vote(request), &option).await
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        self.rpc(Urgency::Heartbeat, &Request::PreVote(request), &option).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        let term = vote.leader_id.term;
        let entries = snapshot.meta.last_log_id.as_ref().map_or(0, |id| id.index + 1);
        let request = Request::Snapshot(vote, snapshot.meta, snapshot.snapshot);
        let sent = tokio::select! {
            sent = self.call(Urgency::Bulk, &request, option.hard_ttl()) => sent,
            closed = cancel => return Err(StreamingError::Closed(closed)),
        };
        let sent: Result<SnapshotResponse<Types>, Failure> = sent;
        if sent.as_ref().is_ok_and(|answer| answer.vote == vote) {
            self.promises.acknowledged(self.to, term, entries);
        }
        sent.map_err(|failure| match failure {
            Failure::Unreachable(why) => StreamingError::Unreachable(Unreachable::new(&AnyError::error(why))),
            Failure::Answer(why) => StreamingError::Network(NetworkError::new(&AnyError::error(why))),
        })
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<Types>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<Types>, RPCError<Types>> {
        self.rpc(Urgency::Heartbeat, &Request::Transfer(request), &option).await
    }
}
