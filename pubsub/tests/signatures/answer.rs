// says: is not a message handler
// says: it returns `Result<(), Failure>`

use mainspring_pubsub::*;

async fn ship(Text(_): Text) {}

fn main() {
    let _ = |inbox| -> Router { Router::new().route("ship", inbox, ship) };
}
