//! The arguments of the commands `codec`.

use std::path::PathBuf;

use clap::{Subcommand, ValueEnum};

use crate::authors::Language;
use crate::cli::args::{
    AttestArgs, BundleArgs, CodecReportArgs, KeygenArgs, LoadBundleArgs, LockArgs, MirrorArgs, PullArgs,
    PushArgs, ResolveArgs, RevocationsCommand, RevokeArgs, SignArgs, StoreCommand, VerifyCodecArgs,
};
use crate::wasm::CodecKind;

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum CodecCommand {
    New(NewArgs),
    Build(BuildArgs),
    Inspect(InspectArgs),
    Check(CheckArgs),
    Test(TestArgs),
    Run(RunArgs),
    Bench(BenchArgs),
    Reproduce(ReproduceArgs),
    Compile(CompileArgs),
    Push(PushArgs),
    Pull(PullArgs),
    Resolve(ResolveArgs),
    Lock(LockArgs),
    Keygen(KeygenArgs),
    Sign(SignArgs),
    Attest(AttestArgs),
    Verify(VerifyCodecArgs),
    Mirror(MirrorArgs),
    Bundle(BundleArgs),
    Load(LoadBundleArgs),
    Revoke(RevokeArgs),
    #[command(subcommand)]
    Revocations(RevocationsCommand),
    Report(CodecReportArgs),
    #[command(subcommand)]
    Store(StoreCommand),
    /// Print the WIT package that components are built against, as one file.
    #[command(after_help = "Example:\n  ktables codec wit > ktables.wit")]
    Wit,
}

/// Describe a component, and check whether it is accepted as a codec.
///
/// Prints its digest, its kinds of codec, its description of itself, and each import with the reason why it is
/// allowed or not. `sandbox` is `pure`, or `sealed WASI` if the component imports WASI.
///
/// Exit code 1 if the component is refused. The reasons are printed.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  ktables codec inspect service.wasm")]
pub(in crate::cli) struct InspectArgs {
    /// A component file, the name of a bundled codec (avro, json-schema, protobuf), or a reference to a codec in a registry.
    #[arg(value_name = "FILE.wasm")]
    pub(in crate::cli) file: PathBuf,
    /// A limit, for example profile=large for interpreters. May be repeated.
    #[arg(long, value_name = "NAME=VALUE")]
    pub(in crate::cli) limit: Vec<String>,
}

/// Build a component from a core module that exports functions of the WIT package.
///
/// The module needs no description of its interfaces: the names of its exports say which ones it implements, for
/// example `ktables:codec/value-codec@0.1.0#decode`. If an export is missing or has a wrong name or type, the
/// error says what to write. `codec wit` prints the package.
///
/// Imports of WASI preview 1, which the runtimes of C and Go have, are replaced by functions that give access to nothing:
/// there are no files and no environment variables, clocks begin at the same time and advance with each reading, random
/// numbers have a fixed seed, and an exit is a fault. What the module prints goes to the log of the host, and explains its
/// faults.
///
/// Exit code 1 if the imports or exports of the component would be refused, and 2 if the module is malformed,
/// exceeds a limit or cannot be made a component. In both cases no file is written. `codec check` finds faults that show
/// only when the component runs.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  cargo build --release --target wasm32-unknown-unknown
  ktables codec build target/wasm32-unknown-unknown/release/my_codec.wasm -o my_codec.wasm
  GOOS=wasip1 GOARCH=wasm go build -buildmode=c-shared -o codec.core.wasm .
  ktables codec build codec.core.wasm -o codec.wasm")]
pub(in crate::cli) struct BuildArgs {
    /// The file of the core module.
    #[arg(value_name = "CORE.wasm")]
    pub(in crate::cli) core: PathBuf,
    /// The file that the component is written to.
    #[arg(short, long = "out", value_name = "FILE.wasm")]
    pub(in crate::cli) out: PathBuf,
}

/// Compile components into the cache, so that they start at once later. For the build of an image.
///
/// The cache is KTABLES_CACHE_DIR, or else XDG_CACHE_HOME/ktables, or else ~/.cache/ktables. It is used by the same version
/// of ktables, for the same kind of processor. Exit code 1 if a component is refused.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  KTABLES_CACHE_DIR=/var/cache/ktables ktables codec compile /etc/ktables/codecs/*.wasm")]
pub(in crate::cli) struct CompileArgs {
    /// The component files, or names of bundled codecs: avro, json-schema, protobuf.
    #[arg(value_name = "FILE.wasm", required = true)]
    pub(in crate::cli) files: Vec<PathBuf>,
}

/// Create a project of a codec, with the SDK of its language.
///
/// The codec is an example that builds and passes `codec test`. README.md has the commands.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ktables codec new --lang python orders
  ktables codec new --lang c --kind key orders-key")]
