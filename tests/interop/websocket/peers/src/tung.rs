//! tokio-tungstenite.

use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio_tungstenite::{
    WebSocketStream, accept_async, client_async,
    tungstenite::{
        Message,
        protocol::{
            CloseFrame,
            frame::{
                Frame,
                coding::{Data, OpCode},
            },
        },
    },
};

use crate::{
    Outcome,
    scenario::{self, alone, batch, binary, same, text},
};

pub(crate) async fn client(stream: TcpStream, host: String, echo: bool) -> Outcome {
    let (ws, _) = client_async(format!("ws://{host}/"), stream).await?;
    run(ws, echo).await
}

pub(crate) async fn server(stream: TcpStream, echo: bool) -> Outcome {
    run(accept_async(stream).await?, echo).await
}

type Ws = WebSocketStream<TcpStream>;

async fn run(mut ws: Ws, echo: bool) -> Outcome {
    if echo {
        while let Some(message) = ws.next().await {
            let message = message?;
            if message.is_text() || message.is_binary() {
                ws.send(message).await?;
            }
        }
        return Ok(());
    }
    for sent in alone() {
        ws.send(message(&sent)?).await?;
        same(&receive(&mut ws).await?, &sent, "alone")?;
    }
    let batch = batch();
    for sent in &batch {
        ws.feed(message(sent)?).await?;
    }
    ws.flush().await?;
    for sent in &batch {
        same(&receive(&mut ws).await?, sent, "in a batch")?;
    }
    for sent in [text(70_000), binary(70_000)] {
        let mut kind = if sent.0 { Data::Text } else { Data::Binary };
        for (at, piece) in sent.1.chunks(7001).enumerate() {
            let frame = Frame::message(piece.to_vec(), OpCode::Data(kind), false);
            ws.feed(Message::Frame(frame)).await?;
            kind = Data::Continue;
            if at == 3 {
                ws.feed(Message::Ping("between".into())).await?;
            }
        }
        ws.send(Message::Frame(Frame::message(Vec::new(), OpCode::Data(kind), true))).await?;
        match ws.next().await.ok_or("ended")?? {
            Message::Pong(payload) if payload == "between" => {}
            other => return Err(format!("{other:?} instead of a pong").into()),
        }
        same(&receive(&mut ws).await?, &sent, "in fragments")?;
    }
    ws.close(Some(CloseFrame { code: 4000.into(), reason: "bye".into() })).await?;
    match ws.next().await.ok_or("ended without Close")?? {
        // The code is echoed, the reason need not be (RFC 6455 §5.5.1).
        Message::Close(Some(close)) if u16::from(close.code) == 4000 => {}
        other => return Err(format!("{other:?} instead of Close").into()),
    }
    match ws.next().await {
        None => Ok(()),
        Some(more) => Err(format!("{more:?} behind Close").into()),
    }
}

fn message((text, payload): &scenario::Message) -> Outcome<Message> {
    Ok(if *text { Message::text(str::from_utf8(payload)?) } else { Message::binary(payload.clone()) })
}

async fn receive(ws: &mut Ws) -> Outcome<scenario::Message> {
    match ws.next().await.ok_or("ended")?? {
        Message::Text(text) => Ok((true, text.as_bytes().to_vec())),
        Message::Binary(payload) => Ok((false, payload.to_vec())),
        other => Err(format!("{other:?} instead of a message").into()),
    }
}
