//! The worker's side: reads requests from standard input, answers on standard output.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::sync::mpsc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::confine::{close_inherited, confine};
use crate::exit::{PANICKED, PANICKED_AT};
use crate::frame;
use crate::limits::{PLANNER_STACK, THREAD_STACK, blocking_threads};
use crate::setup::{Setup, SetupReply, UnopenedFolder};

/// What a worker does with its requests.
pub trait Handler {
    /// A request.
    type Request: DeserializeOwned + Send + 'static;
    /// A reply.
    type Reply: Serialize;

    /// Answers a request. Writes the frames of its data to `out`; the reply is sent after them.
    fn handle(&self, request: Self::Request, out: &mut File) -> impl Future<Output = Self::Reply>;
}

/// Runs a query worker until its standard input ends. Call it first in `main`, before a file is
/// opened or another thread is started. `open` makes the handler after the worker has confined
/// itself; it gets the folders that could not be opened. It runs in the thread that handles the
/// requests, which has a large stack.
///
/// Standard output has only frames; standard error never has a value of the data.
pub fn main<T, H, F>(open: F) -> ExitCode
where
    T: DeserializeOwned + Send + 'static,
    H: Handler + 'static,
    F: FnOnce(Setup<T>, Vec<UnopenedFolder>) -> io::Result<H> + Send + 'static,
{
    std::panic::set_hook(Box::new(|panic| {
        // A panic's message may contain values; its location does not. The process ends: the parent
        // reads the location and starts another worker.
        if let Some(at) = panic.location() {
            let _ = writeln!(io::stderr(), "{PANICKED_AT}{}:{}", at.file(), at.line());
        }
        std::process::exit(PANICKED);
    }));
    match run(open) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "query worker: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run<T, H, F>(open: F) -> io::Result<()>
where
    T: DeserializeOwned + Send + 'static,
    H: Handler + 'static,
    F: FnOnce(Setup<T>, Vec<UnopenedFolder>) -> io::Result<H> + Send + 'static,
{
    close_inherited()?;
    let Some(setup) = frame::read::<Setup<T>>(&mut io::stdin().lock())? else {
        return Err(io::Error::other("this program is started by throng, not by a user"));
    };
    // Before there is another thread: Landlock does not confine threads that exist already.
    let mut out = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    let unopened = match confine(&setup.confinement) {
        Ok(unopened) => unopened,
        Err(refusal) => {
            out.write_all(&frame::control(&SetupReply::Refused(refusal))?)?;
            return Err(io::Error::other("it is not confined"));
        }
    };
    let ready = SetupReply::Ready { unopened: unopened.clone() };
    out.write_all(&frame::control(&ready)?)?;
    let (sender, requests) = mpsc::channel::<H::Request>();
    std::thread::Builder::new().name("requests".into()).spawn(move || receive(&sender))?;
    let threads = setup.confinement.threads;
    let planner = std::thread::Builder::new()
        .name("planner".into())
        .stack_size(PLANNER_STACK)
        .spawn(move || serve(threads, || open(setup, unopened), &requests, &mut out))?;
    planner.join().map_err(|_| io::Error::other("the planner panicked"))?
}

/// Reads requests, also while one is running: the end of the input means that the parent has died
/// or has dropped the worker, and ends the process at once.
fn receive<Q: DeserializeOwned>(sender: &mpsc::Sender<Q>) {
    let mut input = io::stdin().lock();
    while let Ok(Some(request)) = frame::read(&mut input) {
        if sender.send(request).is_err() {
            break;
        }
    }
    std::process::exit(0);
}

fn serve<H: Handler>(
    threads: usize,
    open: impl FnOnce() -> io::Result<H>,
    requests: &mpsc::Receiver<H::Request>,
    out: &mut File,
) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads.max(1))
        .max_blocking_threads(blocking_threads(threads))
        .thread_stack_size(THREAD_STACK)
        .enable_all()
        .build()?;
    let handler = open()?;
    while let Ok(request) = requests.recv() {
        // Planned on this thread, which has a large stack.
        let reply = runtime.block_on(handler.handle(request, out));
        out.write_all(&frame::control(&reply)?)?;
    }
    Ok(())
}
