//! The command `serve`, and `token new`.

use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use crate::cli::args::ServeArgs;
use crate::cli::output::Output;
use crate::cli::stop::wait_for_stop;
use crate::cli::{CliError, Exit, StopRequests, codec};
use crate::config::Config;
use crate::serve::{NewToken, ServeOptions, run};

/// Serves until the command is asked to stop, and ends at once when it is asked again.
pub(super) async fn serve(args: ServeArgs, mut stop_requests: StopRequests) -> Result<Exit, CliError> {
    let options = ServeOptions {
        config: Config::read(&args.config)?,
        path: args.config,
        engine: codec::engine_options(),
        is_insecure: args.insecure,
    };
    let mut stop = stop_requests.clone();
    let served = run(options, hangups()?, async move { wait_for_stop(&mut stop, 1).await });
    tokio::select! {
        served = served => served?,
        () = wait_for_stop(&mut stop_requests, 2) => return Err(CliError::Interrupted),
    }
    Ok(Exit::Done)
}

/// Returns a channel that receives something on each SIGHUP, on which servers reload their configuration.
fn hangups() -> Result<mpsc::Receiver<()>, CliError> {
    let mut signal = signal(SignalKind::hangup()).map_err(CliError::Output)?;
    let (sender, hangups) = mpsc::channel(1);
    tokio::spawn(async move {
        while signal.recv().await.is_some() {
            // OK to ignore: a request is waiting already.
            let _ = sender.try_send(());
        }
    });
    Ok(hangups)
}

/// A new token, as it is printed.
#[derive(Debug, Serialize)]
struct TokenJson {
    token: String,
    token_sha256: String,
}

/// Creates a token.
pub(super) fn new_token(output: Output) -> Result<Exit, CliError> {
    let token = NewToken::generate();
    output.print_object(&TokenJson {
        token: token.text().to_owned(),
        token_sha256: token.hash().to_string(),
    })?;
    Ok(Exit::Done)
}
