//! The embedded stack: a private Postgres and the reference service as processes of this machine, a proxy on each link.
//!
//! Inside the stack everything listens on Unix sockets in the run's private folder, so runs side by side cannot get into
//! each other's way, and no port is free one moment and taken the next. Only the proxies listen on TCP, and they do so for
//! as long as the run lasts.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use nix::sys::signal::Signal;

use super::control::Control;
use super::guard::Guard;
use super::leftovers::Run;
use super::postgres::Postgres;
use super::process::{Process, RunAs, Spec};
use super::{LOCAL, Local, Provision, Stack, StackError};
use crate::doctor;
use crate::fault::proxy::{Endpoint, Protocol, Proxy, ProxyConfig};
use crate::load::client::Entry;
use crate::scenario::catalogue::Catalogue;
use crate::scenario::{Reference, Scenario, topology};

/// How long a part may take to come up. Generous: a loaded machine is slow, not broken.
const PATIENCE: Duration = Duration::from_secs(30);

/// What the reference service can be asked for, as its program says.
///
/// # Errors
/// There is no such program, or it is of another version than the harness.
pub fn catalogue() -> Result<Catalogue, StackError> {
    let program = doctor::target_binary()?;
    let other = |why: String| StackError::Missing {
        why: format!("{} does not say what it has: {why}", program.display()),
        remedy: "build it and the harness together: cargo build --release --workspace".to_owned(),
    };
    let mut command = Command::new(&program);
    command.args(["catalogue", "--output", "json"]).stdin(Stdio::null());
    let output = command.output().map_err(|error| other(error.to_string()))?;
    if !output.status.success() {
        return Err(other(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
    }
    serde_json::from_slice(&output.stdout).map_err(|error| other(error.to_string()))
}

/// Provisions Postgres, the service, and the proxies between them.
///
/// # Errors
/// What is missing or refused. Nothing is left running: the guard cleans up when it is dropped.
pub async fn up(scenario: &Scenario, reference: &Reference, provision: &Provision) -> Result<Stack, StackError> {
    let binaries = doctor::find_postgres()?;
    let target = canonical(&doctor::target_binary()?)?;
    let run_as = doctor::unprivileged_user()?.map(|user| RunAs { uid: user.uid, gid: user.gid });
    let folder = private_folder(&doctor::folder_for_sockets()?, &provision.run_id)?;
    let guard = Guard::start(&folder, &[target.clone(), canonical(&binaries.bin_dir.join("postgres"))?])
        .map_err(|e| StackError::io("cannot start the guard that cleans up after the run", e))?;

    let postgres = Postgres::create(&binaries.bin_dir, &folder, &provision.logs, run_as)?;
    postgres.process.start()?;
    postgres.ready(PATIENCE).await?;

    let seed = scenario.seed;
    let to_postgres = proxy(topology::TO_POSTGRES, Endpoint::Unix(postgres.socket()), Protocol::Postgres, seed, LOCAL)?;
    let service = Service::new(reference, target, &folder, &provision.logs, &to_postgres)?;
    let (entrance, spoken) = (Endpoint::Unix(service.public.clone()), scenario.spoken());
    let to_service = proxy(topology::ENTRANCE, entrance, spoken, seed ^ 1, provision.listen)?;
    service.process.start()?;
    service.ready(PATIENCE).await?;

    let certificate = service.certificate(reference)?;
    let entry = Entry::of(scenario, to_service.listen_addr(), certificate.as_deref()).map_err(StackError::Other)?;

    let mut addresses = vec![
        ("service (through its proxy)".to_owned(), format!("{}://{}", entry.scheme(), entry.address)),
        ("service, audit listener".to_owned(), format!("unix:{}", service.admin.display())),
        ("postgres (through its proxy)".to_owned(), format!("{}", to_postgres.listen_addr())),
        ("postgres, directly".to_owned(), format!("unix:{}", postgres.socket().display())),
    ];
    if reference.tls {
        addresses.push(("service, its certificate".to_owned(), service.certificate_path().display().to_string()));
    }
    Ok(Stack {
        links: vec![to_service, to_postgres],
        control: Some(service.control.clone()),
        components: vec![Box::new(postgres), Box::new(service)],
        entry,
        addresses,
        run: Run::of_id(&provision.run_id),
        guard: Some(guard),
    })
}

fn canonical(path: &Path) -> Result<PathBuf, StackError> {
    std::fs::canonicalize(path).map_err(|e| StackError::io(format!("cannot find {}", path.display()), e))
}

fn proxy(
    name: &str,
    upstream: Endpoint,
    protocol: Protocol,
    seed: u64,
    listen: SocketAddr,
) -> Result<Proxy, StackError> {
    Ok(Proxy::start(ProxyConfig { name: name.to_owned(), listen, upstream, protocol, seed })?)
}

/// A folder of the run's own below `base`. Others may pass through it, since Postgres runs as another user, but not list it.
fn private_folder(base: &Path, run_id: &str) -> Result<PathBuf, StackError> {
    let folder = base.join(format!("seckill-{run_id}"));
    let fail = |e| StackError::io(format!("cannot make {}; TMPDIR names another place", folder.display()), e);
    std::fs::create_dir(&folder).map_err(fail)?;
    std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o711)).map_err(fail)?;
    Ok(folder)
}

