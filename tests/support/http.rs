//! A raw HTTP/1.1 client: what it sends is what it is told to, what it reads is taken apart by hand.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

/// A wait that is longer than this is a hang.
pub(crate) const HANG: Duration = Duration::from_secs(60);

pub(crate) struct Client {
    stream: TcpStream,
    unread: Vec<u8>,
}

#[derive(Debug, Clone)]
pub(crate) struct Head {
    pub status: u16,
    pub headers: Vec<(String, String)>,
}

impl Head {
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    pub(crate) fn is_stream(&self) -> bool {
        self.get("content-type") == Some("text/event-stream")
    }
}

/// An event as it stands on the wire.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Event {
    pub event: Option<String>,
    pub id: Option<String>,
    pub retry: Option<u64>,
    pub data: Option<String>,
    pub comment: Option<String>,
}

impl Client {
    pub(crate) async fn connect(addr: std::net::SocketAddr) -> Self {
        let stream = timeout(HANG, TcpStream::connect(addr)).await.unwrap().unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, unread: Vec::new() }
    }

    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        timeout(HANG, self.stream.write_all(bytes.as_ref())).await.unwrap().unwrap();
    }

    /// More bytes; false at the end.
    async fn more(&mut self) -> bool {
        let mut piece = vec![0; 64 * 1024];
        let count = timeout(HANG, self.stream.read(&mut piece)).await.expect("the server is silent");
        let count = count.unwrap_or(0);
        self.unread.extend_from_slice(&piece[..count]);
        count > 0
    }

    async fn line(&mut self) -> Option<String> {
        loop {
            if let Some(at) = self.unread.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.unread.drain(..=at).collect();
                let line = line.strip_suffix(b"\n").unwrap();
                return Some(String::from_utf8(line.strip_suffix(b"\r").unwrap_or(line).to_vec()).unwrap());
            }
            if !self.more().await {
                return None;
            }
        }
    }

    async fn exactly(&mut self, count: usize) -> Option<Vec<u8>> {
        while self.unread.len() < count {
            if !self.more().await {
                return None;
            }
        }
        let rest = self.unread.split_off(count);
        Some(std::mem::replace(&mut self.unread, rest))
    }

    pub(crate) async fn head(&mut self) -> Option<Head> {
        let first = self.line().await?;
        let status = first.split(' ').nth(1)?.parse().ok()?;
        let mut headers = Vec::new();
        loop {
            let line = self.line().await?;
            if line.is_empty() {
                return Some(Head { status, headers });
            }
            let (name, value) = line.split_once(':')?;
            headers.push((name.to_owned(), value.trim().to_owned()));
        }
    }

    /// One piece of a chunked body; `None` at its end.
    pub(crate) async fn chunk(&mut self) -> Option<Vec<u8>> {
        let size = self.line().await?;
        let size = usize::from_str_radix(&size, 16).unwrap();
        let data = self.exactly(size).await?;
        assert_eq!(self.line().await.as_deref(), Some(""));
        (size > 0).then_some(data)
    }

    /// A whole body, however it is framed.
    pub(crate) async fn body(&mut self, head: &Head) -> Vec<u8> {
        if let Some(length) = head.get("content-length") {
            return self.exactly(length.parse().unwrap()).await.expect("the body is cut off");
        }
        let mut body = Vec::new();
        if head.get("transfer-encoding").is_some() {
            while let Some(chunk) = self.chunk().await {
                body.extend(chunk);
            }
        }
        body
    }

    /// Sends a request and reads its whole answer.
    pub(crate) async fn request(&mut self, bytes: impl AsRef<[u8]>) -> (Head, String) {
        self.send(bytes).await;
        let head = self.head().await.expect("no answer");
        let body = self.body(&head).await;
        (head, String::from_utf8(body).unwrap())
    }

    /// Whether the server has closed the connection.
    pub(crate) async fn is_closed(&mut self) -> bool {
        while self.more().await {}
        true
    }
}

/// The events of one streamed body.
pub(crate) struct Events<'a> {
    client: &'a mut Client,
    unread: String,
}

impl<'a> Events<'a> {
    pub(crate) fn new(client: &'a mut Client) -> Self {
        Self { client, unread: String::new() }
    }

    /// The next event or comment; `None` at the end.
    pub(crate) async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some((block, rest)) = self.unread.split_once("\n\n") {
                let event = parse(block);
                self.unread = rest.to_owned();
                return Some(event);
            }
            let chunk = self.client.chunk().await?;
            self.unread.push_str(std::str::from_utf8(&chunk).unwrap());
        }
    }

    /// The next event's data, comments and empty ones left out.
    pub(crate) async fn data(&mut self) -> Option<String> {
        loop {
            let event = self.next().await?;
            if let Some(data) = event.data.filter(|data| !data.is_empty()) {
                return Some(data);
            }
        }
    }
}

fn parse(block: &str) -> Event {
    let mut event = Event::default();
    for line in block.lines() {
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value).to_owned();
        match name {
            "" => event.comment = Some(value),
            "event" => event.event = Some(value),
            "id" => event.id = Some(value),
            "retry" => event.retry = Some(value.parse().unwrap()),
            "data" => {
                assert_eq!(event.data, None, "one line of data");
                event.data = Some(value);
            }
            other => panic!("{other}"),
        }
    }
    event
}
