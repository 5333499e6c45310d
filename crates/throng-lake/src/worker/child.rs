//! The worker's side: reads requests from standard input, answers on standard output.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::sync::mpsc;

use super::confine::{UnopenedFolder, close_inherited, confine};
use super::limits::{PLANNER_STACK, THREAD_STACK, blocking_threads};
use super::protocol::{self, Reply, Request, Setup};
use crate::engine::{Engine, EngineLimits};
use crate::{HashedRow, Hashers, KeyBatch, LakeError};

/// The exit code after a panic.
pub(super) const PANICKED: i32 = 101;
/// The start of a panic's line on standard error.
pub(super) const PANICKED_AT: &str = "panicked at ";

/// Runs a query worker until its standard input ends. Call it first in `main`, before a file is
/// opened or another thread is started. `hashers` are for identifier queries.
///
/// Standard output has only frames; standard error never has a value of the data.
pub fn main(hashers: &'static dyn Hashers) -> ExitCode {
    std::panic::set_hook(Box::new(|panic| {
        // A panic's message may contain values; its location does not. The process ends: the parent
        // reads the location and starts another worker.
        if let Some(at) = panic.location() {
            let _ = writeln!(io::stderr(), "{PANICKED_AT}{}:{}", at.file(), at.line());
        }
        std::process::exit(PANICKED);
    }));
    match run(hashers) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "query worker: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(hashers: &'static dyn Hashers) -> io::Result<()> {
    close_inherited()?;
    let Some(setup) = protocol::read::<Setup>(&mut io::stdin().lock())? else {
        return Err(io::Error::other("this program is started by throng, not by a user"));
    };
    // Before there is another thread: Landlock does not confine threads that exist already.
    let mut out = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    let unopened = match confine(&setup) {
        Ok(unopened) => unopened,
        Err(error) => {
            out.write_all(&protocol::control(&Reply::Failed(error.into()))?)?;
            return Err(io::Error::other("it is not confined"));
        }
    };
    out.write_all(&protocol::control(&Reply::Ready { unopened: unopened.clone() })?)?;
    let (sender, requests) = mpsc::channel();
    std::thread::Builder::new().name("requests".into()).spawn(move || receive(&sender))?;
    let planner = std::thread::Builder::new()
        .name("planner".into())
        .stack_size(PLANNER_STACK)
        .spawn(move || serve(&setup, &unopened, hashers, &requests, &mut out))?;
    planner.join().map_err(|_| io::Error::other("the planner panicked"))?
}

/// Reads requests, also while one is running: the end of the input means that the parent has died
/// or has dropped the worker, and ends the process at once.
fn receive(sender: &mpsc::Sender<Request>) {
    let mut input = io::stdin().lock();
    while let Ok(Some(request)) = protocol::read(&mut input) {
        if sender.send(request).is_err() {
            break;
        }
    }
    std::process::exit(0);
}

fn serve(
    setup: &Setup,
    unopened: &[UnopenedFolder],
    hashers: &dyn Hashers,
    requests: &mpsc::Receiver<Request>,
    out: &mut File,
) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(setup.threads.max(1))
        .max_blocking_threads(blocking_threads(setup.threads))
        .thread_stack_size(THREAD_STACK)
        .enable_all()
        .build()?;
    let limits = EngineLimits {
        memory_bytes: setup.memory_bytes,
        spill_dir: setup.spill_dir.clone(),
        threads: setup.threads,
    };
    let engine = Engine::new(&setup.sources, &limits);
    let engine = engine.map_err(|e| io::Error::other(throng_model::with_causes(&e)))?;
    while let Ok(request) = requests.recv() {
        // Planned on this thread, which has a large stack.
        let reply = runtime.block_on(handle(&engine, hashers, request, out));
        let reply = reply
            .unwrap_or_else(|error| Reply::Failed(UnopenedFolder::explain(unopened, error).into()));
        out.write_all(&protocol::control(&reply)?)?;
    }
    Ok(())
}

async fn handle(
    engine: &Engine,
    hashers: &dyn Hashers,
    request: Request,
    out: &mut File,
) -> Result<Reply, LakeError> {
    match request {
        Request::Check { model } => {
            let (info, parts) = engine.plan(&model, &[]).await?;
            engine.sample(&model.sql).await?;
            Ok(Reply::Plan { info, parts })
        }
        Request::Plan { model, served } => {
            let (info, parts) = engine.plan(&model, &served).await?;
            Ok(Reply::Plan { info, parts })
        }
        Request::Scan { model, part, seed } => {
            let mut sink = |batch: KeyBatch| protocol::write_keys(out, &batch).map_err(Into::into);
            engine.scan(&model, &part, seed, &mut sink).await.map(Reply::Scanned)
        }
        Request::Identifiers { query, seed } => {
            let hasher = hashers.open(&query.hasher);
            let mut hasher = hasher.map_err(|why| LakeError::Sink(why.into()))?;
            let mut sink = |rows: Vec<HashedRow>| out.write_all(&protocol::rows(&rows)?);
            engine.identifiers(&query, seed, hasher.as_mut(), &mut sink).await?;
            Ok(Reply::Checked)
        }
        Request::List => Ok(Reply::Listed(engine.list().await)),
        Request::CheckIdentifiers { sql, key, columns } => {
            engine.check_identifiers(&sql, &key, &columns).await.map(|()| Reply::Checked)
        }
    }
}
