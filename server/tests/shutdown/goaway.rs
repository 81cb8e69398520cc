//! HTTP/2 clients, which are asked to go.

use super::*;

/// A client of plain `h2`, which tells a request that was never sent, because a GOAWAY had been heard, from one that
/// failed.
pub(super) async fn h2_client(addr: SocketAddr, clients: &mut JoinSet<()>) -> h2::client::SendRequest<Bytes> {
    let stream = tokio::net::TcpStream::connect(addr).await.unwrap();
    let (client, connection) = h2::client::handshake(stream).await.unwrap();
    clients.spawn(async move { drop(connection.await) });
    client
}

pub(super) fn h2_get(
    client: &mut h2::client::SendRequest<Bytes>,
    path: &str,
) -> Result<impl Future<Output = Result<Vec<u8>, h2::Error>> + use<>, h2::Error> {
    let request = axum::http::Request::get(format!("http://test{path}")).body(()).unwrap();
    let (response, _) = client.send_request(request, true)?;
    Ok(async {
        let mut body = response.await?.into_body();
        let mut text = Vec::new();
        while let Some(data) = body.data().await {
            text.extend(data?);
        }
        Ok(text)
    })
}

#[tokio::test]
async fn a_goaway_asks_http2_clients_to_go_and_lets_open_streams_finish() {
    let gate = Gate::new();
    let app = on_loopback(waits(&gate), quick).await;
    let mut clients = JoinSet::new();
    let mut client = h2_client(app.addr(), &mut clients).await.ready().await.unwrap();
    let open: Vec<_> = (0..10).map(|_| h2_get(&mut client, "/waits").unwrap()).collect();
    gate.reached_by(10).await;
    let stopping = app.begin_sigterm();
    until("a GOAWAY", async || client.clone().ready().await.is_err()).await;
    assert!(h2_get(&mut client, "/hello").is_err());
    gate.open();
    for answer in open {
        assert_eq!(soon("an answer", answer).await.unwrap(), b"done");
    }
    let report = soon("the end", stopping.ended()).await;
    clean(&report);
    assert_eq!(report.requests_finished, 10);
    soon("the end of the connection", clients.join_next()).await;
}

#[tokio::test]
async fn a_request_that_crosses_the_goaway_is_answered() {
    let app = on_loopback(hello(), quick).await;
    let mut clients = JoinSet::new();
    let mut client = h2_client(app.addr(), &mut clients).await.ready().await.unwrap();
    assert_eq!(h2_get(&mut client, "/hello").unwrap().await.unwrap(), b"hello");
    // The client's task does not run between the last line and this loop's: it has not read what may have come.
    let stopping = app.begin_sigterm();
    let crossing: Vec<_> = (0..3).map(|_| h2_get(&mut client, "/hello").unwrap()).collect();
    for answer in crossing {
        assert_eq!(soon("an answer", answer).await.unwrap(), b"hello");
    }
    clean(&soon("the end", stopping.ended()).await);
}
