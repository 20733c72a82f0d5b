//! Filling the cache from the network.

use super::{Hub, INDEX, SINGLE, is_commit, shards};
use crate::error::{Error, Result};
use crate::text::scrub;
use futures::StreamExt;
use hf_hub::repository::{HFRepository, RepoTreeEntry, RepoTypeModel};
use hf_hub::{HFClient, HFError};
use sha2::{Digest, Sha256};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::Duration;

/// Files beside the weights; those that a repository lacks are left out.
const SMALL: [&str; 5] = [
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
];
/// Largest of those that is fetched.
const MAX_SMALL: u64 = 128 << 20;
/// Files a repository may list at its top.
const MAX_LISTED: usize = 10_000;
/// A transfer that brings nothing for so long is broken off and continued.
const STALL: Duration = Duration::from_secs(60);

/// Why a fetch failed.
pub(super) enum Trouble {
    /// The hub did not answer: a copy in the cache will do.
    Unreachable(Error),
    /// Anything else.
    Other(Error),
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Self::Other(error)
    }
}

/// Progress of one file: name, bytes so far, bytes in all.
type Report = Sender<(String, u64, Option<u64>)>;

/// One file at the top of a repository.
struct Entry {
    name: String,
    size: u64,
    /// Name in `blobs/`: SHA-256 of a large file, git's id of a small one.
    blob: String,
    /// Whether `blob` is the SHA-256.
    hashed: bool,
}

/// Fetch on a thread of its own, so that this one can report, be cancelled, and be part of any runtime.
pub(super) fn fetch(
    hub: &Hub,
    repo: &str,
    revision: &str,
    file: Option<&str>,
    progress: &mut dyn FnMut(&str, u64, Option<u64>),
    cancelled: &dyn Fn() -> bool,
) -> Result<PathBuf, Trouble> {
    let stop = AtomicBool::new(false);
    let (report, reports) = channel();
    std::thread::scope(|scope| {
        let stop = &stop;
        let worker = scope.spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build()
                .map_err(|e| {
                    Error::failed(format!("no download can be started: {e}"), "Try again.")
                })?;
            let outcome = runtime.block_on(async {
                tokio::select! {
                    outcome = snapshot(hub, repo, revision, file, &report) => outcome,
                    () = stopped(stop) => Err(Error::Interrupted.into()),
                }
            });
            runtime.shutdown_background();
            outcome
        });
        loop {
            if cancelled() {
                stop.store(true, Ordering::Relaxed);
            }
            match reports.recv_timeout(Duration::from_millis(50)) {
                Ok((name, done, all)) => progress(&name, done, all),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        worker.join().unwrap_or_else(|_| {
            Err(Error::failed("the download broke off", "Report this as a bug.").into())
        })
    })
}

