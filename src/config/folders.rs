//! Where this program keeps its own files.

use directories::ProjectDirs;
use std::path::PathBuf;

/// Variables that move the folders; they win over the platform's convention.
pub const VARIABLES: [&str; 3] = [
    "ENTROSCOPE_CONFIG_DIR",
    "ENTROSCOPE_STATE_DIR",
    "ENTROSCOPE_CACHE_DIR",
];

/// The program's folders; `None` where the system names no home. Nothing is created by asking.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Folders {
    /// `config.toml` and themes.
    pub config: Option<PathBuf>,
    /// The log, prompt history and saved sessions.
    pub state: Option<PathBuf>,
    /// What can be computed again.
    pub cache: Option<PathBuf>,
}

impl Folders {
    /// By the platform's convention, or where the variables say.
    #[must_use]
    pub fn find() -> Self {
        let [config, state, cache] = VARIABLES.map(|name| {
            std::env::var_os(name)
                .filter(|value| !value.is_empty())
                .map(PathBuf::from)
        });
        let project = ProjectDirs::from("", "", env!("CARGO_PKG_NAME"));
        let project = project.as_ref();
        Self {
            config: config.or_else(|| Some(project?.config_dir().to_path_buf())),
            state: state.or_else(|| {
                let project = project?;
                // Only Linux has a folder for state; elsewhere it is local data.
                let dir = project
                    .state_dir()
                    .unwrap_or_else(|| project.data_local_dir());
                Some(dir.to_path_buf())
            }),
            cache: cache.or_else(|| Some(project?.cache_dir().to_path_buf())),
        }
    }
}
