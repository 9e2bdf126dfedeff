//! WebSocket close codes: what a client must do next. 4000 to 4099 say come back, 4500 to 4599 say stop.

/// Why the server closes a WebSocket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum CloseCode {
    /// The client said goodbye first. Never sent.
    Ended = 1000,
    /// The frames broke RFC 6455. Stop.
    Protocol = 1002,
    /// A text that is no UTF-8. Stop.
    NotUtf8 = 1007,
    /// A frame over the limit that `hello` announced. Stop.
    TooBig = 1009,
    /// The node is about to stop. Come back after the delay that `reconnect` named.
    Drain = 4000,
    /// The client took nothing of what was sent for too long. Come back with the cursor.
    NoProgress = 4001,
    /// No pong came in time. Come back.
    NoPong = 4002,
    /// The connection reached its greatest age. Come back.
    Lifetime = 4003,
    /// The node has too much to do. Come back later.
    Overload = 4004,
    /// A fault of the server. Come back.
    Internal = 4005,
    /// This edge is cut off from owners. Come back elsewhere.
    CutOff = 4006,
    /// The application wants the client to come back.
    Recalled = 4007,
    /// The token expired. Come back with a fresh one.
    TokenExpired = 4010,
    /// A binary frame on a JSON connection or the like. Stop.
    Unsupported = 4505,
    /// The client's frames make no sense. Stop.
    BadRequest = 4500,
    /// No or bad credentials. Stop.
    Unauthenticated = 4501,
    /// Not allowed. Stop.
    Forbidden = 4502,
    /// The credentials were revoked. Stop.
    Revoked = 4503,
    /// A limit of the connection was passed again and again. Stop.
    Limit = 4504,
    /// An operator closed this connection. Stop.
    Operator = 4506,
}

impl CloseCode {
    /// The number on the wire.
    #[must_use]
    pub fn number(self) -> u16 {
        self as u16
    }

    /// Whether the client should come back by itself.
    #[must_use]
    pub fn come_back(self) -> bool {
        (4000..4500).contains(&self.number())
    }
}

impl From<CloseCode> for u16 {
    fn from(code: CloseCode) -> Self {
        code.number()
    }
}
