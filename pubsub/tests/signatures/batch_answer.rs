// says: is not a handler of batches
// says: it returns `Vec<Result<(), Failure>>`

use mainspring_pubsub::*;

async fn index(texts: Vec<Text>) -> usize {
    texts.len()
}

fn main() {
    let _ = |inbox| -> Router { Router::new().route_batch("index", inbox, Batching::up_to(10), index) };
}
