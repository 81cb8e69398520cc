//! Odd but legal clients.

use super::limits::readers;
use super::*;

#[tokio::test]
async fn a_client_that_expects_100_continue_gets_it_when_its_body_is_wanted() {
    let app = on_loopback(readers().merge(hello()), |_| {}).await;
    let mut client = Raw::connect(app.addr()).await;
    let head = "host: test\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n";
    client.send(format!("POST /bytes HTTP/1.1\r\n{head}")).await;
    assert_eq!(client.through("\r\n\r\n").await, "HTTP/1.1 100 Continue\r\n\r\n");
    client.send("hello").await;
    assert_eq!(client.reply().await.text(), "hello");
    // Not wanted: refused without asking for the body first.
    let mut client = Raw::connect(app.addr()).await;
    client.send("POST /bytes HTTP/1.1\r\nhost: test\r\nexpect: 100-continue\r\ncontent-length: 99999999\r\n\r\n").await;
    client.reply().await.problem(413);
}

#[tokio::test]
async fn head_has_the_headers_of_get_and_no_body() {
    let app = on_loopback(hello(), |_| {}).await;
    let mut client = Raw::connect(app.addr()).await;
    client.send("HEAD /hello HTTP/1.1\r\nhost: test\r\n\r\nGET /hello HTTP/1.1\r\nhost: test\r\n\r\n").await;
    let head = Reply::parse(&client.through("\r\n\r\n").await);
    assert_eq!((head.status, head.header("content-length")), (200, Some("5")));
    assert_eq!(client.reply().await.text(), "hello", "the next answer follows at once");
    assert_eq!(requests(&app, "HEAD", "/hello", 200).await, 1.0);
}

#[tokio::test]
async fn http_1_0_is_answered_and_closed() {
    let app =
        on_loopback(hello().route("/half", on_get(async || common::parts_then(&["a", "b"], async { None }))), |_| {});
    let app = app.await;
    let mut client = Raw::connect(app.addr()).await;
    client.send("GET /hello HTTP/1.0\r\n\r\n").await;
    let answer = client.rest().await;
    assert!(answer.starts_with("HTTP/1.0 200 OK\r\n") && answer.ends_with("\r\n\r\nhello"), "{answer}");
    let mut client = Raw::connect(app.addr()).await;
    client.send("GET /half HTTP/1.0\r\n\r\n").await;
    let answer = client.rest().await;
    assert!(!answer.contains("chunked") && answer.ends_with("\r\n\r\nab"), "{answer}");
}

#[tokio::test]
async fn forty_pipelined_requests_are_answered_in_order() {
    let number = async |axum::extract::Path(n): axum::extract::Path<u32>| {
        // Later ones would be faster.
        tokio::time::sleep(ms(u64::from(40 - n) / 8)).await;
        n.to_string()
    };
    let app = on_loopback(Router::new().route("/{n}", on_get(number)), |_| {}).await;
    let mut client = Raw::connect(app.addr()).await;
    let all: String = (0..40).map(|n| format!("GET /{n} HTTP/1.1\r\nhost: test\r\n\r\n")).collect();
    client.send(all).await;
    for n in 0..40 {
        assert_eq!(client.reply().await.text(), n.to_string());
    }
    assert_eq!(requests(&app, "GET", "/{n}", 200).await, 40.0);
}

#[tokio::test]
async fn an_absolute_target_leads_to_its_route() {
    let app = on_loopback(hello(), |_| {}).await;
    let mut client = Raw::connect(app.addr()).await;
    client.send("GET http://example.com/cats/7?x=1 HTTP/1.1\r\nhost: example.com\r\n\r\n").await;
    assert_eq!(client.reply().await.text(), "cat");
    assert_eq!(requests(&app, "GET", "/cats/{id}", 200).await, 1.0);
}
