//! Prints `kong/toolgate.meta.json`: `cargo run -p toolgate-harness --bin kong-meta > kong/toolgate.meta.json`.

fn main() -> std::io::Result<()> {
    use std::io::Write as _;
    std::io::stdout().write_all(toolgate_harness::kong_meta::text().as_bytes())
}
