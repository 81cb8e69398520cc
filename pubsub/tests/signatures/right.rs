use mainspring_pubsub::*;

async fn ship(State(limit): State<u32>, Json(quantity): Json<u32>) -> Result<(), Failure> {
    if quantity > limit { Err(Failure::reject("too many")) } else { Ok(()) }
}

async fn index(State(_limit): State<u32>, quantities: Vec<(Key, Json<u32>)>) -> Vec<Result<(), Failure>> {
    quantities.iter().map(|_| Ok(())).collect()
}

fn routes(one: Subscriber, other: Subscriber) -> Router {
    Router::new().route("ship", one, ship).route_batch("index", other, Batching::up_to(10), index).with_state(1000)
}

fn main() {
    let _ = routes;
}
