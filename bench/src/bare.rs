//! The floor under the figures: the same system calls with nothing around them, each as a process of its own.

use crate::http;
use crate::server::Launcher;
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::thread;
use tokio::sync::mpsc;

/// The bare process, ended with this value.
#[derive(Debug)]
pub(crate) struct Bare {
    pub(crate) address: SocketAddr,
    pub(crate) pid: u32,
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Bare {
    /// Starts `tidings-bench <arguments>` where the launcher would start the server.
    pub(crate) fn start(launcher: &Launcher, arguments: &[String]) -> io::Result<Self> {
        let mut child = launcher
            .command(&std::env::current_exe()?)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        let stdin = stdin.ok_or(io::ErrorKind::BrokenPipe)?;
        let mut stdout = BufReader::new(stdout.ok_or(io::ErrorKind::BrokenPipe)?);
        let line = read_line(&mut stdout)?;
        let address = line
            .parse()
            .map_err(|_| io::Error::other(format!("the bare process said {line:?}")))?;
        Ok(Self {
            address,
            pid: child.id(),
            child,
            stdin,
            stdout,
        })
    }

    /// Waits until the bare sender has accepted all it was told to.
    pub(crate) fn wait_until_accepted(&mut self) -> io::Result<()> {
        match read_line(&mut self.stdout)?.as_str() {
            "accepted" => Ok(()),
            other => Err(io::Error::other(format!("the bare process said {other:?}"))),
        }
    }

    /// Has the bare sender send these bytes once to each connection.
    pub(crate) fn send_to_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut command = u32::try_from(bytes.len())
            .map_err(io::Error::other)?
            .to_le_bytes()
            .to_vec();
        command.extend_from_slice(bytes);
        self.stdin.write_all(&command)
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read_line(from: &mut impl BufRead) -> io::Result<String> {
    let mut line = String::new();
    from.read_line(&mut line)?;
    Ok(line.trim_end().to_owned())
}

fn announce(line: &str) -> io::Result<()> {
    let mut stdout = io::stdout();
    writeln!(stdout, "{line}")?;
    stdout.flush()
}

/// The bare loop: accepts `connections`, then sends what it reads from standard input (length, bytes) to each of them.
pub(crate) fn send(connections: usize) -> io::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    announce(&listener.local_addr()?.to_string())?;
    let mut receivers = Vec::with_capacity(connections);
    for _ in 0..connections {
        let (stream, _) = listener.accept()?;
        stream.set_nodelay(true)?;
        receivers.push(stream);
    }
    announce("accepted")?;
    let (mut commands, mut length, mut bytes) = (io::stdin().lock(), [0; 4], Vec::new());
    while commands.read_exact(&mut length).is_ok() {
        bytes.resize(u32::from_le_bytes(length) as usize, 0);
        commands.read_exact(&mut bytes)?;
        for receiver in &mut receivers {
            if receiver.write(&bytes)? != bytes.len() {
                return Err(io::Error::other("a receiver's socket was full"));
            }
        }
    }
    Ok(())
}

/// A bare hyper server: `threads` of one runtime each, a constant answer to every request.
pub(crate) fn hyper_server(threads: usize, answer: &str) -> io::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    announce(&listener.local_addr()?.to_string())?;
    let answer = Bytes::from(answer.to_owned());
    let lanes: Vec<_> = (0..threads.max(1))
        .map(|_| {
            let (sender, receiver) = mpsc::unbounded_channel();
            let answer = answer.clone();
            thread::spawn(move || hyper_lane(receiver, &answer));
            sender
        })
        .collect();
    // Accepting costs a thread of its own, asleep while requests run.
    for lane in lanes.iter().cycle() {
        let (stream, _) = listener.accept()?;
        if lane.send(stream).is_err() {
            return Err(io::Error::other("a lane ended"));
        }
    }
    Ok(())
}

fn hyper_lane(mut connections: mpsc::UnboundedReceiver<std::net::TcpStream>, answer: &Bytes) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        while let Some(stream) = connections.recv().await {
            stream.set_nodelay(true)?;
            stream.set_nonblocking(true)?;
            let stream = tokio::net::TcpStream::from_std(stream)?;
            let answer = answer.clone();
            tokio::spawn(async move {
                let service = service_fn(move |request| constant(request, answer.clone()));
                let _ = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            });
        }
        Ok(())
    })
}

async fn constant(request: Request<Incoming>, answer: Bytes) -> Result<Response<Full<Bytes>>, Infallible> {
    // A server that publishes has to read the body; so does this one.
    let _ = request.into_body().collect().await;
    let mut response = Response::new(Full::new(answer));
    response.headers_mut().insert(
        hyper::header::CONTENT_TYPE,
        hyper::header::HeaderValue::from_static("application/json"),
    );
    Ok(response)
}

/// Whether the bare hyper server answers: used before it is measured.
pub(crate) fn probe(address: SocketAddr) -> io::Result<()> {
    let answer = http::Client::connect(address)?.post("/v1/publish", b"{}")?;
    if answer.status == 200 {
        Ok(())
    } else {
        Err(io::Error::other("the bare hyper server refused"))
    }
}
