//! The arguments of the commands for codecs in registries, and for policies.

use std::path::PathBuf;

use clap::Subcommand;

use crate::oci::{MAX_VALIDITY, SignatureFormat};

/// The highest number that may be given to a list. It is far below the last possible one, so that there is always a next list.
const MAX_SERIAL: u64 = 1 << 53;

/// Settings of registries, and whether the network is used.
#[derive(Debug, Clone, clap::Args)]
pub(in crate::cli) struct RegistryAccessArgs {
    /// A configuration with the settings of registries [default: ktables.toml, if it exists].
    #[arg(short, long, value_name = "FILE")]
    pub(in crate::cli) config: Option<PathBuf>,
    /// Use local stores only, as with KTABLES_OFFLINE=1.
    #[arg(long)]
    pub(in crate::cli) offline: bool,
}

/// Push a component to a registry, or into a layout.
///
/// Refuses a component that would be refused as a codec. The same file results in the same manifest, so that pushing it again
/// changes nothing. A tag that names another codec is not moved without --move-tag.
///
/// Prints the reference with the digest of the manifest, which is to be signed, and the digest of the component.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ktables codec push service.wasm oci://registry.example/codecs/service:1.4.0
  ktables codec push service.wasm oci://registry.example/codecs/service:1.4.0 --sign platform.key
  ktables codec push service.wasm oci-layout:./codecs:1.4.0")]
pub(in crate::cli) struct PushArgs {
    /// The component file.
    #[arg(value_name = "FILE.wasm")]
    pub(in crate::cli) file: PathBuf,
    /// Where to push it: oci://HOST/REPO:TAG, or oci-layout:DIR:TAG.
    #[arg(value_name = "REF")]
    pub(in crate::cli) reference: String,
    /// An annotation of the manifest, for example org.opencontainers.image.source=URL. May be repeated.
    #[arg(long, value_name = "NAME=VALUE")]
    pub(in crate::cli) annotation: Vec<String>,
    /// Sign the codec with this private key.
    #[arg(long, value_name = "KEY")]
    pub(in crate::cli) sign: Option<PathBuf>,
    /// Move the tag if it names another codec.
    #[arg(long)]
    pub(in crate::cli) move_tag: bool,
    #[command(flatten)]
    pub(in crate::cli) access: RegistryAccessArgs,
}

/// Fetch a codec into the store, with its signatures.
///
/// A tag is looked up in ktables.lock, and in the registry if it is not there. The policies decide whether the codec is
/// approved.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ktables codec pull oci://registry.example/codecs/service:1.4.0
  ktables codec pull oci://registry.example/codecs/service@sha256:9f2c… -o service.wasm")]
pub(in crate::cli) struct PullArgs {
    /// The codec.
    #[arg(value_name = "REF")]
    pub(in crate::cli) reference: String,
    /// Write the component to this file, too.
    #[arg(short, long = "out", value_name = "FILE.wasm")]
    pub(in crate::cli) out: Option<PathBuf>,
    #[command(flatten)]
    pub(in crate::cli) access: RegistryAccessArgs,
}

/// Print what a tag names now.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  ktables codec resolve oci://registry.example/codecs/service:1.4.0")]
pub(in crate::cli) struct ResolveArgs {
    /// The codec, with a tag.
    #[arg(value_name = "REF")]
    pub(in crate::cli) reference: String,
    #[command(flatten)]
    pub(in crate::cli) access: RegistryAccessArgs,
}

/// Write the digests of the codecs of a configuration into ktables.lock.
///
/// Adds entries that are missing, and keeps the others. With --update and no names, removes those that the configuration does
/// not need. The file is beside the configuration, and is committed with it. A process never looks up a tag itself.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ktables codec lock
  ktables codec lock --update service
  ktables codec lock --check --remote")]
