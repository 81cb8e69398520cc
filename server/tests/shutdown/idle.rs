//! Clients that have no request in progress: closed after the last call, and nothing was lost.

use super::*;

#[tokio::test]
async fn nobody() {
    let app = on_loopback(hello(), quick).await;
    let began = Instant::now();
    let report = app.sigterm().await;
    clean(&report);
    assert!(began.elapsed() < ms(100), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_silent_socket() {
    let app = on_loopback(hello(), quick).await;
    let mut silent = Raw::connect(app.addr()).await;
    let (report, took) = stop_beside_a_healthy_client(app).await;
    clean(&report);
    assert!(took < LAST_CALL + ms(500), "{took:?}");
    assert_eq!(silent.rest().await, "");
}

#[tokio::test]
async fn half_the_http2_preface() {
    let app = on_loopback(hello(), quick).await;
    let mut half = Raw::connect(app.addr()).await;
    half.send(&PREFACE[..12]).await;
    let (report, took) = stop_beside_a_healthy_client(app).await;
    clean(&report);
    assert!(took < LAST_CALL + ms(500), "{took:?}");
    half.rest().await;
}

#[tokio::test]
async fn the_http2_preface_without_settings() {
    let app = on_loopback(hello(), quick).await;
    let mut half = Raw::connect(app.addr()).await;
    half.send(PREFACE).await;
    let (report, took) = stop_beside_a_healthy_client(app).await;
    clean(&report);
    assert!(took < LAST_CALL + ms(500), "{took:?}");
    half.rest().await;
}

#[tokio::test]
async fn an_http2_client_that_is_silent_after_its_settings() {
    let app = on_loopback(hello(), quick).await;
    let mut silent = Raw::connect(app.addr()).await;
    silent.send(PREFACE).await;
    silent.send(SETTINGS).await;
    silent.exactly(9).await;
    let (report, took) = stop_beside_a_healthy_client(app).await;
    clean(&report);
    assert!(took < LAST_CALL + ms(500), "{took:?}");
    silent.rest().await;
}

#[tokio::test]
async fn an_idle_connection_is_closed_after_its_last_call() {
    let app = on_loopback(hello(), quick).await;
    let mut idle = Http1::connect(app.addr()).await;
    let mut idle2 = Http2::connect(app.addr()).await;
    idle.get("/hello").await.unwrap();
    idle2.get("/hello").await.unwrap();
    let began = Instant::now();
    clean(&soon("the end", app.sigterm()).await);
    let took = began.elapsed();
    assert!(took >= LAST_CALL && took < LAST_CALL + ms(400), "{took:?} with a last call of {LAST_CALL:?}");
    idle.ended().await;
    idle2.ended().await;
}

#[tokio::test]
async fn connections_that_the_kernel_has_accepted_are_served() {
    let app = on_loopback(hello(), quick).await;
    let addr = app.addr();
    let began = Instant::now();
    // This thread is the server's too: while it is held here, nothing is accepted but by the kernel.
    let clients: Vec<_> = (0..200)
        .map(|_| {
            let mut client = std::net::TcpStream::connect(addr).unwrap();
            std::io::Write::write_all(&mut client, GET_HELLO.as_bytes()).unwrap();
            client.set_nonblocking(true).unwrap();
            client
        })
        .collect();
    let stopping = app.begin_sigterm();
    let answers = clients.into_iter().map(async |client| {
        let mut client = Raw::of(tokio::net::TcpStream::from_std(client).unwrap());
        let answer = client.reply().await;
        assert_eq!((answer.text(), answer.header("connection")), ("hello", Some("close")));
    });
    let (report, _) = tokio::join!(stopping.ended(), futures_util::future::join_all(answers));
    clean(&report);
    assert_eq!(report.requests_finished, 200);
    assert!(began.elapsed() < BUDGET, "{:?}", began.elapsed());
    assert!(tokio::net::TcpStream::connect(addr).await.is_err(), "nothing is accepted any more");
}
