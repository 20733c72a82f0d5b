//! Pretraining of a small llama-architecture model, through the decoder's own forward pass.
//!
//! The batch is split over worker threads that share the weights; each runs forward and backward on one core, and
//! their gradients are averaged into one AdamW step. Checkpoints hold weights, moments and the step, so a run that was
//! stopped goes on as if it had not been.

use super::corpus::{self, StreamPlan};
use super::optimiser::{AdamW, Parameter};
use super::world::{Mix, World};
use crate::error::{Error, Result};
use crate::model::Decoder;
use crate::model::config::DecoderConfig;
use crate::model::decoder::{Row, Taps};
use crate::model::ops;
use crate::model::weights::{Stored, TensorSource};
use candle_core::{Device, Tensor, Var};
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap};
use std::ops::ControlFlow;
use std::path::Path;
use std::time::Instant;

/// What to train and how.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Blocks.
    pub blocks: usize,
    /// Width of the residual stream.
    pub d_model: usize,
    /// Query heads.
    pub heads: usize,
    /// Key/value heads.
    pub kv_heads: usize,
    /// Inner width of the MLP.
    pub d_mlp: usize,
    /// Vocabulary size.
    pub vocab: usize,
    /// Window length in tokens.
    pub context: usize,
    /// Windows a step.
    pub batch: usize,
    /// Optimiser steps.
    pub steps: usize,
    /// Steps over which the learning rate rises.
    pub warmup: usize,
    /// Highest learning rate; falls to 5 % of it along a cosine.
    pub rate: f64,
    /// Share of the tokens that is about the world.
    pub world_share: f64,
    /// What goes between the facts.
    pub mix: Mix,
    /// Seed of everything.
    pub seed: u64,
    /// Worker threads.
    pub threads: usize,
}

impl Plan {
    /// The embedded model's plan.
    #[must_use]
    pub fn demo() -> Self {
        Self {
            blocks: 12,
            d_model: 192,
            heads: 6,
            kv_heads: 3,
            d_mlp: 512,
            vocab: 3072,
            context: 256,
            batch: 4,
            steps: 4400,
            warmup: 200,
            rate: 2e-3,
            world_share: 0.5,
            mix: Mix::default(),
            seed: 7,
            threads: 2,
        }
    }

    /// The model's `config.json`.
    #[must_use]
    pub fn config(&self) -> Value {
        json!({
            "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": self.vocab,
            "hidden_size": self.d_model, "intermediate_size": self.d_mlp, "num_hidden_layers": self.blocks,
            "num_attention_heads": self.heads, "num_key_value_heads": self.kv_heads,
            "head_dim": self.d_model / self.heads, "hidden_act": "silu", "max_position_embeddings": self.context,
            "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "attention_bias": false, "mlp_bias": false,
            "tie_word_embeddings": true, "bos_token_id": 0, "eos_token_id": 0,
        })
    }

    fn learning_rate(&self, step: usize) -> f64 {
        let rise = ((step + 1) as f64 / self.warmup.max(1) as f64).min(1.0);
        let done = step as f64 / self.steps.max(1) as f64;
        self.rate * rise * (0.05 + 0.95 * 0.5 * (1.0 + (std::f64::consts::PI * done).cos()))
    }

    fn stream(&self) -> StreamPlan {
        StreamPlan {
            tokens: self.steps * self.batch * self.context + 1,
            world_share: self.world_share,
            mix: self.mix,
            seed: self.seed,
        }
    }
}

/// The parameters of a model in training, offered to the decoder as a checkpoint.
#[derive(Debug)]
pub struct Variables(BTreeMap<String, Var>);

