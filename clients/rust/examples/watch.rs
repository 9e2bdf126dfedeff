//! Watches objects and prints what changes: `cargo run --example watch -- order:42 order:43`.

use tidings_client::Client;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let server = std::env::var("TIDINGS_URL").unwrap_or_else(|_| "http://127.0.0.1:7400".to_owned());
    let client = Client::builder(server).build()?;
    let mut watch = client.watch(std::env::args().skip(1)).start()?;
    watch.ready().await?;
    println!("watching");
    while let Some(change) = watch.next().await {
        match change.version {
            Some(version) => println!("{} is at {version}", change.object),
            // Nobody can say what changed: look at the thing itself.
            None => println!("{} may have changed", change.object),
        }
    }
    Err(watch.stopped().map_or("stopped".into(), Into::into))
}
