//! Bounds by name, for the command line.

use crate::catalogue::AnyModel;
use crate::copies;
use crate::disk::Disk;
use crate::scripted::Scripted;
use crate::whole::Whole;

impl AnyModel {
    /// Sets a bound; `false` if this model has none of that name.
    pub fn set(&mut self, name: &str, value: u8) -> bool {
        match self {
            Self::Scripted(model) => scripted(model, name, value),
            Self::Copies(model) => copies(model, name, value),
            Self::Disk(model) => disk(model, name, value),
            Self::Whole(model) => whole(model, name, value),
        }
    }
}

fn put(place: Option<&mut u8>, value: u8) -> bool {
    place.map(|place| *place = value).is_some()
}

fn scripted(model: &mut Scripted, name: &str, value: u8) -> bool {
    let (shape, budget) = (&mut model.shape, &mut model.budget);
    let size = match name {
        "nodes" => Some(&mut shape.nodes),
        "edges" => Some(&mut shape.edges),
        "clients" => Some(&mut shape.clients),
        "objects" => Some(&mut shape.objects),
        _ => None,
    };
    if let Some(size) = size {
        *size = value.into();
        return (1..=2).contains(&value);
    }
    let place = match name {
        "publishes" => Some(&mut budget.publishes),
        "unacked" => Some(&mut budget.unacked),
        "closes" => Some(&mut budget.closes),
        "moves" => Some(&mut budget.moves),
        "losses" => Some(&mut budget.losses),
        "crashes" => Some(&mut budget.crashes),
        "cuts" => Some(&mut budget.cuts),
        "leaves" => Some(&mut budget.leaves),
        "adds" => Some(&mut budget.adds),
        "evictions" => Some(&mut budget.evictions),
        "lingers" => Some(&mut budget.lingers),
        "room" => Some(&mut model.room),
        "holds" => Some(&mut model.holds),
        _ => None,
    };
    let known = put(place, value);
    model.shape.nothing_lost = model.budget.losses == 0 && model.budget.evictions == 0;
    known
}

fn copies(model: &mut copies::Copies, name: &str, value: u8) -> bool {
    let budget = &mut model.budget;
    match name {
        "nodes" => {
            model.nodes = value.into();
            return (1..=copies::NODES).contains(&model.nodes);
        }
        "copies" => {
            model.copies = value.into();
            return (1..=model.nodes).contains(&model.copies);
        }
        "publishes" => {
            budget.publishes = value;
            return usize::from(value) <= copies::PUBLISHES;
        }
        "torn" => model.torn = value > 0,
        "gossip_lies" => model.gossip_lies = value > 0,
        "disks" => model.disks = value > 0,
        "learns_first" => model.learns_first = value > 0,
        _ => {
            let place = match name {
                "retries" => Some(&mut budget.retries),
                "crashes" => Some(&mut budget.crashes),
                "power_losses" => Some(&mut budget.power_losses),
                "joins" => Some(&mut budget.joins),
                "removals" => Some(&mut budget.removals),
                "replacements" => Some(&mut budget.replacements),
                "releases" => Some(&mut budget.releases),
                "losses" => Some(&mut budget.losses),
                "closes" => Some(&mut budget.closes),
                "evictions" => Some(&mut budget.evictions),
                "raises" => Some(&mut budget.raises),
                "room" => Some(&mut model.room),
                "epochs" => Some(&mut model.epochs),
                _ => None,
            };
            return put(place, value);
        }
    }
    true
}

fn disk(model: &mut Disk, name: &str, value: u8) -> bool {
    let place = match name {
        "publishes" => Some(&mut model.publishes),
        "starts" => Some(&mut model.starts),
        "room" => Some(&mut model.room),
        "raises" => Some(&mut model.raises),
        _ => None,
    };
    put(place, value)
}

fn whole(model: &mut Whole, name: &str, value: u8) -> bool {
    let own = match name {
        "closes" => Some(&mut model.closes),
        "cuts" => Some(&mut model.cuts),
        "leaves" => Some(&mut model.leaves),
        _ => None,
    };
    if put(own, value) {
        return true;
    }
    match name {
        "edges" => model.shape.edges = value.into(),
        "clients" => model.shape.clients = value.into(),
        "objects" => model.shape.objects = value.into(),
        "nodes" => return false,
        _ => return copies(&mut model.copies, name, value),
    }
    (1..=2).contains(&value)
}
