// says: is not a message handler
// says: not an `async fn(A, …) -> Result<(), Failure>`

use mainspring_pubsub::*;

fn ship(Text(_): Text) -> Result<(), Failure> {
    Ok(())
}

fn main() {
    let _ = |inbox| -> Router { Router::new().route("ship", inbox, ship) };
}
