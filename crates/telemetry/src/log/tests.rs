//! Tests of the log: the shape of lines, the filter, the buffer.

use std::{
    io::{self, Write},
    sync::{Arc, Condvar, Mutex},
    time::{Duration, Instant},
};

use tracing_subscriber::{EnvFilter, layer::SubscriberExt};

use super::{Output, events, filter, layer, sink};

#[derive(Clone, Default)]
struct Captured(Arc<Mutex<Vec<u8>>>);

impl Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What was handed over at once, each time.
#[derive(Default)]
struct Taken(Mutex<Vec<String>>);

impl Output for Taken {
    fn take(&self, lines: &[u8], count: u64) {
        let lines = str::from_utf8(lines).unwrap();
        assert!(lines.ends_with('\n'));
        assert_eq!(lines.lines().count() as u64, count);
        self.0.lock().unwrap().push(lines.to_owned());
    }
}

/// How lines are written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct How {
    pub(crate) filter: &'static str,
    pub(crate) json: bool,
    pub(crate) ansi: bool,
    /// Without the way around events.
    pub(crate) only_events: bool,
}

/// What `f` logs, as it is handed over.
pub(crate) fn taken(how: How, f: impl FnOnce()) -> Vec<String> {
    let taken = Arc::new(Taken::default());
    let layer = if how.only_events { events } else { layer };
    let layer = layer(how.json, how.ansi, taken.clone());
    let subscriber = tracing_subscriber::registry().with(EnvFilter::new(how.filter)).with(layer);
    tracing::subscriber::with_default(subscriber, f);
    std::mem::take(&mut *taken.0.lock().unwrap())
}

/// The lines that `f` logs.
fn capture_with(filter: &'static str, json: bool, ansi: bool, f: impl FnOnce()) -> Vec<String> {
    let taken = taken(How { filter, json, ansi, only_events: false }, f);
    taken.iter().flat_map(|lines| lines.lines()).map(str::to_owned).collect()
}

/// The lines that `f` logs, at level info and above.
pub(crate) fn capture(json: bool, f: impl FnOnce()) -> Vec<String> {
    capture_with("info", json, false, f)
}

/// A line without its timestamp, which must be RFC 3339 in UTC with microseconds.
pub(crate) fn after_time(line: &str) -> &str {
    let (time, rest) = line.split_once(' ').unwrap();
    let digits: String = time.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    assert_eq!(digits, "0000-00-00T00:00:00.000000Z");
    rest
}

fn some_lines() {
    let span = tracing::error_span!(target: "t", "request", request_id = %"r-1");
    span.in_scope(|| {
        tracing::info!(target: "t", n = 3, text = "a\"b", reason = %"plain", on = true, "hello");
        tracing::debug!(target: "t", "too fine");
    });
    tracing::warn!(target: "t", request_id = "r-2", absent = None::<&str>, "own id");
    tracing::warn!(target: "t", level = "x", injected = %"a\nb\u{1b}[2J", "two\nlines\u{2028}");
}

#[test]
fn text_lines_are_exact() {
    let lines = capture(false, some_lines);
    let lines: Vec<_> = lines.iter().map(|line| after_time(line)).collect();
    assert_eq!(
        lines,
        [
            r#"INFO request{request_id=r-1}: t: hello n=3 text="a\"b" reason=plain on=true"#,
            r#"WARN request{request_id=r-2}: t: own id request_id="r-2""#,
            r#"WARN t: two\nlines\u{2028} level="x" injected=a\nb\u{1b}[2J"#,
        ]
    );
}

#[test]
fn json_lines_are_flat_objects() {
    let lines = capture(true, some_lines);
    let without_time = |line: &String| {
        let mut object: serde_json::Map<String, serde_json::Value> = serde_json::from_str(line).unwrap();
        let time = object.shift_remove("timestamp").unwrap();
        after_time(&format!("{} ", time.as_str().unwrap()));
        serde_json::Value::from(object).to_string()
    };
    assert_eq!(
        lines.iter().map(without_time).collect::<Vec<_>>(),
        [
            r#"{"level":"INFO","target":"t","message":"hello","n":3,"text":"a\"b","reason":"plain","on":true,"request_id":"r-1"}"#,
            r#"{"level":"WARN","target":"t","message":"own id","request_id":"r-2"}"#,
            r#"{"level":"WARN","target":"t","message":"two\nlines\u{2028}","level_":"x","injected":"a\nb\u001b[2J"}"#
                .replace("\\u{2028}", "\u{2028}")
                .as_str(),
        ]
    );
}

