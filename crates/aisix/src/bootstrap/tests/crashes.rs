//! Starts that break off, and starts at the same time.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    task::Poll,
};

use super::*;

const ENV: &[(&str, &str)] = &[("OPENAI_API_KEY", "sk-1")];

/// Drives a future for so many steps; `None` = it was not over then.
async fn cut<F: Future>(steps: usize, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    let mut left = steps;
    poll_fn(move |cx| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        future.as_mut().poll(cx).map(Some)
    })
    .await
}

/// A process that ends after so many steps, with what it had asked of the store done.
async fn end_after(steps: usize, folder: &Path) -> bool {
    let world = World::open(folder).await;
    let over = cut(steps, world.show(ENV)).await.is_some();
    world.store.meta_set("test.done", "yes").await.expect("everything before is done");
    over
}

#[tokio::test]
async fn a_first_start_that_breaks_off_anywhere_is_completed_by_the_next() {
    for steps in 1.. {
        let folder = folder();
        if end_after(steps, folder.path()).await {
            assert!(steps > 10, "{steps}");
            break;
        }
        // The next one breaks off, too.
        end_after(steps / 2, folder.path()).await;
        let world = World::open(folder.path()).await;
        match world.show(ENV).await {
            Some(text) => {
                opens(&world, &text).await;
                assert!(text.contains("openai/gpt-4o-mini"), "{text}");
            }
            // Everything was shown and noted; only the process did not live to know.
            None => assert_eq!(world.store.meta_get(DONE).await.unwrap().as_deref(), Some(MADE)),
        }
        assert_eq!(world.names("models").await, ["openai/*"], "{steps}");
        assert_eq!(world.names("provider_keys").await, ["openai"], "{steps}");
        assert_eq!(world.names("api_keys").await, ["first key"], "{steps}");
        assert_eq!(world.show(ENV).await, None);
        assert_eq!(world.show(&[("OPENAI_API_KEY", "sk-2")]).await, None);
        assert_eq!(world.only("provider_keys").await.1["api_key"], "sk-2", "{steps}");
    }
}

#[tokio::test]
async fn a_later_start_that_breaks_off_anywhere_is_completed_by_the_next() {
    for steps in 1.. {
        let folder = folder();
        let world = World::open(folder.path()).await;
        world.show(&[("GROQ_API_KEY", "gsk-1")]).await.expect("a first start");
        let env = [("GROQ_API_KEY", "gsk-2"), ("OPENAI_API_KEY", "sk-1")];
        let over = cut(steps, world.show(&env)).await.is_some();
        world.store.meta_set("test.done", "yes").await.expect("everything before is done");
        drop(world);
        let world = World::open(folder.path()).await;
        assert_eq!(world.show(&env).await, None);
        assert_eq!(world.names("models").await, ["groq/*", "openai/*"], "{steps}");
        assert_eq!(world.all("provider_keys").await[0].1["api_key"], "gsk-2", "{steps}");
        assert_eq!(world.show(&[("GROQ_API_KEY", "gsk-3"), ("OPENAI_API_KEY", "sk-2")]).await, None);
        let keys = world.all("provider_keys").await;
        assert_eq!((&keys[0].1["api_key"], &keys[1].1["api_key"]), (&json!("gsk-3"), &json!("sk-2")));
        if over {
            assert!(steps > 5, "{steps}");
            break;
        }
    }
}

#[tokio::test]
async fn secrets_that_nobody_was_shown_are_replaced() {
    let folder = folder();
    let world = World::open(folder.path()).await;
    let lost = world.start(ENV).await.expect("a first start").to_string();
    let text = world.show(ENV).await.expect("the first start again");
    assert_ne!(secret(&lost, "sk-"), secret(&text, "sk-"));
    assert_ne!(secret(&lost, "ak-"), secret(&text, "ak-"));
    opens(&world, &text).await;
    assert_eq!(world.names("models").await, ["openai/*"]);
}

#[tokio::test]
async fn of_gateways_that_start_at_once_one_has_the_first_start() {
    for _ in 0..5 {
        let folder = folder();
        let [one, two, three] = [
            World::open(folder.path()).await,
            World::open(folder.path()).await,
            World::open(folder.path()).await,
        ];
        let (a, b, c) = tokio::join!(one.show(ENV), two.show(ENV), three.show(ENV));
        let shown: Vec<String> = [a, b, c].into_iter().flatten().collect();
        assert_eq!(shown.len(), 1, "{shown:?}");
        opens(&two, &shown[0]).await;
        assert_eq!(two.names("models").await, ["openai/*"]);
        assert_eq!(two.commits().await, 1);
    }
}

#[tokio::test]
async fn another_gateway_waits_until_the_secrets_are_shown_but_not_for_ever() {
    let folder = folder();
    let held = Turn::take(folder.path(), PATIENCE).await.expect("a turn");
    assert!(Turn::take(folder.path(), Duration::from_millis(50)).await.is_none());
    let waiting = tokio::spawn({
        let path = folder.path().to_owned();
        async move { Turn::take(&path, PATIENCE).await.is_some() }
    });
    tokio::task::yield_now().await;
    drop(held);
    assert!(waiting.await.expect("no panic"));
}

#[tokio::test]
async fn a_store_that_is_filled_meanwhile_by_another_process_stays_as_it_is() {
    let folder = folder();
    let [gateway, command] = [World::open(folder.path()).await, World::open(folder.path()).await];
    let value = json!({"display_name": "mine", "provider": "echo", "api_key": "unused"});
    command.edit(Operation::Create { kind: kind("provider_keys").unwrap(), id: None, value }).await;
    // The gateway's own picture may be older than this.
    let text = gateway.show(ENV).await.expect("an admin key");
    assert!(!text.contains("sk-"), "{text}");
    assert_eq!(gateway.names("provider_keys").await, ["mine"]);
}