async fn stopped(stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn snapshot(
    hub: &Hub,
    repo: &str,
    revision: &str,
    file: Option<&str>,
    report: &Report,
) -> Result<PathBuf, Trouble> {
    let mut builder = HFClient::builder()
        .cache_dir(&hub.cache)
        .retry_max_attempts(hub.retries)
        .user_agent(concat!("entroscope/", env!("CARGO_PKG_VERSION")));
    if let Some(endpoint) = &hub.endpoint {
        builder = builder.endpoint(endpoint);
    }
    if let Some(token) = &hub.token {
        builder = builder.token(token);
    }
    let (org, name) = hf_hub::split_id(repo);
    let wrong = |e: HFError| trouble(&e, repo, revision);
    let handle = builder.build().map_err(wrong)?.model(org, name);
    let info = handle
        .info()
        .revision(revision)
        .send()
        .await
        .map_err(wrong)?;
    let commit = info.sha.filter(|sha| is_commit(sha)).ok_or_else(|| {
        Error::failed(
            format!("the hub names no commit for {repo}@{revision}"),
            "Check HF_ENDPOINT.",
        )
    })?;
    let listed = list(&handle, &commit).await.map_err(wrong)?;
    let place = Place {
        folder: hub.repo_folder(repo),
        commit,
    };
    let get = async |entry: &Entry| {
        place
            .fetch(&handle, entry, report)
            .await
            .map_err(|problem| problem.in_words(repo, revision, &entry.name))
    };
    match file {
        Some(file) => {
            get(find(&listed, file).ok_or_else(|| no_such_file(repo, file, &listed))?).await?
        }
        None => {
            check_contents(repo, &listed)?;
            for name in SMALL {
                if let Some(entry) = find(&listed, name) {
                    if entry.size > MAX_SMALL {
                        return Err(Error::failed(
                            format!(
                                "{repo} has a {name} of {} MB, which cannot be right",
                                entry.size >> 20
                            ),
                            "Do not trust this model.",
                        )
                        .into());
                    }
                    get(entry).await?;
                }
            }
            match find(&listed, SINGLE) {
                Some(single) => get(single).await?,
                None => {
                    if let Some(entry) = find(&listed, INDEX) {
                        get(entry).await?;
                    }
                    for shard in shards(&place.snapshot().join(INDEX))? {
                        let entry = find(&listed, &shard).ok_or_else(|| {
                            Error::failed(
                                format!("{repo} lacks its shard {}", scrub(&shard)),
                                "The model is incomplete on the hub; use another one.",
                            )
                        })?;
                        get(entry).await?;
                    }
                }
            }
        }
    }
    if !is_commit(revision) {
        place.remember(revision)?;
    }
    Ok(place.snapshot())
}

/// The files at the top of the repository.
async fn list(handle: &HFRepository<RepoTypeModel>, commit: &str) -> Result<Vec<Entry>, HFError> {
    let stream = handle
        .list_tree()
        .revision(commit)
        .limit(MAX_LISTED)
        .send()?;
    futures::pin_mut!(stream);
    let mut listed = Vec::new();
    while let Some(entry) = stream.next().await {
        let RepoTreeEntry::File {
            oid,
            size,
            path,
            lfs,
            ..
        } = entry?
        else {
            continue;
        };
        let sha256 = lfs.and_then(|lfs| lfs.sha256);
        let hashed = sha256.is_some();
        let blob = sha256.unwrap_or(oid);
        let is_hex = blob.bytes().all(|b| b.is_ascii_hexdigit());
        if is_hex && blob.len() == if hashed { 64 } else { 40 } {
            listed.push(Entry {
                name: path,
                size,
                blob,
                hashed,
            });
        }
    }
    Ok(listed)
}

fn find<'a>(listed: &'a [Entry], name: &str) -> Option<&'a Entry> {
    listed.iter().find(|entry| entry.name == name)
}

/// Refuse what could not be opened anyway, before gigabytes are fetched.
fn check_contents(repo: &str, listed: &[Entry]) -> Result<()> {
    let has = |name: &str| find(listed, name).is_some();
    let refuse =
        |problem: &str, remedy: String| Err(Error::failed(format!("{repo} {problem}"), remedy));
    if !has("config.json") || !(has(SINGLE) || has(INDEX)) {
        if let Some(gguf) = listed.iter().find(|entry| entry.name.ends_with(".gguf")) {
            return refuse(
                "holds GGUF files",
                format!("Choose one of them, such as {repo}/{}.", scrub(&gguf.name)),
            );
        }
        return refuse(
            "has no config.json with safetensors: it is no model that can be read",
            "Use a repository in the transformers layout with model.safetensors.".into(),
        );
    }
    if !has("tokenizer.json") {
        return refuse(
            "has no tokenizer.json",
            "Use a copy of the model that has one.".into(),
        );
    }
    Ok(())
}

fn no_such_file(repo: &str, file: &str, listed: &[Entry]) -> Error {
    let there: Vec<&str> = listed
        .iter()
        .map(|entry| entry.name.as_str())
        .filter(|name| name.ends_with(".gguf"))
        .take(12)
        .collect();
    let remedy = if there.is_empty() {
        "It holds no GGUF files at its top.".to_owned()
    } else {
        format!("It has {}.", scrub(&there.join(", ")))
    };
    Error::failed(format!("{repo} has no file {}", scrub(file)), remedy)
}

/// Why one file did not come.
enum Problem {
    Hub(HFError),
    Disk(Error),
    Damaged(String),
    Stalled,
}

