//! The client against real nodes, run in this very process.

mod paths;
mod publishing;
mod support;
mod watching;

use std::net::SocketAddr;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// A plain request, as an operator's tool makes it; the body of the answer.
async fn support_http(address: SocketAddr, method: &str, target: &str) -> String {
    let mut stream = tokio::net::TcpStream::connect(address).await.expect("connected");
    let request = format!("{method} {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("an answer");
    answer.split_once("\r\n\r\n").expect("a head").1.to_owned()
}