pub(in crate::cli) struct NewArgs {
    /// The folder to create. Its name is the name of the codec: lower-case letters, digits, `-` and `_`.
    #[arg(value_name = "NAME")]
    pub(in crate::cli) folder: PathBuf,
    /// The language.
    #[arg(long, value_enum)]
    pub(in crate::cli) lang: Language,
    /// What the codec converts: values, keys, or keys into group and member.
    #[arg(long, value_enum, default_value = "value")]
    pub(in crate::cli) kind: CodecKind,
}

/// A component, and how to run it.
#[derive(Debug, Clone, clap::Args)]
pub(in crate::cli) struct ComponentArgs {
    /// A component file, the name of a bundled codec (avro, json-schema, protobuf), or a reference to a codec in a registry.
    #[arg(value_name = "FILE.wasm")]
    pub(in crate::cli) file: PathBuf,
    /// The codec's configuration, a JSON object.
    #[arg(long, value_name = "JSON", default_value = "{}")]
    pub(in crate::cli) config: String,
    /// The topic name to configure the codec with.
    #[arg(long, default_value = "test")]
    pub(in crate::cli) topic: String,
    /// A limit, for example memory=128MiB: memory, output, deadline, deadline_per_record, start_deadline, or profile,
    /// which sets the defaults of the others: small, or large for interpreters. May be repeated.
    #[arg(long, value_name = "NAME=VALUE")]
    pub(in crate::cli) limit: Vec<String>,
}

/// Check whether a component is fit for production.
///
/// Loads the component with the checks and limits of production. Then tries samples, damaged samples and random
/// bytes, and prints the smallest input that shows a fault. The tests, for each kind of codec that the component has:
///
///   accepted-samples   the codec accepts one of the samples, or, without samples, one of the random inputs; if
///                      not, nothing is proven
///   no-faults          it neither traps nor breaks a limit or the contract, whatever the input is
///   round-trip         a key and its text, and a key and its parts, return to each other; a decoded value encodes
///                      to bytes of the same value, unless the codec answers `unsupported`: it only decodes
///   independent-calls  an answer does not depend on earlier calls
///   batch-form         the form with many records per call, if there is one, answers like the form with one
///   memory-growth      an instance does not need more and more memory: at most 256 bytes for each call, beyond
///                      what the call returns
///
/// Exit code 1 if a test fails or the component is refused.
#[derive(Debug, clap::Args)]
#[command(
    verbatim_doc_comment,
    after_help = "\
Examples:
  ktables codec check service.wasm --samples vectors.ndjson
  ktables codec check service.wasm --samples kafka://localhost:9092/services --report report.json
  ktables codec check service.wasm --samples records/ --limit profile=large"
)]
pub(in crate::cli) struct CheckArgs {
    #[command(flatten)]
    pub(in crate::cli) component: ComponentArgs,
    /// Samples of the format: a file with vectors (.ndjson), any other file, which is one value (one key, if the
    /// component only has a codec of keys), a folder with up to 1,000 such files, or LOG/TOPIC, for example
    /// dir:./data/services: the first 1,000 records of a directory, or of a cluster without TLS and passwords. May
    /// be repeated.
    #[arg(long, value_name = "DIR|FILE|LOG/TOPIC")]
    pub(in crate::cli) samples: Vec<String>,
    /// How many random inputs each decoder receives.
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = parse_count)]
    pub(in crate::cli) fuzz: usize,
    /// A file to write the result to, as an in-toto statement of the type test-result.
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) report: Option<PathBuf>,
}

/// Compare the answers of a component with vectors.
///
/// A vector is a JSON object on a line of its own. `raw` is base64:
///
///   {"kind":"value","raw":"AQ==","value":{"a":1}}     decodes to this value, which encodes to these bytes
///   {"kind":"value","raw":"AQE=","value":1,"only":"decode"}   no matter what it encodes to
///   {"kind":"value","raw":"","error":"malformed"}     decode returns this kind of error
///   {"kind":"value","value":[],"error":"invalid"}     encode returns this kind of error
///   {"kind":"key","raw":"AQ==","key":"1"}             the same for keys
///   {"kind":"group","key":"a/b","group":"a","member":"b"}     splits into these parts, which join to the key
///   {"kind":"group","key":"x","foreign":true}         is not split
///
/// `headers` is a list of objects with `name` and `value` (base64 or null): those of the record that is decoded,
/// and of the one that encode returns. `error` is malformed, invalid, unsupported or other; its text may be in
/// `message`, which is not compared.
///
/// Exit code 1 if an answer differs, and 2 if a vector is not complete or of a kind that the component does not have.
#[derive(Debug, clap::Args)]
#[command(
    verbatim_doc_comment,
    after_help = "\
Examples:
  ktables codec test service.wasm --vectors vectors.ndjson
  ktables codec test service.wasm --vectors vectors.ndjson --bless"
)]
pub(in crate::cli) struct TestArgs {
    #[command(flatten)]
    pub(in crate::cli) component: ComponentArgs,
    /// The file with the vectors.
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) vectors: PathBuf,
    /// Replace the answers in the file by those of the component, and add missing ones. Review the difference, because
    /// wrong answers are written, too.
    #[arg(long)]
    pub(in crate::cli) bless: bool,
}

