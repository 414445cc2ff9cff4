//! The command `codec run`, which calls a component with what standard input has.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, IsTerminal, Read, Write, stdin};

use serde_json::value::{RawValue, to_raw_value};

use crate::authors::vectors::Vector;
use crate::cli::args::{Function, RunArgs};
use crate::cli::codec::load;
use crate::cli::lines::MAX_VALUE_BYTES;
use crate::cli::output::{Output, write_json_line};
use crate::cli::{CliError, Exit};
use crate::codec::GroupKey;
use crate::wasm::{Answer, CodecKind, Component, DirectCodec, Outcome, Request};

/// The longest line that is accepted: a value in base64, and what is around it.
const MAX_LINE_BYTES: usize = 2 * MAX_VALUE_BYTES;

pub(super) async fn run(args: RunArgs, output: Output) -> Result<Exit, CliError> {
    tokio::task::spawn_blocking(move || run_blocking(&args, output)).await?
}

fn run_blocking(args: &RunArgs, output: Output) -> Result<Exit, CliError> {
    let component = load(&args.component)?;
    let kind = choose_kind(args, &component)?;
    let codec = component.direct_codec(kind, None, &args.component.topic, &args.component.config)?;
    match args.lines {
        true => run_lines(args.function, kind, &codec, output),
        false => run_item(args.function, kind, &codec, output),
    }
}

/// Returns the kind of codec to call.
fn choose_kind(args: &RunArgs, component: &Component) -> Result<CodecKind, CliError> {
    let kinds = component.codec_kinds();
    match (args.function, args.kind) {
        (Function::Split | Function::Join, None | Some(CodecKind::Group)) => Ok(CodecKind::Group),
        (Function::Split | Function::Join, Some(_)) => {
            Err(CliError::Usage("split and join are functions of group schemes: leave out --kind".to_owned()))
        }
        (_, Some(CodecKind::Group)) => {
            Err(CliError::Usage("a group scheme has the functions split and join".to_owned()))
        }
        (_, Some(kind)) => Ok(kind),
        (_, None) if kinds.contains(&CodecKind::Value) => Ok(CodecKind::Value),
        (_, None) => Ok(CodecKind::Key),
    }
}

fn run_item(
    function: Function,
    kind: CodecKind,
    codec: &DirectCodec,
    output: Output,
) -> Result<Exit, CliError> {
    let mut bytes = Vec::new();
    let read = stdin().take(MAX_VALUE_BYTES as u64 + 1).read_to_end(&mut bytes);
    read.map_err(|error| CliError::Usage(format!("cannot read standard input: {error}")))?;
    if bytes.len() > MAX_VALUE_BYTES {
        return Err(CliError::Usage(format!("standard input has more than {MAX_VALUE_BYTES} bytes")));
    }
    let outcome = codec.call(&to_request(function, kind, bytes)?)?;
    let mut out = output.writer();
    match outcome {
        Ok(Answer::Text(text)) => writeln!(out, "{text}")?,
        // Bytes would be lost on a terminal, and could control it.
        Ok(Answer::Encoded(_)) if io::stdout().is_terminal() => {
            return Err(CliError::Usage(
                "encode writes bytes, which are not for a terminal: redirect them, or use --lines".to_owned(),
            ));
        }
        Ok(Answer::Encoded(encoded)) => out.write_all(&encoded.raw)?,
        Ok(Answer::Pair(Some(GroupKey { group, member }))) => {
            write_json_line(&mut out, &serde_json::json!({ "group": group, "member": member }))?;
        }
        Ok(Answer::Pair(None)) => {
            tracing::error!("the key is foreign to the group scheme");
            return Ok(Exit::No);
        }
        Err(reason) => {
            tracing::error!("{reason}");
            return Ok(Exit::No);
        }
    }
    out.flush()?;
    Ok(Exit::Done)
}

/// Converts standard input to a request.
fn to_request(function: Function, kind: CodecKind, bytes: Vec<u8>) -> Result<Request, CliError> {
    let text = |bytes| {
        String::from_utf8(bytes).map_err(|_| CliError::Usage("standard input is not UTF-8".to_owned()))
    };
    Ok(match (function, kind) {
        (Function::Decode, CodecKind::Value) => Request::DecodeValue { raw: bytes, headers: Vec::new() },
        (Function::Decode, _) => Request::DecodeKey(bytes),
        (Function::Encode, CodecKind::Value) => {
            let json = text(bytes)?;
            ktables_json::check(&json)
                .map_err(|error| CliError::Usage(format!("standard input is not JSON: {error}")))?;
            Request::EncodeValue(json)
        }
        (Function::Encode, _) => Request::EncodeKey(text(bytes)?),
        (Function::Split, _) => Request::Split(text(bytes)?),
        (Function::Join, _) => {
            let invalid = |_| CliError::Usage(r#"join needs {"group":TEXT,"member":TEXT}"#.to_owned());
            let parts: BTreeMap<String, String> = serde_json::from_slice(&bytes).map_err(invalid)?;
            let part = |name: &str| parts.get(name).cloned().unwrap_or_default().into_boxed_str();
            Request::Join(GroupKey { group: part("group"), member: part("member") })
        }
    })
}

/// Answers each line of standard input.
fn run_lines(
    function: Function,
    kind: CodecKind,
    codec: &DirectCodec,
    output: Output,
) -> Result<Exit, CliError> {
    output.require_json("codec run --lines")?;
    let mut input = BufReader::new(stdin());
    let mut out = output.writer();
    let answered = answer_lines(function, kind, codec, &mut input, &mut out);
    // The answers of the lines before an error are printed, too.
    out.flush()?;
    answered
}

fn answer_lines(
    function: Function,
    kind: CodecKind,
    codec: &DirectCodec,
    input: &mut impl BufRead,
    out: &mut impl Write,
) -> Result<Exit, CliError> {
    let mut exit = Exit::Done;
    for number in 1.. {
        let mut line = Vec::new();
        let read = input.by_ref().take(MAX_LINE_BYTES as u64 + 1).read_until(b'\n', &mut line);
        let failed = |reason: String| CliError::Usage(format!("line {number} of standard input: {reason}"));
        if read.map_err(|error| failed(error.to_string()))? == 0 {
            break;
        }
        if line.len() > MAX_LINE_BYTES {
            return Err(failed(format!("more than {MAX_LINE_BYTES} bytes")));
        }
        if line.trim_ascii().is_empty() {
            continue;
        }
        let mut vector = parse_line(&line, kind).map_err(|error| failed(error.to_string()))?;
        if vector.kind() != kind {
            return Err(failed("it is of another kind than this call (--kind)".to_owned()));
        }
        let is_decode = matches!(function, Function::Decode | Function::Split);
        let request = vector.request(is_decode);
        let request = request.ok_or_else(|| failed("the input of the function is missing".to_owned()))?;
        let outcome: Outcome = codec.call(&request)?;
        if outcome.is_err() {
            exit = Exit::No;
        }
        vector.answer(outcome, is_decode).map_err(failed)?;
        write_json_line(&mut *out, &vector)?;
    }
    Ok(exit)
}

/// Parses a line: a vector that may lack its kind.
fn parse_line(line: &[u8], kind: CodecKind) -> serde_json::Result<Vector> {
    let mut members: BTreeMap<String, Box<RawValue>> = serde_json::from_slice(line)?;
    members.entry("kind".to_owned()).or_insert(to_raw_value(&kind)?);
    serde_json::from_str(&serde_json::to_string(&members)?)
}