impl Local for Postgres {
    fn process(&self) -> &Arc<Process> {
        &self.process
    }
    fn ready(&self, limit: Duration) -> BoxFuture<'_, Result<(), StackError>> {
        Box::pin(Postgres::ready(self, limit))
    }
    fn farewell(&self) -> Signal {
        // An immediate shutdown: the cluster is thrown away, so a last checkpoint would be for nobody.
        Signal::SIGQUIT
    }
    fn wal_bytes(&self) -> BoxFuture<'_, Option<u64>> {
        Box::pin(async { Postgres::wal_bytes(self).await.ok() })
    }
}

/// The reference service.
#[derive(Debug)]
struct Service {
    process: Arc<Process>,
    control: Control,
    public: PathBuf,
    admin: PathBuf,
    folder: PathBuf,
}

impl Service {
    fn new(
        reference: &Reference,
        program: PathBuf,
        folder: &Path,
        logs: &Path,
        database: &Proxy,
    ) -> Result<Service, StackError> {
        let folder = folder.join("service");
        std::fs::create_dir(&folder).map_err(|e| StackError::io(format!("cannot make {}", folder.display()), e))?;
        let (public, admin) = (folder.join("public.sock"), folder.join("admin.sock"));
        let database = database.listen_addr();
        let url = format!("host={} port={} user=postgres dbname=postgres", database.ip(), database.port());
        let mut arguments: Vec<String> =
            ["serve", "--strategy", &reference.strategy, "--database-url", &url].map(str::to_owned).to_vec();
        for (flag, value) in [
            // The same at each start, so that a service that was killed still knows its buyers.
            ("--secret", secret(&folder)),
            ("--listen", format!("unix:{}", public.display())),
            ("--admin-listen", format!("unix:{}", admin.display())),
            ("--pool-size", reference.pool.to_string()),
            ("--workers", reference.workers.to_string()),
        ] {
            arguments.extend([flag.to_owned(), value]);
        }
        for (id, toggle) in &reference.switches {
            arguments.extend(["--switch".to_owned(), format!("{id}={}", if toggle.0 { "on" } else { "off" })]);
        }
        if reference.tls {
            // The same at each start, too: the service makes its certificate where there is none yet.
            arguments.extend(["--tls".to_owned(), folder.display().to_string()]);
        }
        if let Some(bug) = &reference.bug {
            arguments.extend(["--bug".to_owned(), bug.0.clone(), "--allow-seeded-bugs".to_owned()]);
        }
        let control = Control::new(&Endpoint::Unix(admin.clone()))?;
        let log = logs.join("service.log");
        let spec = Spec { role: "service", program, arguments, folder: folder.clone(), log, run_as: None };
        Ok(Service { process: Arc::new(Process::new(spec)), control, public, admin, folder })
    }

    fn certificate_path(&self) -> PathBuf {
        self.folder.join("certificate.pem")
    }

    /// The certificate that it made for itself, if it speaks TLS. It is there when the service is ready.
    fn certificate(&self, reference: &Reference) -> Result<Option<Vec<u8>>, StackError> {
        let path = self.certificate_path();
        let read = || std::fs::read(&path).map_err(|e| StackError::io(format!("cannot read {}", path.display()), e));
        reference.tls.then(read).transpose()
    }
}

/// A key for session tokens that is the same for the whole run and different for each: it is no secret from this machine.
fn secret(folder: &Path) -> String {
    folder.as_os_str().as_encoded_bytes().iter().rev().take(32).map(|b| format!("{b:02x}")).collect()
}

impl Local for Service {
    fn process(&self) -> &Arc<Process> {
        &self.process
    }
    fn ready(&self, limit: Duration) -> BoxFuture<'_, Result<(), StackError>> {
        Box::pin(async move {
            let end = Instant::now() + limit;
            while !self.control.is_ready().await {
                if let Some(status) = self.process.ended() {
                    let tail = self.process.log_tail();
                    return Err(StackError::Other(format!("the service ended with {status}:\n{tail}")));
                }
                if Instant::now() > end {
                    let tail = self.process.log_tail();
                    return Err(StackError::Other(format!("the service is not ready after {limit:?}:\n{tail}")));
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            Ok(())
        })
    }
    fn farewell(&self) -> Signal {
        Signal::SIGTERM
    }
}
