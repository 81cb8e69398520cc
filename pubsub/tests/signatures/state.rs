// says: is not a message handler
// says: `State<S>` and `Router::with_state` must agree on `S`

use mainspring_pubsub::*;

async fn ship(State(_): State<u32>, Text(_): Text) -> Result<(), Failure> {
    Ok(())
}

fn main() {
    let _ = |inbox| -> Router { Router::<String>::new().route("ship", inbox, ship).with_state(String::new()) };
}