pub(in crate::cli) struct LockArgs {
    /// Look up the tags of these codecs again; without names, of all, and remove entries that are not needed.
    #[arg(long, value_name = "NAME", num_args = 0..)]
    pub(in crate::cli) update: Option<Vec<String>>,
    /// Change nothing. Exit code 1 if the file does not have what the configuration needs.
    #[arg(long, conflicts_with = "update")]
    pub(in crate::cli) check: bool,
    /// Also check that no tag has moved since.
    #[arg(long, requires = "check")]
    pub(in crate::cli) remote: bool,
    #[command(flatten)]
    pub(in crate::cli) access: RegistryAccessArgs,
}

/// Generate a key pair for signatures: the private key PREFIX.key, and the public key PREFIX.pub.
///
/// The private key is encrypted with the password in KTABLES_KEY_PASSWORD, or with the one that is typed at the terminal. An
/// empty password leaves it unencrypted. The encryption is that of OpenSSL's PKCS#8, which resists guessing only if the password
/// is long; a key management system is better (`codec sign --payload`).
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  ktables codec keygen platform-2026")]
pub(in crate::cli) struct KeygenArgs {
    /// The files, without their ends.
    #[arg(value_name = "PREFIX")]
    pub(in crate::cli) prefix: PathBuf,
}

/// Approve a codec: sign its manifest.
///
/// The signature is one that cosign verifies, too:
///   cosign verify --key KEY.pub --insecure-ignore-tlog=true HOST/REPO@sha256:…
///
/// With --payload, prints the bytes to sign, for a key that another program holds. With --attach, attaches the signature of
/// those bytes: base64 of a signature with ECDSA and SHA-256, in DER.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ktables codec sign oci://registry.example/codecs/service@sha256:9f2c… --key platform.key
  ktables codec sign REF@sha256:9f2c… --payload > payload
  openssl dgst -sha256 -sign platform.key payload | base64 -w0 > payload.sig
  ktables codec sign REF@sha256:9f2c… --attach payload --signature payload.sig --key platform.pub")]
pub(in crate::cli) struct SignArgs {
    /// The codec, with the digest of its manifest.
    #[arg(value_name = "REF@sha256:…")]
    pub(in crate::cli) reference: String,
    /// The private key; with --attach, the public one.
    #[arg(long, value_name = "KEY", required_unless_present = "payload")]
    pub(in crate::cli) key: Option<PathBuf>,
    /// Something that the signature says, for example env=prod. May be repeated.
    #[arg(long, value_name = "NAME=VALUE")]
    pub(in crate::cli) annotation: Vec<String>,
    /// The formats to write.
    #[arg(long, value_enum, default_value = "both")]
    pub(in crate::cli) format: SignatureFormat,
    /// Print the bytes to sign, and do nothing else. With --format both, those of the format `tag`.
    #[arg(long, conflicts_with_all = ["key", "attach"])]
    pub(in crate::cli) payload: bool,
    /// Attach a signature of the bytes in this file.
    #[arg(long, value_name = "FILE", requires_all = ["signature", "key"], conflicts_with = "annotation")]
    pub(in crate::cli) attach: Option<PathBuf>,
    /// The file with the signature to attach.
    #[arg(long, value_name = "FILE", requires = "attach")]
    pub(in crate::cli) signature: Option<PathBuf>,
    #[command(flatten)]
    pub(in crate::cli) access: RegistryAccessArgs,
}

/// Attach the result of `codec check --report` to a codec, signed.
///
/// Sign reports with another key than approvals: other programs take any signature of an approving key for an approval.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  ktables codec check service.wasm --samples samples --report report.json
  ktables codec attest oci://HOST/codecs/service@sha256:9f2c… --report report.json --key test.key")]
pub(in crate::cli) struct AttestArgs {
    /// The codec, with the digest of its manifest.
    #[arg(value_name = "REF@sha256:…")]
    pub(in crate::cli) reference: String,
    /// The report.
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) report: PathBuf,
    /// The private key.
    #[arg(long, value_name = "KEY")]
    pub(in crate::cli) key: PathBuf,
    #[command(flatten)]
    pub(in crate::cli) access: RegistryAccessArgs,
}

