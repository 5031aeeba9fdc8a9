//! Certificates of a server that runs: read at its start, and again whenever their files change or somebody says so.
//!
//! What cannot be used is refused, with a line in the log, and what was there before stays. Files are looked at on a thread of
//! their own, never on a core.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

use crate::config::{Config, Setting};
use crate::error::{Error, Result};
use crate::metrics::{Certificates, Expiry, ReloadResult};
use crate::tls::{Acceptor, Certificate, Material};

/// How often files are looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(10);

/// Has certificates read anew.
#[derive(Clone)]
pub(super) struct Renewal {
    nudges: Sender<()>,
    told: Arc<Mutex<Certificates>>,
}

impl Renewal {
    /// Reads the files soon, changed or not. False if nobody does any more.
    pub(super) fn nudge(&self) -> bool {
        // One that waits is enough.
        !matches!(self.nudges.try_send(()), Err(crossbeam_channel::TrySendError::Disconnected(())))
    }

    /// Where it is written what metrics tell of the certificates.
    pub(super) fn told(&self) -> Arc<Mutex<Certificates>> {
        Arc::clone(&self.told)
    }
}

/// What makes the sessions of the addresses that speak TLS, if there are any, and what renews it, if it came from files.
///
/// # Errors
/// If a file cannot be used.
pub(super) fn acceptor(config: &Config) -> Result<Option<(Arc<Acceptor>, Option<Renewal>)>> {
    let is_wanted = config.addresses.iter().any(|address| config.is_secure(address)) || config.is_admin_secure();
    // Sockets that are passed to this process speak as a bare address does.
    if !is_wanted && !config.has_certificate() {
        return Ok(None);
    }
    let made = |error: crate::tls::TlsError| Error::Internal(error.to_string());
    if let Some(own) = &config.own_tls {
        let acceptor = Acceptor::new((*own.0).clone()).map_err(made)?;
        return Ok(Some((Arc::new(acceptor), None)));
    }
    let material = Material::of(config);
    // Before they are read: a change in between is seen.
    let marks = marks(&material);
    let (rustls, certificates) = material.read(now_unix_s()).map_err(|error| {
        let setting = Setting::named("RINGWIRE_TLS_CERT").expect("a setting of the table");
        setting.conflict(config, error.to_string())
    })?;
    tell(&certificates);
    let acceptor = Arc::new(Acceptor::new(rustls).map_err(made)?);
    let (nudges, nudged) = bounded(1);
    let told = Arc::<Mutex<Certificates>>::default();
    lock(&told).shown = expiries(&certificates);
    let renewal = Renewal { nudges, told: Arc::clone(&told) };
    let look_interval = config.tls_look_interval.unwrap_or(LOOK_INTERVAL);
    let watch = Watch { acceptor: Arc::downgrade(&acceptor), material, marks, nudged, told, look_interval };
    thread::Builder::new()
        .name("ringwire-certificates".into())
        .spawn(move || watch.run())
        .map_err(Error::io("starting the thread that looks at certificates"))?;
    Ok(Some((acceptor, Some(renewal))))
}

fn now_unix_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

fn lock(told: &Mutex<Certificates>) -> MutexGuard<'_, Certificates> {
    told.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A certificate without a name of a host is called by its file.
fn expiries(certificates: &[Certificate]) -> Vec<Expiry> {
    let expiry = |certificate: &Certificate| {
        let name = certificate.names.first().cloned().unwrap_or_else(|| certificate.path.display().to_string());
        Expiry::new(name, certificate.not_after_unix_s)
    };
    certificates.iter().map(expiry).collect()
}

fn tell(certificates: &[Certificate]) {
    let now_unix_s = now_unix_s();
    for certificate in certificates {
        let (file, names) = (certificate.path.display(), certificate.names.join(","));
        let days_left = certificate.days_left(now_unix_s);
        if days_left < Certificate::DAYS_LEFT_FEW {
            tracing::warn!(target: "ringwire::server", %file, names, days_left, "a certificate that ends soon");
        } else {
            tracing::info!(target: "ringwire::server", %file, names, days_left, "certificate");
        }
    }
}

/// What tells whether a file is another one than before: its place, its size and when it was written.
type Mark = Option<(u64, u64, u64, i64, i64)>;

fn marks(material: &Material) -> Vec<(PathBuf, Mark)> {
    material.files().map(|path| (path.to_owned(), mark(path))).collect()
}

fn mark(path: &Path) -> Mark {
    // Through links, which is how some tools put a new file in place.
    let file = fs::metadata(path).ok()?;
    Some((file.dev(), file.ino(), file.size(), file.mtime(), file.mtime_nsec()))
}

struct Watch {
    /// Gone with the server.
    acceptor: Weak<Acceptor>,
    material: Material,
    marks: Vec<(PathBuf, Mark)>,
    nudged: Receiver<()>,
    told: Arc<Mutex<Certificates>>,
    look_interval: Duration,
}

impl Watch {
    fn run(mut self) {
        loop {
            let is_asked = match self.nudged.recv_timeout(self.look_interval) {
                Ok(()) => true,
                Err(RecvTimeoutError::Timeout) => false,
                // Nobody can ask any more, but files still change.
                Err(RecvTimeoutError::Disconnected) => {
                    thread::sleep(self.look_interval);
                    false
                }
            };
            let Some(acceptor) = self.acceptor.upgrade() else { return };
            let marks = marks(&self.material);
            if is_asked || marks != self.marks {
                self.marks = marks;
                self.renew(&acceptor);
            }
        }
    }

    fn renew(&self, acceptor: &Acceptor) {
        let result = match self.material.read(now_unix_s()) {
            Ok((rustls, certificates)) => match acceptor.replace(rustls) {
                Ok(()) => {
                    lock(&self.told).shown = expiries(&certificates);
                    tracing::info!(target: "ringwire::server", certificates = certificates.len(), "certificates are renewed");
                    tell(&certificates);
                    ReloadResult::Renewed
                }
                Err(error) => refused(&error),
            },
            Err(error) => refused(&error),
        };
        lock(&self.told).reloads.add(result, 1);
    }
}

fn refused(error: &dyn std::error::Error) -> ReloadResult {
    tracing::error!(target: "ringwire::server", %error, "new certificates are refused, and those before stay");
    ReloadResult::Refused
}
