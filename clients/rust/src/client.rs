//! Where the servers are and how to speak with them: what all watches and publishes of one client share.

use crate::address::{Address, AddressError};
use crate::net::{Net, Token};
use crate::publish::{NewChange, Publish, PublishBatch, PublishStream, Requests};
use crate::watch::{Settings, Transport, Waits};
use crate::watching::{InvalidObject, WatchBuilder, check};
use crate::{ObjectState, RequestError};
use futures_util::Stream;
use std::sync::Arc;
use std::time::Duration;

/// Several addresses, or one.
pub trait Servers {
    /// Them all.
    fn addresses(self) -> Vec<String>;
}

impl Servers for &str {
    fn addresses(self) -> Vec<String> {
        vec![self.to_owned()]
    }
}

impl Servers for String {
    fn addresses(self) -> Vec<String> {
        vec![self]
    }
}

impl Servers for &String {
    fn addresses(self) -> Vec<String> {
        vec![self.clone()]
    }
}

impl<S: Into<String>> Servers for Vec<S> {
    fn addresses(self) -> Vec<String> {
        self.into_iter().map(Into::into).collect()
    }
}

impl<S: Clone + Into<String>> Servers for &[S] {
    fn addresses(self) -> Vec<String> {
        self.iter().cloned().map(Into::into).collect()
    }
}

impl<S: Into<String>, const N: usize> Servers for [S; N] {
    fn addresses(self) -> Vec<String> {
        self.into_iter().map(Into::into).collect()
    }
}

/// Speaks with the servers of one cluster. Cheap to clone; clones share their connections for requests.
#[derive(Clone, Debug)]
pub struct Client {
    net: Net,
    settings: Settings,
    requests: Arc<Requests>,
}

/// How to speak with them; made by [`Client::builder`].
pub struct ClientBuilder {
    addresses: Vec<String>,
    settings: Settings,
    token: Option<Token>,
    timeout: Duration,
}

impl std::fmt::Debug for ClientBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClientBuilder")
            .field("addresses", &self.addresses)
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

impl ClientBuilder {
    /// How watches listen. [`Transport::Auto`] unless said otherwise.
    #[must_use]
    pub fn transport(mut self, transport: Transport) -> Self {
        self.settings.transport = transport;
        self
    }

    /// Before a watch comes back it waits a random time, at first up to `first`, in the end up to `longest`. 1 s and 30 s
    /// unless said otherwise. What the server wishes for counts more.
    #[must_use]
    pub fn waits(mut self, first: Duration, longest: Duration) -> Self {
        self.settings.waits = Waits { first, longest };
        self
    }

    /// A server must answer and greet within this time; half of it may go by until it is reached. 10 s unless said
    /// otherwise.
    #[must_use]
    pub fn opening_timeout(mut self, opening: Duration) -> Self {
        self.settings.opening = opening;
        self
    }

    /// How much longer than its interval between two signs of life a server may be silent, before the path counts as
    /// dead. 10 s unless said otherwise.
    #[must_use]
    pub fn grace(mut self, grace: Duration) -> Self {
        self.settings.grace = grace;
        self
    }

    /// How long one long-poll waits for a change, at most 60 s. 25 s unless said otherwise.
    #[must_use]
    pub fn poll_wait(mut self, wait: Duration) -> Self {
        self.settings.poll_wait = wait.min(Duration::from_secs(60));
        self
    }

    /// After how long a watch that listens in a worse way tries a better one again. 5 min unless said otherwise.
    #[must_use]
    pub fn better_after(mut self, after: Duration) -> Self {
        self.settings.better_after = after;
        self
    }

    /// The token that every request bears.
    #[must_use]
    pub fn token(self, token: impl Into<String>) -> Self {
        let token = token.into();
        self.token_from(move || Some(token.clone()))
    }

    /// Where the present token comes from: asked before each connection and request, so that a fresh one is used.
    #[must_use]
    pub fn token_from(mut self, token: impl Fn() -> Option<String> + Send + Sync + 'static) -> Self {
        self.token = Some(Arc::new(token));
        self
    }

    /// Within this time a publish or question is answered, tries included, unless it says otherwise. 4 s unless said
    /// otherwise.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// The client. Nothing is connected yet.
    ///
    /// # Errors
    /// If an address makes no sense, or there is none.
    pub fn build(self) -> Result<Client, AddressError> {
        let servers = self.addresses.iter().map(|text| Address::parse(text));
        let servers: Vec<_> = servers.collect::<Result<_, _>>()?;
        if servers.is_empty() {
            return Err(AddressError::none());
        }
        let mut settings = self.settings;
        settings.servers = servers.len();
        let net = Net {
            servers: servers.into(),
            token: self.token,
            // What takes longer to connect is away, not ill.
            connect_timeout: settings.opening / 2,
        };
        Ok(Client {
            requests: Arc::new(Requests::new(net.clone(), self.timeout)),
            net,
            settings,
        })
    }
}

impl Client {
    /// For one server or several of one cluster: `"http://127.0.0.1:7400"`, or a list of such.
    #[must_use]
    pub fn builder(servers: impl Servers) -> ClientBuilder {
        ClientBuilder {
            addresses: servers.addresses(),
            settings: Settings::default(),
            token: None,
            timeout: Duration::from_secs(4),
        }
    }

    /// Watches objects: choose how, then [`start`](WatchBuilder::start).
    #[must_use]
    pub fn watch<S: Into<String>>(&self, objects: impl IntoIterator<Item = S>) -> WatchBuilder {
        let objects = objects.into_iter().map(|object| (object.into(), None)).collect();
        WatchBuilder::new(self.net.clone(), self.settings, objects)
    }

    /// Publishes one change: say how, then [`send`](Publish::send).
    pub fn publish(&self, change: impl Into<NewChange>) -> Publish {
        Publish::new(Arc::clone(&self.requests), change.into())
    }

    /// Publishes several changes in one request: say how, then [`send`](PublishBatch::send). Each succeeds or fails by
    /// itself.
    pub fn publish_batch<C: Into<NewChange>>(&self, changes: impl IntoIterator<Item = C>) -> PublishBatch {
        let changes = changes.into_iter().map(Into::into).collect();
        PublishBatch::new(Arc::clone(&self.requests), changes)
    }

    /// Publishes changes as they come, any number of them, in one request: say how, then [`send`](PublishStream::send).
    pub fn publish_stream<S>(&self, changes: S) -> PublishStream<S>
    where
        S: Stream<Item = NewChange> + Send + 'static,
    {
        PublishStream::new(Arc::clone(&self.requests), changes)
    }

    /// What a server knows of an object.
    ///
    /// # Errors
    /// If no server answers in time, or the object's text is none. Nothing is changed by asking.
    pub async fn object(&self, object: &str) -> Result<ObjectState, RequestError> {
        check(object).map_err(|error: InvalidObject| RequestError::Invalid(error.to_string()))?;
        self.requests.object(object).await
    }
}
