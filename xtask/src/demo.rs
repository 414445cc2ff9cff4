//! The demo: shows in a minute what ktables does. Each `ktables` command is printed before it runs.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use ktables_broker::{Broker, BrokerOptions, DetachedServer, ServerKind, check_requirements};

use crate::guests::build_rust_guests;
use crate::run::{Outcome, command, ktables, output, run, say, target};

/// Debian's own list of installed packages. Other systems do not have it.
const DPKG_STATUS: &str = "/var/lib/dpkg/status";

/// The package whose record the demo shows. Almost every Debian system has it.
const PACKAGE: &str = "Package: adduser";

/// The name of the demo's broker.
const BROKER: &str = "demo";

/// How long the demo waits for something that takes milliseconds.
const TIMEOUT: Duration = Duration::from_secs(20);

/// How many characters of a line of output are shown.
const WIDTH: usize = 110;

/// Runs the demo on a directory log.
pub(crate) fn run_on_directory() -> Outcome {
    build_rust_guests()?;
    let folder = create_folder()?;
    run_steps(&folder, &format!("dir:{}", folder.join("data").display()), "a directory log")
}

/// Runs the demo on a Kafka broker, which ends with the shell that called this program, or with the next
/// demo on Kafka.
pub(crate) fn run_on_kafka() -> Outcome {
    build_rust_guests()?;
    check_requirements()?;
    DetachedServer::stop(&target(), ServerKind::Broker, BROKER)?;
    say("starting a Kafka broker");
    let options = BrokerOptions { name: Some(BROKER.to_owned()), ..BrokerOptions::default() };
    let broker = Broker::start(&target(), &options)?;
    run_steps(&create_folder()?, &format!("kafka://{}", broker.bootstrap()), "a Kafka topic")?;
    broker.detach(std::os::unix::process::parent_id())
}

/// Creates an empty folder for the demo. Removes the folder of an earlier demo.
fn create_folder() -> Outcome<PathBuf> {
    let folder = target().join("demo");
    // OK to ignore: there is no folder before the first demo.
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).map_err(|error| format!("cannot create {}: {error}", folder.display()))?;
    Ok(folder)
}

fn run_steps(folder: &Path, log: &str, log_name: &str) -> Outcome {
    let config = write_configuration(folder, log)?;
    let demo = Demo { config };

    say_title(&format!("1. Real records in a format of their own: Debian's control stanzas, in {log_name}"));
    let sample = "examples/deb822/sample/status";
    let installed = fs::read_to_string(DPKG_STATUS).unwrap_or_default();
    let source = if installed.lines().any(|line| line == PACKAGE) { DPKG_STATUS } else { sample };
    let mut embed = command(target().join("release/embed"));
    run(embed.arg(log).arg(component_path("deb822")).arg(source))?;

    say_title("2. The topic as a table, decoded by the component deb822.wasm");
    demo.show(&["keys", "--prefix", "admin/", "--limit", "4"])?;
    demo.show(&["get", "admin/adduser"])?;
    demo.show(&["status", "--output", "table"])?;

    say_title("3. The same keys as groups, split by a second component");
    demo.show(&["groups", "--output", "table"])?;

    say_title("4. A live update, with its old value");
    demo.show_live_update()?;

    say_title("5. A record that is not a stanza: it alone is rejected, with the reason");
    let malformed =
        ["produce", "--log", log, "--topic", "packages", "--key", "admin/adduser", "--value", "not a stanza"];
    demo.show_without_config(&malformed)?;
    demo.show(&["rejects"])?;
    say("   The entry keeps its last accepted value, and has a notice:");
    demo.show(&["get", "admin/adduser", "--verbose", "--output", "table"])?;

    say_title("Now try it yourself, in the folder of the project:");
    let config = relative_path(&demo.config);
    for next in [
        "watch",
        "members libs",
        "set --in admin mypackage '{\"Package\": \"mypackage\", \"Version\": \"1.0\"}'",
    ] {
        say(&format!(
            "   {} {next} --config {config} -t packages",
            relative_path(&ktables().display().to_string())
        ));
    }
    Ok(())
}

/// The demo's table, which a configuration file describes.
struct Demo {
    /// The path of the file.
    config: String,
}

impl Demo {
    fn ktables(&self, args: &[&str]) -> Command {
        let mut command = command(ktables());
        command.args(args).args(["--config", &self.config, "-t", "packages"]);
        command
    }

