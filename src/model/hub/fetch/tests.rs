//! Fetching from a hub on this machine that answers as the real one does, and misbehaves on demand.

use super::super::{Hub, SINGLE};
use super::*;
use std::collections::{BTreeMap, HashMap};
use std::io::{BufRead, BufReader};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// How the server treats a file.
#[derive(Clone, Copy, PartialEq)]
enum Manner {
    /// Breaks the connection halfway through whatever is asked for, once.
    BreaksOnce,
    /// Sends fewer bytes than listed, properly announced.
    Short,
    /// Sends more bytes than listed.
    Long,
    /// Sends other bytes than listed.
    Other,
    /// Sends the first bytes and then nothing.
    Hangs,
    /// Answers with this status.
    Status(u16),
}

#[derive(Default)]
struct State {
    files: BTreeMap<String, Vec<u8>>,
    manners: HashMap<String, Manner>,
    /// Answer to everything.
    status: Option<(u16, &'static str)>,
    sha: Option<String>,
    requests: Vec<String>,
    tokens: Vec<String>,
}

struct Server {
    state: Arc<Mutex<State>>,
    hub: Hub,
    _cache: tempfile::TempDir,
}

impl Server {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let state = Arc::new(Mutex::new(State::default()));
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = Arc::clone(&shared);
                std::thread::spawn(move || answer(stream, &state));
            }
        });
        let cache = tempfile::tempdir().unwrap();
        let hub = Hub {
            endpoint: Some(endpoint),
            token: Some("hf_test".into()),
            cache: cache.path().to_path_buf(),
            offline: false,
            retries: 0,
        };
        let server = Self {
            state,
            hub,
            _cache: cache,
        };
        for (name, content) in [
            ("config.json", "{}"),
            ("tokenizer.json", "{\"t\":1}"),
            (SINGLE, "weights, many of them"),
            ("README.md", "never fetched"),
        ] {
            server.put(name, content);
        }
        server
    }

    fn put(&self, name: &str, content: &str) {
        let mut state = self.state.lock().unwrap();
        state.files.insert(name.into(), content.into());
    }

    fn remove(&self, name: &str) {
        self.state.lock().unwrap().files.remove(name);
    }

    fn behave(&self, name: &str, manner: Manner) {
        let mut state = self.state.lock().unwrap();
        state.manners.insert(name.into(), manner);
    }

    fn fetch_file(&self, file: Option<&str>) -> Result<PathBuf> {
        self.hub
            .fetch("org/name", None, file, &mut |_, _, _| {}, &|| false)
    }

    fn fetch(&self) -> Result<PathBuf> {
        self.fetch_file(None)
    }

    fn error(&self) -> String {
        self.fetch().unwrap_err().to_string()
    }

    fn requests(&self) -> Vec<String> {
        std::mem::take(&mut self.state.lock().unwrap().requests)
    }
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect()
}

