//! `entroscope` without a subcommand: the screen.

use super::Context;
use super::args::{LensArgs, SamplingArgs, read_prompt, read_prompts};
use super::run::load_options;
use crate::config::Colour;
use crate::error::{Error, Result};
use crate::export;
use crate::lens::LensSettings;
use crate::session::Prompt;
use crate::steer::Spec;
use crate::text;
use crate::trace::{Set, TwoModels};
use crate::tui::{self, ColourChoice, Export, Options, PromptSets, SampleSet};
use clap::Args as ClapArgs;
use std::path::{Path, PathBuf};

/// Arguments of the screen.
#[derive(ClapArgs, Clone, Debug, Default, PartialEq)]
pub struct Args {
    /// Run the prompt in this file as soon as the model is there
    #[arg(long, value_name = "F")]
    pub prompt_file: Option<PathBuf>,
    /// Prompts the model should know, to hold against --unknown: JSON lines with a prompt each, or one prompt a line
    #[arg(long, value_name = "F", requires = "unknown")]
    pub known: Option<PathBuf>,
    /// Prompts it should not know
    #[arg(long, value_name = "F", requires = "known")]
    pub unknown: Option<PathBuf>,
    /// Hold a second model against the first: a folder, a .gguf file, a hub id, or demo
    #[arg(long, value_name = "M")]
    pub against: Option<String>,
    /// Treat prompts as user turns of the model's chat template
    #[arg(long)]
    pub chat: bool,
    /// Most tokens to draw after a prompt [default: 128]
    #[arg(long, short = 'n', value_name = "N")]
    pub max_new_tokens: Option<usize>,
    /// Theme by name
    #[arg(long, value_name = "NAME")]
    pub theme: Option<String>,
    /// Colours: auto, truecolor, 256, 16 or never
    #[arg(long, alias = "color", value_name = "DEPTH")]
    pub colour: Option<Colour>,
    /// Draw less, for slow links
    #[arg(long)]
    pub low_bandwidth: bool,
    /// Push the states, as in `run`; repeated ones add up
    #[arg(long, value_name = "S")]
    pub steer: Vec<Spec>,
    /// How tokens are drawn.
    #[command(flatten)]
    pub sampling: SamplingArgs,
    /// What the lens computes.
    #[command(flatten)]
    pub lens: LensArgs,
}

/// Show the screen until the user leaves; returns the exit code.
///
/// # Errors
/// If there is no terminal, the options are wrong, or the terminal was lost.
pub fn run(args: &Args, context: &Context) -> Result<u8> {
    let prompt = args.prompt_file.as_deref().map(read_prompt).transpose()?;
    let options = options(args, context, prompt)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| {
            Error::failed(
                format!("no event loop for the screen: {e}"),
                "Close other programs.",
            )
        })?;
    runtime.block_on(tui::run(options, Box::new(write)))
}

fn write(folder: &Path, export: &Export) -> Result<Vec<PathBuf>> {
    match export {
        Export::Run(record, tokenizer) => export::write_record(folder, record, tokenizer, false),
        Export::Models(records, [of_a, of_b], pairing) => {
            let models = TwoModels::new(&records[0], &records[1]);
            export::write_models(folder, &models, [of_a, of_b], *pairing, false)
        }
        Export::Sets(record, samples) => export::write_samples(folder, record, samples, false),
        Export::Sweep(record, curve) => export::write_sweep(folder, record, curve, false),
    }
}

/// The two sets that the flags name.
fn sets(args: &Args) -> Result<Option<PromptSets>> {
    let (Some(known), Some(unknown)) = (&args.known, &args.unknown) else {
        return Ok(None);
    };
    Ok(Some(PromptSets {
        prompts: [
            read_prompts(known, args.chat)?,
            read_prompts(unknown, args.chat)?,
        ],
        names: Set::BOTH.map(Set::label),
        origins: [known, unknown].map(|file| {
            let name = file.file_name().unwrap_or(file.as_os_str());
            text::path(Path::new(name))
        }),
    }))
}

