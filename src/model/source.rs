//! Where a model comes from, and everything read from there before the first forward pass.

use super::chat::{ChatTemplate, token_text};
use super::gguf::Gguf;
use super::safetensors::{Safetensors, read_capped};
use super::weights::TensorSource;
use super::{Tokenizer, demo, hub};
use crate::error::{Error, Result};
use crate::text::scrub;
use serde_json::Value;
use std::fmt;
use std::path::{Path, PathBuf};

/// What is accepted, for error messages.
const ACCEPTED: &str = "A model is a folder, a .gguf file, a hub id such as org/name, org/name@revision or \
     org/name/file.gguf, or the word demo.";
/// Largest JSON file of a model that is read (`tokenizer_config.json` lists every added token).
const MAX_JSON: u64 = 64 << 20;

/// Progress of a download: file, bytes so far, bytes in all.
pub type Progress<'a> = dyn FnMut(&str, u64, Option<u64>) + 'a;

/// Where a model comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// The model inside the program.
    Demo,
    /// A folder of the Hugging Face layout.
    Folder(PathBuf),
    /// A GGUF file.
    Gguf(PathBuf),
    /// A repository on a hub.
    Hub {
        /// `org/name`.
        repo: String,
        /// A branch, tag or commit; `main` if there is none.
        revision: Option<String>,
        /// A GGUF file of the repository; the safetensors if there is none.
        file: Option<String>,
    },
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Demo => write!(f, "demo"),
            Self::Folder(path) | Self::Gguf(path) => write!(f, "{}", crate::text::path(path)),
            Self::Hub {
                repo,
                revision,
                file,
            } => {
                write!(f, "{repo}")?;
                if let Some(file) = file {
                    write!(f, "/{file}")?;
                }
                if let Some(revision) = revision {
                    write!(f, "@{revision}")?;
                }
                Ok(())
            }
        }
    }
}

/// Everything of a model but its forward pass.
pub struct Checkpoint {
    /// Short name: the folder's or file's name, the hub id, or `demo`; safe to display.
    pub name: String,
    /// Where it came from, safe to display.
    pub source: String,
    /// `config.json` of the Hugging Face layout, or the like made from GGUF metadata.
    pub config: Value,
    /// The weights.
    pub tensors: Box<dyn TensorSource>,
    /// The tokenizer.
    pub tokenizer: Tokenizer,
    /// The chat template, if the model brings one.
    pub chat: Option<ChatTemplate>,
    /// Tokens that end a text; generation stops at any of them.
    pub eos: Vec<u32>,
    /// The token that begins a text. The tokenizer adds it where the model wants it.
    pub bos: Option<u32>,
    /// The type most weights are stored in: `q8_0`, `f16`, `f32`, `bf16`, …
    pub dtype: String,
    /// Bytes of the weights as stored.
    pub bytes: u64,
    /// The weight files, in order; empty for the embedded model.
    pub files: Vec<PathBuf>,
}

impl Source {
    /// Understand what the user wrote after `--model`. The word `demo` is the embedded model (a folder of that name is
    /// `./demo`); otherwise an existing path wins over a hub id.
    ///
    /// # Errors
    /// [`Error::Usage`] saying what is accepted.
    pub fn parse(text: &str) -> Result<Self> {
        let text = text.trim();
        if text == "demo" {
            return Ok(Self::Demo);
        }
        let path = Path::new(text);
        if path.is_dir() {
            return Ok(Self::Folder(path.to_path_buf()));
        }
        if path.is_file() {
            if is_gguf(path) {
                return Ok(Self::Gguf(path.to_path_buf()));
            }
            return Err(Error::Usage(format!(
                "{} is neither a folder nor a .gguf file. For safetensors, give the folder they lie in. {ACCEPTED}",
                crate::text::path(path)
            )));
        }
        let (id, revision) = match text.split_once('@') {
            Some((id, revision)) => (id, Some(revision)),
            None => (text, None),
        };
        let parts: Vec<&str> = id.split('/').collect();
        let (repo, file) = match parts.as_slice() {
            [org, name] if !is_gguf(Path::new(name)) => (format!("{org}/{name}"), None),
            [org, name, file] if is_gguf(Path::new(file)) => {
                (format!("{org}/{name}"), Some((*file).to_owned()))
            }
            _ => {
                return Err(Error::Usage(format!(
                    "there is no file or folder {}, and it is no hub id. {ACCEPTED}",
                    scrub(text)
                )));
            }
        };
        hub::check_id(&repo, revision)?;
        Ok(Self::Hub {
            repo,
            revision: revision.map(str::to_owned),
            file,
        })
    }

