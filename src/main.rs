//! Dispatches; everything else is in the library.

#[cfg(feature = "server")]
#[global_allocator]
// Keeps a frame's pages instead of handing them back to the kernel after each frame: 1.3 MB frames cost glibc some
// 300 page faults each.
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    // ONNX Runtime reads it while it is loaded, and reports to its maker unless it says 1.
    #[cfg(feature = "server")]
    // SAFETY: nothing has run yet, so no other thread reads or writes the environment.
    unsafe {
        std::env::set_var(lineproof::adapters::ort::TELEMETRY_SWITCH, "1");
    }
    lineproof::app::cli::main()
}