    /// Runs a command on the demo's table. Prints the command, without `--config`, and the first lines of its
    /// output.
    fn show(&self, args: &[&str]) -> Outcome {
        say(&format!(" $ ktables {} -t packages", quote_args(args)));
        print_output(&output(&mut self.ktables(args))?);
        Ok(())
    }

    /// Runs a command whose arguments name the log and the topic. Prints the same as [`Demo::show`].
    fn show_without_config(&self, args: &[&str]) -> Outcome {
        say(&format!(" $ ktables {}", quote_args(args)));
        print_output(&output(command(ktables()).args(args))?);
        Ok(())
    }

    fn show_live_update(&self) -> Outcome {
        say(" $ ktables watch -t packages &");
        let mut watch = self.ktables(&["watch"]);
        let watch =
            watch.stdout(Stdio::piped()).spawn().map_err(|error| format!("cannot run ktables: {error}"))?;
        let watch = Watch::new(watch);
        watch.wait_for("\"event\":\"synced\"")?;
        let value = r#"{"Package":"hello","Version":"2.10","Section":"demo"}"#;
        self.show(&["set", "demo/hello", value])?;
        print_output(&watch.wait_for("\"key\":\"demo/hello\"")?);
        let value = r#"{"Package":"hello","Version":"2.12","Section":"demo"}"#;
        self.show(&["set", "demo/hello", value])?;
        print_output(&watch.wait_for("2.12")?);
        Ok(())
    }
}

/// A running `ktables watch`, which is killed when this is dropped.
struct Watch {
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Watch {
    fn new(mut child: Child) -> Self {
        let (sender, lines) = mpsc::channel();
        if let Some(stdout) = child.stdout.take() {
            std::thread::spawn(move || {
                for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                    // OK to ignore: nobody receives the lines once the `Watch` is dropped.
                    let _ = sender.send(line);
                }
            });
        }
        Self { child, lines }
    }

    /// Waits for a line that contains `text`, and returns the line.
    fn wait_for(&self, text: &str) -> Outcome<String> {
        loop {
            let line = self.lines.recv_timeout(TIMEOUT);
            let line =
                line.map_err(|_| format!("`ktables watch` did not print {text} within {TIMEOUT:?}"))?;
            if line.contains(text) {
                return Ok(line);
            }
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // OK to ignore: the process may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Writes a configuration file with the demo's table. Returns its path.
fn write_configuration(folder: &Path, log: &str) -> Outcome<String> {
    let path = folder.join("ktables.toml");
    let text = format!(
        "[logs.demo]\nurl = \"{log}\"\n\n\
         [codecs.deb822]\ncomponent = \"{}\"\n\n[codecs.by-section]\ncomponent = \"{}\"\n\n\
         [tables.packages]\nlog = \"demo\"\ntopic = \"packages\"\nvalue_codec = \"deb822\"\ngroup_scheme = \"by-section\"\n",
        component_path("deb822"),
        component_path("deb822-by-section"),
    );
    fs::write(&path, text).map_err(|error| format!("cannot write {}: {error}", path.display()))?;
    Ok(path.display().to_string())
}

fn component_path(name: &str) -> String {
    target().join("components").join(format!("{name}.wasm")).display().to_string()
}

fn say_title(text: &str) {
    say(&format!("\n\x1b[1m{text}\x1b[0m"));
}

/// Prints the first lines of a command's output, each cut to [`WIDTH`].
fn print_output(output: &str) {
    let lines: Vec<&str> = output.trim_end().lines().map(str::trim_end).collect();
    for line in lines.iter().take(24) {
        let cut: String = line.chars().take(WIDTH).collect();
        let more = if cut.len() < line.len() { " …" } else { "" };
        say(&format!("   {cut}{more}"));
    }
    if lines.len() > 24 {
        say(&format!("   … and {} more lines", lines.len() - 24));
    }
}

/// Returns the arguments as one would type them into a shell.
fn quote_args(args: &[&str]) -> String {
    let quote =
        |word: &&str| if word.contains([' ', '{']) { format!("'{word}'") } else { (*word).to_owned() };
    args.iter().map(quote).collect::<Vec<_>>().join(" ")
}

/// Returns a path relative to the project's folder, if it lies in there.
fn relative_path(path: &str) -> String {
    let root = format!("{}/", crate::run::root().display());
    path.strip_prefix(&root).unwrap_or(path).to_owned()
}
