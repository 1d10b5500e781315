//! Dispatches; everything else is in the library.

#[cfg(feature = "server")]
#[global_allocator]
// Keeps a frame's pages instead of handing them back to the kernel after each frame: 1.3 MB frames cost glibc some
// 300 page faults each.
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    lineproof::app::cli::main()
}
