//! What ktables does, in a minute: every command is shown before it runs.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use ktables_broker::{Broker, BrokerOptions, Detached, requirements};

use crate::guests::guests;
use crate::run::{Outcome, command, ktables, output, run, say, target};

/// Debian's own list of installed packages, where there is one.
const DPKG_STATUS: &str = "/var/lib/dpkg/status";

/// The name of the demo's broker.
const BROKER: &str = "demo";

/// How long the demo waits for something that takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(20);

/// How much of a long answer is shown.
const WIDTH: usize = 110;

/// On a directory.
pub(crate) fn in_a_directory() -> Outcome {
    guests()?;
    let folder = new_folder()?;
    demo(&folder, &format!("dir:{}", folder.join("data").display()), "a directory log")
}

/// The same on a Kafka broker, which ends with the shell that this is called in, or
/// with the next demo.
pub(crate) fn on_kafka() -> Outcome {
    guests()?;
    requirements()?;
    Detached::end(&target(), BROKER)?;
    say("starting a Kafka broker");
    let options = BrokerOptions { name: Some(BROKER.to_owned()), ..BrokerOptions::default() };
    let broker = Broker::start(&target(), &options)?;
    demo(&new_folder()?, &format!("kafka://{}", broker.bootstrap()), "a Kafka topic")?;
    broker.detach(std::os::unix::process::parent_id())
}

/// A demo begins anew.
fn new_folder() -> Outcome<PathBuf> {
    let folder = target().join("demo");
    // There may be none.
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).map_err(|error| format!("cannot create {}: {error}", folder.display()))?;
    Ok(folder)
}

fn demo(folder: &Path, log: &str, place: &str) -> Outcome {
    let config = configuration(folder, log)?;
    let demo = Demo { config };

    title(&format!("1. Real records in a format of their own: Debian's control stanzas, in {place}"));
    let sample = "examples/deb822/sample/status";
    let source = if Path::new(DPKG_STATUS).exists() { DPKG_STATUS } else { sample };
    let mut embed = command(target().join("release/embed"));
    run(embed.arg(log).arg(component("deb822")).arg(source))?;

    title("2. The topic as a table, decoded by the component deb822.wasm");
    demo.show(&["keys", "--prefix", "admin/", "--limit", "4"])?;
    demo.show(&["get", "admin/adduser"])?;
    demo.show(&["status", "--output", "table"])?;

    title("3. The same keys as groups, split by a second component");
    demo.show(&["groups", "--output", "table"])?;

    title("4. A live update, with its old value");
    demo.live_update()?;

    title("5. A record that is no stanza: rejected alone, with its reason");
    let broken =
        ["produce", "--log", log, "--topic", "packages", "--key", "admin/adduser", "--value", "not a stanza"];
    demo.show_bare(&broken)?;
    demo.show(&["rejects"])?;
    say("   The entry keeps its last good value, and says so:");
    demo.show(&["get", "admin/adduser", "--verbose", "--output", "table"])?;

    title("Now you. In this folder:");
    let config = relative(&demo.config);
    for next in [
        "watch",
        "members libs",
        "set --in admin mypackage '{\"Package\": \"mypackage\", \"Version\": \"1.0\"}'",
    ] {
        say(&format!(
            "   {} {next} --config {config} -t packages",
            relative(&ktables().display().to_string())
        ));
    }
    Ok(())
}

struct Demo {
    config: String,
}

impl Demo {
    fn ktables(&self, args: &[&str]) -> Command {
        let mut command = command(ktables());
        command.args(args).args(["--config", &self.config, "-t", "packages"]);
        command
    }

    /// Shows a command on the demo's table, and the first lines of its answer.
    fn show(&self, args: &[&str]) -> Outcome {
        say(&format!(" $ ktables {} -t packages", quoted(args)));
        show_answer(&output(&mut self.ktables(args))?);
        Ok(())
    }

    /// Shows a command that names its log itself.
    fn show_bare(&self, args: &[&str]) -> Outcome {
        say(&format!(" $ ktables {}", quoted(args)));
        show_answer(&output(command(ktables()).args(args))?);
        Ok(())
    }

    fn live_update(&self) -> Outcome {
        say(" $ ktables watch -t packages &");
        let mut watch = self.ktables(&["watch"]);
        let watch =
            watch.stdout(Stdio::piped()).spawn().map_err(|error| format!("cannot run ktables: {error}"))?;
        let watch = Watch::follow(watch);
        watch.wait_for("\"event\":\"synced\"")?;
        let value = r#"{"Package":"hello","Version":"2.10","Section":"demo"}"#;
        self.show(&["set", "demo/hello", value])?;
        show_answer(&watch.wait_for("\"key\":\"demo/hello\"")?);
        let value = r#"{"Package":"hello","Version":"2.12","Section":"demo"}"#;
        self.show(&["set", "demo/hello", value])?;
        show_answer(&watch.wait_for("2.12")?);
        Ok(())
    }
}

/// A `ktables watch` that ends with the demo.
struct Watch {
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Watch {
    fn follow(mut child: Child) -> Self {
        let (sender, lines) = mpsc::channel();
        if let Some(stdout) = child.stdout.take() {
            std::thread::spawn(move || {
                for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                    // The demo may be over.
                    let _ = sender.send(line);
                }
            });
        }
        Self { child, lines }
    }

    fn wait_for(&self, part: &str) -> Outcome<String> {
        loop {
            let line = self.lines.recv_timeout(PATIENCE);
            let line = line.map_err(|_| format!("`ktables watch` did not show {part}"))?;
            if line.contains(part) {
                return Ok(line);
            }
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A configuration with the demo's table in it.
fn configuration(folder: &Path, log: &str) -> Outcome<String> {
    let path = folder.join("ktables.toml");
    let text = format!(
        "[logs.demo]\nurl = \"{log}\"\n\n\
         [codecs.deb822]\ncomponent = \"{}\"\n\n[codecs.by-section]\ncomponent = \"{}\"\n\n\
         [tables.packages]\nlog = \"demo\"\ntopic = \"packages\"\nvalue_codec = \"deb822\"\ngroup_scheme = \"by-section\"\n",
        component("deb822"),
        component("deb822-by-section"),
    );
    fs::write(&path, text).map_err(|error| format!("cannot write {}: {error}", path.display()))?;
    Ok(path.display().to_string())
}

fn component(name: &str) -> String {
    target().join("components").join(format!("{name}.wasm")).display().to_string()
}

fn title(text: &str) {
    say(&format!("\n\x1b[1m{text}\x1b[0m"));
}

/// The first lines of an answer, each cut.
fn show_answer(answer: &str) {
    let lines: Vec<&str> = answer.trim_end().lines().map(str::trim_end).collect();
    for line in lines.iter().take(24) {
        let cut: String = line.chars().take(WIDTH).collect();
        let more = if cut.len() < line.len() { " …" } else { "" };
        say(&format!("   {cut}{more}"));
    }
    if lines.len() > 24 {
        say(&format!("   … and {} more lines", lines.len() - 24));
    }
}

/// The arguments as one would type them.
fn quoted(args: &[&str]) -> String {
    let quote =
        |word: &&str| if word.contains([' ', '{']) { format!("'{word}'") } else { (*word).to_owned() };
    args.iter().map(quote).collect::<Vec<_>>().join(" ")
}

/// A path as seen from the project's folder.
fn relative(path: &str) -> String {
    let root = format!("{}/", crate::run::root().display());
    path.strip_prefix(&root).unwrap_or(path).to_owned()
}
