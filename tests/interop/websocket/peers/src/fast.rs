//! fastwebsockets.

use std::future::Future;

use fastwebsockets::{FragmentCollector, Frame, OpCode, WebSocket, handshake, upgrade};
use http_body_util::Empty;
use hyper::{
    Request, Response,
    body::{Bytes, Incoming},
    header::{CONNECTION, HOST, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE},
    rt::Executor,
    server::conn::http1,
    service::service_fn,
    upgrade::Upgraded,
};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, sync::mpsc};

use crate::{
    Outcome,
    scenario::{Message, alone, batch, binary, same, text},
};

type Ws = FragmentCollector<TokioIo<Upgraded>>;

struct Spawn;

impl<F> Executor<F> for Spawn
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, future: F) {
        tokio::spawn(future);
    }
}

pub(crate) async fn client(stream: TcpStream, host: String, echo: bool) -> Outcome {
    let request = Request::builder()
        .uri(format!("http://{host}/"))
        .header(HOST, host)
        .header(UPGRADE, "websocket")
        .header(CONNECTION, "upgrade")
        .header(SEC_WEBSOCKET_KEY, handshake::generate_key())
        .header(SEC_WEBSOCKET_VERSION, "13")
        .body(Empty::<Bytes>::new())?;
    let (ws, _) = handshake::client(&Spawn, request, stream).await?;
    run(ws, echo).await
}

pub(crate) async fn server(stream: TcpStream, echo: bool) -> Outcome {
    let (found, mut upgrades) = mpsc::channel(1);
    let answer = service_fn(move |mut request: Request<Incoming>| {
        let found = found.clone();
        async move {
            let (response, upgrade) = upgrade::upgrade(&mut request)?;
            let _ = found.try_send(upgrade);
            Ok::<Response<Empty<Bytes>>, fastwebsockets::WebSocketError>(response)
        }
    });
    http1::Builder::new().serve_connection(TokioIo::new(stream), answer).with_upgrades().await?;
    let upgrade = upgrades.recv().await.ok_or("no handshake")?;
    run(upgrade.await?, echo).await
}

async fn run(ws: WebSocket<TokioIo<Upgraded>>, echo: bool) -> Outcome {
    let mut ws = FragmentCollector::new(ws);
    if echo {
        loop {
            let frame = ws.read_frame().await?;
            match frame.opcode {
                OpCode::Close => return Ok(()),
                OpCode::Text | OpCode::Binary => ws.write_frame(frame).await?,
                _ => {}
            }
        }
    }
    for sent in alone() {
        send(&mut ws, &sent).await?;
        same(&receive(&mut ws).await?, &sent, "alone")?;
    }
    let batch = batch();
    for sent in &batch {
        send(&mut ws, sent).await?;
    }
    for sent in &batch {
        same(&receive(&mut ws).await?, sent, "in a batch")?;
    }
    for sent in [text(70_000), binary(70_000)] {
        let mut opcode = if sent.0 { OpCode::Text } else { OpCode::Binary };
        for (at, piece) in sent.1.chunks(7001).enumerate() {
            ws.write_frame(Frame::new(false, opcode, None, piece.to_vec().into())).await?;
            opcode = OpCode::Continuation;
            if at == 3 {
                ws.write_frame(Frame::new(true, OpCode::Ping, None, b"between".to_vec().into())).await?;
            }
        }
        ws.write_frame(Frame::new(true, opcode, None, Vec::new().into())).await?;
        let pong = ws.read_frame().await?;
        if pong.opcode != OpCode::Pong || &pong.payload[..] != b"between" {
            return Err(format!("{:?} instead of a pong", pong.opcode).into());
        }
        same(&receive(&mut ws).await?, &sent, "in fragments")?;
    }
    ws.write_frame(Frame::close(4000, b"bye")).await?;
    let close = ws.read_frame().await?;
    // The code is echoed, the reason need not be (RFC 6455 §5.5.1).
    if close.opcode != OpCode::Close || !close.payload.starts_with(b"\x0f\xa0") {
        return Err(format!("{:?} {:?} instead of Close", close.opcode, &close.payload[..]).into());
    }
    Ok(())
}

async fn send(ws: &mut Ws, (text, payload): &Message) -> Outcome {
    let opcode = if *text { OpCode::Text } else { OpCode::Binary };
    Ok(ws.write_frame(Frame::new(true, opcode, None, payload.clone().into())).await?)
}

async fn receive(ws: &mut Ws) -> Outcome<Message> {
    let frame = ws.read_frame().await?;
    match frame.opcode {
        OpCode::Text => Ok((true, frame.payload.to_vec())),
        OpCode::Binary => Ok((false, frame.payload.to_vec())),
        other => Err(format!("{other:?} instead of a message").into()),
    }
}