/// Add a codec to the list of revocations.
///
/// Reads the list, if the file exists, and writes the next one: signed, with a higher number, and valid for a time. `codec
/// revocations push` publishes it. Processes that run a revoked codec report it, and no process starts with it.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  ktables codec revoke sha256:11ab… --reason 'loses the last field' --key platform.key
  ktables codec revocations push revocations.json oci://registry.example/codecs/revocations:current")]
pub(in crate::cli) struct RevokeArgs {
    /// The digest of the component, or of the manifest, or a reference with it.
    #[arg(value_name = "DIGEST")]
    pub(in crate::cli) digest: String,
    /// Why it is revoked.
    #[arg(long, value_name = "TEXT")]
    pub(in crate::cli) reason: String,
    /// What to use instead.
    #[arg(long = "use", value_name = "REF")]
    pub(in crate::cli) replacement: Option<String>,
    /// The day since when it is revoked [default: today].
    #[arg(long, value_name = "YYYY-MM-DD")]
    pub(in crate::cli) since: Option<String>,
    /// The file of the list, which is replaced by the next list.
    #[arg(long, value_name = "FILE", default_value = "revocations.json")]
    pub(in crate::cli) list: PathBuf,
    #[command(flatten)]
    pub(in crate::cli) next: SignedListArgs,
}

/// How a list of revocations is signed.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct SignedListArgs {
    /// How long the next list is valid: ten years at most.
    #[arg(long, value_name = "TIME", default_value = "30d", value_parser = parse_validity)]
    pub(in crate::cli) valid: std::time::Duration,
    /// The private key.
    #[arg(long, value_name = "KEY")]
    pub(in crate::cli) key: PathBuf,
    /// The public key that signed the list before, if the key was replaced. May be repeated.
    #[arg(long, value_name = "PUB")]
    pub(in crate::cli) signed_by: Vec<PathBuf>,
}

/// Renew, fetch, print and publish lists of revocations.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum RevocationsCommand {
    Renew(RenewRevocationsArgs),
    Pull(PullRevocationsArgs),
    Inspect(InspectRevocationsArgs),
    Push(PushRevocationsArgs),
}

/// Sign a list of revocations again, before it expires, or begin an empty one.
///
/// Writes the next list: with the same codecs, a higher number, and valid for a time from now on.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ktables codec revocations renew revocations.json --key platform.key
  ktables codec revocations renew revocations.json --key platform.key --empty")]
pub(in crate::cli) struct RenewRevocationsArgs {
    /// The file of the list, which is replaced.
    #[arg(value_name = "FILE")]
    pub(in crate::cli) list: PathBuf,
    /// Begin an empty list, in a file that does not exist yet.
    #[arg(long)]
    pub(in crate::cli) empty: bool,
    /// The number of the next list, if lists were lost [default: one more than that of the file].
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..=MAX_SERIAL))]
    pub(in crate::cli) serial: Option<u64>,
    #[command(flatten)]
    pub(in crate::cli) next: SignedListArgs,
}

/// Copy a published list of revocations into a file, to revoke further codecs.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  ktables codec revocations pull oci://registry.example/codecs/revocations:current revocations.json")]
pub(in crate::cli) struct PullRevocationsArgs {
    /// The reference with a tag.
    #[arg(value_name = "REF")]
    pub(in crate::cli) reference: String,
    /// The file, which is replaced.
    #[arg(value_name = "FILE", default_value = "revocations.json")]
    pub(in crate::cli) list: PathBuf,
    #[command(flatten)]
    pub(in crate::cli) access: RegistryAccessArgs,
}

/// Print a list of revocations.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ktables codec revocations inspect revocations.json --key platform.pub
  ktables codec revocations inspect oci://registry.example/codecs/revocations:current")]
