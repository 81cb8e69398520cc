// says: is not a message handler
// says: its future must be `Send`

use mainspring_pubsub::*;

async fn ship(Text(_): Text) -> Result<(), Failure> {
    let kept = std::rc::Rc::new(());
    std::future::ready(()).await;
    drop(kept);
    Ok(())
}

fn main() {
    let _ = |inbox| -> Router { Router::new().route("ship", inbox, ship) };
}