    /// Open the model: headers, configuration, tokenizer. Weights are read when asked for.
    ///
    /// `progress` hears about downloads; local sources are silent.
    ///
    /// # Errors
    /// If anything is missing or damaged; the sentence names the file and what to do.
    pub fn open(&self, progress: &mut Progress<'_>) -> Result<Checkpoint> {
        self.open_or_cancel(progress, &|| false)
    }

    /// [`Source::open`], but a download ends with [`Error::Interrupted`] soon after `cancelled` says so.
    ///
    /// # Errors
    /// As [`Source::open`], or [`Error::Interrupted`].
    pub fn open_or_cancel(
        &self,
        progress: &mut Progress<'_>,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Checkpoint> {
        match self {
            Self::Demo => demo::open(),
            Self::Folder(path) => open_folder(path),
            Self::Gguf(path) => Checkpoint::from_gguf(Gguf::open(path)?, &file_name(path)),
            Self::Hub {
                repo,
                revision,
                file,
            } => {
                let fetched = hub::Hub::from_env()?.fetch(
                    repo,
                    revision.as_deref(),
                    file.as_deref(),
                    progress,
                    cancelled,
                )?;
                let mut checkpoint = match file {
                    Some(file) => Checkpoint::from_gguf(
                        Gguf::open(&fetched.join(file))?,
                        &file_name(&fetched),
                    )?,
                    None => open_folder(&fetched)?,
                };
                // A snapshot's folder is called by its commit.
                checkpoint.source = match fetched.file_name() {
                    Some(commit) => scrub(&format!("{repo}@{}", commit.to_string_lossy())),
                    None => self.to_string(),
                };
                checkpoint.name = match file {
                    Some(file) => scrub(&format!("{repo}/{file}")),
                    None => repo.clone(),
                };
                Ok(checkpoint)
            }
        }
    }
}

impl Checkpoint {
    /// A checkpoint of a GGUF file, which brings everything itself.
    ///
    /// # Errors
    /// If its metadata or tokenizer make no sense.
    pub fn from_gguf(gguf: Gguf, name: &str) -> Result<Self> {
        let tokenizer = gguf.tokenizer()?;
        Ok(Self {
            name: scrub(name),
            source: gguf.origin(),
            config: gguf.config()?,
            tokenizer,
            chat: gguf.chat_template(),
            eos: gguf.eos(),
            bos: gguf.bos(),
            dtype: gguf.dtype(),
            bytes: gguf.bytes(),
            files: gguf.files(),
            tensors: Box::new(gguf),
        })
    }
}

/// Open a folder of the Hugging Face layout, or one that holds a single GGUF file.
fn open_folder(folder: &Path) -> Result<Checkpoint> {
    let config_file = folder.join("config.json");
    if !config_file.is_file() {
        return match single_gguf(folder)? {
            Some(file) => Checkpoint::from_gguf(Gguf::open(&file)?, &file_name(&file)),
            None => Err(Error::file(
                folder,
                "has no config.json and is no model folder",
                ACCEPTED,
            )),
        };
    }
    let config = json(&config_file)?;
    let generation = optional_json(&folder.join("generation_config.json"))?;
    let tokenizer_config = optional_json(&folder.join("tokenizer_config.json"))?;
    let tokenizer = open_tokenizer(folder)?;
    let tensors = Safetensors::open_folder(folder)?;
    let jinja_file = folder.join("chat_template.jinja");
    let jinja = if jinja_file.is_file() {
        let bytes = read_capped(&jinja_file, MAX_JSON)?;
        Some(String::from_utf8_lossy(&bytes).into_owned())
    } else {
        None
    };
    let ids = |key: &str, token: &str| -> Vec<u32> {
        let texts = config.get("text_config").unwrap_or(&Value::Null);
        [&generation, &config, texts]
            .into_iter()
            .map(|file| token_ids(&file[key]))
            .find(|ids| !ids.is_empty())
            .or_else(|| {
                let text = token_text(&tokenizer_config, token)?;
                Some(vec![tokenizer.id(&text)?])
            })
            .unwrap_or_default()
    };
    Ok(Checkpoint {
        name: scrub(&file_name(folder)),
        source: crate::text::path(folder),
        eos: ids("eos_token_id", "eos_token"),
        bos: ids("bos_token_id", "bos_token").first().copied(),
        chat: ChatTemplate::from_config(&tokenizer_config, jinja.as_deref()),
        dtype: tensors.dtype(),
        bytes: tensors.bytes(),
        files: tensors.files(),
        tensors: Box::new(tensors),
        tokenizer,
        config,
    })
}

