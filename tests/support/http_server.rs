//! A scripted HTTP/1.1 server: the test takes each request as it comes and says, byte by byte, what is answered.

use std::{collections::VecDeque, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    time::timeout,
};

/// Longer than anything here takes, also on a loaded machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) struct Server {
    pub(crate) port: u16,
    exchanges: mpsc::UnboundedReceiver<Exchange>,
    /// Taken before its turn.
    held: VecDeque<Exchange>,
    listening: tokio::task::JoinHandle<()>,
}

/// One request, and the connection it came on.
pub(crate) struct Exchange {
    pub(crate) method: String,
    pub(crate) target: String,
    headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    stream: TcpStream,
    rest: Vec<u8>,
    queue: mpsc::UnboundedSender<Self>,
}

impl Server {
    pub(crate) async fn start() -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").await.unwrap())
    }

    pub(crate) fn on(listener: TcpListener) -> Self {
        let port = listener.local_addr().unwrap().port();
        let (queue, exchanges) = mpsc::unbounded_channel();
        let listening = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(read(stream, Vec::new(), queue.clone()));
            }
        });
        Self { port, exchanges, held: VecDeque::new(), listening }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}/mcp", self.port)
    }

    /// The next request.
    pub(crate) async fn next(&mut self) -> Exchange {
        if let Some(held) = self.held.pop_front() {
            return held;
        }
        timeout(PATIENCE, self.exchanges.recv()).await.expect("a request in time").unwrap()
    }

    /// The next request of that method; others wait.
    pub(crate) async fn next_of(&mut self, method: &str) -> Exchange {
        if let Some(at) = self.held.iter().position(|exchange| exchange.method == method) {
            return self.held.remove(at).unwrap();
        }
        loop {
            let exchange =
                timeout(PATIENCE, self.exchanges.recv()).await.expect("a request in time").unwrap();
            if exchange.method == method {
                return exchange;
            }
            self.held.push_back(exchange);
        }
    }

    /// Whether no request comes for a moment. Proves nothing by itself, but fails when there is one.
    pub(crate) async fn is_quiet(&mut self) -> bool {
        self.held.is_empty() && timeout(Duration::from_millis(100), self.exchanges.recv()).await.is_err()
    }

    /// Accepts nothing more.
    pub(crate) fn stop(&self) {
        self.listening.abort();
    }
}

async fn read(mut stream: TcpStream, mut bytes: Vec<u8>, queue: mpsc::UnboundedSender<Exchange>) {
    let head = loop {
        if let Some(at) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break at + 4;
        }
        if stream.read_buf(&mut bytes).await.unwrap_or(0) == 0 {
            return;
        }
    };
    let text = String::from_utf8(bytes[..head].to_vec()).unwrap();
    let mut lines = text.lines();
    let mut first = lines.next().unwrap().split(' ');
    let (method, target) = (first.next().unwrap().to_owned(), first.next().unwrap().to_owned());
    let headers: Vec<_> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    let size = headers
        .iter()
        .find(|(name, _)| name == "content-length")
        .map_or(0, |(_, size)| size.parse().unwrap());
    while bytes.len() < head + size {
        if stream.read_buf(&mut bytes).await.unwrap_or(0) == 0 {
            return;
        }
    }
    let rest = bytes.split_off(head + size);
    let body = bytes.split_off(head);
    let again = queue.clone();
    drop(queue.send(Exchange { method, target, headers, body, stream, rest, queue: again }));
}

impl Exchange {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(header, _)| header == name).map(|(_, value)| &**value)
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    /// Bytes as they are.
    pub(crate) async fn raw(&mut self, bytes: impl AsRef<[u8]>) {
        // The client may have gone, which is what some tests want.
        drop(self.stream.write_all(bytes.as_ref()).await);
    }

    /// A whole response; the connection stays.
    pub(crate) async fn respond(mut self, status: &str, headers: &[(&str, &str)], body: impl AsRef<[u8]>) {
        let body = body.as_ref();
        let mut head = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n", body.len());
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        self.raw(head + "\r\n").await;
        self.raw(body).await;
        self.keep();
    }

    pub(crate) async fn json(self, body: impl AsRef<[u8]>) {
        self.respond("200 OK", &[("content-type", "application/json")], body).await;
    }

    pub(crate) async fn accepted(self) {
        self.respond("202 Accepted", &[], "").await;
    }

    /// Begins a stream of events.
    pub(crate) async fn stream(&mut self, headers: &[(&str, &str)]) {
        let mut head =
            "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n".to_owned();
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        self.raw(head + "\r\n").await;
    }

    /// A piece of the stream.
    pub(crate) async fn chunk(&mut self, bytes: impl AsRef<[u8]>) {
        let bytes = bytes.as_ref();
        self.raw(format!("{:x}\r\n", bytes.len())).await;
        self.raw(bytes).await;
        self.raw("\r\n").await;
    }

    pub(crate) async fn event(&mut self, data: &str) {
        self.chunk(format!("data: {data}\n\n")).await;
    }

    /// Ends the stream as it should be; the connection stays.
    pub(crate) async fn end(mut self) {
        self.raw("0\r\n\r\n").await;
        self.keep();
    }

    /// Cuts the connection.
    pub(crate) fn cut(self) {}

    /// Whether the client ends the connection.
    pub(crate) async fn is_abandoned(&mut self) -> bool {
        let mut byte = [0];
        matches!(timeout(PATIENCE, self.stream.read(&mut byte)).await, Ok(Ok(0) | Err(_)))
    }

    fn keep(self) {
        tokio::spawn(read(self.stream, self.rest, self.queue));
    }
}
