//! Whatever happens to a cache file, it gives the saved image or nothing.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use proptest::prelude::*;
use serde_json::json;
use tempfile::TempDir;

use super::*;

const PREFIX: &str = "/aisix/";
const SECRET: &str = "sk-never-quoted";

fn row(key: &str, revision: u64, value: impl Into<Vec<u8>>) -> RawRow {
    RawRow { key: key.into(), revision, value: Bytes::from(value.into()) }
}

fn sample() -> Image {
    let document = json!({"display_name": "a", "api_key": SECRET}).to_string();
    Image {
        revision: 9,
        rows: vec![row("models/a", 7, document.clone()), row("models/ü/b", 9, [0xff, 0x00])],
        pinned: vec![Pinned { row: row("models/ü/b", 8, document), since: at(1_700_000_000) }],
        confirmed: Some(at(1_700_000_100)),
    }
}

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

fn same(left: &Image, right: &Image) -> bool {
    let pinned = |image: &Image| image.pinned.iter().map(|p| (p.row.clone(), p.since)).collect::<Vec<_>>();
    let plain = |image: &Image| (image.revision, image.confirmed);
    plain(left) == plain(right) && left.rows == right.rows && pinned(left) == pinned(right)
}

fn place() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("deep/cache.json");
    (folder, path)
}

#[test]
fn an_image_comes_back() {
    let (_folder, path) = place();
    assert!(load(&path, PREFIX).expect("no file is fine").is_none());
    save(&path, PREFIX, &sample()).expect("saved");
    let loaded = load(&path, PREFIX).expect("readable").expect("there");
    assert!(same(&loaded, &sample()));
    let mode = fs::metadata(&path).expect("there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let files = fs::read_dir(path.parent().expect("a folder")).expect("readable").count();
    assert_eq!(files, 1, "no draft is left");
}

#[test]
fn the_file_is_the_documented_json() {
    let (_folder, path) = place();
    save(&path, PREFIX, &sample()).expect("saved");
    let value: serde_json::Value = serde_json::from_slice(&fs::read(&path).expect("there")).expect("JSON");
    assert_eq!(value["version"], 2);
    assert_eq!(value["prefix"], PREFIX);
    assert_eq!(value["revision"], 9);
    assert!(value["saved_at"].as_u64().is_some_and(|at| at > 1_700_000_000));
    assert_eq!(value["confirmed_unix_secs"], 1_700_000_100);
    assert_eq!(value["entries"][0]["key"], "models/a");
    assert_eq!(value["entries"][1]["value_b64"], "/wA=");
    assert!(value["entries"][1].get("since_unix_secs").is_none());
    assert_eq!(value["stale"][0]["since_unix_secs"], 1_700_000_000);
    assert_eq!(value["sha256"].as_str().map(str::len), Some(64));
}

#[test]
fn a_file_open_to_others_is_closed_to_them() {
    let (_folder, path) = place();
    save(&path, PREFIX, &sample()).expect("saved");
    for (mode, private) in [(0o644, 0o600), (0o440, 0o400)] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("set");
        assert!(same(&load(&path, PREFIX).expect("readable").expect("there"), &sample()));
        assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, private);
    }
}