impl Variables {
    /// Fresh weights: normal with 0.4/√d (further divided by √(2L) where a block writes into the residual stream),
    /// 0.02 for the embedding, ones for the norms.
    ///
    /// # Errors
    /// If a tensor cannot be made.
    pub fn new(plan: &Plan, device: &Device) -> Result<Self> {
        let mut rng = rand::rngs::StdRng::seed_from_u64(plan.seed);
        let mut vars = BTreeMap::new();
        let (d, kv) = (plan.d_model, plan.kv_heads * plan.d_model / plan.heads);
        let std = 0.4 / (d as f64).sqrt();
        let into = std / (2.0 * plan.blocks as f64).sqrt();
        let mut matrix = |name: String, outputs: usize, inputs: usize, std: f64| -> Result<()> {
            let values: Vec<f32> = (0..outputs * inputs)
                .map(|_| (normal(&mut rng) * std) as f32)
                .collect();
            let tensor = Tensor::from_vec(values, (outputs, inputs), device)?;
            vars.insert(name, Var::from_tensor(&tensor)?);
            Ok(())
        };
        matrix("model.embed_tokens.weight".into(), plan.vocab, d, 0.02)?;
        for i in 0..plan.blocks {
            let p = format!("model.layers.{i}");
            matrix(format!("{p}.self_attn.q_proj.weight"), d, d, std)?;
            matrix(format!("{p}.self_attn.k_proj.weight"), kv, d, std)?;
            matrix(format!("{p}.self_attn.v_proj.weight"), kv, d, std)?;
            matrix(format!("{p}.self_attn.o_proj.weight"), d, d, into)?;
            matrix(format!("{p}.mlp.gate_proj.weight"), plan.d_mlp, d, std)?;
            matrix(format!("{p}.mlp.up_proj.weight"), plan.d_mlp, d, std)?;
            matrix(format!("{p}.mlp.down_proj.weight"), d, plan.d_mlp, into)?;
        }
        let mut norms = vec!["model.norm.weight".to_owned()];
        for i in 0..plan.blocks {
            norms.push(format!("model.layers.{i}.input_layernorm.weight"));
            norms.push(format!("model.layers.{i}.post_attention_layernorm.weight"));
        }
        for name in norms {
            let ones = Tensor::ones(d, candle_core::DType::F32, device)?;
            vars.insert(name, Var::from_tensor(&ones)?);
        }
        Ok(Self(vars))
    }

    /// The current weights by name.
    pub fn tensors(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.0.iter().map(|(n, v)| (n.as_str(), v.as_tensor()))
    }

    fn parameters(&self) -> Vec<Parameter> {
        self.0
            .iter()
            .map(|(name, var)| Parameter {
                name: name.clone(),
                var: var.clone(),
                first: vec![0.0; var.elem_count()],
                second: vec![0.0; var.elem_count()],
                decays: var.rank() == 2 && !name.contains("embed"),
            })
            .collect()
    }
}

impl TensorSource for Variables {
    fn names(&self) -> Vec<String> {
        self.0.keys().cloned().collect()
    }

    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        self.0.get(name).map(|v| v.dims().to_vec())
    }

    fn load(&self, name: &str) -> Result<Stored> {
        match self.0.get(name) {
            Some(var) => Ok(Stored::Float(var.as_tensor().clone())),
            None => Err(Error::failed(
                format!("no parameter is called {name}"),
                "This is a bug.",
            )),
        }
    }

    fn origin(&self) -> String {
        "the model in training".into()
    }
}

/// A standard normal number (Box–Muller).
fn normal(rng: &mut impl Rng) -> f64 {
    let (u, v): (f64, f64) = (rng.random_range(f64::MIN_POSITIVE..1.0), rng.random());
    (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()
}

/// Where a training run stands.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// Steps done.
    pub step: usize,
    /// Steps in all.
    pub steps: usize,
    /// Mean cross-entropy of this step, nats a token.
    pub loss: f64,
    /// Tokens a second since this process began training.
    pub tokens_per_second: f64,
    /// Seconds left at this rate.
    pub eta: f64,
}

/// A model in training.
pub struct Trainer {
    plan: Plan,
    device: Device,
    variables: Variables,
    decoder: Decoder,
    parameters: Vec<Parameter>,
    stream: Vec<u32>,
    order: Vec<usize>,
    step: usize,
}

