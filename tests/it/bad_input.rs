//! Bad input gets a clear answer, and the service goes on.

use lineproof::edge::pb;
use tonic::Code;

use crate::harness::{Plant, block_on, encode, part, request, simulated_png, text};

/// What a line PC may send by mistake or malice, and the answer it gets.
#[test]
fn every_bad_frame_is_refused_with_its_reason_and_a_good_one_still_gets_its_verdict() {
    let plant = Plant::new();
    let service = plant.serve();
    let raw = |pfnc, width_px, height_px, stride_bytes| Some(pb::RawLayout { pfnc, width_px, height_px, stride_bytes });
    let with = |change: &dyn Fn(&mut pb::InspectRequest)| {
        let mut request = part(1);
        change(&mut request);
        request
    };
    let raw_frame = |bytes: usize, layout: Option<pb::RawLayout>| {
        let mut request = request(1, vec![128; bytes]);
        request.image.as_mut().unwrap().raw = layout;
        request
    };
    let png = simulated_png(1);
    let mut flipped = png.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 0x10;
    let jpeg = encode(&vec![90; 256 * 256], 256, 256, image::ImageFormat::Jpeg);
    let cases: Vec<(&str, pb::InspectRequest, Code, &str)> = vec![
        ("wrong digest", with(&|r| r.image_blake3 = vec![7; 32]), Code::InvalidArgument, "digest"),
        ("short digest", with(&|r| r.image_blake3 = vec![7; 31]), Code::InvalidArgument, "image_blake3"),
        ("truncated png", request(1, png[..png.len() / 3].to_vec()), Code::InvalidArgument, "png"),
        ("flipped png", request(1, flipped), Code::InvalidArgument, "png"),
        ("truncated jpeg", request(1, jpeg[..jpeg.len() - 40].to_vec()), Code::InvalidArgument, "jpeg"),
        ("unknown format", request(1, b"GIF89a and so on".to_vec()), Code::InvalidArgument, "format"),
        ("no image", with(&|r| r.image = None), Code::InvalidArgument, "image"),
        ("empty image", request(1, Vec::new()), Code::InvalidArgument, "image.data"),
        ("unknown pfnc", raw_frame(4096, raw(0x0108_00FF, 64, 64, 0)), Code::InvalidArgument, "0x010800FF"),
        ("zero width", raw_frame(4096, raw(0x0108_0001, 0, 64, 0)), Code::InvalidArgument, "0x64 px"),
        ("huge raw", raw_frame(4096, raw(0x0108_0001, 1 << 31, 1 << 31, 0)), Code::InvalidArgument, "px"),
        ("small stride", raw_frame(256 * 256, raw(0x0108_0001, 256, 256, 100)), Code::InvalidArgument, "stride"),
        ("short raw", raw_frame(256 * 255, raw(0x0108_0001, 256, 256, 0)), Code::InvalidArgument, "bytes"),
        ("unknown station", with(&|r| r.station = "other".into()), Code::NotFound, "lineproof.toml"),
        ("unknown product", with(&|r| r.product = "other".into()), Code::FailedPrecondition, "[[product]]"),
        ("unknown recipe", with(&|r| r.recipe = "other@1.0.0".into()), Code::FailedPrecondition, "other@1.0.0"),
        ("no serial", with(&|r| r.serial = String::new()), Code::InvalidArgument, "serial"),
        ("bad line name", with(&|r| r.line = "a/b".into()), Code::InvalidArgument, "line"),
        ("huge counter", with(&|r| r.frame_counter = u64::MAX), Code::InvalidArgument, "frame_counter"),
        ("png bomb", request(1, png_header_of(60_000, 60_000)), Code::InvalidArgument, "px"),
        (
            "past deadline",
            with(&|r| r.useful_for = Some(prost_types::Duration { seconds: 0, nanos: 0 })),
            Code::DeadlineExceeded,
            "waited",
        ),
    ];
    block_on(async {
        let mut client = service.inspection().await;
        for (name, request, code, words) in cases {
            let status = client.inspect(request).await.expect_err(name);
            assert_eq!(status.code(), code, "{name}: {status}");
            assert!(status.message().to_lowercase().contains(&words.to_lowercase()), "{name}: {}", status.message());
        }
        let too_long = request(1, vec![0; 40 << 20]);
        let status = client.inspect(too_long).await.unwrap_err();
        assert!(matches!(status.code(), Code::OutOfRange | Code::ResourceExhausted), "{status}");
        let answer = client.inspect(part(1)).await.unwrap().into_inner();
        assert!(!answer.duplicate, "a refused frame left a decision behind");
    });
    assert_eq!(service.stop().code, Some(0));
    let decisions = crate::evidence::entries(&plant.data(), "decision");
    assert_eq!(decisions.len(), 1);
    assert!(!crate::evidence::entries(&plant.data(), "gap").is_empty());
}

