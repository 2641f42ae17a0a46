//! Sources of flows: a folder of `<name>.toml` files with a subfolder `templates`.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use usher_service::ConfigError;

/// The source text of a flow, with the templates of its folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowSource {
    /// The flow's name.
    pub name: String,
    /// The path of the file, as shown in messages.
    pub file: String,
    /// The text of the file.
    pub toml: String,
    /// All templates of the folder, used or not: text by file name.
    pub templates: BTreeMap<String, String>,
}

impl FlowSource {
    /// Returns a digest of the flow's name, its text and all templates, which together determine the behaviour of a run. The
    /// name belongs to them, because idempotency keys begin with the name under which a run began.
    pub fn version(&self) -> String {
        let mut hash = Sha256::new();
        for part in
            [&self.name, &self.toml].into_iter().chain(self.templates.iter().flat_map(|(name, text)| [name, text]))
        {
            hash.update(part.len().to_le_bytes());
            hash.update(part);
        }
        hex::encode(&hash.finalize()[..6])
    }
}

/// Reads the flows of a folder.
///
/// # Errors
///
/// The path is not a folder, the folder or a file in it cannot be read, or it contains no flow file, which cannot be
/// what the user intended.
pub fn read_folder(folder: &Path) -> Result<Vec<FlowSource>, ConfigError> {
    if folder.is_file() {
        // The file of a flow is in the folder that was meant.
        let parent = folder.parent().filter(|_| folder.extension().is_some_and(|extension| extension == "toml"));
        let parent = parent.map(|parent| if parent.as_os_str().is_empty() { Path::new(".") } else { parent });
        let hint = parent.map_or_else(String::new, |parent| format!(", such as {}", parent.display()));
        return Err(ConfigError::new(&folder.display().to_string(), format!("a folder of flow files is wanted{hint}")));
    }
    if matches!(folder.try_exists(), Ok(false)) {
        return Err(ConfigError::new(&folder.display().to_string(), "there is no such folder"));
    }
    let bad = |path: &Path, error: &dyn std::fmt::Display| ConfigError::new(&path.display().to_string(), error);
    let read = |path: &Path| std::fs::read_to_string(path).map_err(|error| bad(path, &error));
    let files = |folder: &Path| -> Result<Vec<std::path::PathBuf>, ConfigError> {
        let entries = std::fs::read_dir(folder).map_err(|error| bad(folder, &error))?;
        let mut paths = entries
            .map(|entry| entry.map(|entry| entry.path()).map_err(|error| bad(folder, &error)))
            .collect::<Result<Vec<_>, _>>()?;
        paths.retain(|path| path.is_file());
        paths.sort();
        Ok(paths)
    };
    let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();

    let mut templates = BTreeMap::new();
    let template_folder = folder.join("templates");
    if template_folder.is_dir() {
        for path in files(&template_folder)? {
            templates.insert(name(&path), read(&path)?);
        }
    }
    let mut flows = Vec::new();
    for path in files(folder)?.into_iter().filter(|path| path.extension().is_some_and(|e| e == "toml")) {
        flows.push(FlowSource {
            name: path.file_stem().unwrap_or_default().to_string_lossy().into_owned(),
            file: path.display().to_string(),
            toml: read(&path)?,
            templates: templates.clone(),
        });
    }
    if flows.is_empty() {
        let others = files(folder)?.into_iter().filter(|path| is_yaml(path)).map(|path| name(&path)).next();
        let hint = others.map(|file| format!(": {file} is not read")).unwrap_or_default();
        return Err(bad(folder, &format!("holds no flow files (<name>.toml){hint}")));
    }
    Ok(flows)
}

/// True if the extension is that of YAML or JSON: probably a flow in the wrong format.
fn is_yaml(path: &Path) -> bool {
    path.extension().is_some_and(|extension| ["yaml", "yml", "json"].iter().any(|other| extension == *other))
}
