//! `entroscope bench`: how fast a model runs on this machine, and how near that is to what the machine can do.

use super::Context;
use super::output::Output;
use super::run::load_model;
use crate::error::{Error, Result};
use crate::session::bench::{self, Plan, Report};
use crate::text;
use clap::Args as ClapArgs;
use std::fmt::Write as _;

/// Arguments of `bench`.
#[derive(ClapArgs, Clone, Debug)]
pub struct Args {
    /// Token ids to read before decoding, instead of 32 of nothing in particular
    #[arg(long, value_name = "1,2,3", value_delimiter = ',')]
    pub prompt_ids: Vec<u32>,
    /// Tokens to time
    #[arg(long, value_name = "N", default_value_t = 48)]
    pub max_new_tokens: usize,
    /// Tokens of the prompt whose reading is timed
    #[arg(long, value_name = "N", default_value_t = 256)]
    pub prefill: usize,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Do it.
///
/// # Errors
/// If the model cannot be read or does not generate, or what was asked for does not fit it.
pub fn run(args: &Args, context: &Context) -> Result<()> {
    let model = load_model(&context.settings.model, context)?;
    let vocab = model.card().vocab;
    if let Some(id) = args.prompt_ids.iter().find(|id| **id as usize >= vocab) {
        return Err(Error::Usage(format!(
            "token id {id} is outside the model's vocabulary of {vocab}"
        )));
    }
    let context_length = model.card().context;
    let plan = Plan {
        prompt: match args.prompt_ids.as_slice() {
            [] => Plan::tokens(&model, 32.min(context_length / 4).max(1)),
            ids => ids.to_vec(),
        },
        new_tokens: args.max_new_tokens,
        prefill: Plan::tokens(&model, args.prefill.min(context_length)),
    };
    let _heed = context.interrupt.heed();
    let mut progress = |what: &str| {
        context.notes.say(&format!("timing {what}"));
        !context.interrupt.raised()
    };
    let report = bench::measure(&model, &plan, &mut progress)?;
    let mut output = Output::new();
    if args.json {
        output.json(&report)?;
    } else {
        output.write(&table(&report))?;
    }
    output.flush()
}

/// The report for people: what was measured, and what share of the machine that is.
fn table(r: &Report) -> String {
    let step = r.step_bytes as f64 / 1e9;
    let limit = r.bandwidth_gb_s / step;
    let per_lens = step / r.bandwidth_gb_s + r.lens_flop as f64 / 1e9 / r.peak_gflop_s;
    let tokens = r.prefill_tokens as f64;
    let plain_flop = r.step_flop as f64 * tokens / 1e9;
    let lens_flop = plain_flop + r.lens_flop as f64 * tokens / 1e9;
    let share = |found: f64, limit: f64| format!("{:.0} %", 100.0 * found / limit);
    let mut out = String::new();
    let mut row = |what: &str, found: String, of: String| {
        // Writing into a String does not fail.
        let _ = writeln!(out, "{what:<30} {found:>16}   {of}");
    };
    row(
        &text::one_line(&r.model),
        r.dtype.clone(),
        format!(
            "{}, {:.1} GB/s, {:.0} GFLOP/s",
            r.device, r.bandwidth_gb_s, r.peak_gflop_s
        ),
    );
    row(
        "plain decoding",
        format!("{:.1} tok/s", r.decode_tok_s),
        format!(
            "{} of what reading {:.1} MB of weights a token allows",
            share(r.decode_tok_s, limit),
            step * 1e3
        ),
    );
    row(
        "decoding with the lens",
        format!("{:.1} tok/s", r.lens_decode_tok_s),
        format!(
            "{} of the limit, {:.2} of plain decoding, {:.2} GFLOP more a token",
            share(r.lens_decode_tok_s, 1.0 / per_lens),
            r.lens_decode_tok_s / r.decode_tok_s,
            r.lens_flop as f64 / 1e9
        ),
    );
    row(
        "two branches",
        format!("{:.2} ×", r.two_branch_ratio),
        "the time of one".into(),
    );
    row(
        "two branches with the lens",
        format!("{:.2} ×", r.two_branch_lens_ratio),
        "the time of one".into(),
    );
    row(
        &format!("reading {} tokens", r.prefill_tokens),
        format!("{:.3} s", r.prefill_s),
        format!(
            "{} of {:.0} GFLOP at the peak",
            share(plain_flop / r.peak_gflop_s, r.prefill_s),
            plain_flop
        ),
    );
    let extra = match r.lens_prefill_extra_bytes {
        Some(bytes) => format!(
            ", {:.1} MiB more memory",
            bytes as f64 / (1u64 << 20) as f64
        ),
        None => ", memory n/a".into(),
    };
    row(
        &format!("reading {} with the lens", r.prefill_tokens),
        format!("{:.3} s", r.lens_prefill_s),
        format!(
            "{} of {:.0} GFLOP at the peak{extra}",
            share(lens_flop / r.peak_gflop_s, r.lens_prefill_s),
            lens_flop
        ),
    );
    out
}
