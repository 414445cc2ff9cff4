//! Builds components in other languages than Rust, with the tools of each language.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::run::{Outcome, command, componentize, ktables, root, run, target};
use crate::setup::{ensure_guest_tools, ensure_npm_packages};

/// Builds a component from the source in a folder of `examples`.
type Build = fn(tools: &Path, example: &Path, component: &Path) -> Outcome;

/// The folders of `examples` that are not in Rust, each with what builds it.
pub(crate) const EXAMPLES: [(&str, Build); 4] = [
    ("service-record-c", build_c),
    ("service-record-go", build_go),
    ("service-record-python", build_python),
    ("service-record-typescript", build_typescript),
];

/// The codecs in `tests/guests/planted`, each with a fault that `codec check` must find. Built as `planted-NAME`.
pub(crate) const PLANTED: [&str; 7] = [
    "batch_differs",
    "leak",
    "non_canonical",
    "non_injective",
    "random_encoder",
    "stateful",
    "trap_on_empty",
];

/// Builds the examples and the codecs with faults into a folder.
pub(crate) fn build_other_languages(components: &Path) -> Outcome {
    let tools = ensure_guest_tools()?;
    EXAMPLES.iter().try_for_each(|(name, build)| {
        build(&tools, &root().join("examples").join(name), &components.join(format!("{name}.wasm")))
    })?;
    PLANTED.iter().try_for_each(|fault| {
        let source = root().join("tests/guests/planted").join(format!("{fault}.c"));
        build_c_source(&tools, &source, &components.join(format!("planted-{fault}.wasm")))
    })
}

fn sdk(language: &str) -> PathBuf {
    root().join("guest-sdk").join(language)
}

/// Returns the path of a core module that a component is built from.
fn core_module(component: &Path) -> PathBuf {
    // OK because a component's path has a file name.
    let name = component.file_stem().expect("a name").to_string_lossy();
    target().join("guests").join(format!("{name}.core.wasm"))
}

fn build_c(tools: &Path, example: &Path, component: &Path) -> Outcome {
    build_c_source(tools, &example.join("service_record.c"), component)
}

fn build_c_source(tools: &Path, source: &Path, component: &Path) -> Outcome {
    let core = core_module(component);
    let mut zig = command(tools.join("bin/python"));
    zig.args(["-m", "ziglang", "cc", "-target", "wasm32-wasi", "-mexec-model=reactor", "-O2", "-s"])
        .args(["-Wall", "-Wextra", "-Wconversion", "-Werror", "-Wl,-z,stack-size=262144"])
        .arg("-I")
        .arg(sdk("c"))
        .arg("-o")
        .arg(&core)
        .args([source, &sdk("c").join("ktables.c")])
        // Its libraries are compiled once.
        .env("ZIG_GLOBAL_CACHE_DIR", target().join("zig"))
        .env("ZIG_LOCAL_CACHE_DIR", target().join("zig"));
    run(&mut zig)?;
    componentize(&core, component)
}

fn build_go(tools: &Path, example: &Path, component: &Path) -> Outcome {
    let core = core_module(component);
    let mut go = command(tools.join("bin/go"));
    go.args(["build", "-buildmode=c-shared", "-trimpath", "-o"])
        .arg(&core)
        .arg(".")
        .current_dir(example)
        .envs([
            ("GOOS", "wasip1"),
            ("GOARCH", "wasm"),
            ("GOFLAGS", ""),
            ("GOTOOLCHAIN", "local"),
            ("GOPROXY", "off"),
        ])
        .env("GOCACHE", target().join("go"));
    run(&mut go)?;
    componentize(&core, component)
}

fn build_python(tools: &Path, example: &Path, component: &Path) -> Outcome {
    let mut python = command(tools.join("bin/python"));
    python.args(["-m", "ktables"]).arg(example.join("service_record.py"));
    // Nothing is written beside the sources.
    python.env("PYTHONPATH", sdk("python")).env("PYTHONDONTWRITEBYTECODE", "1");
    run(with_output(&mut python, component))
}

fn build_typescript(tools: &Path, example: &Path, component: &Path) -> Outcome {
    // The packages are looked for where the builder runs.
    let packages = ensure_npm_packages(tools, &example.join("package.json"))?;
    let tsc = packages.join("node_modules/.bin/tsc");
    run(node(tools, tsc).arg("--project").arg(example))?;
    let mut build = node(tools, sdk("typescript").join("build.mjs"));
    build.arg(example.join("service_record.ts")).current_dir(packages);
    run(with_output(&mut build, component))
}

/// Returns a command that runs a script of Node.js.
fn node(tools: &Path, script: PathBuf) -> Command {
    let mut node = command(tools.join("bin/node"));
    node.arg(script);
    node
}

/// Adds the options of the builders of ours: the component to write, and the command that prints the WIT package.
fn with_output<'a>(builder: &'a mut Command, component: &Path) -> &'a mut Command {
    builder.arg("--output").arg(component).arg("--ktables").arg(ktables()).stdout(std::io::stderr())
}
