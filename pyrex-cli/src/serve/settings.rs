//! [`Settings`]: all that a server is told, once file and flags are one. Flags come first, then the file, then defaults.

use super::engine::EngineSettings;
use super::file;
use crate::fail::Failure;
use clap::Args;
use pyrex_server::Config;
use std::net::IpAddr;
use std::path::PathBuf;

/// Flags of `serve`, which `doctor` takes as well.
#[derive(Args, Clone)]
pub(crate) struct SettingsArguments {
    /// A TOML file; flags come before what it says
    #[arg(long, value_name = "F")]
    pub(crate) config: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) server: ServerArguments,
    #[command(flatten)]
    pub(crate) engine: EngineSettings,
}

/// What the server's own fields can be set to without a file.
#[derive(Args, Clone, Default, PartialEq)]
pub(crate) struct ServerArguments {
    /// The address to listen on [default: 127.0.0.1]
    #[arg(long, value_name = "ADDRESS")]
    host: Option<IpAddr>,
    /// The port to listen on; 0 takes a free one [default: 8080]
    #[arg(long, value_name = "N")]
    port: Option<u16>,
    /// Listen without TLS on an address that others can reach
    #[arg(long)]
    insecure: bool,
    /// What clients call the model [default: the name of its folder]
    #[arg(long, value_name = "NAME")]
    model_name: Option<String>,
    /// The server's certificate and those between it and its root, as PEM
    #[arg(long, value_name = "F")]
    tls_cert: Option<PathBuf>,
    /// Its private key, as PEM
    #[arg(long, value_name = "F")]
    tls_key: Option<PathBuf>,
    /// Who signs clients' certificates, as PEM: only those who show one get in
    #[arg(long, value_name = "F")]
    client_ca: Option<PathBuf>,
    /// Clients' certificates that were revoked, as PEM
    #[arg(long, value_name = "F")]
    client_crl: Option<PathBuf>,
    /// API keys, one `name:key` or `name:sha256:hex` a line: a request needs one of them
    #[arg(long, value_name = "F")]
    keys: Option<PathBuf>,
}

/// All that a server is told.
#[derive(Clone)]
pub(crate) struct Settings {
    pub(crate) config: Config,
    pub(crate) engine: EngineSettings,
}

impl SettingsArguments {
    /// Reads the file, if there is one, and puts the flags over it.
    ///
    /// # Errors
    /// If the file cannot be read, or what comes of it all makes no sense.
    pub(crate) fn resolve(&self) -> Result<Settings, Failure> {
        let (mut config, engine) = match &self.config {
            Some(path) => file::read(path)?,
            None => (Config::default(), EngineSettings::default()),
        };
        self.server.apply(&mut config);
        let engine = self.engine.clone().or(engine);
        config.model = config.model.or_else(|| Some(folder_name(&engine)));
        config.validate()?;
        Ok(Settings { config, engine })
    }
}

impl ServerArguments {
    fn apply(&self, config: &mut Config) {
        config.host = self.host.unwrap_or(config.host);
        config.port = self.port.unwrap_or(config.port);
        config.insecure |= self.insecure;
        let over = |field: &mut Option<_>, flag: &Option<PathBuf>| {
            if flag.is_some() {
                field.clone_from(flag);
            }
        };
        if self.model_name.is_some() {
            config.model.clone_from(&self.model_name);
        }
        over(&mut config.tls.cert, &self.tls_cert);
        over(&mut config.tls.key, &self.tls_key);
        over(&mut config.tls.client_ca, &self.client_ca);
        over(&mut config.tls.client_crl, &self.client_crl);
        over(&mut config.auth.keys, &self.keys);
    }
}

impl Settings {
    /// What clients call the model.
    pub(crate) fn name(&self) -> &str {
        self.config.model.as_deref().unwrap_or_default()
    }

    /// The file that says the same without any flag.
    pub(super) fn to_toml(&self) -> String {
        let engine = self.engine.clone().or(EngineSettings::defaults(self.engine.device()));
        let engine = toml::to_string(&engine).expect("numbers and texts are TOML");
        format!("{}\n[engine]\n{engine}", self.config.to_toml())
    }
}

/// The bundled model's folder is called so, too.
fn folder_name(engine: &EngineSettings) -> String {
    let path = engine.model.as_ref().map(|path| path.canonicalize().unwrap_or_else(|_| path.clone()));
    let name = path.as_ref().map(|path| path.file_name().unwrap_or(path.as_os_str()));
    name.map_or_else(|| "shapes".to_owned(), |name| name.to_string_lossy().into_owned())
}