fn answer(mut stream: TcpStream, state: &Mutex<State>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) == 0 || line == "\r\n" {
            break;
        }
        lines.push(line.trim().to_owned());
    }
    let Some(first) = lines.first().cloned() else {
        return;
    };
    let header = |name: &str| {
        let lines = lines.iter().skip(1).filter_map(|l| l.split_once(": "));
        lines
            .into_iter()
            .find(|(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, v)| v.to_owned())
    };
    let mut parts = first.split(' ');
    let (method, path) = (
        parts.next().unwrap_or(""),
        parts.next().unwrap_or("").to_owned(),
    );
    let mut state = state.lock().unwrap();
    state.requests.push(format!("{method} {path}"));
    state.tokens.extend(header("authorization"));
    let respond = |stream: &mut TcpStream, status: u16, headers: &str, body: &[u8]| {
        let head = format!(
            "HTTP/1.1 {status} X\r\nconnection: close\r\ncontent-length: {}\r\n{headers}\r\n",
            body.len()
        );
        let _ = stream.write_all(head.as_bytes());
        if method != "HEAD" {
            let _ = stream.write_all(body);
        }
    };
    if let Some((status, code)) = state.status {
        return respond(
            &mut stream,
            status,
            &format!("x-error-code: {code}\r\n"),
            b"{\"error\":\"no\"}",
        );
    }
    if path.starts_with("/api/models/org/name/revision/main") {
        let sha = state.sha.clone().unwrap_or_else(|| COMMIT.into());
        let body = format!("{{\"id\":\"org/name\",\"sha\":\"{sha}\"}}");
        return respond(&mut stream, 200, "", body.as_bytes());
    }
    if path.starts_with(&format!("/api/models/org/name/tree/{COMMIT}")) {
        let mut listed: Vec<serde_json::Value> = state
            .files
            .iter()
            .map(|(name, content)| {
                let oid = &sha256(content)[..40];
                let lfs = name.ends_with(".safetensors").then(|| serde_json::json!({"sha256": sha256(content)}));
                serde_json::json!({"type": "file", "oid": oid, "size": content.len(), "path": name, "lfs": lfs})
            })
            .collect();
        listed.push(serde_json::json!({"type": "directory", "oid": "x", "path": "onnx"}));
        listed.push(serde_json::json!({"type": "file", "oid": "../../../evil", "size": 1, "path": "special_tokens_map.json"}));
        let body = serde_json::Value::from(listed).to_string();
        return respond(&mut stream, 200, "", body.as_bytes());
    }
    let prefix = format!("/org/name/resolve/{COMMIT}/");
    let Some(name) = path.strip_prefix(&prefix).map(str::to_owned) else {
        return respond(&mut stream, 404, "", b"");
    };
    let Some(content) = state.files.get(&name).cloned() else {
        return respond(&mut stream, 404, "x-error-code: EntryNotFound\r\n", b"");
    };
    let start: usize = header("range")
        .and_then(|r| r.strip_prefix("bytes=")?.split_once('-')?.0.parse().ok())
        .unwrap_or(0);
    let rest = &content[start..];
    let headers = format!(
        "etag: \"{}\"\r\nx-repo-commit: {COMMIT}\r\n",
        sha256(&content)
    );
    let status = if start > 0 { 206 } else { 200 };
    let manner = if method == "GET" {
        state.manners.get(&name).copied()
    } else {
        None
    };
    match manner {
        None => respond(&mut stream, status, &headers, rest),
        Some(Manner::BreaksOnce) => {
            state.manners.remove(&name);
            let head = format!(
                "HTTP/1.1 {status} X\r\ncontent-length: {}\r\n{headers}\r\n",
                rest.len()
            );
            let _ = stream.write_all(head.as_bytes());
            let _ = stream.write_all(&rest[..rest.len() / 2]);
        }
        Some(Manner::Short) => respond(&mut stream, status, &headers, &rest[..rest.len() / 2]),
        Some(Manner::Long) => respond(&mut stream, status, &headers, &[rest, b"more"].concat()),
        Some(Manner::Other) => respond(&mut stream, status, &headers, &vec![b'x'; rest.len()]),
        Some(Manner::Status(code)) => respond(&mut stream, code, &headers, b"<html>no</html>"),
        Some(Manner::Hangs) => {
            drop(state);
            let head = format!(
                "HTTP/1.1 {status} X\r\ncontent-length: {}\r\n{headers}\r\n",
                rest.len()
            );
            let _ = stream.write_all(head.as_bytes());
            let _ = stream.write_all(&rest[..1]);
            // Until the client hangs up.
            let _ = reader.read_line(&mut String::new());
        }
    }
}

#[test]
fn a_model_is_fetched_once_and_found_again_without_network() {
    let server = Server::start();
    let mut heard = Vec::new();
    let folder = server
        .hub
        .fetch(
            "org/name",
            None,
            None,
            &mut |name, done, all| heard.push((name.to_owned(), done, all)),
            &|| false,
        )
        .unwrap();
    assert!(folder.ends_with(format!("models--org--name/snapshots/{COMMIT}")));
    assert_eq!(
        std::fs::read_to_string(folder.join(SINGLE)).unwrap(),
        "weights, many of them"
    );
    assert!(!folder.join("README.md").exists());
    assert!(heard.contains(&(SINGLE.to_owned(), 21, Some(21))));
    // The large file has the name that Python's client gives it, and the link is relative.
    let blobs = server.hub.cache.join("models--org--name/blobs");
    assert!(blobs.join(sha256(b"weights, many of them")).is_file());
    #[cfg(unix)]
    assert!(
        std::fs::read_link(folder.join(SINGLE))
            .unwrap()
            .starts_with("../../blobs")
    );
    assert_eq!(std::fs::read_dir(&blobs).unwrap().count(), 3);
    assert!(
        server
            .state
            .lock()
            .unwrap()
            .tokens
            .contains(&"Bearer hf_test".to_owned())
    );

    server.requests();
    assert_eq!(server.fetch().unwrap(), folder);
    assert!(
        !server.requests().iter().any(|r| r.contains("/resolve/")),
        "fetched again"
    );

    let offline = Hub {
        offline: true,
        endpoint: Some("http://127.0.0.1:1".into()),
        ..server.hub.clone()
    };
    let again = offline.fetch("org/name", None, None, &mut |_, _, _| {}, &|| false);
    assert_eq!(again.unwrap(), folder);
    // Not offline by setting, but without anyone to answer.
    let alone = Hub {
        offline: false,
        ..offline
    };
    let again = alone.fetch("org/name", None, None, &mut |_, _, _| {}, &|| false);
    assert_eq!(again.unwrap(), folder);
    let error = alone.fetch("org/other", None, None, &mut |_, _, _| {}, &|| false);
    let error = error.unwrap_err().to_string();
    assert!(error.contains("cannot be reached"), "{error}");
}