/// The file as it was before it told when it was confirmed.
#[test]
fn a_file_that_does_not_tell_its_age_is_as_old_as_it_is() {
    let (_folder, path) = place();
    let before = seconds(SystemTime::now());
    save(&path, PREFIX, &sample()).expect("saved");
    let text = fs::read_to_string(&path).expect("there");
    let (body, _) = text.split_once(BEFORE_SUM).expect("a checksum");
    let body = body.replace(r#""confirmed_unix_secs":1700000100,"#, "");
    fs::write(&path, [&body, BEFORE_SUM, &checksum(body.as_bytes()), AFTER_SUM].concat()).expect("written");
    let image = load(&path, PREFIX).expect("readable").expect("there");
    assert!(image.confirmed.is_some_and(|confirmed| confirmed >= at(before)), "{:?}", image.confirmed);
    // What was never confirmed is not confirmed by being saved.
    save(&path, PREFIX, &Image { confirmed: None, ..sample() }).expect("saved");
    assert_eq!(load(&path, PREFIX).expect("readable").expect("there").confirmed, None);
}

#[test]
fn a_draft_left_open_to_others_is_not_reused() {
    let (_folder, path) = place();
    fs::create_dir_all(path.parent().expect("a folder")).expect("made");
    let draft = path.with_extension("tmp");
    fs::write(&draft, "half").expect("written");
    fs::set_permissions(&draft, fs::Permissions::from_mode(0o644)).expect("set");
    save(&path, PREFIX, &sample()).expect("saved");
    assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
    assert!(!draft.exists());
}

#[test]
fn a_failed_save_keeps_the_old_file() {
    let (_folder, path) = place();
    save(&path, PREFIX, &sample()).expect("saved");
    // A folder where the draft should be.
    fs::create_dir(path.with_extension("tmp")).expect("made");
    save(&path, PREFIX, &Image::default()).expect_err("no draft");
    let loaded = load(&path, PREFIX).expect("readable").expect("there");
    assert!(same(&loaded, &sample()));
}

#[test]
fn another_prefix_is_refused() {
    let (_folder, path) = place();
    save(&path, PREFIX, &sample()).expect("saved");
    for prefix in ["/aisix-b/", "/aisix", "/"] {
        assert_eq!(load(&path, prefix).expect_err(prefix), "of another prefix");
    }
}

#[test]
fn truncation_at_every_offset_is_refused() {
    let (_folder, path) = place();
    save(&path, PREFIX, &sample()).expect("saved");
    let whole = fs::read(&path).expect("there");
    for length in 0..whole.len() {
        fs::write(&path, &whole[..length]).expect("written");
        let text = load(&path, PREFIX).expect_err("a truncated file");
        assert!(!text.contains(SECRET), "{text}");
    }
}

#[test]
fn every_flipped_bit_is_refused() {
    let (_folder, path) = place();
    save(&path, PREFIX, &sample()).expect("saved");
    let whole = fs::read(&path).expect("there");
    for bit in 0..whole.len() * 8 {
        let mut flipped = whole.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        fs::write(&path, &flipped).expect("written");
        let text = load(&path, PREFIX).expect_err("a damaged file");
        assert!(!text.contains(SECRET), "{text}");
    }
}

fn write_first(entries: serde_json::Value) -> (TempDir, PathBuf) {
    let (folder, path) = place();
    fs::create_dir_all(path.parent().expect("a folder")).expect("made");
    let text = json!({"version": 1, "revision": 4, "entries": entries}).to_string();
    fs::write(&path, text).expect("written");
    (folder, path)
}

#[test]
fn the_first_version_is_read() {
    let (_folder, path) = write_first(json!([
        {"key": "/aisix/models/a", "value_b64": "e30=", "revision": 3},
        {"key": "/aisix-b/models/b", "value_b64": "e30=", "revision": 4},
    ]));
    let image = load(&path, PREFIX).expect("readable").expect("there");
    assert!(same(&image, &Image { revision: 4, rows: vec![row("models/a", 3, "{}")], ..Image::default() }));
    assert_eq!(load(&path, "/other/").expect_err("not ours"), "of another prefix");
    let (_folder, empty) = write_first(json!([]));
    assert!(load(&empty, PREFIX).expect("readable").is_none());
}

#[test]
fn errors_quote_nothing() {
    let entry = |revision: serde_json::Value, value: &str| json!([{"key": format!("/aisix/{SECRET}"), "value_b64": value, "revision": revision}]);
    for entries in [entry(json!(SECRET), "e30="), entry(json!(1), SECRET), json!(SECRET)] {
        let (_folder, path) = write_first(entries);
        let text = load(&path, PREFIX).expect_err("refused");
        assert!(!text.contains(SECRET), "{text}");
    }
    let (_folder, path) = place();
    fs::create_dir_all(path.parent().expect("a folder")).expect("made");
    fs::write(&path, r#"{"version":3,"revision":1,"entries":[]}"#).expect("written");
    assert_eq!(load(&path, PREFIX).expect_err("refused"), "of a version that is not known");
}

proptest! {
    #[test]
    fn any_image_comes_back(
        revision: u64,
        rows in prop::collection::vec((".*", any::<u64>(), any::<Vec<u8>>()), 0..8),
        pinned in prop::collection::vec((".*", any::<u64>(), any::<Vec<u8>>(), 0u64..1 << 40), 0..4),
        confirmed in prop::option::of(1u64..1 << 40),
        prefix in ".*",
    ) {
        let image = Image {
            revision,
            rows: rows.into_iter().map(|(key, revision, value)| row(&key, revision, value)).collect(),
            pinned: pinned.into_iter().map(|(key, revision, value, since)| {
                Pinned { row: row(&key, revision, value), since: at(since) }
            }).collect(),
            confirmed: confirmed.map(at),
        };
        let (_folder, path) = place();
        save(&path, &prefix, &image).expect("saved");
        let loaded = load(&path, &prefix).expect("readable").expect("there");
        prop_assert!(same(&loaded, &image));
    }

    #[test]
    fn a_damaged_file_is_the_saved_image_or_refused(
        at in any::<prop::sample::Index>(),
        length in 0usize..64,
        junk in prop::collection::vec(any::<u8>(), 0..64),
    ) {
        let (_folder, path) = place();
        save(&path, PREFIX, &sample()).expect("saved");
        let mut content = fs::read(&path).expect("there");
        let from = at.index(content.len());
        let to = (from + length).min(content.len());
        content.splice(from..to, junk);
        fs::write(&path, &content).expect("written");
        if let Ok(loaded) = load(&path, PREFIX) {
            prop_assert!(same(&loaded.expect("there"), &sample()));
        }
    }
}
