//! The program: everything it does is in the library beside it.

use std::process::ExitCode;

/// What holds memory for each of thousands of connections should waste little of it.
#[global_allocator]
static ALLOCATOR: jemallocator::Jemalloc = jemallocator::Jemalloc;

fn main() -> ExitCode {
    tidings_loadtest::cli::main()
}