impl Trainer {
    /// Prepare a run: weights, windows and their order. `stream` is the packed text.
    ///
    /// # Errors
    /// If the plan makes no model, or the text is too short for it.
    pub fn new(plan: Plan, stream: Vec<u32>) -> Result<Self> {
        let device = Device::Cpu;
        let variables = Variables::new(&plan, &device)?;
        let decoder = Decoder::load(
            DecoderConfig::from_json(&plan.config())?,
            &variables,
            &device,
        )?;
        // Gradients of the workers are averaged, so each needs an equal share.
        let workers = plan.threads.clamp(1, plan.batch.max(1));
        let threads = (1..=workers)
            .rev()
            .find(|n| plan.batch.is_multiple_of(*n))
            .unwrap_or(1);
        let plan = Plan { threads, ..plan };
        let windows = stream.len().saturating_sub(1) / plan.context;
        if windows < plan.steps * plan.batch {
            return Err(Error::failed(
                format!(
                    "{windows} windows of text are too few for {} steps",
                    plan.steps
                ),
                "Train for fewer steps.",
            ));
        }
        let mut order: Vec<usize> = (0..windows).collect();
        order.shuffle(&mut rand::rngs::StdRng::seed_from_u64(plan.seed ^ 0x0_5eed));
        let parameters = variables.parameters();
        Ok(Self {
            plan,
            device,
            variables,
            decoder,
            parameters,
            stream,
            order,
            step: 0,
        })
    }

    /// The packed text of a plan.
    ///
    /// # Errors
    /// If the tokenizer fails.
    pub fn pack(
        plan: &Plan,
        world: &World,
        stories: &[String],
        tokenizer: &tokenizers::Tokenizer,
        progress: &mut dyn FnMut(usize),
    ) -> Result<Vec<u32>> {
        corpus::pack(world, stories, tokenizer, &plan.stream(), progress)
            .map_err(|e| Error::failed(e.to_string(), "This is a bug."))
    }

    /// The decoder, whose weights move with every step.
    #[must_use]
    pub fn decoder(&self) -> &Decoder {
        &self.decoder
    }

    /// The weights.
    #[must_use]
    pub fn variables(&self) -> &Variables {
        &self.variables
    }

    /// Steps done.
    #[must_use]
    pub fn step(&self) -> usize {
        self.step
    }

    /// One optimiser step; returns the mean loss in nats a token.
    ///
    /// # Errors
    /// If a tensor operation fails.
    pub fn advance(&mut self) -> Result<f64> {
        let (plan, decoder, stream) = (&self.plan, &self.decoder, &self.stream);
        let first = self.step * plan.batch;
        let windows = &self.order[first..first + plan.batch];
        let share = plan.batch.div_ceil(plan.threads.max(1));
        let results: Vec<candle_core::Result<_>> = std::thread::scope(|scope| {
            let workers: Vec<_> = windows
                .chunks(share)
                .map(|windows| scope.spawn(move || worker(decoder, stream, windows, plan.context)))
                .collect();
            workers
                .into_iter()
                .map(|w| {
                    w.join().unwrap_or_else(|_| {
                        Err(candle_core::Error::Msg("a training worker panicked".into()))
                    })
                })
                .collect()
        });
        let mut grads = Vec::new();
        let mut loss = 0.0;
        for result in results {
            let (l, g) = result?;
            loss += l;
            grads.push(g);
        }
        loss /= grads.len() as f64;
        let rate = plan.learning_rate(self.step) as f32;
        AdamW::default().step(&mut self.parameters, &grads, self.step + 1, rate)?;
        self.step += 1;
        Ok(loss)
    }

    /// Train to the end of the plan, reporting after every step; a report may break off.
    ///
    /// # Errors
    /// If a tensor operation fails; [`Error::Interrupted`] when broken off.
    pub fn run(
        &mut self,
        report: &mut dyn FnMut(&mut Self, Progress) -> Result<ControlFlow<()>>,
    ) -> Result<()> {
        let (began, from) = (Instant::now(), self.step);
        while self.step < self.plan.steps {
            let loss = self.advance()?;
            let seconds = began.elapsed().as_secs_f64();
            let per_step = seconds / (self.step - from) as f64;
            let progress = Progress {
                step: self.step,
                steps: self.plan.steps,
                loss,
                tokens_per_second: (self.plan.batch * self.plan.context) as f64 / per_step,
                eta: per_step * (self.plan.steps - self.step) as f64,
            };
            if report(self, progress)?.is_break() {
                return Err(Error::Interrupted);
            }
        }
        Ok(())
    }