#[test]
fn colours_are_only_for_terminals() {
    let on = capture_with("info", false, true, some_lines);
    assert!(on[0].contains("\u{1b}[32mINFO\u{1b}[0m"), "{}", on[0]);
    let off = capture(false, some_lines);
    assert!(off.iter().all(|line| !line.contains('\u{1b}')));
}

#[test]
fn directives_select_by_target_and_level() {
    let lines = capture_with("error,t=warn", false, false, some_lines);
    assert_eq!(lines.len(), 2);
    let lines = capture_with("error,t=debug", false, false, some_lines);
    assert_eq!(lines.len(), 4);
}

#[test]
fn the_environment_wins_when_valid() {
    let shown = |configured, variable| {
        let (filter, ignored) = filter(configured, variable).unwrap();
        (filter.to_string(), ignored.is_some())
    };
    assert_eq!(shown("warn", None), ("warn".into(), false));
    assert_eq!(shown("warn", Some("")), ("warn".into(), false));
    assert_eq!(shown("warn", Some("a=trace")), ("a=trace".into(), false));
    assert_eq!(shown("warn", Some("a=loud")), ("warn".into(), true));
    assert_eq!(shown(" ", None), ("info".into(), false));
    let error = filter("a=loud", None).unwrap_err().to_string();
    assert!(error.starts_with("invalid log filter \"a=loud\": "), "{error}");
    assert!(filter("a=loud", Some("info")).is_err());
    for good in ["info", "INFO", "warn,aisix=debug", "info,hyper"] {
        assert!(super::check(good).is_ok(), "{good}");
    }
    for bad in ["inof", "aisix", "a=b=c", "info,=,"] {
        assert!(super::check(bad).is_err(), "{bad}");
    }
}

/// An output whose first write waits until it is let go.
#[derive(Clone, Default)]
struct Slow {
    captured: Captured,
    gate: Arc<(Mutex<Gate>, Condvar)>,
}

#[derive(Default)]
struct Gate {
    waiting: bool,
    open: bool,
}

impl Slow {
    fn change(&self, f: impl FnOnce(&mut Gate)) {
        f(&mut self.gate.0.lock().unwrap());
        self.gate.1.notify_all();
    }

    fn wait_until(&self, f: impl Fn(&Gate) -> bool) {
        let gate = self.gate.0.lock().unwrap();
        let patience = Duration::from_secs(20);
        let waited = self.gate.1.wait_timeout_while(gate, patience, |g| !f(g));
        assert!(!waited.unwrap().1.timed_out());
    }
}

impl Write for Slow {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.change(|gate| gate.waiting = true);
        self.wait_until(|gate| gate.open);
        self.captured.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_stuck_output_costs_lines_but_blocks_nobody() {
    let (output, sink) = (Slow::default(), sink::Sink::default());
    let lost = Mutex::new(0);
    std::thread::scope(|scope| {
        scope.spawn(|| sink.run(output.clone(), |n| *lost.lock().unwrap() += n));
        let line = [b'x'; 1024];
        assert!(sink.append(&line, 1));
        output.wait_until(|gate| gate.waiting);
        // One line is being written; these fill the rest of the buffer.
        let fits = sink::MAX_WAITING / line.len() - 1;
        for _ in 0..fits + 5 {
            assert!(sink.append(&line, 1));
        }
        // Lines that come together go together.
        assert!(sink.append(&line, 2));
        output.change(|gate| gate.open = true);
        sink.close(Duration::from_secs(20));
        assert!(!sink.append(&line, 1));
        assert_eq!(output.captured.0.lock().unwrap().len(), sink::MAX_WAITING);
    });
    assert_eq!(*lost.lock().unwrap(), 7);
}

#[test]
fn lines_appear_without_being_asked_for() {
    let (output, sink) = (Captured::default(), sink::Sink::default());
    std::thread::scope(|scope| {
        scope.spawn(|| sink.run(output.clone(), |_| ()));
        for round in 1..=3 {
            assert!(sink.append(b"line\n", 1));
            let deadline = Instant::now() + Duration::from_secs(20);
            while output.0.lock().unwrap().len() < round * 5 {
                assert!(Instant::now() < deadline);
                std::thread::yield_now();
            }
        }
        sink.close(Duration::from_secs(20));
    });
    assert_eq!(output.0.lock().unwrap().as_slice(), b"line\nline\nline\n");
}

#[test]
fn closing_does_not_wait_for_ever() {
    let (output, sink) = (Slow::default(), sink::Sink::default());
    std::thread::scope(|scope| {
        scope.spawn(|| sink.run(output.clone(), |_| ()));
        sink.append(b"never\n", 1);
        output.wait_until(|gate| gate.waiting);
        sink.close(Duration::from_millis(1));
        assert!(output.captured.0.lock().unwrap().is_empty());
        output.change(|gate| gate.open = true);
    });
}