pub(in crate::cli) struct InspectRevocationsArgs {
    /// The file, or a reference with a tag.
    #[arg(value_name = "FILE|REF")]
    pub(in crate::cli) list: String,
    /// A public key, one of which must have signed the list. May be repeated.
    #[arg(long, value_name = "PUB")]
    pub(in crate::cli) key: Vec<PathBuf>,
    #[command(flatten)]
    pub(in crate::cli) access: RegistryAccessArgs,
}

/// Publish a list of revocations under a tag.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  ktables codec revocations push revocations.json oci://registry.example/codecs/revocations:current")]
pub(in crate::cli) struct PushRevocationsArgs {
    /// The file.
    #[arg(value_name = "FILE")]
    pub(in crate::cli) list: PathBuf,
    /// The tag: oci://HOST/REPO:TAG, or oci-layout:DIR:TAG.
    #[arg(value_name = "REF")]
    pub(in crate::cli) reference: String,
    #[command(flatten)]
    pub(in crate::cli) access: RegistryAccessArgs,
}

/// Print which codecs configurations use: a line for each table and codec.
///
/// Reads only the files and the stores, unless --online. With --fleet, prints what running processes publish. Exit code 1 if a
/// policy refuses a codec, a codec is revoked, or nobody uses the --digest.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  ktables codec report -c services/*/ktables.toml\n  ktables codec report --fleet kafka://localhost:9092/ktables-fleet --digest sha256:11ab…"
)]
pub(in crate::cli) struct CodecReportArgs {
    /// The configurations.
    #[arg(short, long, value_name = "FILE", num_args = 1.., default_value = "ktables.toml")]
    pub(in crate::cli) config: Vec<PathBuf>,
    /// Print only codecs whose component or manifest has this digest.
    #[arg(long, value_name = "DIGEST")]
    pub(in crate::cli) digest: Option<String>,
    /// Print what running processes publish in this topic (section `[fleet]`), instead of configurations.
    #[arg(long, value_name = "LOG/TOPIC", conflicts_with_all = ["config", "online"])]
    pub(in crate::cli) fleet: Option<String>,
    /// Entries of the fleet that are older are of processes that were killed.
    #[arg(long, value_name = "TIME", default_value = "3m", value_parser = humantime::parse_duration, requires = "fleet")]
    pub(in crate::cli) max_age: std::time::Duration,
    /// Ask the registries: for codecs that are in no store, and for tags that are newer versions.
    #[arg(long)]
    pub(in crate::cli) online: bool,
}

/// Verify the signatures of a codec, with keys or with a policy.
///
/// The policies decide: /etc/ktables/policy.toml, the one in KTABLES_POLICY, and --policy. With --key, one of these keys must
/// have signed the codec, too.
///
/// Exit code 1 if the codec is not approved, and 3 if its signatures cannot be read.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ktables codec verify oci://registry.example/codecs/service:1.4.0 --key platform.pub
  ktables codec verify oci://HOST/codecs/service@sha256:9f2c… --table billing --explain")]
pub(in crate::cli) struct VerifyCodecArgs {
    /// The codec.
    #[arg(value_name = "REF")]
    pub(in crate::cli) reference: String,
    /// A public key. One of them must have signed the codec. May be repeated.
    #[arg(long, value_name = "PUB")]
    pub(in crate::cli) key: Vec<PathBuf>,
    /// A policy, which must approve the codec, too.
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) policy: Option<PathBuf>,
    /// The table that would use the codec, for rules about tables.
    #[arg(long, value_name = "NAME")]
    pub(in crate::cli) table: Option<String>,
    /// Say of each signature why it counts or does not count.
    #[arg(long)]
    pub(in crate::cli) explain: bool,
    #[command(flatten)]
    pub(in crate::cli) access: RegistryAccessArgs,
}

/// Copy a codec to another registry or layout, with everything that is attached to it.
///
/// Checks all bytes before they are written, and that everything has arrived.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ktables codec mirror oci://registry.example/codecs/service:1.4.0 oci://mirror.local/codecs/service
  ktables codec mirror oci-layout:./codecs:1.4.0 oci://mirror.local/codecs/service:1.4.0")]
