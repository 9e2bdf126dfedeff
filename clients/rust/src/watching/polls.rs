//! One long-poll after the other, over a connection that is kept while it lasts.

use crate::net::{Failure, Net, Wire, json, whole};
use crate::watch::Input;
use bytes::Bytes;
use http::Method;
use std::fmt;
use std::future::Future;
use std::pin::Pin;

type Asking = Pin<Box<dyn Future<Output = (Result<Bytes, Failure>, Option<Wire>)> + Send>>;

/// See the module.
pub(super) struct Polls {
    net: Net,
    server: usize,
    route: String,
    kept: Option<Wire>,
    asking: Option<(u64, Asking)>,
}

impl fmt::Debug for Polls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Polls")
            .field("server", &self.server)
            .finish_non_exhaustive()
    }
}

impl Polls {
    pub(super) fn new(net: &Net, server: usize, route: String) -> Self {
        Self {
            net: net.clone(),
            server,
            route,
            kept: None,
            asking: None,
        }
    }

    /// Polls. One that is under way is given up, and its connection with it.
    pub(super) fn poll(&mut self, number: u64, body: Vec<u8>) {
        self.asking = None;
        let (net, server, route) = (self.net.clone(), self.server, self.route.clone());
        let kept = self.kept.take();
        let asking = async move { ask(&net, server, &route, kept, body.into()).await };
        self.asking = Some((number, Box::pin(asking)));
    }

    /// What comes next. It is never over by itself: the machine says whether another poll follows.
    pub(super) async fn next(&mut self, mut take: impl FnMut(u64, Input<'_>)) -> bool {
        let Some((number, asking)) = &mut self.asking else {
            return std::future::pending().await;
        };
        let number = *number;
        let (answer, kept) = asking.await;
        (self.asking, self.kept) = (None, kept);
        match answer {
            Ok(body) => take(number, Input::Answer(&body)),
            Err(failure) => take(number, Input::Ended(failure.ended())),
        }
        false
    }
}

async fn ask(
    net: &Net,
    server: usize,
    route: &str,
    kept: Option<Wire>,
    body: Bytes,
) -> (Result<Bytes, Failure>, Option<Wire>) {
    if let Some(mut wire) = kept
        && wire.is_ready().await
    {
        let asked = match net.request(server, Method::POST, route, json(), whole(body.clone())) {
            Ok(request) => wire.ask(request).await,
            Err(failure) => Err(failure),
        };
        match asked {
            // The server may have closed it at this very moment. To poll twice with one cursor loses nothing.
            Err(Failure::Cut(_) | Failure::Unreachable(_)) => {}
            answer => return (answer, Some(wire)),
        }
    }
    let fresh = async {
        let request = net.request(server, Method::POST, route, json(), whole(body))?;
        let mut wire = net.open(server).await?;
        Ok((wire.ask(request).await, wire))
    };
    match fresh.await {
        Ok((answer, wire)) => (answer, Some(wire)),
        Err(failure) => (Err(failure), None),
    }
}
