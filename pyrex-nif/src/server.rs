//! The HTTP server of `pyrex_server`, on threads of its own, under a process of OTP.

use crate::arrival::OtpHost;
use crate::atoms;
use crate::engine::EngineResource;
use crate::error::Told;
use pyrex_core::{Error, Result};
use pyrex_server::{Config, Reloader, Server, Shutdown, Tenants, router};
use rustler::{Atom, Binary, Encoder, Env, LocalPid, Monitor, NifResult, OwnedEnv, Resource, ResourceArc};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, OnceLock};
use std::thread;
use tokio::runtime::{Builder, Runtime};

/// A server. It closes at once when its owner dies, and when nobody refers to it any more.
pub(crate) struct ServerResource {
    host: Arc<OtpHost>,
    shutdown: Shutdown,
    reloader: Arc<OnceLock<Reloader>>,
}

#[rustler::resource_impl]
impl Resource for ServerResource {
    const IMPLEMENTS_DOWN: bool = true;

    fn down<'a>(&'a self, _: Env<'a>, _: LocalPid, _: Monitor) {
        self.shutdown.cut();
    }
}

impl Drop for ServerResource {
    fn drop(&mut self) {
        self.shutdown.cut();
    }
}

/// What the thread of a server needs.
struct Work {
    config: Vec<u8>,
    num_threads: usize,
    host: Arc<OtpHost>,
    shutdown: Shutdown,
    reloader: Arc<OnceLock<Reloader>>,
}

/// `config` is JSON with the fields of `pyrex_server::Config`.
#[rustler::nif]
fn server_open(
    env: Env<'_>,
    config: Binary<'_>,
    num_threads: usize,
    id: u64,
    owner: LocalPid,
) -> Result<ResourceArc<ServerResource>, Told> {
    let (host, shutdown, reloader) = (OtpHost::new(owner, id), Shutdown::new(), Arc::default());
    let work = Work {
        config: config.as_slice().to_vec(),
        num_threads,
        host: host.clone(),
        shutdown: shutdown.clone(),
        reloader: Arc::clone(&reloader),
    };
    let server = ResourceArc::new(ServerResource { host, shutdown, reloader });
    if env.monitor(&server, &owner).is_none() {
        return Err(Error::cancelled("the owner of the server is dead").into());
    }
    let body = move || {
        let tell = |what| send(&owner, id, what);
        let ended = catch_unwind(AssertUnwindSafe(|| work.serve(&tell)));
        tell(ended.unwrap_or_else(|_| Word::Error(Error::internal("a panic in the thread of the server"))));
    };
    match thread::Builder::new().name("pyrex-server".to_owned()).spawn(body) {
        Ok(_) => Ok(server),
        Err(error) => Err(Error::io(format_args!("cannot start the thread pyrex-server: {error}")).into()),
    }
}

/// What the owner of a server is told.
enum Word {
    Open(String),
    Error(Error),
    Closed(usize),
}

fn send(owner: &LocalPid, id: u64, what: Word) {
    // An owner that is gone closes its server.
    let _ = OwnedEnv::new().send_and_clear(owner, |env| {
        let what = match what {
            Word::Open(address) => (atoms::open(), address).encode(env),
            Word::Error(error) => (atoms::error(), Told(error)).encode(env),
            Word::Closed(num_cut_off) => (atoms::closed(), num_cut_off).encode(env),
        };
        (atoms::pyrex_server(), id, what)
    });
}

impl Work {
    /// Opens the port, and serves until told to stop. Returns the last word.
    fn serve(self, tell: &dyn Fn(Word)) -> Word {
        let runtime = match self.runtime() {
            Ok(runtime) => runtime,
            Err(error) => return Word::Error(error),
        };
        let last = match runtime.block_on(self.open()) {
            Ok(server) => {
                tell(Word::Open(server.local_addr().to_string()));
                Word::Closed(runtime.block_on(server.serve(self.shutdown)))
            }
            Err(error) => Word::Error(error),
        };
        runtime.shutdown_background();
        last
    }

    fn runtime(&self) -> Result<Runtime> {
        let mut builder = Builder::new_multi_thread();
        builder.worker_threads(self.num_threads).thread_name("pyrex-http").enable_all();
        builder.build().map_err(|e| Error::io(format_args!("cannot start threads of the server: {e}")))
    }

    async fn open(&self) -> Result<Server> {
        let config = config(&self.config)?;
        let tenants = Arc::new(Tenants::open(&config)?);
        let router = router(self.host.clone(), &config, tenants.clone(), self.shutdown.clone())?;
        let server = Server::bind(&config, router).await?;
        // It is opened once.
        let _ = self.reloader.set(server.reloader(tenants));
        Ok(server)
    }
}

fn config(json: &[u8]) -> Result<Config> {
    let config: Config = serde_json::from_slice(json).map_err(|error| {
        let said = error.to_string();
        let said = said.split(" at line ").next().unwrap_or_default().to_owned();
        Error::invalid_request(format_args!("the options of the server: {said}"))
    })?;
    config.validate().map(|()| config)
}

#[rustler::nif]
fn server_set_engine(
    server: ResourceArc<ServerResource>,
    engine: Option<ResourceArc<EngineResource>>,
) -> Atom {
    server.host.set_engine(engine);
    atoms::ok()
}

/// Lets requests under way end; `{:closed, num_cut_off}` comes when they have.
#[rustler::nif]
fn server_stop(server: ResourceArc<ServerResource>) -> Atom {
    server.shutdown.begin();
    atoms::ok()
}

/// Reads certificates, keys and tenants anew. The fields that hold only after a restart come as a reply.
#[rustler::nif]
fn server_reload(
    server: ResourceArc<ServerResource>,
    given: Binary<'_>,
    id: u64,
    owner: LocalPid,
) -> NifResult<Result<Atom, Told>> {
    let (given, reloader) = (given.as_slice().to_vec(), server.reloader.clone());
    let body = move || {
        let reloaded = catch_unwind(AssertUnwindSafe(|| {
            let reloader = reloader.get().ok_or_else(|| Error::closed("the server is not open yet"))?;
            reloader.reload(&config(&given)?)
        }));
        let reloaded = reloaded.unwrap_or_else(|_| Err(Error::internal("a panic while files were read")));
        // Whoever is gone does not miss the answer.
        let _ = OwnedEnv::new()
            .send_and_clear(&owner, |env| (atoms::pyrex_reply(), id, reloaded.map_err(Told)).encode(env));
    };
    let spawned = thread::Builder::new().name("pyrex-reload".to_owned()).spawn(body);
    let refused = |e| Told(Error::overloaded(format_args!("cannot start a thread: {e}")));
    Ok(spawned.map(|_| atoms::ok()).map_err(refused))
}
