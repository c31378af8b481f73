//! `pyrex serve`: the bundled model, or another, behind OpenAI's protocol.
//!
//! [`settings`] is what was asked, by file and by flags; [`signals`] is how a running server is told something; [`notify`]
//! tells systemd. What is wrong is said before the port opens, in one line.

mod cache_size;
pub(crate) mod descriptors;
mod engine;
mod file;
mod notify;
mod settings;
mod signals;

pub(crate) use engine::EngineSettings;
pub(crate) use settings::{ServerArguments, Settings, SettingsArguments};

use crate::fail::Failure;
use crate::log::{self, LogArguments};
use crate::progress;
use clap::Args;
use pyrex_core::Engine;
use pyrex_server::{EngineHost, Server, Shutdown, Tenants, router};
use signals::Signals;
use std::io::{Write, stdout};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;
use tokio::runtime::{Builder, Runtime};

/// How long what was left behind may take once all answers are written.
const LEFTOVERS: Duration = Duration::from_secs(1);

/// Arguments of `serve`.
#[derive(Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    settings: SettingsArguments,
    /// Print the file that says the same as all flags, files and defaults, and stop
    #[arg(long)]
    print_config: bool,
    #[command(flatten)]
    log: LogArguments,
}

/// Runs the command.
pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let settings = arguments.settings.resolve()?;
    if arguments.print_config {
        return Ok(stdout().write_all(settings.to_toml().as_bytes())?);
    }
    let log = log::start(&arguments.log)?;
    let failed = |error| Failure::Other(format!("cannot start threads: {error}"));
    let runtime = Builder::new_multi_thread().enable_all().build().map_err(failed)?;
    descriptors::ask(&settings.config);
    let tenants = Tenants::open(&settings.config)?;
    check_listener(&runtime, &settings)?;
    let engine = Engine::open(settings.engine.options(progress::on_terminal())?)?;
    let served = runtime.block_on(serve(&arguments.settings, settings, engine, Arc::new(tenants)));
    runtime.shutdown_timeout(LEFTOVERS);
    log.close();
    served
}

/// Whether the port and its certificates can be had, before a model is loaded for them.
pub(crate) fn check_listener(runtime: &Runtime, settings: &Settings) -> pyrex_core::Result<()> {
    runtime.block_on(Server::bind(&settings.config, Default::default())).map(drop)
}

async fn serve(
    arguments: &SettingsArguments,
    settings: Settings,
    engine: Engine,
    tenants: Arc<Tenants>,
) -> Result<(), Failure> {
    let shutdown = Shutdown::new();
    let host = Arc::new(EngineHost::new(engine.clone()));
    let router = router(host, &settings.config, tenants.clone(), shutdown.clone())?;
    let signals = Signals::new()?;
    let server = Server::bind(&settings.config, router).await?;
    let url = url(&settings, &server);
    // Whoever closed stdout does not want to know; the log says it again.
    drop(writeln!(stdout(), "listening on {url}"));
    tracing::info!(%url, model = settings.name(), "listening");
    let died = watch(&engine, &shutdown)?;
    let reloader = server.reloader(tenants);
    let heeding = signals.heed(shutdown.clone(), arguments.clone(), settings.clone(), reloader);
    let heeding = tokio::spawn(heeding);
    let watchdog = tokio::spawn(notify::watchdog(engine, settings.engine.stuck_after()));
    notify::ready();
    let num_cut = server.serve(shutdown).await;
    heeding.abort();
    watchdog.abort();
    match (died.get(), num_cut) {
        (Some(error), _) => Err(Failure::Other(format!("the engine closed: {error}"))),
        (None, 0) => Ok(()),
        (None, num_cut) => Err(Failure::Other(format!("{num_cut} requests were cut off"))),
    }
}

/// An engine that closes by itself will not open again: whoever supervises the process starts another.
fn watch(engine: &Engine, shutdown: &Shutdown) -> Result<Arc<OnceLock<pyrex_core::Error>>, Failure> {
    let (watch, shutdown, died) = (engine.watch(), shutdown.clone(), Arc::new(OnceLock::new()));
    let told = died.clone();
    let wait = move || {
        let error = watch.wait();
        if !shutdown.is_begun() {
            tracing::error!(%error, "the engine closed");
            // Nobody else sets it.
            let _ = told.set(error);
            shutdown.begin();
        }
    };
    let failed = |error| Failure::Other(format!("cannot start threads: {error}"));
    thread::Builder::new().name("pyrex-engine-watch".to_owned()).spawn(wait).map_err(failed)?;
    Ok(died)
}

fn url(settings: &Settings, server: &Server) -> String {
    let scheme = if settings.config.tls.cert.is_some() { "https" } else { "http" };
    format!("{scheme}://{}", server.local_addr())
}
