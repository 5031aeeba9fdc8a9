//! See [`peers::raw_echo`].

fn main() -> Result<(), Box<dyn std::error::Error>> {
    peers::raw_echo::serve(std::env::args())
}