fn open_tokenizer(folder: &Path) -> Result<Tokenizer> {
    let path = folder.join("tokenizer.json");
    if !path.is_file() {
        let other = ["tokenizer.model", "vocab.json", "vocab.txt"]
            .into_iter()
            .find(|name| folder.join(name).is_file());
        let remedy = match other {
            Some(other) => format!(
                "Only tokenizer.json is read; make one from {other} with \
                 `AutoTokenizer.from_pretrained(folder).save_pretrained(folder)`."
            ),
            None => "Fetch the model again, with its tokenizer.".to_owned(),
        };
        return Err(Error::file(folder, "has no tokenizer.json", remedy));
    }
    let bytes = read_capped(&path, 2 * MAX_JSON)?;
    Tokenizer::from_bytes(&bytes, &path.to_string_lossy())
}

/// An id or a list of ids.
fn token_ids(value: &Value) -> Vec<u32> {
    let one = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
    match value.as_array() {
        Some(list) => list.iter().filter_map(one).collect(),
        None => one(value).into_iter().collect(),
    }
}

fn json(path: &Path) -> Result<Value> {
    let bytes = read_capped(path, MAX_JSON)?;
    // Python writes infinities in words that JSON does not have.
    let parsed = serde_json::from_slice(&bytes)
        .or_else(|e| serde_json::from_slice(&without_infinities(&bytes)).map_err(|_| e));
    let value: Value = parsed.map_err(|e| {
        Error::file(
            path,
            format!("is not valid JSON: {}", scrub(&e.to_string())),
            "Fetch the model again.",
        )
    })?;
    if value.is_object() {
        Ok(value)
    } else {
        Err(Error::file(
            path,
            "holds no JSON object",
            "Fetch the model again.",
        ))
    }
}

/// The same text with `null` for the words `Infinity`, `-Infinity` and `NaN` outside of strings.
fn without_infinities(json: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(json.len());
    let (mut rest, mut quoted) = (json, false);
    while let Some((&byte, after)) = rest.split_first() {
        let words: [&[u8]; 3] = [b"-Infinity", b"Infinity", b"NaN"];
        let word = words.iter().find(|word| rest.starts_with(word));
        if let (false, Some(word)) = (quoted, word) {
            out.extend_from_slice(b"null");
            rest = &rest[word.len()..];
            continue;
        }
        out.push(byte);
        rest = after;
        match byte {
            b'"' => quoted = !quoted,
            b'\\' if quoted => {
                // Whatever follows a backslash ends no string.
                if let Some((&escaped, after)) = rest.split_first() {
                    out.push(escaped);
                    rest = after;
                }
            }
            _ => {}
        }
    }
    out
}

fn optional_json(path: &Path) -> Result<Value> {
    if path.is_file() {
        json(path)
    } else {
        Ok(Value::Null)
    }
}

/// The only `.gguf` file of a folder; several are an error, for guessing would surprise.
fn single_gguf(folder: &Path) -> Result<Option<PathBuf>> {
    let failed = |e| Error::read(folder, &e);
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if is_gguf(&path) {
            found.push(path);
        }
    }
    if found.len() > 1 {
        return Err(Error::file(
            folder,
            format!("holds {} .gguf files", found.len()),
            "Give one of them as the model.",
        ));
    }
    Ok(found.pop())
}

fn is_gguf(path: &Path) -> bool {
    path.extension()
        .is_some_and(|e| e.eq_ignore_ascii_case("gguf"))
}