    /// SHA-256 of plan and text: what a checkpoint belongs to. The number of threads makes no other model.
    fn fingerprint(&self) -> Vec<u8> {
        use sha2::{Digest, Sha256};
        let plan = Plan {
            threads: 0,
            ..self.plan.clone()
        };
        let mut hash = Sha256::new();
        hash.update(format!("{plan:?}"));
        for id in &self.stream {
            hash.update(id.to_le_bytes());
        }
        hash.finalize().to_vec()
    }

    /// Write weights, moments and the step to `path`, beside and renamed.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn save(&self, path: &Path) -> Result<()> {
        let mut tensors: HashMap<String, Tensor> = HashMap::new();
        for p in &self.parameters {
            let shape = p.var.shape();
            tensors.insert(p.name.clone(), p.var.as_tensor().clone());
            for (kind, moment) in [("first", &p.first), ("second", &p.second)] {
                let moment = Tensor::from_slice(moment, shape, &self.device)?;
                tensors.insert(format!("{kind}.{}", p.name), moment);
            }
        }
        tensors.insert(
            "plan".into(),
            Tensor::new(self.fingerprint(), &self.device)?,
        );
        tensors.insert("step".into(), Tensor::new(self.step as i64, &self.device)?);
        let beside = path.with_extension("partial");
        candle_core::safetensors::save(&tensors, &beside)?;
        std::fs::rename(&beside, path).map_err(|e| Error::write(path, &e))
    }

    /// Go on from a checkpoint of the same plan.
    ///
    /// # Errors
    /// If the file cannot be read or belongs to another plan.
    pub fn resume(&mut self, path: &Path) -> Result<()> {
        let other = |what: &str| {
            Error::file(
                path,
                format!("is no checkpoint of this plan: {what}"),
                "Resume with the options the run was started with, or start anew without --resume.",
            )
        };
        let tensors = candle_core::safetensors::load(path, &self.device)
            .map_err(|e| other(&e.to_string()))?;
        let get = |name: &str, shape: &candle_core::Shape| {
            tensors
                .get(name)
                .filter(|t| t.shape() == shape)
                .ok_or_else(|| other(&format!("{name} is missing or of another shape")))
        };
        for p in &mut self.parameters {
            let shape = p.var.shape().clone();
            p.var.set(get(&p.name, &shape)?)?;
            p.first = get(&format!("first.{}", p.name), &shape)?
                .flatten_all()?
                .to_vec1()?;
            p.second = get(&format!("second.{}", p.name), &shape)?
                .flatten_all()?
                .to_vec1()?;
        }
        if let Some(plan) = tensors.get("plan")
            && plan.flatten_all()?.to_vec1::<u8>()? != self.fingerprint()
        {
            return Err(other("its plan or its text differs"));
        }
        let step = get("step", &().into())?.to_scalar::<i64>()?;
        self.step = usize::try_from(step)
            .ok()
            .filter(|s| *s <= self.plan.steps)
            .ok_or_else(|| other("it is further than the plan goes"))?;
        Ok(())
    }
}

