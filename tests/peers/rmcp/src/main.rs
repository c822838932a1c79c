//! The peers on the official Rust SDK: `rmcp server` and `rmcp client URL ...`. See ../README.md.

mod client;
mod server;

use std::error::Error;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.split_first() {
        Some((what, [])) if what == "server" => server::run().await,
        Some((what, words)) if what == "client" => client::run(words).await,
        _ => Err(
            "usage: toolgate-test-peers server | client URL [--era ERA] ACTION [ARGUMENT...] ..."
                .into(),
        ),
    }
}
