#[cfg(feature = "server")]
#[derive(clap::Parser)]
#[command(version, about)]
enum Command {
    /// The line PC: send frames, or simulate parts.
    Camera(lineproof::app::camera::CameraArgs),
}

#[cfg(feature = "server")]
fn main() -> anyhow::Result<std::process::ExitCode> {
    let Command::Camera(args) = <Command as clap::Parser>::parse();
    Ok(lineproof::app::camera::run(&args)?.into())
}

#[cfg(not(feature = "server"))]
fn main() {}