/// Loss and gradients of some windows, on one core.
fn worker(
    decoder: &Decoder,
    stream: &[u32],
    windows: &[usize],
    context: usize,
) -> candle_core::Result<(f64, candle_core::backprop::GradStore)> {
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(1)
        .build()
        .map_err(candle_core::Error::wrap)?;
    pool.install(|| {
        let text = |w: usize, shift: usize| &stream[w * context + shift..(w + 1) * context + shift];
        let mut rows: Vec<Row<'_>> = windows
            .iter()
            .map(|w| Row::new(text(*w, 0), None))
            .collect();
        let targets: Vec<u32> = windows.iter().flat_map(|w| text(*w, 1)).copied().collect();
        let traced = decoder.forward(&mut rows, Taps::default())?;
        let logits = decoder.head(&decoder.final_norm(&traced.last)?)?;
        let loss = ops::cross_entropy(&logits, &targets)?;
        let grads = loss.backward()?;
        Ok((f64::from(loss.to_scalar::<f32>()?), grads))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tiny() -> Plan {
        Plan {
            blocks: 2,
            d_model: 16,
            heads: 4,
            kv_heads: 2,
            d_mlp: 24,
            vocab: 32,
            context: 8,
            batch: 4,
            steps: 6,
            warmup: 2,
            rate: 1e-2,
            threads: 2,
            ..Plan::demo()
        }
    }

    fn text(plan: &Plan) -> Vec<u32> {
        (0..plan.steps * plan.batch * plan.context + 1)
            .map(|i| ((i * i + i / 3) % plan.vocab) as u32)
            .collect()
    }

    fn weights(trainer: &Trainer) -> Vec<Vec<f32>> {
        trainer
            .variables()
            .tensors()
            .map(|(_, t)| t.flatten_all().unwrap().to_vec1().unwrap())
            .collect()
    }

    #[test]
    fn every_parameter_receives_a_gradient_and_it_is_the_slope_of_the_loss() {
        let plan = tiny();
        let stream = text(&plan);
        let trainer = Trainer::new(plan.clone(), stream.clone()).unwrap();
        let (_, grads) = worker(trainer.decoder(), &stream, &[0, 1], plan.context).unwrap();
        for p in &trainer.parameters {
            let grad: Vec<f32> = grads
                .get(&p.var)
                .unwrap_or_else(|| panic!("{} has no gradient", p.name))
                .flatten_all()
                .unwrap()
                .to_vec1()
                .unwrap();
            let (at, slope) = grad
                .iter()
                .enumerate()
                .max_by(|a, b| a.1.abs().total_cmp(&b.1.abs()))
                .unwrap();
            assert!(slope.abs() > 0.0, "{}", p.name);
            // Central difference along the steepest coordinate.
            let loss_at = |delta: f32| {
                let mut w: Vec<f32> = p.var.flatten_all().unwrap().to_vec1().unwrap();
                let before = w.clone();
                w[at] += delta;
                let shape = p.var.shape();
                p.var
                    .set(&Tensor::from_vec(w, shape, &Device::Cpu).unwrap())
                    .unwrap();
                let (loss, _) = worker(trainer.decoder(), &stream, &[0, 1], plan.context).unwrap();
                p.var
                    .set(&Tensor::from_vec(before, shape, &Device::Cpu).unwrap())
                    .unwrap();
                loss
            };
            let step = 3e-3;
            let measured = (loss_at(step) - loss_at(-step)) / f64::from(2.0 * step);
            let error = (measured - f64::from(*slope)).abs();
            assert!(
                error < 0.02 * f64::from(slope.abs()) + 2e-4,
                "{}: {measured} {slope}",
                p.name
            );
        }
    }

    #[test]
    fn a_resumed_run_ends_where_an_unbroken_one_does() {
        let plan = tiny();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("checkpoint.safetensors");
        let mut unbroken = Trainer::new(plan.clone(), text(&plan)).unwrap();
        unbroken
            .run(&mut |_, _| Ok(ControlFlow::Continue(())))
            .unwrap();
        let mut first = Trainer::new(plan.clone(), text(&plan)).unwrap();
        let stopped = first.run(&mut |t, p| {
            t.save(&path)?;
            Ok(if p.step == 3 {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            })
        });
        assert!(matches!(stopped, Err(Error::Interrupted)));
        let mut second = Trainer::new(plan.clone(), text(&plan)).unwrap();
        second.resume(&path).unwrap();
        assert_eq!(second.step(), 3);
        second
            .run(&mut |_, _| Ok(ControlFlow::Continue(())))
            .unwrap();
        assert_eq!(weights(&unbroken), weights(&second));
        assert_ne!(weights(&first), weights(&second));
    }

    #[test]
    fn the_loss_falls() {
        let plan = Plan {
            steps: 60,
            ..tiny()
        };
        let stream: Vec<u32> = (0..plan.steps * plan.batch * plan.context + 1)
            .map(|i| (i % 7) as u32)
            .collect();
        let mut trainer = Trainer::new(plan, stream).unwrap();
        let mut losses = Vec::new();
        trainer
            .run(&mut |_, p| {
                losses.push(p.loss);
                Ok(ControlFlow::Continue(()))
            })
            .unwrap();
        assert!(losses[losses.len() - 1] < 0.5 * losses[0], "{losses:?}");
    }
}
