// says: is not a handler of batches
// says: it takes `Vec<T>`

use mainspring_pubsub::*;

async fn index(Text(_): Text) -> Result<(), Failure> {
    Ok(())
}

fn main() {
    let _ = |inbox| -> Router { Router::new().route_batch("index", inbox, Batching::up_to(10), index) };
}