/// A PNG that says it is this large and holds nothing.
fn png_header_of(width: u32, height: u32) -> Vec<u8> {
    let mut chunk = b"IHDR".to_vec();
    chunk.extend(width.to_be_bytes());
    chunk.extend(height.to_be_bytes());
    chunk.extend([8, 0, 0, 0, 0]);
    let mut png = b"\x89PNG\r\n\x1a\n".to_vec();
    png.extend(13_u32.to_be_bytes());
    png.extend(&chunk);
    png.extend(crc32(&chunk).to_be_bytes());
    png.extend([0, 0, 0, 0]);
    png.extend(b"IEND");
    png.extend(crc32(b"IEND").to_be_bytes());
    png
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { (crc >> 1) ^ 0xEDB8_8320 } else { crc >> 1 })
    })
}

#[test]
fn an_unreadable_configuration_is_named_by_line_and_key() {
    let plant = Plant::new();
    plant.edit_config("workers = 0", "worker = 0");
    let ended = plant.try_serve().err().expect("the service must not start");
    assert_eq!(ended.code, Some(1));
    assert!(ended.log.contains("line 36") && ended.log.contains("worker"), "{}", ended.log);
}

#[test]
fn a_port_in_use_is_named() {
    let plant = Plant::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    plant.listen_at(&address);
    let ended = plant.try_serve().err().expect("the service must not start");
    assert_eq!(ended.code, Some(1));
    assert!(ended.log.contains(&address) && ended.log.contains("in use"), "{}", ended.log);
}

#[test]
fn a_second_service_on_the_same_data_is_refused() {
    let plant = Plant::new();
    let _first = plant.serve();
    let ended = plant.try_serve().err().expect("two services must not share a data directory");
    assert_eq!(ended.code, Some(1));
    assert!(ended.log.contains("another process"), "{}", ended.log);
}

#[test]
fn a_recipe_whose_model_is_missing_or_altered_serves_nothing_and_says_why() {
    for (name, change) in [("missing", None), ("altered", Some(b"another model".as_slice()))] {
        let plant = Plant::new();
        let model = plant.data().join("models/machined-surface/1.1.0/model.onnx");
        match change {
            None => std::fs::remove_file(model).unwrap(),
            Some(bytes) => std::fs::write(model, bytes).unwrap(),
        }
        let service = plant.serve();
        block_on(async {
            let status = service.inspection().await.inspect(part(1)).await.unwrap_err();
            assert_eq!(status.code(), Code::FailedPrecondition, "{name}: {status}");
            assert!(status.message().contains("model.onnx"), "{name}: {}", status.message());
        });
    }
}

#[test]
fn a_command_without_a_data_directory_says_how_to_make_one() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("nothing");
    for command in ["serve", "fsck", "history"] {
        let output = crate::harness::lineproof().arg(command).arg("--data").arg(&missing).output().unwrap();
        assert!(!output.status.success(), "{command}");
        assert!(text(&output).contains("lineproof init"), "{command}: {}", text(&output));
    }
}