/// Call a function of a component with what standard input has.
///
/// By default, standard input is one item: the bytes to decode, the JSON text or key to encode, the key to split,
/// or an object {"group":…,"member":…} to join. The answer is written as it is: encoded bytes have no line end.
/// Headers are read and written with --lines only.
///
/// With --lines, each line is a JSON object as in a vector (see `ktables codec test --help`), and so is each answer;
/// an error is {"error":KIND,"message":TEXT}.
///
/// Exit code 1 if an item is rejected, or if the only key is foreign to the group scheme.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ktables codec run service.wasm decode < record.bin
  echo '{\"raw\":\"AQ==\"}' | ktables codec run service.wasm decode --lines
  printf eu/host-1 | ktables codec run by-region.wasm split")]
pub(in crate::cli) struct RunArgs {
    #[command(flatten)]
    pub(in crate::cli) component: ComponentArgs,
    /// The function.
    #[arg(value_enum)]
    pub(in crate::cli) function: Function,
    /// Whether to decode or encode values or keys [default: value, if the component has a codec of values].
    #[arg(long, value_enum)]
    pub(in crate::cli) kind: Option<CodecKind>,
    /// Read and write JSON lines.
    #[arg(long)]
    pub(in crate::cli) lines: bool,
}

/// Measure what a component costs, next to one that returns what it receives, which is shown as `no-op.wasm`.
///
/// Measures the samples that each component accepts, repeated to batches of 256. Times are medians; all components are
/// measured in turns, with the same configuration. `decode_fuel_per_record` counts the instructions of a codec of values,
/// and is the same on every machine. The rest depends on the machine, so compare it with `no-op.wasm` of the same run.
///
/// Exit code 2 if a component accepts none of the samples.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ktables codec bench service.wasm --samples vectors.ndjson
  ktables codec bench new.wasm --diff old.wasm --samples dir:./data/services")]
pub(in crate::cli) struct BenchArgs {
    #[command(flatten)]
    pub(in crate::cli) component: ComponentArgs,
    /// Samples of the format, as for `codec check`. May be repeated.
    #[arg(long, value_name = "DIR|FILE|LOG/TOPIC", required = true)]
    pub(in crate::cli) samples: Vec<String>,
    /// Another component to measure in turns. May be repeated.
    #[arg(long, value_name = "OTHER.wasm")]
    pub(in crate::cli) diff: Vec<PathBuf>,
    /// The kind of codec to measure [default: value, if the component has a codec of values].
    #[arg(long, value_enum)]
    pub(in crate::cli) kind: Option<CodecKind>,
}

/// Try a case of a rejected record with a component.
///
/// `ktables rejects --export DIR` writes cases. "reproduced" says whether the component rejects the record for the same
/// reason, and "fixed" whether it accepts the record.
///
/// Exit code 1 if the component rejects the record.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  ktables codec reproduce cases/services-0-17.json service.wasm")]
pub(in crate::cli) struct ReproduceArgs {
    /// The file of the case.
    #[arg(value_name = "CASE")]
    pub(in crate::cli) case: PathBuf,
    /// A component file, the name of a bundled codec (avro, json-schema, protobuf), or a reference to a codec in a registry.
    #[arg(value_name = "FILE.wasm")]
    pub(in crate::cli) file: PathBuf,
    /// Another limit than that of the case, for example memory=128MiB. May be repeated.
    #[arg(long, value_name = "NAME=VALUE")]
    pub(in crate::cli) limit: Vec<String>,
}

/// A function of a codec.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum Function {
    /// Bytes to text.
    Decode,
    /// Text to bytes.
    Encode,
    /// A key to group and member.
    Split,
    /// Group and member to their key.
    Join,
}

/// The largest number of random inputs.
const MAX_FUZZ: usize = 1_000_000;

fn parse_count(text: &str) -> Result<usize, String> {
    text.parse()
        .ok()
        .filter(|count| *count <= MAX_FUZZ)
        .ok_or_else(|| format!("write a number up to {MAX_FUZZ}"))
}
