//! WebSockets.

use super::*;

/// `/ws` echoes, `/push` writes and never reads, `/deaf` does neither.
fn sockets() -> Router {
    let echo = async |mut socket: WebSocket| {
        while let Some(Ok(message)) = socket.recv().await {
            if socket.send(message).await.is_err() {
                break;
            }
        }
    };
    let push = async |mut socket: WebSocket| {
        while socket.send(Message::text("x".repeat(300))).await.is_ok() {
            tokio::time::sleep(ms(2)).await;
        }
    };
    let deaf = async |_socket: WebSocket| std::future::pending::<()>().await;
    hello()
        .route("/ws", on_get(async move |upgrade: WebSocketUpgrade| upgrade.on_upgrade(echo)))
        .route("/push", on_get(async move |upgrade: WebSocketUpgrade| upgrade.on_upgrade(push)))
        .route("/deaf", on_get(async move |upgrade: WebSocketUpgrade| upgrade.on_upgrade(deaf)))
}

type Client = tokio_tungstenite::WebSocketStream<tokio_tungstenite::MaybeTlsStream<tokio::net::TcpStream>>;

async fn websocket(app: &TestApp, path: &str) -> Client {
    let url = format!("ws://{}{path}", app.addr());
    soon("the handshake", tokio_tungstenite::connect_async(url)).await.unwrap().0
}

/// Reads to the end; answers the messages before it, and the close code.
async fn until_closed(client: &mut Client) -> (usize, Option<u16>) {
    let mut messages = 0;
    loop {
        match soon("a message, or the end", client.next()).await {
            Some(Ok(tungstenite::Message::Close(frame))) => return (messages, frame.map(|frame| frame.code.into())),
            Some(Ok(_)) => messages += 1,
            Some(Err(error)) => panic!("{error} after {messages} messages"),
            None => return (messages, None),
        }
    }
}

#[tokio::test]
async fn a_websocket_is_closed_with_1001() {
    use futures_util::SinkExt;
    let app = on_loopback(sockets(), quick).await;
    let mut client = websocket(&app, "/ws").await;
    // Of each length encoding, so that the close frame has to find the end of a frame.
    for length in [1, 125, 126, 70_000] {
        client.send(tungstenite::Message::text("x".repeat(length))).await.unwrap();
        let echo = soon("an echo", client.next()).await.unwrap().unwrap();
        assert_eq!(echo.len(), length);
    }
    assert_eq!(sample(&app, "http_server_connections").await, 1.0);
    let (stopped, closed) = tokio::join!(stop_beside_a_healthy_client(app), async {
        let closed = until_closed(&mut client).await;
        // Reading on answers the close frame, and sees the end.
        assert!(soon("the end", client.next()).await.is_none());
        closed
    });
    assert_eq!(closed, (0, Some(1001)));
    clean(&stopped.0);
    assert!(stopped.1 < LAST_CALL + ms(500), "{:?}", stopped.1);
}

#[tokio::test]
async fn a_websocket_whose_handler_only_writes_is_closed_with_1001() {
    let app = on_loopback(sockets(), quick).await;
    let mut client = websocket(&app, "/push").await;
    assert!(soon("a message", client.next()).await.unwrap().is_ok());
    let (stopped, (messages, code)) =
        tokio::join!(stop_beside_a_healthy_client(app), async { until_closed(&mut client).await });
    assert_eq!(code, Some(1001), "after {messages} whole messages");
    clean(&stopped.0);
}

#[tokio::test]
async fn a_websocket_that_nobody_serves_is_cut_off_and_named() {
    let app = on_loopback(sockets(), quick).await;
    let client = websocket(&app, "/deaf").await;
    let (report, _) = stop_beside_a_healthy_client(app).await;
    gave_up(&report, "upgraded", 0);
    drop(client);
}
