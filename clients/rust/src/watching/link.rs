//! The one connection of a watch, of whichever transport.

use super::polls::Polls;
use super::socket::Socket;
use super::streams::EventStream;
use crate::net::Net;
use crate::watch::{Input, Output, Transport};

/// See the module.
#[derive(Debug)]
pub(super) struct Link {
    net: Net,
    trace: bool,
    open: Open,
}

#[derive(Debug)]
enum Open {
    Nothing,
    Socket(Box<Socket>),
    Stream(Box<EventStream>),
    Polls(Box<Polls>),
}

impl Link {
    pub(super) fn new(net: Net, trace: bool) -> Self {
        Self {
            net,
            trace,
            open: Open::Nothing,
        }
    }

    /// Does what the machine asks for. Nothing here waits.
    pub(super) fn perform(&mut self, output: Output) {
        match (output, &mut self.open) {
            (
                Output::Connect {
                    connection,
                    server,
                    transport,
                    body,
                },
                _,
            ) => {
                // The old one is closed before the new one is made.
                self.close(1000);
                let route = |route: &str| {
                    if self.trace {
                        format!("{route}?trace=1")
                    } else {
                        route.to_owned()
                    }
                };
                self.open = match transport {
                    Transport::Auto | Transport::WebSocket => {
                        Open::Socket(Box::new(Socket::open(&self.net, connection, server, route("/v1/ws"))))
                    }
                    Transport::Events => {
                        let route = route("/v1/events");
                        Open::Stream(Box::new(EventStream::open(&self.net, connection, server, route, body)))
                    }
                    Transport::LongPoll => {
                        let mut polls = Polls::new(&self.net, server, route("/v1/poll"));
                        polls.poll(connection, body);
                        Open::Polls(Box::new(polls))
                    }
                };
            }
            (Output::Send(text), Open::Socket(socket)) => socket.send(&text),
            (Output::Poll { connection, body }, Open::Polls(polls)) => polls.poll(connection, body),
            (Output::Disconnect { code }, _) => self.close(code),
            (Output::Send(_) | Output::Poll { .. }, _) => {}
        }
    }

    /// What comes next, handed to `take` with the number of the connection. May be given up at any time.
    pub(super) async fn next(&mut self, take: impl FnMut(u64, Input<'_>)) {
        let over = match &mut self.open {
            Open::Nothing => std::future::pending().await,
            Open::Socket(socket) => socket.next(take).await,
            Open::Stream(stream) => stream.next(take).await,
            Open::Polls(polls) => polls.next(take).await,
        };
        if over {
            self.open = Open::Nothing;
        }
    }

    pub(super) fn close(&mut self, code: u16) {
        if let Open::Socket(socket) = &mut self.open {
            socket.close(code);
        }
        self.open = Open::Nothing;
    }
}
