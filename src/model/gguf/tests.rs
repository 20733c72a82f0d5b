use super::*;
use crate::model::linear::Linear;
use crate::model::safetensors::Safetensors;
use candle_core::quantized::QTensor;
use candle_core::{DType, Device, Tensor};
use half::f16;
use serde_json::json;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

pub(super) fn fixture(family: &str) -> PathBuf {
    root().join("tests/fixtures").join(family)
}

pub(super) fn json_file(path: &Path) -> serde_json::Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// Configuration, tensors and tokenizer of a fixture.
pub(super) fn parts(family: &str) -> (serde_json::Value, Vec<(String, Tensor)>, String) {
    parts_of(&fixture(family))
}

pub(super) fn parts_of(folder: &Path) -> (serde_json::Value, Vec<(String, Tensor)>, String) {
    let source = Safetensors::open_folder(folder).unwrap();
    let tensors = source
        .names()
        .into_iter()
        .map(|name| match source.load(&name).unwrap() {
            Stored::Float(tensor) => (name, tensor),
            Stored::Quantised(_) => panic!("not quantised"),
        })
        .collect();
    let tokenizer = std::fs::read_to_string(folder.join("tokenizer.json")).unwrap();
    (json_file(&folder.join("config.json")), tensors, tokenizer)
}

pub(super) fn written(family: &str, quant: GgufType, with_tokenizer: bool) -> Vec<u8> {
    let (config, tensors, tokenizer) = parts(family);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.gguf");
    let metadata = [("general.name".to_owned(), "A test".to_owned())];
    let tokenizer = with_tokenizer.then_some(tokenizer.as_str());
    write_gguf(&path, &config, &tensors, quant, tokenizer, &metadata).unwrap();
    std::fs::read(path).unwrap()
}