/// The last part of a path, even of `.` and `..`.
fn file_name(path: &Path) -> String {
    let whole = path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
    whole
        .file_name()
        .map_or_else(|| path.to_string_lossy(), |name| name.to_string_lossy())
        .into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn fixture(family: &str) -> PathBuf {
        PathBuf::from(env!("CARGO_MANIFEST_DIR"))
            .join("tests/fixtures")
            .join(family)
    }

    fn open(path: &Path) -> Result<Checkpoint> {
        Source::Folder(path.to_path_buf()).open(&mut |_, _, _| {})
    }

    /// A copy of the llama fixture that tests may spoil.
    fn copy() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for entry in std::fs::read_dir(fixture("llama")).unwrap() {
            let entry = entry.unwrap();
            std::fs::copy(entry.path(), folder.path().join(entry.file_name())).unwrap();
        }
        folder
    }

    #[test]
    fn what_the_user_writes_is_understood() {
        let hub = |repo: &str, revision: Option<&str>, file: Option<&str>| Source::Hub {
            repo: repo.into(),
            revision: revision.map(Into::into),
            file: file.map(Into::into),
        };
        assert_eq!(Source::parse("demo").unwrap(), Source::Demo);
        assert_eq!(
            Source::parse(" org/name ").unwrap(),
            hub("org/name", None, None)
        );
        assert_eq!(
            Source::parse("org/name@v1.0").unwrap(),
            hub("org/name", Some("v1.0"), None)
        );
        assert_eq!(
            Source::parse("org/n@refs/pr/1").unwrap(),
            hub("org/n", Some("refs/pr/1"), None)
        );
        assert_eq!(
            Source::parse("org/name/x.Q8_0.gguf@main").unwrap(),
            hub("org/name", Some("main"), Some("x.Q8_0.gguf"))
        );
        let folder = fixture("gpt2");
        assert_eq!(
            Source::parse(folder.to_str().unwrap()).unwrap(),
            Source::Folder(folder.clone())
        );
        for wrong in [
            "",
            "gpt2",
            "./nowhere",
            "a/b/c",
            "/nowhere/x.gguf",
            "x/y.gguf",
            "a/b@",
            "a/b@..",
            "-a/b",
            "a/b c",
            "a/\u{1b}",
        ] {
            let error = Source::parse(wrong).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{wrong}");
            assert!(!error.to_string().contains('\u{1b}'));
        }
        let file = folder.join("config.json");
        let error = Source::parse(file.to_str().unwrap())
            .unwrap_err()
            .to_string();
        assert!(error.contains("give the folder"), "{error}");
    }

    #[test]
    fn display_and_parse_agree() {
        for text in ["demo", "org/name", "org/name@main", "org/name/x.gguf@main"] {
            assert_eq!(Source::parse(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn a_folder_opens_whole() {
        let model = open(&fixture("llama")).unwrap();
        assert_eq!(model.name, "llama");
        assert_eq!(model.config["model_type"], "llama");
        assert_eq!((model.eos.as_slice(), model.bos), ([1].as_slice(), Some(0)));
        assert_eq!(model.dtype, "f32");
        assert_eq!(model.tokenizer.size(), 400);
        assert_eq!(model.chat, None);
        assert_eq!(model.files.len(), 1);
        assert!(model.bytes > 70_000);
        assert!(model.tensors.shape("model.embed_tokens.weight").is_some());
    }

    #[test]
    fn end_tokens_come_from_the_first_file_that_names_them() {
        let folder = copy();
        let write = |name: &str, value: Value| {
            std::fs::write(folder.path().join(name), value.to_string()).unwrap();
        };
        write("generation_config.json", json!({"eos_token_id": [1, 2]}));
        assert_eq!(open(folder.path()).unwrap().eos, [1, 2]);
        write("generation_config.json", json!({}));
        write(
            "config.json",
            json!({"eos_token_id": -1, "text_config": {"eos_token_id": 7}}),
        );
        assert_eq!(open(folder.path()).unwrap().eos, [7]);
        write("config.json", json!({}));
        write(
            "tokenizer_config.json",
            json!({"eos_token": {"content": "<|eos|>"}, "bos_token": "nothing"}),
        );
        let model = open(folder.path()).unwrap();
        assert_eq!((model.eos, model.bos), (vec![1], None));
    }

    #[test]
    fn chat_templates_are_found() {
        let folder = copy();
        let path = folder.path().join("chat_template.jinja");
        std::fs::write(path, "{{ bos_token }}{{ messages[0].content }}").unwrap();
        let model = open(folder.path()).unwrap();
        let message = super::super::chat::Message::user("hi");
        assert_eq!(
            model.chat.unwrap().render(&[message], true).unwrap(),
            "<|bos|>hi"
        );
    }

    #[test]
    fn what_is_missing_or_damaged_is_named() {
        let folder = copy();
        let spoil = |name: &str, content: Option<&str>, word: &str| {
            let path = folder.path().join(name);
            let before = std::fs::read(&path).unwrap();
            match content {
                Some(content) => std::fs::write(&path, content).unwrap(),
                None => std::fs::remove_file(&path).unwrap(),
            }
            let error = open(folder.path()).err().unwrap().to_string();
            assert!(error.contains(word), "{error}");
            std::fs::write(&path, before).unwrap();
        };
        spoil("config.json", None, "no config.json");
        spoil("config.json", Some("{"), "not valid JSON");
        spoil("config.json", Some("[]"), "no JSON object");
        spoil("tokenizer.json", None, "no tokenizer.json");
        spoil("tokenizer.json", Some("{}"), "tokenizer cannot be read");
        spoil("model.safetensors", None, "no model.safetensors");
        assert!(open(folder.path()).is_ok());
    }
}
