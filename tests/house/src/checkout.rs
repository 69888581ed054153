//! The text files of a checkout.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

/// The Rust and Markdown files of a checkout, and its `Cargo.toml`.
pub struct Checkout {
    /// Path from the root, with slashes, and text.
    files: BTreeMap<String, String>,
}

impl Checkout {
    /// Reads a checkout, except its hidden folders and those named `target`.
    ///
    /// # Errors
    ///
    /// If a file or folder cannot be read.
    pub fn read(root: &Path) -> io::Result<Self> {
        let mut files = BTreeMap::new();
        read_folder(root, &mut PathBuf::new(), &mut files)?;
        Ok(Self { files })
    }

    pub(crate) fn get(&self, path: &str) -> Option<&str> {
        self.files.get(path).map(String::as_str)
    }

    /// Iterates over paths and texts of the files in any of these folders.
    pub(crate) fn rust<'a>(
        &'a self,
        folders: &'a [&'a str],
    ) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.all().filter(move |(path, _)| {
            path.ends_with(".rs")
                && folders
                    .iter()
                    .any(|folder| path.split('/').next() == Some(folder))
        })
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = (&str, &str)> {
        self.files
            .iter()
            .map(|(path, text)| (path.as_str(), text.as_str()))
    }
}

fn read_folder(
    root: &Path,
    folder: &mut PathBuf,
    files: &mut BTreeMap<String, String>,
) -> io::Result<()> {
    for entry in fs::read_dir(root.join(&folder))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        folder.push(&name);
        let kind = entry.file_type()?;
        if kind.is_dir() && !name.starts_with('.') && name != "target" && name != "node_modules" {
            read_folder(root, folder, files)?;
        } else if kind.is_file()
            && (name.ends_with(".rs") || name.ends_with(".md") || name == "Cargo.toml")
        {
            let path: Vec<_> = folder.iter().map(|part| part.to_string_lossy()).collect();
            files.insert(path.join("/"), fs::read_to_string(entry.path())?);
        }
        folder.pop();
    }
    Ok(())
}
