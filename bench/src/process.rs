//! Processes from outside: starting them on one core, reading what they used, ending them.

use std::convert::Infallible;
use std::ffi::OsString;
use std::fs;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal};
use rustix::thread::CpuSet;

const HIGHEST_PRIORITY: i32 = -20;

/// User and system time of all threads of a process so far.
pub(crate) fn cpu_time(pid: u32) -> Result<Duration> {
    let stat =
        fs::read_to_string(format!("/proc/{pid}/stat")).with_context(|| format!("process {pid} is gone"))?;
    let ticks = cpu_ticks(&stat).with_context(|| format!("unexpected /proc/{pid}/stat"))?;
    Ok(Duration::from_secs_f64(ticks as f64 / rustix::param::clock_ticks_per_second() as f64))
}

/// Fields 14 and 15; counted from the closing parenthesis because the name before it may hold blanks.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let mut fields = stat[stat.rfind(')')? + 1..].split_ascii_whitespace().skip(11);
    Some(fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?)
}

/// Time the threads of a process were ready to run but had to wait for their core. Threads that ended
/// are not counted; a figure to judge a measurement by, not a result.
pub(crate) fn wait_time(pid: u32) -> Result<Duration> {
    let mut nanos = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task")).with_context(|| format!("process {pid} is gone"))? {
        let schedstat = fs::read_to_string(task?.path().join("schedstat")).unwrap_or_default();
        nanos += schedstat.split_ascii_whitespace().nth(1).and_then(|field| field.parse().ok()).unwrap_or(0);
    }
    Ok(Duration::from_nanos(nanos))
}

/// Resident memory in KiB.
pub(crate) fn rss_kib(pid: u32) -> Result<u64> {
    memory_kib(pid, "VmRSS:")
}

/// The most resident memory so far in KiB.
pub(crate) fn peak_kib(pid: u32) -> Result<u64> {
    memory_kib(pid, "VmHWM:")
}

fn memory_kib(pid: u32, name: &str) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))
        .with_context(|| format!("process {pid} is gone"))?;
    let line =
        status.lines().find_map(|line| line.strip_prefix(name)).with_context(|| format!("no {name}"))?;
    line.trim().trim_end_matches(" kB").parse().context("memory")
}

/// A thread of a process.
#[derive(Debug)]
pub(crate) struct Thread {
    pub(crate) id: i32,
    pub(crate) name: String,
    /// Time it has run so far.
    pub(crate) ran: Duration,
}

pub(crate) fn threads(pid: u32) -> Result<Vec<Thread>> {
    let mut threads = Vec::new();
    for task in fs::read_dir(format!("/proc/{pid}/task")).with_context(|| format!("process {pid} is gone"))? {
        let task = task?;
        let read = |file| fs::read_to_string(task.path().join(file));
        // One may end while the list is read.
        let (Ok(name), Ok(schedstat)) = (read("comm"), read("schedstat")) else { continue };
        let id = task.file_name().to_string_lossy().parse().context("the id of a thread")?;
        let nanos = schedstat.split_ascii_whitespace().next().and_then(|field| field.parse().ok());
        let ran = Duration::from_nanos(nanos.context("unexpected schedstat")?);
        threads.push(Thread { id, name: name.trim().to_owned(), ran });
    }
    Ok(threads)
}

/// Moves a thread to a core.
pub(crate) fn pin_thread(id: i32, cpu: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu);
    let thread = Pid::from_raw(id).context("the id of a thread")?;
    rustix::thread::sched_setaffinity(Some(thread), &set)
        .with_context(|| format!("pinning {id} to core {cpu}"))
}

/// Lets a thread run before everything that is not urgent itself. Only root may; `false` otherwise.
pub(crate) fn make_urgent(id: i32) -> bool {
    let done = Command::new("chrt").args(["-f", "-p", "50", &id.to_string()]).output();
    done.is_ok_and(|output| output.status.success())
}

/// The only child of a process, once it has one (the worker of an nginx master).
pub(crate) fn only_child(pid: u32) -> Option<u32> {
    let children = fs::read_dir("/proc").ok()?.filter_map(|entry| {
        let child: u32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
        let stat = fs::read_to_string(format!("/proc/{child}/stat")).ok()?;
        let parent: u32 = stat[stat.rfind(')')? + 1..].split_ascii_whitespace().nth(1)?.parse().ok()?;
        (parent == pid).then_some(child)
    });
    let children: Vec<u32> = children.collect();
    (children.len() == 1).then(|| children[0])
}

/// Share of all cores in use over `period`: what else runs on this machine.
pub(crate) fn machine_load(period: Duration) -> Result<f64> {
    let read = || -> Result<(f64, f64)> {
        let stat = fs::read_to_string("/proc/stat")?;
        let line = stat.lines().next().context("empty /proc/stat")?;
        let fields: Vec<f64> =
            line.split_ascii_whitespace().skip(1).take(8).filter_map(|f| f.parse().ok()).collect();
        ensure!(fields.len() == 8, "unexpected /proc/stat");
        Ok((fields.iter().sum(), fields[3] + fields[4]))
    };
    let (total, idle) = read()?;
    std::thread::sleep(period);
    let (total_after, idle_after) = read()?;
    Ok(1.0 - (idle_after - idle) / (total_after - total).max(1.0))
}

