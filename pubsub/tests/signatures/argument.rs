// says: is not a message handler
// says: takes up to 8 arguments, each of `Json<T>`

use mainspring_pubsub::*;

struct Order;

async fn ship(_order: Order) -> Result<(), Failure> {
    Ok(())
}

fn main() {
    let _ = |inbox| -> Router { Router::new().route("ship", inbox, ship) };
}
