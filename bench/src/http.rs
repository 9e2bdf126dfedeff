//! HTTP/1.1 as far as a measuring client needs it: requests with a body, answers with a length or in chunks.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// A whole answer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
}

/// A keep-alive request with a body of known length.
pub(crate) fn post(host: SocketAddr, path: &str, body: &[u8]) -> Vec<u8> {
    let mut request = format!(
        "POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    request.extend_from_slice(body);
    request
}

/// The head of a request whose body follows in chunks.
pub(crate) fn post_stream_head(host: SocketAddr, path: &str) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/x-ndjson\r\n\
         Transfer-Encoding: chunked\r\n\r\n"
    )
}

/// A WebSocket upgrade.
pub(crate) fn upgrade(host: SocketAddr) -> Vec<u8> {
    let key = crate::frame::KEY;
    format!(
        "GET /v1/ws HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Protocol: tidings.v1.json\r\n\r\n"
    )
    .into_bytes()
}

/// Where an answer's head ends and what it says; `None` if more must arrive first.
pub(crate) fn head(bytes: &[u8]) -> Result<Option<(usize, u16, &str)>, String> {
    let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
        return Ok(None);
    };
    let text = std::str::from_utf8(&bytes[..end]).map_err(|error| error.to_string())?;
    let status = text
        .strip_prefix("HTTP/1.1 ")
        .and_then(|rest| rest.get(..3))
        .and_then(|code| code.parse().ok());
    let status = status.ok_or_else(|| format!("not an HTTP/1.1 answer: {text:?}"))?;
    Ok(Some((end + 4, status, text)))
}

/// The value of a header in the text of a head.
pub(crate) fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.split("\r\n").skip(1).find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

/// The first whole answer of `bytes`: status, body and total length; `None` if more must arrive first.
/// The body is handed to `take` so that the usual one is not copied.
pub(crate) fn answer<T>(bytes: &[u8], take: impl FnOnce(u16, &[u8]) -> T) -> Result<Option<(T, usize)>, String> {
    let Some((start, status, text)) = head(bytes)? else {
        return Ok(None);
    };
    if let Some(length) = header(text, "content-length") {
        let length: usize = length.parse().map_err(|_| format!("bad content-length {length:?}"))?;
        return Ok(bytes
            .get(start..start + length)
            .map(|body| (take(status, body), start + length)));
    }
    if header(text, "transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked")) {
        return Ok(chunks(&bytes[start..])?.map(|(body, length)| (take(status, &body), start + length)));
    }
    if status == 204 || status == 304 {
        return Ok(Some((take(status, b""), start)));
    }
    Err(format!("an answer without a length: {text:?}"))
}

fn chunks(bytes: &[u8]) -> Result<Option<(Vec<u8>, usize)>, String> {
    let (mut body, mut at) = (Vec::new(), 0);
    loop {
        let Some(line) = bytes[at..].windows(2).position(|two| two == b"\r\n") else {
            return Ok(None);
        };
        let size = std::str::from_utf8(&bytes[at..at + line]).unwrap_or("?");
        let size = usize::from_str_radix(size.split(';').next().unwrap_or("?").trim(), 16);
        let size = size.map_err(|_| "bad chunk size".to_owned())?;
        let start = at + line + 2;
        let Some(chunk) = bytes.get(start..start + size + 2) else {
            return Ok(None);
        };
        at = start + size + 2;
        if size == 0 {
            return Ok(Some((body, at)));
        }
        body.extend_from_slice(&chunk[..size]);
    }
}

/// A blocking keep-alive connection.
#[derive(Debug)]
pub(crate) struct Client {
    host: SocketAddr,
    stream: TcpStream,
    inbox: Vec<u8>,
}

impl Client {
    pub(crate) fn connect(host: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&host, Duration::from_secs(5))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        stream.set_write_timeout(Some(Duration::from_secs(60)))?;
        Ok(Self {
            host,
            stream,
            inbox: Vec::new(),
        })
    }

    pub(crate) fn get(&mut self, path: &str) -> io::Result<Answer> {
        let request = format!("GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n", self.host);
        self.stream.write_all(request.as_bytes())?;
        self.read_answer()
    }

    pub(crate) fn post(&mut self, path: &str, body: &[u8]) -> io::Result<Answer> {
        self.stream.write_all(&post(self.host, path, body))?;
        self.read_answer()
    }

    /// Begins a request whose body follows through [`Self::chunk`] and [`Self::finish`].
    pub(crate) fn begin_stream(&mut self, path: &str) -> io::Result<()> {
        self.stream.write_all(post_stream_head(self.host, path).as_bytes())
    }

    /// Sends `buffer[reserved..]` as one chunk; the first `reserved` bytes are room for its size line.
    pub(crate) fn chunk(&mut self, buffer: &mut Vec<u8>, reserved: usize) -> io::Result<()> {
        let size = format!("{:x}\r\n", buffer.len() - reserved);
        let start = reserved - size.len();
        buffer[start..reserved].copy_from_slice(size.as_bytes());
        buffer.extend_from_slice(b"\r\n");
        self.stream.write_all(&buffer[start..])
    }

    pub(crate) fn finish(&mut self) -> io::Result<Answer> {
        self.stream.write_all(b"0\r\n\r\n")?;
        self.read_answer()
    }

    fn read_answer(&mut self) -> io::Result<Answer> {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let whole = answer(&self.inbox, |status, body| Answer {
                status,
                body: body.to_vec(),
            });
            if let Some((answer, length)) = whole.map_err(io::Error::other)? {
                self.inbox.drain(..length);
                return Ok(answer);
            }
            match self.stream.read(&mut buffer)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                read => self.inbox.extend_from_slice(&buffer[..read]),
            }
        }
    }
}

impl Answer {
    /// The body read as `T` if the status is 200, else an error that shows the answer.
    pub(crate) fn read<T: serde::de::DeserializeOwned>(&self) -> io::Result<T> {
        let shown = || {
            let body = String::from_utf8_lossy(&self.body);
            format!("{} {}", self.status, body.chars().take(300).collect::<String>())
        };
        if self.status != 200 {
            return Err(io::Error::other(shown()));
        }
        serde_json::from_slice(&self.body).map_err(|error| io::Error::other(format!("{error} in {}", shown())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(bytes: &[u8]) -> Option<(u16, Vec<u8>, usize)> {
        answer(bytes, |status, body| (status, body.to_vec()))
            .expect("valid")
            .map(|((status, body), length)| (status, body, length))
    }

    #[test]
    fn an_answer_is_complete_only_with_its_last_byte() {
        for text in [
            &b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"[..],
            &b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n"[..],
        ] {
            assert_eq!(whole(text), Some((200, b"hello".to_vec(), text.len())));
            for short in 0..text.len() {
                assert_eq!(whole(&text[..short]), None, "after {short} bytes");
            }
        }
    }
}
