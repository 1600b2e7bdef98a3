//! Gives the extension a digest of the sources it is built from, by which two builds know that they answer alike.

use std::path::{Path, PathBuf};
use std::{fs, io};

use xxhash_rust::xxh3::Xxh3;

fn sources(folder: &Path, found: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            sources(&path, found)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    Ok(())
}

fn main() -> io::Result<()> {
    let root = Path::new("../..");
    let mut found = vec![root.join("Cargo.lock")];
    for entry in fs::read_dir(root.join("rust"))? {
        let folder = entry?.path().join("src");
        if folder.is_dir() {
            println!("cargo::rerun-if-changed={}", folder.display());
            sources(&folder, &mut found)?;
        }
    }
    println!("cargo::rerun-if-changed=../../Cargo.lock");
    println!("cargo::rerun-if-changed=build.rs");
    found.sort();
    let mut digest = Xxh3::new();
    for path in found {
        digest.update(path.to_string_lossy().as_bytes());
        digest.update(&fs::read(&path)?);
    }
    println!("cargo::rustc-env=VMEMMAP_SOURCES={:012x}", digest.digest() & 0xffff_ffff_ffff);
    Ok(())
}
