//! Publishes that objects changed: `cargo run --example publish -- order:42 order:43`.

use tidings_client::{Client, NewChange};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let server = std::env::var("TIDINGS_URL").unwrap_or_else(|_| "http://127.0.0.1:7400".to_owned());
    let client = Client::builder(server).build()?;
    let objects: Vec<String> = std::env::args().skip(1).collect();
    let changes = objects.iter().map(|object| NewChange::new(object).kind("example"));
    // With a key, a request whose answer was lost can be repeated.
    let results = client.publish_batch(changes).idempotent().send().await?;
    for (object, result) in objects.iter().zip(results) {
        match result {
            Ok(published) => println!("{object} is at {:?}", published.version),
            Err(error) => println!("{object} was refused: {error}"),
        }
    }
    Ok(())
}
