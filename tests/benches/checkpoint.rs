//! Checkpoints of random weights in the shapes that papers use, made on the spot.

use candle_core::{Device, Tensor};
use entroscope::model::gguf::{GgufType, write_gguf};
use entroscope::model::{LoadOptions, Model};
use rand::{Rng, SeedableRng};
use serde_json::json;
use std::fs::File;
use std::io::{BufWriter, Result, Write};
use std::path::Path;

fn load(path: &Path) -> Model {
    let path = path.to_str().expect("a plain path");
    Model::load(path, &LoadOptions::default(), &mut |_, _, _| {}).expect("the model loads")
}

/// A shape that speed depends on.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub family: Family,
    pub layers: usize,
    pub width: usize,
    pub vocab: usize,
}

/// What the blocks are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    Gpt2,
    Llama,
}

/// GPT-2 small: 12 layers, d 768, vocabulary 50257, the head tied to the embedding.
pub const GPT2_SMALL: Shape = Shape {
    family: Family::Gpt2,
    layers: 12,
    width: 768,
    vocab: 50257,
};

/// A llama of 250 million weights: 16 layers, d 1024, vocabulary 32000.
pub const LLAMA: Shape = Shape {
    family: Family::Llama,
    layers: 16,
    width: 1024,
    vocab: 32000,
};

impl Shape {
    /// Write the checkpoint to a folder, load it, and let go of the files.
    pub fn load(self) -> Model {
        let folder = tempfile::tempdir().expect("a folder");
        self.write(folder.path()).expect("room for a checkpoint");
        load(folder.path())
    }

    /// The same weights in blocks of a GGUF file.
    pub fn load_blocks(self, blocks: GgufType) -> Model {
        let folder = tempfile::tempdir().expect("a folder");
        self.write(folder.path()).expect("room for a checkpoint");
        let file = folder.path().join("model.safetensors");
        let tensors = candle_core::safetensors::load(file, &Device::Cpu).expect("it was written");
        let tensors: Vec<(String, Tensor)> = tensors.into_iter().collect();
        let gguf = folder.path().join("blocks.gguf");
        let tokenizer = std::fs::read_to_string(folder.path().join("tokenizer.json")).ok();
        let config = self.config();
        write_gguf(&gguf, &config, &tensors, blocks, tokenizer.as_deref(), &[])
            .expect("room for a checkpoint");
        load(&gguf)
    }

    /// Every tensor with its shape.
    fn tensors(self) -> Vec<(String, Vec<usize>)> {
        let d = self.width;
        let mut all: Vec<(String, Vec<usize>)> = Vec::new();
        let mut add = |name: String, shape: &[usize]| all.push((name, shape.to_vec()));
        match self.family {
            Family::Gpt2 => {
                add("wte.weight".into(), &[self.vocab, d]);
                add("wpe.weight".into(), &[1024, d]);
                for layer in 0..self.layers {
                    let name = |part: &str| format!("h.{layer}.{part}");
                    for norm in ["ln_1", "ln_2"] {
                        add(name(&format!("{norm}.weight")), &[d]);
                        add(name(&format!("{norm}.bias")), &[d]);
                    }
                    for (part, inputs, outputs) in [
                        ("attn.c_attn", d, 3 * d),
                        ("attn.c_proj", d, d),
                        ("mlp.c_fc", d, 4 * d),
                        ("mlp.c_proj", 4 * d, d),
                    ] {
                        add(name(&format!("{part}.weight")), &[inputs, outputs]);
                        add(name(&format!("{part}.bias")), &[outputs]);
                    }
                }
                add("ln_f.weight".into(), &[d]);
                add("ln_f.bias".into(), &[d]);
            }
            Family::Llama => {
                add("model.embed_tokens.weight".into(), &[self.vocab, d]);
                for layer in 0..self.layers {
                    let name = |part: &str| format!("model.layers.{layer}.{part}.weight");
                    add(name("input_layernorm"), &[d]);
                    add(name("post_attention_layernorm"), &[d]);
                    for (part, outputs, inputs) in [
                        ("self_attn.q_proj", d, d),
                        ("self_attn.k_proj", d / 4, d),
                        ("self_attn.v_proj", d / 4, d),
                        ("self_attn.o_proj", d, d),
                        ("mlp.gate_proj", d * 11 / 4, d),
                        ("mlp.up_proj", d * 11 / 4, d),
                        ("mlp.down_proj", d, d * 11 / 4),
                    ] {
                        add(name(part), &[outputs, inputs]);
                    }
                }
                add("model.norm.weight".into(), &[d]);
                add("lm_head.weight".into(), &[self.vocab, d]);
            }
        }
        all
    }

    fn config(self) -> serde_json::Value {
        let d = self.width;
        match self.family {
            Family::Gpt2 => json!({
                "model_type": "gpt2", "n_layer": self.layers, "n_embd": d, "n_head": d / 64,
                "n_positions": 1024, "n_ctx": 1024, "vocab_size": self.vocab,
                "layer_norm_epsilon": 1e-5, "activation_function": "gelu_new",
            }),
            Family::Llama => json!({
                "model_type": "llama", "num_hidden_layers": self.layers, "hidden_size": d,
                "intermediate_size": d * 11 / 4, "num_attention_heads": d / 64,
                "num_key_value_heads": d / 256, "head_dim": 64, "hidden_act": "silu",
                "max_position_embeddings": 2048, "vocab_size": self.vocab,
                "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": false,
            }),
        }
    }

    fn write(self, folder: &Path) -> Result<()> {
        std::fs::write(folder.join("config.json"), self.config().to_string())?;
        let tokenizer =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/gpt2/tokenizer.json");
        std::fs::copy(tokenizer, folder.join("tokenizer.json"))?;
        let tensors = self.tensors();
        let mut header = serde_json::Map::new();
        let mut at = 0;
        for (name, shape) in &tensors {
            let end = at + 4 * shape.iter().product::<usize>();
            let entry = json!({ "dtype": "F32", "shape": shape, "data_offsets": [at, end] });
            header.insert(name.clone(), entry);
            at = end;
        }
        let header = serde_json::Value::Object(header).to_string();
        let mut file = BufWriter::new(File::create(folder.join("model.safetensors"))?);
        file.write_all(&(header.len() as u64).to_le_bytes())?;
        file.write_all(header.as_bytes())?;
        let mut rng = rand::rngs::SmallRng::seed_from_u64(7);
        for (name, shape) in &tensors {
            let around = if name.contains("ln_") || name.contains("norm") {
                1.0
            } else {
                0.0
            };
            for _ in 0..shape.iter().product::<usize>() {
                let weight: f32 = around + rng.random_range(-0.07..0.07);
                file.write_all(&weight.to_le_bytes())?;
            }
        }
        file.flush()
    }
}
