//! HTTP/1.1 as far as a load generator needs it: requests with a body, answers with a length or in chunks, and one
//! blocking connection for asking a server this and that.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;
use tidings_client::wire::Chunks;

/// The longest head of an answer that is read.
const MAX_HEAD_BYTES: usize = 64 * 1024;
/// The longest body of an answer that is read.
const MAX_BODY_BYTES: usize = 64 * 1024 * 1024;

/// Appends a keep-alive request. `head` is method and path; `more` further header lines, each with its end.
pub(crate) fn request(out: &mut Vec<u8>, head: &str, host: &str, more: &str, body: &[u8]) {
    out.extend_from_slice(head.as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\nHost: ");
    out.extend_from_slice(host.as_bytes());
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(more.as_bytes());
    out.extend_from_slice(b"Content-Length: ");
    crate::names::write_decimal(body.len() as u64, out);
    out.extend_from_slice(b"\r\n\r\n");
    out.extend_from_slice(body);
}

/// The header of a body in JSON.
pub(crate) const JSON: &str = "Content-Type: application/json\r\n";

/// The head of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head<'a> {
    pub(crate) status: u16,
    /// Bytes up to the start of the body.
    pub(crate) length: usize,
    text: &'a str,
}

impl<'a> Head<'a> {
    /// The head at the start of `bytes`; `None` if more must arrive first.
    pub(crate) fn read(bytes: &'a [u8]) -> Result<Option<Self>, String> {
        let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
            return if bytes.len() > MAX_HEAD_BYTES {
                Err("an answer's head without end".to_owned())
            } else {
                Ok(None)
            };
        };
        let text = std::str::from_utf8(&bytes[..end]).map_err(|error| error.to_string())?;
        let status = text
            .strip_prefix("HTTP/1.1 ")
            .and_then(|rest| rest.get(..3))
            .and_then(|code| code.parse().ok());
        let status =
            status.ok_or_else(|| format!("not an HTTP/1.1 answer: {:?}", text.lines().next().unwrap_or("")))?;
        let length = end + 4;
        Ok(Some(Self { status, length, text }))
    }

    pub(crate) fn header(&self, name: &str) -> Option<&'a str> {
        self.text.split("\r\n").skip(1).find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    pub(crate) fn is_chunked(&self) -> bool {
        let coding = self.header("transfer-encoding");
        coding.is_some_and(|coding| coding.eq_ignore_ascii_case("chunked"))
    }

    /// Whether the server closes the connection after this answer.
    pub(crate) fn closes(&self) -> bool {
        let connection = self.header("connection");
        connection.is_some_and(|connection| connection.eq_ignore_ascii_case("close"))
    }
}

/// A whole answer at the start of `bytes`: head, body, and the length of both; `None` if more must arrive first. The usual
/// body is not copied.
pub(crate) fn answer<T>(bytes: &[u8], take: impl FnOnce(&Head<'_>, &[u8]) -> T) -> Result<Option<(T, usize)>, String> {
    let Some(head) = Head::read(bytes)? else {
        return Ok(None);
    };
    let start = head.length;
    if let Some(length) = head.header("content-length") {
        let length = length.parse().ok().filter(|length: &usize| *length <= MAX_BODY_BYTES);
        let length = length.ok_or("an answer with a length that makes no sense")?;
        return Ok(bytes
            .get(start..start + length)
            .map(|body| (take(&head, body), start + length)));
    }
    if head.is_chunked() {
        let (mut chunks, mut rest, mut body) = (Chunks::new(), &bytes[start..], Vec::new());
        while !chunks.ended() {
            let piece = chunks.next(&mut rest).map_err(|error| error.to_string())?;
            if piece.is_empty() && !chunks.ended() {
                return Ok(None);
            }
            body.extend_from_slice(piece);
        }
        return Ok(Some((take(&head, &body), bytes.len() - rest.len())));
    }
    match head.status {
        204 | 304 => Ok(Some((take(&head, b""), start))),
        _ => Err("an answer without a length".to_owned()),
    }
}

/// A blocking keep-alive connection.
#[derive(Debug)]
pub(crate) struct Client {
    host: String,
    stream: TcpStream,
    inbox: Vec<u8>,
}

impl Client {
    pub(crate) fn connect(to: SocketAddr, host: &str, patience: Duration) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&to, patience)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(patience))?;
        stream.set_write_timeout(Some(patience))?;
        let (host, inbox) = (host.to_owned(), Vec::new());
        Ok(Self { host, stream, inbox })
    }

    /// Status and body.
    pub(crate) fn get(&mut self, path: &str) -> io::Result<(u16, Vec<u8>)> {
        write!(self.stream, "GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n", self.host)?;
        self.read_answer()
    }

    /// Begins a stream of lines.
    pub(crate) fn begin_lines(&mut self, path: &str) -> io::Result<()> {
        let head = lines_head(path, &self.host);
        self.stream.write_all(head.as_bytes())
    }

    /// Sends bytes as they are.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Many requests at once, then their answers in order.
    pub(crate) fn get_all(&mut self, paths: &[String], mut each: impl FnMut(usize, u16, &[u8])) -> io::Result<()> {
        let mut requests = String::new();
        for path in paths {
            requests.push_str(&format!("GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n", self.host));
        }
        self.stream.write_all(requests.as_bytes())?;
        for at in 0..paths.len() {
            let (status, body) = self.read_answer()?;
            each(at, status, &body);
        }
        Ok(())
    }

    pub(crate) fn read_answer(&mut self) -> io::Result<(u16, Vec<u8>)> {
        let mut buffer = [0; 16 * 1024];
        loop {
            let whole = answer(&self.inbox, |head, body| (head.status, body.to_vec()));
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

/// The head of a request whose lines follow in chunks.
pub(crate) fn lines_head(path: &str, host: &str) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/x-ndjson\r\n\
         Transfer-Encoding: chunked\r\n\r\n"
    )
}

/// Room that [`close_chunk`] needs before a chunk for its size line.
pub(crate) const CHUNK_ROOM: usize = 10;

/// Makes one chunk of `out[from..]`, whose first [`CHUNK_ROOM`] bytes were left for it.
pub(crate) fn close_chunk(out: &mut Vec<u8>, from: usize) {
    let size = out.len() - from - CHUNK_ROOM;
    // Leading zeros are allowed, so that the line has one length.
    let line = format!("{size:08x}\r\n");
    out[from..from + CHUNK_ROOM].copy_from_slice(line.as_bytes());
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(bytes: &[u8]) -> Option<(u16, Vec<u8>, usize)> {
        let read = answer(bytes, |head, body| (head.status, body.to_vec())).expect("sense");
        read.map(|((status, body), length)| (status, body, length))
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
        assert!(answer(b"SSH-2.0-OpenSSH\r\n\r\n", |_, _| ()).is_err());
    }

    #[test]
    fn a_chunk_closed_here_is_a_chunk_there() {
        let mut out = vec![0; CHUNK_ROOM];
        out.extend_from_slice(b"hello\n");
        close_chunk(&mut out, 0);
        let (mut chunks, mut rest) = (Chunks::new(), &out[..]);
        assert_eq!(chunks.next(&mut rest), Ok(&b"hello\n"[..]));
    }
}
