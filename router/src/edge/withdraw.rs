//! Subscriptions that end without the subscriber's asking: it may not watch these objects any more.

use super::requests::PageEntry;
use super::subscribers::{Sink, SubscriberKey};
use super::{Lane, Output};
use crate::now::Now;
use tidings_protocol::Problem;
use tidings_protocol::codec;

impl Lane {
    /// Takes everything out of what a subscriber watches that it may not `keep`, and tells it so with `why`. Nothing more is
    /// told of these objects; a request that is under way answers with the refusal. Gives how many there were.
    pub fn withdraw(
        &mut self,
        now: Now,
        who: SubscriberKey,
        keep: impl Fn(&str) -> bool,
        why: &Problem,
        out: &mut Vec<Output>,
    ) -> usize {
        let Some(subscriber) = self.subscribers.get_mut(who) else {
            return 0;
        };
        let mut taken: Vec<(u32, String)> = Vec::new();
        let objects = &self.objects;
        subscriber.slots.for_each(|slot| {
            let id = objects.slot(slot).id.as_str();
            if !keep(id) {
                taken.push((slot, id.to_owned()));
            }
        });
        if taken.is_empty() {
            return 0;
        }
        let mut untold = Vec::with_capacity(taken.len());
        for (slot, id) in &taken {
            let asked = subscriber.page.as_mut().is_some_and(|page| {
                page.forget(*slot);
                let mut asked = false;
                for entry in &mut page.entries {
                    if matches!(entry, PageEntry::Watched { slot: watched, .. } if watched == slot) {
                        *entry = PageEntry::Refused(Box::new((id.clone(), why.clone())));
                        asked = true;
                    }
                }
                asked
            });
            if !asked {
                untold.push((id.clone(), why.clone()));
            }
        }
        if !untold.is_empty() {
            match &mut subscriber.sink {
                Sink::Stream { encoding, .. } => {
                    let entries = untold.iter().map(|(id, why)| (id.as_str(), why));
                    codec::refused(*encoding, &mut subscriber.reply, entries);
                }
                Sink::Poll(state) => state.refuse(untold),
                Sink::Idle => {}
            }
        }
        for (slot, _) in &taken {
            self.unwatch(now, who, *slot);
        }
        self.make_ready(who.index);
        self.page_progress(now, who, out);
        self.flush_upstream(out);
        taken.len()
    }
}
