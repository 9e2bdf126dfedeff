//! What is counted of connections between nodes.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tidings_protocol::mesh::Frame;
use tidings_protocol::peer::{EdgeToOwner, OwnerToEdge};

/// The kinds of frames under their names in the metrics.
const KINDS: [&str; 19] = [
    "welcome",
    "link_up",
    "link_down",
    "register",
    "unregister",
    "handled",
    "own",
    "gone",
    "registered",
    "changed",
    "closed",
    "publish",
    "published",
    "inspect",
    "inspected",
    "order",
    "ordered",
    "ask",
    "told",
];

fn kind(frame: &Frame) -> usize {
    match frame {
        Frame::Welcome { .. } => 0,
        Frame::LinkUp { .. } => 1,
        Frame::LinkDown { .. } => 2,
        Frame::FromEdge { frame, .. } => match frame {
            EdgeToOwner::Register { .. } => 3,
            EdgeToOwner::Unregister { .. } => 4,
            EdgeToOwner::Handled { .. } => 5,
        },
        Frame::FromOwner { frame, .. } => match frame {
            OwnerToEdge::Own { .. } => 6,
            OwnerToEdge::Gone { .. } => 7,
            OwnerToEdge::Registered { .. } => 8,
            OwnerToEdge::Changed { .. } => 9,
            OwnerToEdge::Closed { .. } => 10,
        },
        Frame::Publish { .. } => 11,
        Frame::Published { .. } => 12,
        Frame::Inspect { .. } => 13,
        Frame::Inspected { .. } => 14,
        Frame::Order { .. } => 15,
        Frame::Ordered { .. } => 16,
        Frame::Ask { .. } => 17,
        Frame::Told { .. } => 18,
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FrameLabels {
    way: &'static str,
    kind: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WayLabels {
    way: &'static str,
}

/// One way: what is sent or what comes.
#[derive(Debug)]
pub(super) struct Traffic {
    frames: [Counter; KINDS.len()],
    bytes: Counter,
}

impl Traffic {
    fn of(way: &'static str, frames: &Family<FrameLabels, Counter>, bytes: &Family<WayLabels, Counter>) -> Self {
        Self {
            frames: KINDS.map(|kind| frames.get_or_create(&FrameLabels { way, kind }).clone()),
            bytes: bytes.get_or_create(&WayLabels { way }).clone(),
        }
    }

    pub(super) fn count(&self, frame: &Frame, bytes: usize) {
        self.frames[kind(frame)].inc();
        self.bytes.inc_by(bytes as u64);
    }

    /// How many frames of this kind.
    #[cfg(test)]
    pub(super) fn of_kind(&self, name: &str) -> u64 {
        let at = KINDS.iter().position(|kind| *kind == name);
        self.frames[at.expect("a kind of frame")].get()
    }
}

/// See the module. Names are those of the metrics without `tidings_peer_`.
#[derive(Debug)]
pub(super) struct Counts {
    frames: Family<FrameLabels, Counter>,
    bytes: Family<WayLabels, Counter>,
    connections: Family<WayLabels, Gauge>,
    links: Family<WayLabels, Gauge>,
    /// Living nodes with owners, to each of which there should be a connection.
    pub(super) wanted: Gauge,
    /// What was put into outboxes.
    pub(super) sent: Traffic,
    /// What came.
    pub(super) came: Traffic,
    /// Connections to nodes with owners, after their welcome.
    pub(super) dialled: Gauge,
    /// Connections of other nodes that are served.
    pub(super) accepted: Gauge,
    /// Links of lanes here to owners elsewhere.
    pub(super) to_owners: Gauge,
    /// Links of lanes elsewhere to owners here.
    pub(super) from_lanes: Gauge,
    /// Attempts to connect that failed, and connections that ended.
    pub(super) reconnects: Counter,
    /// Connections of nodes that are not in the map, or not in their present life.
    pub(super) strangers: Counter,
    /// Frames of an older life of a link.
    pub(super) late: Counter,
    /// Questions and orders of other nodes that were too many at once.
    pub(super) questions_refused: Counter,
    /// Changes sent to their owner on another node.
    pub(super) forwarded: Counter,
    /// Changes that had to be sent again, elsewhere or later.
    pub(super) again: Counter,
    /// Bytes of forwarded changes that are not answered.
    pub(super) under_way: Gauge,
    /// Changes that came for an owner here.
    pub(super) served: Counter,
    /// Connections to nodes with copies of shards owned here.
    pub(super) copies_to: Gauge,
    /// Connections of nodes whose shards are copied here.
    pub(super) copies_from: Gauge,
    /// Bytes on both that were sent.
    pub(super) copies_sent: Counter,
    /// Bytes on both that came.
    pub(super) copies_came: Counter,
    copy_connections: Family<WayLabels, Gauge>,
    copy_bytes: Family<WayLabels, Counter>,
}

impl Counts {
    pub(super) fn new() -> Self {
        let (frames, bytes) = (Family::default(), Family::default());
        let (connections, links) = (
            Family::<WayLabels, Gauge>::default(),
            Family::<WayLabels, Gauge>::default(),
        );
        let (copy_connections, copy_bytes) = (Family::default(), Family::<WayLabels, Counter>::default());
        let counter = |way| copy_bytes.get_or_create(&WayLabels { way }).clone();
        let gauge = |family: &Family<WayLabels, Gauge>, way| family.get_or_create(&WayLabels { way }).clone();
        Self {
            sent: Traffic::of("out", &frames, &bytes),
            came: Traffic::of("in", &frames, &bytes),
            dialled: gauge(&connections, "out"),
            accepted: gauge(&connections, "in"),
            to_owners: gauge(&links, "out"),
            from_lanes: gauge(&links, "in"),
            frames,
            bytes,
            connections,
            links,
            wanted: Gauge::default(),
            reconnects: Counter::default(),
            strangers: Counter::default(),
            late: Counter::default(),
            questions_refused: Counter::default(),
            forwarded: Counter::default(),
            again: Counter::default(),
            under_way: Gauge::default(),
            served: Counter::default(),
            copies_to: gauge(&copy_connections, "out"),
            copies_from: gauge(&copy_connections, "in"),
            copies_sent: counter("out"),
            copies_came: counter("in"),
            copy_connections,
            copy_bytes,
        }
    }

    pub(super) fn register(&self, registry: &mut Registry) {
        let peer = registry.sub_registry_with_prefix("peer");
        peer.register("frames", "Frames between nodes, by kind", self.frames.clone());
        peer.register(
            "bytes",
            "Bytes of these frames before they are sealed",
            self.bytes.clone(),
        );
        peer.register(
            "connections",
            "Connections to nodes with owners (out) and of nodes that speak to owners here (in)",
            self.connections.clone(),
        );
        peer.register(
            "connections_wanted",
            "Living nodes with owners, to each of which there should be a connection",
            self.wanted.clone(),
        );
        peer.register(
            "links",
            "Links of lanes here to owners elsewhere (out) and of lanes elsewhere to owners here (in)",
            self.links.clone(),
        );
        peer.register(
            "reconnects",
            "Connections to nodes that failed or ended and are tried again",
            self.reconnects.clone(),
        );
        peer.register(
            "strangers",
            "Connections refused because the map does not name the node in this life",
            self.strangers.clone(),
        );
        peer.register(
            "late_frames",
            "Frames that belonged to an older life of a link",
            self.late.clone(),
        );
        peer.register(
            "questions_refused",
            "Operators' questions and orders that other nodes passed on and that were too many at once",
            self.questions_refused.clone(),
        );
        peer.register(
            "changes_forwarded",
            "Changes sent to their owner on another node",
            self.forwarded.clone(),
        );
        peer.register(
            "changes_forwarded_again",
            "Changes whose owner was elsewhere or not to be found and that were routed again",
            self.again.clone(),
        );
        peer.register(
            "forward_bytes",
            "Bytes of forwarded changes that are not answered yet",
            self.under_way.clone(),
        );
        peer.register(
            "changes_served",
            "Changes that other nodes sent to an owner here",
            self.served.clone(),
        );
        peer.register(
            "copy_connections",
            "Connections to nodes with copies of shards owned here (out) and of nodes whose shards are copied here (in)",
            self.copy_connections.clone(),
        );
        peer.register(
            "copy_bytes",
            "Bytes for and of copies before they are sealed",
            self.copy_bytes.clone(),
        );
    }
}