pub(in crate::cli) struct MirrorArgs {
    /// The codec.
    #[arg(value_name = "FROM")]
    pub(in crate::cli) from: String,
    /// The repository or layout to copy it to. Without a tag, the codec gets the tag that it has.
    #[arg(value_name = "TO")]
    pub(in crate::cli) to: String,
    /// Move the tag if it names another codec.
    #[arg(long)]
    pub(in crate::cli) move_tag: bool,
    #[command(flatten)]
    pub(in crate::cli) access: RegistryAccessArgs,
}

/// Write codecs into a folder or an archive, with their signatures, for machines without a network.
///
/// The result is an OCI image layout, which skopeo and crane read, too. The same codecs result in the same bytes.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ktables codec bundle -o codecs --lock ktables.lock
  ktables codec bundle -o codecs.tar oci://registry.example/codecs/service:1.4.0")]
pub(in crate::cli) struct BundleArgs {
    /// The folder, or the archive if it ends with .tar.
    #[arg(short, long = "out", value_name = "DIR|FILE.tar")]
    pub(in crate::cli) out: PathBuf,
    /// The codecs.
    #[arg(value_name = "REF", required_unless_present = "lock")]
    pub(in crate::cli) references: Vec<String>,
    /// Also those of this lock file. May be repeated.
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) lock: Vec<PathBuf>,
    /// Add this list of revocations: a file, or a reference with a tag.
    #[arg(long, value_name = "FILE|REF")]
    pub(in crate::cli) revocations: Option<String>,
    #[command(flatten)]
    pub(in crate::cli) access: RegistryAccessArgs,
}

/// Load the codecs of a bundle into the store.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  ktables codec load codecs.tar")]
pub(in crate::cli) struct LoadBundleArgs {
    /// The folder or the archive.
    #[arg(value_name = "DIR|FILE.tar")]
    pub(in crate::cli) bundle: PathBuf,
}

/// List, verify and prune the store of codecs.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum StoreCommand {
    /// List the codecs of the store.
    #[command(after_help = "Example:\n  ktables codec store list")]
    List,
    /// Compare all bytes of the store with their digests. Removes what is damaged.
    #[command(after_help = "Example:\n  ktables codec store verify")]
    Verify,
    Prune(PruneArgs),
}

/// Remove what no lock file needs from the store.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  ktables codec store prune --lock services/*/ktables.lock")]
pub(in crate::cli) struct PruneArgs {
    /// The lock files.
    #[arg(long, value_name = "FILE", required = true, num_args = 1..)]
    pub(in crate::cli) lock: Vec<PathBuf>,
}

/// Check codecs against the policies of the machine.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum PolicyCommand {
    Check(PolicyCheckArgs),
}

/// Print what the policies say about every codec of a configuration.
///
/// The policies are /etc/ktables/policy.toml, the one in KTABLES_POLICY, and --policy. All of them must approve a codec. Prints
/// a line for each table and codec. Exit code 1 if one is refused: run this in the build of an image.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ktables policy check -c ktables.toml
  KTABLES_OFFLINE=1 ktables policy check --required -c /app/ktables.toml")]
pub(in crate::cli) struct PolicyCheckArgs {
    /// Another policy, which must approve the codecs, too.
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) policy: Option<PathBuf>,
    /// Fail if there is no policy.
    #[arg(long)]
    pub(in crate::cli) required: bool,
    #[command(flatten)]
    pub(in crate::cli) access: RegistryAccessArgs,
}

/// Parses how long a list of revocations is valid.
fn parse_validity(text: &str) -> Result<std::time::Duration, String> {
    let time = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    match time {
        time if time > MAX_VALIDITY => Err("a list is valid for ten years at most".to_owned()),
        time if time.is_zero() => Err("a list that is never valid says nothing".to_owned()),
        time => Ok(time),
    }
}
