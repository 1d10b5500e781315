//! Compiles the proto files in pure Rust, only when the server is built.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=proto");
    #[cfg(feature = "server")]
    compile_protos()?;
    Ok(())
}

#[cfg(feature = "server")]
fn compile_protos() -> Result<(), Box<dyn std::error::Error>> {
    use prost::Message as _;

    let files = ["inspection", "history", "audit", "retention", "replay", "registry"]
        .map(|name| format!("lineproof/v1/{name}.proto"));
    let files = files.into_iter().chain(["inference/v2/open_inference.proto".to_owned()]);
    let descriptors = protox::compile(files, ["proto"])?;
    let out = std::path::PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("lineproof.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure()
        .bytes(".lineproof.v1.Image.data")
        .bytes(".inference.ModelInferRequest.raw_input_contents")
        .bytes(".inference.InferTensorContents.bytes_contents")
        .compile_fds(descriptors)?;
    Ok(())
}
