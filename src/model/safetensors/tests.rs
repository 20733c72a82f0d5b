use super::*;
use candle_core::DType;
use serde_json::json;

fn fixture(family: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(family)
}

fn floats(source: &Safetensors, name: &str) -> Vec<f32> {
    match source.load(name).unwrap() {
        Stored::Float(tensor) => {
            let wide = tensor.to_dtype(DType::F32).unwrap();
            wide.flatten_all().unwrap().to_vec1().unwrap()
        }
        Stored::Quantised(_) => panic!("not quantised"),
    }
}

fn file(header: serde_json::Value, data: usize) -> Vec<u8> {
    let header = header.to_string();
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(header.as_bytes());
    bytes.resize(bytes.len() + data, 0);
    bytes
}

fn error(bytes: Vec<u8>) -> String {
    Safetensors::from_bytes(bytes, "x.safetensors")
        .err()
        .unwrap()
        .to_string()
}

#[test]
fn a_folder_opens() {
    let source = Safetensors::open_folder(&fixture("gpt2")).unwrap();
    assert_eq!(source.dtype(), "f32");
    assert_eq!(source.files().len(), 1);
    let names = source.names();
    assert!(names.is_sorted());
    for name in &names {
        let shape = source.shape(name).unwrap();
        assert_eq!(floats(&source, name).len(), shape.iter().product::<usize>());
    }
    let missing = source
        .load("transformer.h.1.ln_9.weight")
        .unwrap_err()
        .to_string();
    assert!(missing.contains("transformer.h.1.ln_1.weight"), "{missing}");
}

#[test]
fn shards_open_as_one() {
    let folder = tempfile::tempdir().unwrap();
    let a = Tensor::new(&[1f32, 2.0], &Device::Cpu).unwrap();
    let path = |name: &str| folder.path().join(name);
    write_safetensors(&path("a.safetensors"), &[("a".into(), a.clone())]).unwrap();
    write_safetensors(
        &path("b.safetensors"),
        &[("b".into(), a.to_dtype(DType::BF16).unwrap())],
    )
    .unwrap();
    let index = |map: serde_json::Value| {
        std::fs::write(path(INDEX), json!({ "weight_map": map }).to_string()).unwrap();
        Safetensors::open_folder(folder.path())
    };
    let source = index(json!({"a": "a.safetensors", "b": "b.safetensors"})).unwrap();
    assert_eq!(source.names(), ["a", "b"]);
    assert_eq!(floats(&source, "b"), [1.0, 2.0]);
    assert_eq!(source.dtype(), "f32");
    assert_eq!(source.bytes(), 12);
    for (map, word) in [
        (json!({"a": "c.safetensors"}), "is missing"),
        (json!({"z": "a.safetensors"}), "has no tensor z"),
        (json!({"a": "../a.safetensors"}), "not a plain file name"),
        (json!({"a": "/etc/passwd"}), "not a plain file name"),
        (json!({"a": ".."}), "not a plain file name"),
        (json!({"a": "b\\a.safetensors"}), "not a plain file name"),
        (json!({"a": 7}), "no shard index"),
    ] {
        let error = index(map).err().unwrap().to_string();
        assert!(error.contains(word), "{error}");
    }
}

#[test]
fn every_number_type_widens() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.safetensors");
    let ones = Tensor::new(&[1f32, 3.0, 0.0], &Device::Cpu).unwrap();
    let dtypes = [
        DType::F32,
        DType::F16,
        DType::BF16,
        DType::F64,
        DType::U8,
        DType::I64,
    ];
    let tensors: Vec<(String, Tensor)> = dtypes
        .iter()
        .map(|d| (format!("{d:?}"), ones.to_dtype(*d).unwrap()))
        .collect();
    write_safetensors(&path, &tensors).unwrap();
    let source = Safetensors::open_file(&path).unwrap();
    assert_eq!(source.names(), ["BF16", "F16", "F32", "F64"]);
    for (name, _) in &tensors {
        assert_eq!(floats(&source, name), [1.0, 3.0, 0.0], "{name}");
        let Stored::Float(tensor) = source.load(name).unwrap() else {
            panic!("not quantised")
        };
        // Sixteen bits stay sixteen bits, and are counted so before they are read.
        let kept = if name.ends_with("F16") { 2 } else { 4 };
        assert_eq!(tensor.dtype().size_in_bytes(), kept, "{name}");
        assert_eq!(source.bytes_of(name), Some(3 * kept as u64), "{name}");
    }
}

#[test]
fn damaged_headers_say_what_is_wrong() {
    let whole = json!({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}});
    assert!(Safetensors::from_bytes(file(whole.clone(), 8), "x").is_ok());
    assert!(error(vec![1, 2]).contains("too few"));
    assert!(error(u64::MAX.to_le_bytes().to_vec()).contains("more than"));
    assert!(error(900u64.to_le_bytes().to_vec()).contains("too short"));
    assert!(error(file(whole.clone(), 7)).contains("promises 8 bytes of numbers, but 7 follow"));
    assert!(error(file(whole, 9)).contains("9 follow"));
    assert!(error(file(json!([]), 0)).contains("header is damaged"));
    let entry = |shape: serde_json::Value, offsets: [u64; 2]| json!({"dtype": "F32", "shape": shape, "data_offsets": offsets});
    for header in [
        json!({"a": entry(json!([2]), [0, 8]), "b": entry(json!([2]), [4, 12])}),
        json!({"a": entry(json!([2]), [4, 12])}),
        json!({"a": entry(json!([2]), [8, 0])}),
        json!({"a": entry(json!([3]), [0, 8])}),
        json!({"a": entry(json!([u64::MAX, 2]), [0, 8])}),
        json!({"a": entry(json!([1u64 << 63, 1u64 << 63]), [0, 8])}),
    ] {
        assert!(
            Safetensors::from_bytes(file(header.clone(), 12), "x").is_err(),
            "{header}"
        );
    }
}

#[test]
fn types_that_are_not_read_say_so() {
    let header = json!({"a": {"dtype": "F8_E4M3", "shape": [2], "data_offsets": [0, 2]}});
    let source = Safetensors::from_bytes(file(header, 2), "x").unwrap();
    let error = source.load("a").unwrap_err().to_string();
    assert!(
        error.contains("f8_e4m3") && error.contains("bf16"),
        "{error}"
    );
}

#[test]
fn truncated_and_flipped_files_never_panic() {
    let bytes = std::fs::read(fixture("llama").join(SINGLE)).unwrap();
    let header = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let mut cuts: Vec<usize> = (0..header).step_by(61).collect();
    cuts.extend([bytes.len() - 1, header, header + 1]);
    for cut in cuts {
        assert!(Safetensors::from_bytes(bytes[..cut].to_vec(), "cut").is_err());
    }
    for bit in (0..header * 8).step_by(37) {
        let mut damaged = bytes.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        if let Ok(source) = Safetensors::from_bytes(damaged, "damaged") {
            for name in source.names() {
                let _ = source.load(&name);
            }
        }
    }
}

#[test]
fn plain_names_stay_in_their_folder() {
    assert!(is_plain_name("model-00001-of-00002.safetensors"));
    for name in [
        "", ".", "..", "a/b", "/a", "a/", "./a", "C:a", "a\\b", "a\0",
    ] {
        assert!(!is_plain_name(name), "{name:?}");
    }
}

#[test]
fn a_folder_without_weights_says_what_it_has() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("pytorch_model.bin"), b"x").unwrap();
    let error = Safetensors::open_folder(folder.path())
        .err()
        .unwrap()
        .to_string();
    assert!(error.contains("pytorch_model.bin"), "{error}");
}