#[test]
fn shards_are_those_of_the_index() {
    let server = Server::start();
    server.remove(SINGLE);
    server.put(
        INDEX,
        r#"{"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}"#,
    );
    server.put("model-1.safetensors", "one");
    server.put("unused.safetensors", "unused");
    assert!(
        server
            .error()
            .contains("lacks its shard model-2.safetensors")
    );
    server.put("model-2.safetensors", "two");
    let folder = server.fetch().unwrap();
    assert!(folder.join("model-2.safetensors").is_file());
    assert!(!folder.join("unused.safetensors").exists());
}

#[test]
fn an_index_cannot_lead_out_of_the_folder() {
    let server = Server::start();
    server.remove(SINGLE);
    server.put(INDEX, r#"{"weight_map": {"a": "../../../x.safetensors"}}"#);
    assert!(server.error().contains("not a plain file name"));
}

#[test]
fn a_single_gguf_can_be_named() {
    let server = Server::start();
    server.put("x.gguf", "GGUF");
    let folder = server.fetch_file(Some("x.gguf")).unwrap();
    assert!(folder.join("x.gguf").is_file());
    assert!(!folder.join(SINGLE).exists());
    let error = server.fetch_file(Some("y.gguf")).unwrap_err().to_string();
    assert!(error.contains("It has x.gguf"), "{error}");
    assert!(server.fetch_file(Some("../y.gguf")).is_err());
    server.remove(SINGLE);
    assert!(server.error().contains("org/name/x.gguf"));
}

#[test]
fn a_broken_connection_is_continued_where_it_broke() {
    let server = Server::start();
    server.behave(SINGLE, Manner::BreaksOnce);
    let folder = server.fetch().unwrap();
    assert_eq!(
        std::fs::read_to_string(folder.join(SINGLE)).unwrap(),
        "weights, many of them"
    );
}

#[test]
fn what_is_not_as_announced_gets_no_name() {
    for (manner, word) in [
        (Manner::Short, "damaged"),
        (Manner::Long, "more than its 21 bytes"),
        (Manner::Other, "SHA-256"),
        (Manner::Status(403), "no access"),
        (Manner::Status(404), "cannot be fetched"),
    ] {
        let server = Server::start();
        server.behave(SINGLE, manner);
        let error = server.error();
        assert!(error.contains(word), "{error}");
        let repo = server.hub.cache.join("models--org--name");
        assert!(!repo.join("snapshots").join(COMMIT).join(SINGLE).exists());
        assert!(!repo.join("refs/main").exists());
        let left = std::fs::read_dir(repo.join("blobs")).unwrap().count();
        assert_eq!(left, 2, "only configuration and tokenizer are kept");
    }
}

#[test]
fn refusals_are_told_in_words() {
    let server = Server::start();
    for (status, code, word) in [
        (401, "", "set HF_TOKEN"),
        (404, "RepoNotFound", "no model org/name on the hub"),
        (404, "RevisionNotFound", "has no revision main"),
        (403, "GatedRepo", "Accept the model's terms"),
        (429, "", "too many requests"),
        (503, "", "problem of its own"),
    ] {
        server.state.lock().unwrap().status = Some((status, code));
        let error = server.error();
        assert!(error.contains(word), "{error}");
    }
}

#[test]
fn a_server_cannot_name_a_path() {
    let server = Server::start();
    server.state.lock().unwrap().sha = Some("../../../../tmp/evil".into());
    assert!(server.error().contains("names no commit"));
}

#[test]
fn what_cannot_be_opened_is_not_fetched() {
    let server = Server::start();
    server.remove("tokenizer.json");
    assert!(server.error().contains("no tokenizer.json"));
    server.remove(SINGLE);
    assert!(server.error().contains("no config.json with safetensors"));
    assert!(!server.requests().iter().any(|r| r.contains("/resolve/")));
}

#[test]
fn a_download_can_be_cancelled() {
    let server = Server::start();
    server.behave(SINGLE, Manner::Hangs);
    let begun = std::cell::Cell::new(false);
    let outcome = server.hub.fetch(
        "org/name",
        None,
        None,
        &mut |name, _, _| begun.set(begun.get() || name == SINGLE),
        &|| begun.get(),
    );
    assert!(matches!(outcome, Err(Error::Interrupted)));
    let left = std::fs::read_dir(server.hub.cache.join("models--org--name/blobs")).unwrap();
    assert_eq!(left.count(), 2);
}