pub(super) fn numbers(stored: &Stored) -> Vec<f32> {
    let tensor = Linear::table(stored).unwrap();
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

/// A llama of 64 columns, so that its rows are whole blocks.
pub(super) fn wide() -> (serde_json::Value, Vec<(String, Tensor)>) {
    let config = json!({
        "model_type": "llama", "vocab_size": 96, "hidden_size": 64, "num_hidden_layers": 1,
        "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 96, "rms_norm_eps": 1e-5,
        "max_position_embeddings": 128, "rope_theta": 500000.0, "tie_word_embeddings": true,
        "rope_scaling": {"rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                         "original_max_position_embeddings": 8192},
        "bos_token_id": 1, "eos_token_id": [2, 3],
    });
    let random = |rows: usize, columns: usize| {
        Tensor::randn(0f32, 1.0, (rows, columns), &Device::Cpu).unwrap()
    };
    let ones = Tensor::ones(64, candle_core::DType::F32, &Device::Cpu).unwrap();
    let block = |name: &str| format!("model.layers.0.{name}.weight");
    let tensors = vec![
        ("model.embed_tokens.weight".into(), random(96, 64)),
        ("model.norm.weight".into(), ones.clone()),
        (block("input_layernorm"), ones.clone()),
        (block("post_attention_layernorm"), ones),
        (block("self_attn.q_proj"), random(64, 64)),
        (block("self_attn.k_proj"), random(32, 64)),
        (block("self_attn.v_proj"), random(32, 64)),
        (block("self_attn.o_proj"), random(64, 64)),
        (block("mlp.gate_proj"), random(96, 64)),
        (block("mlp.up_proj"), random(96, 64)),
        (block("mlp.down_proj"), random(64, 96)),
    ];
    (config, tensors)
}

#[test]
fn quantised_rows_are_moved_as_they_are() {
    let (config, tensors) = wide();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.gguf");
    write_gguf(&path, &config, &tensors, GgufType::Q8_0, None, &[]).unwrap();
    let gguf = Gguf::open(&path).unwrap();
    for (name, tensor) in &tensors {
        let stored = gguf.load(name).unwrap();
        if tensor.rank() == 1 {
            assert!(matches!(stored, Stored::Float(_)), "{name}");
            continue;
        }
        // Quantising a permuted matrix and putting its rows back is quantising the matrix.
        let expected = QTensor::quantize(tensor, GgmlDType::Q8_0).unwrap();
        let Stored::Quantised(found) = stored else {
            panic!("{name} is not quantised")
        };
        assert_eq!(found.dtype(), GgmlDType::Q8_0);
        assert_eq!(found.shape().dims(), tensor.dims());
        assert_eq!(found.data().unwrap(), expected.data().unwrap(), "{name}");
    }
    assert_eq!(gguf.dtype(), "q8_0");
    assert_eq!(gguf.files(), [path]);
    let back = gguf.config().unwrap();
    assert_eq!(back["rope_scaling"], config["rope_scaling"]);
    assert_eq!(back["rms_norm_eps"], 1e-5);
    assert_eq!(back["eos_token_id"], 2);
    assert_eq!(back["tie_word_embeddings"], true);
}

#[test]
fn f16_files_round_once() {
    let (_, tensors, _) = parts("llama");
    let gguf = Gguf::from_bytes(written("llama", GgufType::F16, false), "x").unwrap();
    assert_eq!(gguf.dtype(), "f16");
    let (name, tensor) = &tensors[0];
    let half: Vec<f32> = tensor.flatten_all().unwrap().to_vec1().unwrap();
    let half: Vec<f32> = half.iter().map(|x| f16::from_f32(*x).to_f32()).collect();
    let stored = gguf.load(name).unwrap();
    assert!(matches!(&stored, Stored::Float(t) if t.dtype() == DType::F16));
    assert_eq!(numbers(&stored), half);
    let gguf = Gguf::from_bytes(written("llama", GgufType::BF16, false), "x").unwrap();
    assert_eq!(gguf.dtype(), "bf16");
    let stored = gguf.load(name).unwrap();
    assert!(matches!(&stored, Stored::Float(t) if t.dtype() == DType::BF16));
    let brain = tensor.to_dtype(DType::BF16).unwrap();
    assert_eq!(numbers(&stored), numbers(&Stored::Float(brain)));
}

#[test]
fn unusual_rotary_rescaling_is_handed_on() {
    // The fixture was rescaled from a context of 32, which no published model has.
    let gguf = Gguf::from_bytes(written("llama", GgufType::F32, false), "x").unwrap();
    let scaling = gguf.config().unwrap()["rope_scaling"].clone();
    assert_eq!(scaling["rope_type"], "factors");
    assert_eq!(scaling["factors"].as_array().unwrap().len(), 2);
    assert_eq!(gguf.shape("rope_freqs.weight"), Some(vec![2]));
}

#[test]
fn the_stored_tokenizer_is_used_and_the_listed_one_agrees() {
    let with = Gguf::from_bytes(written("llama", GgufType::F32, true), "x").unwrap();
    let stored = with.tokenizer().unwrap();
    let mut listed = with;
    listed
        .header
        .metadata
        .remove("tokenizer.huggingface.json")
        .unwrap();
    let listed = listed.tokenizer().unwrap();
    for text in ["Hello world", " naïve\n\n 🦙 12345", "", "<|eos|>x"] {
        for special in [true, false] {
            assert_eq!(
                stored.encode(text, special).unwrap(),
                listed.encode(text, special).unwrap(),
                "{text}"
            );
        }
    }
    let ids = listed.encode("Hi there", false).unwrap();
    assert_eq!(listed.decode(&ids, false).unwrap(), "Hi there");
    assert!(listed.is_special(1));
}

#[test]
fn the_embedded_form_opens_from_misaligned_bytes() {
    let (config, tensors) = wide();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.gguf");
    write_gguf(&path, &config, &tensors, GgufType::Q8_0, None, &[]).unwrap();
    let mut bytes = vec![0u8];
    bytes.extend(std::fs::read(&path).unwrap());
    let bytes: &'static [u8] = Vec::leak(bytes);
    for start in [0, 1] {
        let all = if start == 1 {
            &bytes[1..]
        } else {
            Vec::leak(bytes[1..].to_vec())
        };
        let gguf = Gguf::from_static(all, "demo").unwrap();
        for (name, _) in &tensors {
            gguf.load(name).unwrap();
        }
        assert_eq!(gguf.origin(), "demo");
        assert!(gguf.files().is_empty());
    }
}

/// llama.cpp's own vocabularies and the ids it gives.
fn reference(name: &str) {
    let folder = root().join("../shared/data/tokenizers/gguf-vocab");
    let path = folder.join(format!("ggml-vocab-{name}.gguf"));
    if !path.is_file() {
        eprintln!("skipped: there is no {}", path.display());
        return;
    }
    let tokenizer = Gguf::open(&path).unwrap().tokenizer().unwrap();
    let texts = std::fs::read_to_string(path.with_extension("gguf.inp")).unwrap();
    let ids = std::fs::read_to_string(path.with_extension("gguf.out")).unwrap();
    let texts: Vec<&str> = texts.split("\n__ggml_vocab_test__\n").collect();
    assert!(texts.len() > 40);
    for (text, line) in texts.iter().zip(ids.lines()) {
        let expected: Vec<u32> = line
            .split_whitespace()
            .map(|id| id.parse().unwrap())
            .collect();
        assert_eq!(tokenizer.encode(text, false).unwrap(), expected, "{text:?}");
        assert_eq!(tokenizer.decode(&expected, false).unwrap(), *text);
    }
}

#[test]
fn gpt2_vocabulary_gives_llama_cpps_ids() {
    reference("gpt-2");
}

#[test]
fn llama_vocabulary_gives_llama_cpps_ids() {
    reference("llama-spm");
}

#[test]
fn special_tokens_of_sentencepiece_are_added_as_the_file_says() {
    let path = root().join("../shared/data/tokenizers/gguf-vocab/ggml-vocab-llama-spm.gguf");
    if !path.is_file() {
        eprintln!("skipped: there is no {}", path.display());
        return;
    }
    let gguf = Gguf::open(&path).unwrap();
    assert_eq!((gguf.bos(), gguf.eos()), (Some(1), vec![2]));
    let tokenizer = gguf.tokenizer().unwrap();
    assert_eq!(tokenizer.encode("Hello", true).unwrap(), [1, 15043]);
    assert_eq!(tokenizer.display(15043), "·Hello");
    let error = gguf.config().unwrap_err().to_string();
    assert!(error.contains("no token embedding"), "{error}");
}

#[test]
fn every_way_of_cutting_texts_can_be_read() {
    let mut gguf = Gguf::from_bytes(written("llama", GgufType::F32, true), "x").unwrap();
    let metadata = &mut gguf.header.metadata;
    metadata.remove("tokenizer.huggingface.json").unwrap();
    let texts = [
        "Hello, WORLDwide café 12345!",
        "naïve\n\n  don't  ।مرحبا، x",
    ];
    for pre in [
        "llama-bpe",
        "qwen2",
        "gpt-2",
        "smollm",
        "tekken",
        "gpt-4o",
        "bloom",
        "default",
    ] {
        gguf.header
            .metadata
            .insert("tokenizer.ggml.pre".into(), Value::Text(pre.into()));
        let tokenizer = gguf.tokenizer().unwrap();
        for text in texts {
            let ids = tokenizer.encode(text, false).unwrap();
            assert_eq!(tokenizer.decode(&ids, false).unwrap(), text, "{pre}");
        }
    }
    let unknown = Value::Text("no such way".into());
    gguf.header
        .metadata
        .insert("tokenizer.ggml.pre".into(), unknown);
    let message = gguf.tokenizer().err().unwrap().to_string();
    assert!(
        message.contains("\"no such way\" is not known"),
        "{message}"
    );
}

fn error(bytes: Vec<u8>) -> String {
    Gguf::from_bytes(bytes, "x.gguf").err().unwrap().to_string()
}

#[test]
fn damage_is_named() {
    let good = written("llama", GgufType::F32, false);
    assert!(error(b"GG".to_vec()).contains("ends within"));
    assert!(error(b"PK\x03\x04aaaa".to_vec()).contains("no GGUF file"));
    let with = |at: usize, new: &[u8]| {
        let mut bytes = good.clone();
        bytes[at..at + new.len()].copy_from_slice(new);
        bytes
    };
    assert!(error(with(4, &[9])).contains("version 9"));
    assert!(error(with(4, &[0, 0, 0, 3])).contains("big-endian"));
    assert!(error(with(8, &u64::MAX.to_le_bytes())).contains("claims to have"));
    assert!(error(with(16, &u64::MAX.to_le_bytes())).contains("claims to have"));
    assert!(error(with(24, &u64::MAX.to_le_bytes())).contains("ends within the name"));
    assert!(error(good[..good.len() - 64].to_vec()).contains("ends at byte"));
    let (config, mut tensors) = wide();
    tensors.push(("model.layers.0.mlp.experts".into(), tensors[1].1.clone()));
    let written = write_gguf(
        Path::new("/nowhere/x"),
        &config,
        &tensors,
        GgufType::F32,
        None,
        &[],
    );
    assert!(written.unwrap_err().to_string().contains("no name in GGUF"));
    // One that a table does not have, and one of a block that is not there.
    let error_of = |tensors: &[(String, Tensor)]| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.gguf");
        write_gguf(&path, &config, tensors, GgufType::F32, None, &[]).unwrap();
        error(std::fs::read(path).unwrap())
    };
    tensors.pop();
    let name = "model.layers.1.input_layernorm.weight";
    tensors.push((name.into(), tensors[1].1.clone()));
    let message = error_of(&tensors);
    assert!(
        message.contains("blk.1.attn_norm.weight") && message.contains("only 1 blocks"),
        "{message}"
    );
    let other = write_gguf(
        Path::new("x"),
        &json!({"model_type": "bert"}),
        &[],
        GgufType::F32,
        None,
        &[],
    );
    assert_eq!(other.unwrap_err().exit_code(), 2);
}

/// The file with its bytes from the end of the first `after` changed.
fn patched(good: &[u8], after: &[u8], skip: usize, new: &[u8]) -> Vec<u8> {
    let at = good.windows(after.len()).position(|w| w == after).unwrap() + after.len() + skip;
    let mut bytes = good.to_vec();
    bytes[at..at + new.len()].copy_from_slice(new);
    bytes
}

#[test]
fn impossible_blocks_and_shapes_are_named() {
    let (config, tensors) = wide();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.gguf");
    write_gguf(&path, &config, &tensors, GgufType::Q8_0, None, &[]).unwrap();
    let good = std::fs::read(&path).unwrap();
    let name = b"blk.0.ffn_up.weight";
    // After the name: the number of dimensions, the dimensions innermost first, the type, the place.
    let dims = |row: u64, rows: u64| [row.to_le_bytes(), rows.to_le_bytes()].concat();
    for (row, rows, says) in [
        (33, 96, "which blocks of 32 do not divide"),
        (64, u64::MAX, "impossible shape"),
        (1 << 62, 1 << 62, "impossible shape"),
        (64, 1 << 40, "but the file has"),
    ] {
        let message = error(patched(&good, name, 4, &dims(row, rows)));
        assert!(message.contains("blk.0.ffn_up.weight"), "{message}");
        assert!(message.contains(says), "{message}");
    }
    // The same bytes as blocks of 256 numbers, which rows of 64 are not.
    let message = error(patched(&good, name, 20, &12u32.to_le_bytes()));
    assert!(
        message.contains("which blocks of 256 do not divide"),
        "{message}"
    );
    // A type that is not read is an error when the tensor is asked for.
    let gguf = Gguf::from_bytes(patched(&good, name, 20, &23u32.to_le_bytes()), "x").unwrap();
    let message = gguf.load("model.layers.0.mlp.up_proj.weight").unwrap_err();
    assert!(message.to_string().contains("ggml type 23"), "{message}");
    // Its dimensions may be anything until then.
    let mamba2 = written("mamba2", GgufType::F32, false);
    let unread = [dims(u64::MAX, u64::MAX), 23u32.to_le_bytes().to_vec()].concat();
    let gguf = Gguf::from_bytes(patched(&mamba2, b"blk.0.ssm_a", 4, &unread), "x").unwrap();
    let a = "backbone.layers.0.mixer.A_log";
    assert_eq!(gguf.shape(a), Some(vec![usize::MAX]));
    assert!(gguf.load(a).is_err());
    // Rows that do not divide into heads.
    let name = b"llama.attention.head_count";
    let gguf = Gguf::from_bytes(patched(&good, name, 4, &7u32.to_le_bytes()), "x").unwrap();
    let message = gguf.load("model.layers.0.self_attn.q_proj.weight");
    let message = message.unwrap_err().to_string();
    assert!(message.contains("do not divide into 7 heads"), "{message}");
}

#[test]
fn unknown_architectures_are_told_the_nearest() {
    let good = written("llama", GgufType::F32, false);
    let message = error(patched(&good, b"general.architecture", 12, b"llamb"));
    assert!(message.contains("nearest: llama"), "{message}");
    assert!(message.contains("src/model/gguf/tables.rs"), "{message}");
    assert!(
        message.contains("qwen3") && message.contains("lfm2"),
        "{message}"
    );
}

#[test]
fn truncated_and_flipped_files_never_panic() {
    for family in ["llama", "phi3_longrope", "mamba2", "lfm2"] {
        damaged(family);
    }
}

fn damaged(family: &str) {
    let good = written(family, GgufType::Q8_0, true);
    let data = 30_000;
    for cut in (0..good.len()).step_by(487) {
        let _ = Gguf::from_bytes(good[..cut].to_vec(), "cut");
    }
    for bit in (0..data * 8).step_by(1009) {
        let mut damaged = good.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        let Ok(mut gguf) = Gguf::from_bytes(damaged, "damaged") else {
            continue;
        };
        let _ = gguf.config();
        let _ = gguf.chat_template();
        for name in gguf.names() {
            let _ = gguf.load(&name);
        }
        if bit % 7 == 0 {
            let _ = gguf.tokenizer();
            // And the vocabulary as llama.cpp reads it.
            gguf.header.metadata.remove("tokenizer.huggingface.json");
            if let Ok(tokenizer) = gguf.tokenizer() {
                let ids = tokenizer.encode("Hello naïve\n\n 12", true);
                for id in ids.unwrap_or_default() {
                    let _ = tokenizer.display(id);
                }
            }
        }
    }
}