fn options(args: &Args, context: &Context, prompt: Option<String>) -> Result<Options> {
    let settings = &context.settings;
    let mut options = Options {
        model: settings.model.clone(),
        prompt,
        theme: args.theme.clone().or_else(|| settings.theme.clone()),
        colour: colour(args.colour.unwrap_or(settings.colour)),
        low_bandwidth: args.low_bandwidth || settings.low_bandwidth,
        keys: settings
            .keys
            .iter()
            .map(|(action, keys)| (action.clone(), keys.join(" ")))
            .collect(),
        config_dir: context.folders.config.clone(),
        load: load_options(context),
        samples: samples()?,
        sets: sets(args)?,
        steer: args.steer.clone(),
        against: args.against.clone(),
        ..Options::default()
    };
    if let Some(dir) = &settings.export_dir {
        options.export_dir.clone_from(dir);
    }
    let job = &mut options.job;
    let (candidates, few) = (job.lens.top, LensSettings::default().top);
    job.sampling = settings.sampling.clone();
    job.lens = settings.lens.clone();
    if job.lens.top == few {
        // The screen has room for more than a table, unless the user chose a number.
        job.lens.top = candidates;
    }
    args.sampling.lay_over(&mut job.sampling);
    args.lens.lay_over(&mut job.lens);
    if let Some(n) = args.max_new_tokens.or(settings.max_new_tokens) {
        job.max_new_tokens = n;
    }
    if args.chat {
        job.prompt = Prompt::Chat(String::new());
    }
    Ok(options)
}

/// The prompts that the picker offers: what the embedded model was told, what it never heard of, and stories; for masked
/// models sentences with gaps.
fn samples() -> Result<Vec<SampleSet>> {
    [
        (
            "a known fact",
            include_str!("../../sample_prompts/known.jsonl"),
            Some(Set::Known),
        ),
        (
            "a name it never met",
            include_str!("../../sample_prompts/near_ood.jsonl"),
            Some(Set::Unknown),
        ),
        (
            "a story",
            include_str!("../../sample_prompts/stories.jsonl"),
            None,
        ),
    ]
    .into_iter()
    .map(|(name, text, role)| {
        let set = SampleSet::from_jsonl(name, text)?;
        Ok(match role {
            Some(role) => set.as_set(role),
            None => set,
        })
    })
    .chain(
        [
            (
                "a gap in a sentence",
                include_str!("../../sample_prompts/masked.jsonl"),
            ),
            (
                "two gaps",
                include_str!("../../sample_prompts/masked_pairs.jsonl"),
            ),
        ]
        .into_iter()
        .map(|(name, text)| Ok(SampleSet::from_jsonl(name, text)?.with_gaps())),
    )
    .collect()
}

fn colour(asked: Colour) -> ColourChoice {
    match asked {
        Colour::Auto => ColourChoice::Auto,
        Colour::TrueColor => ColourChoice::Truecolor,
        Colour::Ansi256 => ColourChoice::Ansi256,
        Colour::Ansi16 => ColourChoice::Ansi16,
        Colour::Never => ColourChoice::Never,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tui::action::Action;
    use crate::tui::colour::Depth;
    use crate::tui::effect::Effect;
    use crate::tui::fixture;
    use crate::tui::state::update;

    #[test]
    fn each_export_writes_its_own_tables() {
        let sets = fixture::sets(120, 36, Depth::True, 60).unwrap();
        let run = fixture::finished(120, 36, Depth::True, 12).unwrap();
        let sets_files = &["profiles.csv", "separation.csv", "manifest.json"][..];
        let run_files = &[
            "cells.csv",
            "tokens.csv",
            "attention.csv",
            "attention_layers.csv",
            "manifest.json",
        ];
        for (mut state, files) in [(sets, sets_files), (run, run_files)] {
            let effects = update(&mut state, Action::Export);
            let [Effect::Export(export)] = &effects[..] else {
                panic!("{effects:?}");
            };
            let folder = tempfile::tempdir().unwrap();
            let folder = folder.path().join("out");
            let written = write(&folder, export).unwrap();
            let names: Vec<_> = written.iter().filter_map(|file| file.file_name()).collect();
            assert_eq!(names, files);
            if let Export::Sets(_, samples) = export {
                let mut table = Vec::new();
                export::separation_csv(&mut table, samples).unwrap();
                let file = std::fs::read(folder.join("separation.csv")).unwrap();
                assert_eq!(file, table);
            }
        }
    }

    #[test]
    fn sets_are_read_as_compare_reads_them() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            Some(path)
        };
        let mut args = Args {
            known: file("known.jsonl", "{\"prompt\":\"a b\",\"id\":1}\n"),
            unknown: file("unknown.txt", "c\n\nd\n"),
            ..Args::default()
        };
        let given = sets(&args).unwrap().unwrap();
        let text = |text: &str| Prompt::Text(text.to_owned());
        assert_eq!(
            given.prompts,
            [vec![text("a b")], vec![text("c"), text("d")]]
        );
        assert!(given.origins[1].ends_with("unknown.txt"));
        args.unknown = file("empty.txt", "\n");
        assert!(sets(&args).is_err());
        assert_eq!(sets(&Args::default()).unwrap(), None);
        let roles: Vec<_> = samples()
            .unwrap()
            .into_iter()
            .filter_map(|s| s.role)
            .collect();
        assert_eq!(roles, Set::BOTH);
    }
}
