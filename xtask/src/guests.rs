//! Builds components, and the `ktables` command with its bundled codecs. For a component in Rust, cargo builds a core module,
//! and `ktables codec build` makes a component of it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::languages::{EXAMPLES, PLANTED, build_other_languages};
use crate::run::{Outcome, cargo, componentize, output, root, run, say, target};
use crate::setup::{Toolchain, WASM_TARGET, check_prerequisites, ensure_wasm_toolchain};

/// The bundled codecs. Each is a package of the workspace.
const BUNDLED: [&str; 3] = ["avro", "json-schema", "protobuf"];

/// The project's other components in Rust.
const GUESTS: [&str; 8] =
    ["deb822", "deb822-by-section", "service-record", "hostile", "mirror", "simple", "probe", "schema-user"];

/// Builds all components of the project into `target/components`.
pub(crate) fn build_guests() -> Outcome {
    build_rust_guests()?;
    build_other_languages(&components())?;
    say(&format!(
        "{} components in {}",
        BUNDLED.len() + GUESTS.len() + EXAMPLES.len() + PLANTED.len(),
        components().display()
    ));
    Ok(())
}

/// Returns the folder of the project's components.
fn components() -> PathBuf {
    target().join("components")
}

/// Builds the components in Rust, which need no other tools, into the same folder, and the `ktables` command with its bundled
/// codecs.
pub(crate) fn build_rust_guests() -> Outcome {
    build_ktables()?;
    let toolchain = ensure_wasm_toolchain()?;
    let build = target().join("guests");
    let mut cargo = guest_cargo(toolchain, &build);
    let names = || BUNDLED.into_iter().chain(GUESTS);
    run(names().fold(&mut cargo, |cargo, name| cargo.args(["-p", name])))?;
    let components = components();
    fs::create_dir_all(&components)
        .map_err(|error| format!("cannot create {}: {error}", components.display()))?;
    for name in names() {
        let component = components.join(format!("{name}.wasm"));
        componentize(&core_module(&build, name), &component)?;
    }
    embed_bundled()
}

/// Copies the bundled codecs to where the command embeds them from, and builds the command again if one has changed.
fn embed_bundled() -> Outcome {
    let mut has_changed = false;
    for name in BUNDLED {
        let file = format!("{name}.wasm");
        let (from, to) = (components().join(&file), root().join("command/codecs").join(&file));
        let error = |error| format!("cannot copy {} to {}: {error}", from.display(), to.display());
        let component = fs::read(&from).map_err(error)?;
        if fs::read(&to).is_ok_and(|before| before == component) {
            continue;
        }
        fs::write(&to, component).map_err(error)?;
        has_changed = true;
    }
    if has_changed { build_ktables() } else { Ok(()) }
}

/// Builds the codec crate in a folder, and writes the component beside its manifest.
pub(crate) fn build_component(folder: &Path) -> Outcome {
    build_ktables()?;
    let manifest = folder.join("Cargo.toml");
    let manifest = manifest.canonicalize().map_err(|error| {
        format!("cannot find {}: {error}; name the folder of a crate", manifest.display())
    })?;
    let manifest_arg = manifest.display().to_string();
    let folder = manifest.parent().unwrap_or(Path::new("."));
    // The build folder of the project's components, where the SDK is already built.
    let build = target().join("guests");
    let toolchain = ensure_wasm_toolchain()?;
    // Another build at the same time can be of a crate with the same name, whose module has the same path.
    let _alone = lock_folder(&build)?;
    // An older module must not be used if this build produces none. OK to ignore: usually there is none.
    let _ = fs::remove_file(core_module(&build, &crate_name(&manifest_arg)?));
    run(guest_cargo(toolchain, &build).args(["--manifest-path", &manifest_arg]).current_dir(folder))?;
    let name = crate_name(&manifest_arg)?;
    let core = core_module(&build, &name);
    if !core.exists() {
        return Err(format!(
            "{} was not built: add to {manifest_arg}\n\n[lib]\ncrate-type = [\"cdylib\"]\n",
            core.display()
        ));
    }
    let component = folder.join(format!("{name}.wasm"));
    componentize(&core, &component)?;
    say(&format!("built {}", component.display()));
    Ok(())
}

/// Waits until no other process builds a component in this folder. The lock ends with the returned file.
fn lock_folder(folder: &Path) -> Outcome<File> {
    let path = folder.join("component.lock");
    let lock = fs::create_dir_all(folder).and_then(|()| File::create(&path));
    let lock = lock.and_then(|lock| lock.lock().map(|()| lock));
    lock.map_err(|error| format!("cannot lock {}: {error}", path.display()))
}

/// Returns the name of the package that a manifest describes.
fn crate_name(manifest: &str) -> Outcome<String> {
    // `cargo pkgid` needs a lock file.
    run(&mut cargo(["generate-lockfile", "--quiet", "--offline", "--manifest-path", manifest]))
        .or_else(|_| run(&mut cargo(["generate-lockfile", "--quiet", "--manifest-path", manifest])))?;
    Ok(package_name(&output(&mut cargo(["pkgid", "--manifest-path", manifest]))?))
}

/// Returns the name in `path+file:///folder/name#0.1.0` or `path+file:///folder#name@0.1.0`.
fn package_name(id: &str) -> String {
    let (path, fragment) = id.trim().rsplit_once('#').unwrap_or((id.trim(), ""));
    let name =
        fragment.split_once('@').map_or_else(|| path.rsplit('/').next().unwrap_or(path), |(name, _)| name);
    name.to_owned()
}

/// Builds the `ktables` command and the rest of the workspace. Built alone, the command's dependencies would
/// have other features and be compiled twice.
pub(crate) fn build_ktables() -> Outcome {
    check_prerequisites()?;
    run(&mut ktables_build())
}

/// The command that [`build_ktables`] runs.
pub(crate) fn ktables_build() -> Command {
    cargo(["build", "--release", "--workspace"])
}

fn guest_cargo(toolchain: Toolchain, build: &Path) -> Command {
    let mut cargo = toolchain.cargo();
    cargo.args(["--release", "--target", WASM_TARGET, "--target-dir"]).arg(build);
    // Line tables would be most of a component's size.
    cargo.env("CARGO_PROFILE_RELEASE_DEBUG", "false");
    cargo
}

fn core_module(build: &Path, package: &str) -> PathBuf {
    build.join(WASM_TARGET).join("release").join(format!("{}.wasm", package.replace('-', "_")))
}