impl Problem {
    fn in_words(self, repo: &str, revision: &str, name: &str) -> Trouble {
        match self {
            Self::Hub(e) => trouble(&e, repo, revision),
            Self::Disk(e) => e.into(),
            Self::Damaged(what) => Error::failed(
                format!("{} of {repo} came damaged: {what}", scrub(name)),
                "Try again; if it happens again, the hub or a proxy is at fault.",
            )
            .into(),
            Self::Stalled => Error::failed(
                format!("the download of {} of {repo} stands still", scrub(name)),
                "Check the network and try again.",
            )
            .into(),
        }
    }

    /// Whether going on from where it broke off may help.
    fn is_passing(&self) -> bool {
        matches!(self, Self::Stalled | Self::Hub(HFError::Request { .. }))
    }
}

/// Where a commit goes in the cache.
struct Place {
    folder: PathBuf,
    commit: String,
}

impl Place {
    fn snapshot(&self) -> PathBuf {
        self.folder.join("snapshots").join(&self.commit)
    }

    /// Fetch one file, unless it is there.
    async fn fetch(
        &self,
        handle: &HFRepository<RepoTypeModel>,
        entry: &Entry,
        report: &Report,
    ) -> Result<(), Problem> {
        let link = self.snapshot().join(&entry.name);
        let blobs = self.folder.join("blobs");
        let blob = blobs.join(&entry.blob);
        let is_there = |path: &Path| path.metadata().is_ok_and(|m| m.len() == entry.size);
        if !is_there(&link) {
            if !is_there(&blob) {
                let made = |path: &Path| {
                    std::fs::create_dir_all(path).map_err(|e| Problem::Disk(Error::write(path, &e)))
                };
                made(&blobs)?;
                self.download(handle, entry, &blobs, &blob, report).await?;
            }
            link_to(&blob, &link).map_err(|e| Problem::Disk(Error::write(&link, &e)))?;
        }
        let _ = report.send((entry.name.clone(), entry.size, Some(entry.size)));
        Ok(())
    }

    /// Stream into a nameless file, going on where a connection broke, and give it its name once it is right.
    async fn download(
        &self,
        handle: &HFRepository<RepoTypeModel>,
        entry: &Entry,
        blobs: &Path,
        blob: &Path,
        report: &Report,
    ) -> Result<(), Problem> {
        let disk = |e: std::io::Error| Problem::Disk(Error::write(blob, &e));
        let mut builder = tempfile::Builder::new();
        builder.prefix(".unfinished-");
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
        let mut unfinished = Unfinished {
            file: builder.tempfile_in(blobs).map_err(disk)?,
            hasher: Sha256::new(),
            done: 0,
        };
        let mut tries = 0;
        loop {
            let before = unfinished.done;
            match unfinished.go_on(handle, entry, &self.commit, report).await {
                Ok(()) if unfinished.done == entry.size => break,
                Err(problem) if !problem.is_passing() => return Err(problem),
                Err(problem) if tries >= 3 => return Err(problem),
                Ok(()) if tries >= 3 => {
                    return Err(Problem::Damaged(format!(
                        "{} of {} bytes",
                        unfinished.done, entry.size
                    )));
                }
                Ok(()) | Err(_) => {}
            }
            // A connection that brought something earns new tries.
            tries = if unfinished.done > before {
                1
            } else {
                tries + 1
            };
        }
        let found: String = unfinished
            .hasher
            .finalize()
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect();
        if entry.hashed && !found.eq_ignore_ascii_case(&entry.blob) {
            return Err(Problem::Damaged("its SHA-256 is wrong".into()));
        }
        unfinished.file.as_file().sync_all().map_err(disk)?;
        unfinished.file.persist(blob).map_err(|e| disk(e.error))?;
        Ok(())
    }

    /// Write down what commit a branch or tag stands for now.
    fn remember(&self, revision: &str) -> Result<()> {
        let path = self.folder.join("refs").join(revision);
        let parent = path.parent().unwrap_or(&self.folder);
        std::fs::create_dir_all(parent)
            .and_then(|()| std::fs::write(&path, &self.commit))
            .map_err(|e| Error::write(&path, &e))
    }
}

/// A file on its way.
struct Unfinished {
    file: tempfile::NamedTempFile,
    hasher: Sha256,
    done: u64,
}

