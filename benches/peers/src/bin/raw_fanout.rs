//! See [`peers::raw_fanout`].

fn main() -> Result<(), Box<dyn std::error::Error>> {
    peers::raw_fanout::serve(std::env::args())
}