/// The cores this process may run on.
pub(crate) fn allowed_cpus() -> Result<Vec<usize>> {
    let set = rustix::thread::sched_getaffinity(None)?;
    Ok((0..CpuSet::MAX_CPU).filter(|&cpu| set.is_set(cpu)).collect())
}

pub(crate) fn pin_self(cpu: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu);
    rustix::thread::sched_setaffinity(None, &set).with_context(|| format!("pinning to core {cpu}"))
}

/// Pins this process, asks for `signal` when the parent dies, and becomes `command`.
pub(crate) fn become_pinned(
    cpu: usize,
    signal: StopWith,
    urgent: bool,
    command: &[OsString],
) -> Result<Infallible> {
    pin_self(cpu)?;
    rustix::process::set_parent_process_death_signal(Some(signal.signal()))?;
    prefer_self();
    if urgent {
        make_urgent(i32::try_from(std::process::id())?);
    }
    let (program, arguments) = command.split_first().context("no command")?;
    let error = Command::new(program).args(arguments).exec();
    Err(error).with_context(|| format!("starting {}", program.to_string_lossy()))
}

/// Puts this process before other work on the machine as far as it may, which is root's right alone:
/// by its own priority, and by that of the session, since the kernel shares the cores out by session.
fn prefer_self() {
    let _ = rustix::process::setsid();
    let _ = fs::write("/proc/self/autogroup", HIGHEST_PRIORITY.to_string());
    let _ = rustix::process::setpriority_process(None, HIGHEST_PRIORITY);
}

/// A command line that runs `program` pinned to `cpu` (by way of this program's `pin` subcommand).
pub(crate) fn pinned(cpu: usize, signal: StopWith, program: impl Into<OsString>) -> Result<Command> {
    let mut command = Command::new(std::env::current_exe().context("finding this program")?);
    command.args(["pin", "--cpu", &cpu.to_string(), "--stop-with", signal.name(), "--"]).arg(program.into());
    Ok(command)
}

/// This program, pinned to `cpu`, before everything that is not urgent itself (as far as it may).
pub(crate) fn pinned_self(cpu: usize, signal: StopWith, urgent: bool) -> Result<Command> {
    let this = std::env::current_exe().context("finding this program")?;
    let mut command = Command::new(&this);
    command.args(["pin", "--cpu", &cpu.to_string(), "--stop-with", signal.name()]);
    if urgent {
        command.arg("--urgent");
    }
    command.arg("--").arg(this);
    Ok(command)
}

/// The signal that ends a process at once and with all its children.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum StopWith {
    Term,
    Kill,
}

impl StopWith {
    fn signal(self) -> Signal {
        match self {
            Self::Term => Signal::TERM,
            Self::Kill => Signal::KILL,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Term => "term",
            Self::Kill => "kill",
        }
    }
}

/// A started process that ends with this value.
pub(crate) struct Process {
    child: Child,
    stop_with: StopWith,
}

impl Process {
    pub(crate) fn new(child: Child, stop_with: StopWith) -> Self {
        Self { child, stop_with }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// An error once the process has ended.
    pub(crate) fn check_alive(&mut self) -> Result<()> {
        let status = self.child.try_wait()?;
        ensure!(status.is_none(), "it ended: {}", status.unwrap_or_default());
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let pid = Pid::from_child(&self.child);
        let _ = rustix::process::kill_process(pid, self.stop_with.signal());
        let deadline = Instant::now() + Duration::from_secs(3);
        while Instant::now() < deadline {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_have_names_and_run() {
        let busy = std::thread::Builder::new().name("bench-busy".to_owned());
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        let busy =
            busy.spawn(move || while stopped.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) {});
        let started = Instant::now();
        let mut ran = Duration::ZERO;
        while ran < Duration::from_millis(20) {
            assert!(started.elapsed() < Duration::from_secs(20), "a busy thread that does not run");
            let threads = threads(std::process::id()).expect("threads");
            ran = threads.iter().find(|thread| thread.name == "bench-busy").map_or(ran, |thread| thread.ran);
        }
        drop(stop);
        busy.expect("a thread").join().expect("its end");
    }

    #[test]
    fn ticks_of_a_name_with_blanks() {
        let stat = "12 (a) b) S 1 12 12 0 -1 4194560 100 0 0 0 250 50 7 8 20 0 1 0 100";
        assert_eq!(cpu_ticks(stat), Some(300));
        assert_eq!(cpu_ticks("12 (a"), None);
    }

    #[test]
    fn this_process_has_memory_and_a_core() {
        let pid = std::process::id();
        assert!(rss_kib(pid).expect("rss") > 500);
        assert!(!allowed_cpus().expect("cpus").is_empty());
        let (before, started) = (cpu_time(pid).expect("cpu"), Instant::now());
        while cpu_time(pid).expect("cpu") - before < Duration::from_millis(50) {
            assert!(started.elapsed() < Duration::from_secs(20), "busy, but no processor time counted");
        }
    }
}