impl Unfinished {
    /// One connection's worth.
    async fn go_on(
        &mut self,
        handle: &HFRepository<RepoTypeModel>,
        entry: &Entry,
        commit: &str,
        report: &Report,
    ) -> Result<(), Problem> {
        if self.done == entry.size {
            return Ok(());
        }
        let rest = (self.done > 0).then_some(self.done..entry.size);
        let (announced, mut stream) = handle
            .download_file_stream()
            .filename(&entry.name)
            .revision(commit)
            .maybe_range(rest)
            .send()
            .await
            .map_err(Problem::Hub)?;
        if self.done > 0 && announced == Some(entry.size) {
            return Err(Problem::Damaged(
                "the server cannot continue a download".into(),
            ));
        }
        let disk = |e: std::io::Error| Problem::Disk(Error::write("the cache of models", &e));
        loop {
            let chunk = match tokio::time::timeout(STALL, stream.next()).await {
                Err(_) => return Err(Problem::Stalled),
                Ok(None) => return Ok(()),
                Ok(Some(chunk)) => chunk.map_err(Problem::Hub)?,
            };
            self.done += chunk.len() as u64;
            if self.done > entry.size {
                return Err(Problem::Damaged(format!(
                    "more than its {} bytes",
                    entry.size
                )));
            }
            self.hasher.update(&chunk);
            self.file.write_all(&chunk).map_err(disk)?;
            let _ = report.send((entry.name.clone(), self.done, Some(entry.size)));
        }
    }
}

/// Make `link` lead to `blob`, or be a copy of it where there are no symbolic links.
fn link_to(blob: &Path, link: &Path) -> std::io::Result<()> {
    if let Some(folder) = link.parent() {
        std::fs::create_dir_all(folder)?;
    }
    match std::fs::remove_file(link) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    #[cfg(unix)]
    {
        let target = Path::new("../../blobs").join(blob.file_name().unwrap_or_default());
        match std::os::unix::fs::symlink(target, link) {
            // Another process did the same at the same moment.
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
            other => other,
        }
    }
    #[cfg(not(unix))]
    {
        std::fs::copy(blob, link).map(|_| ())
    }
}

/// A hub error in a user's words.
fn trouble(error: &HFError, repo: &str, revision: &str) -> Trouble {
    let said = scrub(&error.to_string());
    let (problem, remedy) = match error {
        HFError::RevisionNotFound {
            context: Some(context),
            ..
        } if context.error_code.as_deref() == Some("RevisionNotFound") => (
            format!("{repo} has no revision {}", scrub(revision)),
            "Leave out what follows the @, or give a branch, tag or commit of it.".to_owned(),
        ),
        HFError::AuthRequired { .. }
        | HFError::RepoNotFound { .. }
        | HFError::RevisionNotFound { .. } => (
            format!("there is no model {repo} on the hub, or it is private"),
            "Check the id, or set HF_TOKEN to a token that may read it.".to_owned(),
        ),
        HFError::Forbidden { .. } => (
            format!("the hub gives no access to {repo}"),
            "Accept the model's terms on its page, and set HF_TOKEN to a token of that account."
                .to_owned(),
        ),
        HFError::RateLimited { retry_after, .. } => (
            "the hub has had too many requests from here".to_owned(),
            match retry_after {
                Some(wait) => format!("Try again in {} seconds.", wait.as_secs()),
                None => "Try again later.".to_owned(),
            },
        ),
        HFError::Request { .. } => {
            return Trouble::Unreachable(Error::failed(
                format!("the hub cannot be reached: {said}"),
                "Check the network and HF_ENDPOINT, or give a folder with the model.",
            ));
        }
        HFError::Http { context } if context.status.is_server_error() => {
            return Trouble::Unreachable(Error::failed(
                format!("the hub has a problem of its own: {said}"),
                "Try again later, or give a folder with the model.",
            ));
        }
        _ => (
            format!("{repo} cannot be fetched: {said}"),
            "Check the id and HF_ENDPOINT, or give a folder with the model.".to_owned(),
        ),
    };
    Trouble::Other(Error::failed(problem, remedy))
}

#[cfg(test)]
mod tests;
