//! Model servers on this machine.

use std::{collections::HashMap, sync::Mutex, time::Instant};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use super::*;

/// A server of some JSON documents, each at a path.
struct Server {
    address: String,
    asked: Arc<Mutex<Vec<String>>>,
    serving: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Server {
    async fn with(documents: &[(&'static str, Value)]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let documents: HashMap<&str, String> =
            documents.iter().map(|(path, document)| (*path, document.to_string())).collect();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let log = asked.clone();
        let serving = tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.expect("a connection");
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(stream.read_u8().await.expect("a request"));
                }
                let head = String::from_utf8(head).expect("text");
                let path = head.split(' ').nth(1).expect("a path").to_owned();
                let reply = match documents.get(path.as_str()) {
                    Some(body) => format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()),
                    None => "HTTP/1.1 404 Not Found\r\n\r\n{}".to_owned(),
                };
                log.lock().expect("the log").push(path);
                // The client may be gone.
                let _ = stream.write_all(reply.as_bytes()).await;
            }
        });
        Self { address, asked, serving }
    }

    async fn ollama(models: &[&str]) -> Self {
        let models: Vec<Value> = models.iter().map(|name| json!({"name": name})).collect();
        Self::with(&[
            ("/api/version", json!({"version": "0.12.6"})),
            ("/api/tags", json!({"models": models})),
        ])
        .await
    }

    async fn llamacpp(name: &str) -> Self {
        let models =
            json!({"object": "list", "data": [{"id": name, "object": "model", "owned_by": "llamacpp"}]});
        Self::with(&[("/v1/models", models)]).await
    }

    fn asked(&self) -> usize {
        self.asked.lock().expect("the log").len()
    }
}

#[tokio::test]
async fn both_are_found() {
    let folder = folder();
    let world = World::open(folder.path()).await;
    let ollama = Server::ollama(&["nomic-embed-text:latest", "qwen3:0.6b"]).await;
    let llamacpp = Server::llamacpp("models/tiny.gguf").await;
    let local = Local { ollama: &ollama.address, llamacpp: &llamacpp.address };
    let welcome = world.start_near(&[], &local).await.expect("a first start");
    let text = welcome.to_string();
    welcome.shown(&world.store).await.unwrap();
    opens(&world, &text).await;
    assert_eq!(world.names("models").await, ["llamacpp/*", "ollama/*"]);
    for ((_, key), (name, server)) in
        world.all("provider_keys").await.iter().zip([("llamacpp", &llamacpp), ("ollama", &ollama)])
    {
        let expected = json!({
            "display_name": name, "provider": name, "adapter": "openai", "api_key": name,
            "api_base": format!("http://{}/v1", server.address),
        });
        assert_eq!(*key, expected);
    }
    assert!(text.contains("\"model\":\"ollama/qwen3:0.6b\""), "{text}");
    assert!(text.contains(&format!("(Ollama at http://{})", ollama.address)), "{text}");
    // Known from now on: nobody is asked again.
    let before = (ollama.asked(), llamacpp.asked());
    assert!(world.start_near(&[], &local).await.is_none());
    assert_eq!((ollama.asked(), llamacpp.asked()), before);
}

#[tokio::test]
async fn a_server_that_comes_later_is_found_at_the_next_start() {
    let folder = folder();
    let world = World::open(folder.path()).await;
    world.show(&[]).await.expect("a first start");
    let llamacpp = Server::llamacpp("tiny").await;
    assert!(world.start_near(&[], &Local { llamacpp: &llamacpp.address, ..NOWHERE }).await.is_none());
    assert_eq!(world.names("models").await, ["echo", "llamacpp/*"]);
}

#[tokio::test]
async fn ollama_host_says_where_ollama_is() {
    let folder = folder();
    let world = World::open(folder.path()).await;
    let (right, wrong) = (Server::ollama(&[]).await, Server::ollama(&[]).await);
    let env = [("OLLAMA_HOST", right.address.as_str())];
    let local = Local { ollama: &wrong.address, ..NOWHERE };
    let text = world.start_near(&env, &local).await.expect("a first start").to_string();
    let (_, key) = world.only("provider_keys").await;
    assert_eq!(key["api_base"], format!("http://{}/v1", right.address));
    assert_eq!(wrong.asked(), 0);
    assert!(text.contains("\"model\":\"ollama/llama3.2\""), "{text}");
}

#[tokio::test]
async fn names_of_a_server_cannot_break_the_command() {
    for hostile in ["x' ; rm -rf ~ '", "a\nb", "\u{202e}x", "", &"x".repeat(129)] {
        let folder = folder();
        let world = World::open(folder.path()).await;
        let llamacpp = Server::llamacpp(hostile).await;
        let local = Local { llamacpp: &llamacpp.address, ..NOWHERE };
        let text = world.start_near(&[], &local).await.expect("a first start").to_string();
        assert!(text.contains("\"model\":\"llamacpp/default\""), "{text}");
    }
}

#[tokio::test]
async fn other_servers_are_not_taken_for_one() {
    let strangers = [
        ("/v1/models", json!({"data": [{"id": "x", "owned_by": "vllm"}]})),
        ("/v1/models", json!({"data": []})),
        ("/v1/models", json!("llamacpp")),
        ("/api/version", json!({"release": "1"})),
        ("/", json!({})),
    ];
    for stranger in strangers {
        let folder = folder();
        let world = World::open(folder.path()).await;
        let server = Server::with(&[stranger]).await;
        let local = Local { ollama: &server.address, llamacpp: &server.address };
        drop(world.start_near(&[], &local).await.expect("a first start"));
        assert_eq!(world.names("models").await, ["echo"]);
    }
}

#[tokio::test]
async fn a_server_that_does_not_answer_delays_the_start_no_longer_than_allowed() {
    let folder = folder();
    let world = World::open(folder.path()).await;
    // It takes connections, and that is all.
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = silent.local_addr().expect("an address").to_string();
    let local = Local { ollama: &address, llamacpp: &address };
    let begin = Instant::now();
    let mut around = around(&[]);
    around.probe = Duration::from_secs(2);
    drop(start(&world.editor, &world.store, &around, &local).await.unwrap().expect("a first start"));
    let took = begin.elapsed();
    // One after the other they would take twice as long.
    assert!((around.probe..2 * around.probe).contains(&took), "{took:?}");
    assert_eq!(world.names("models").await, ["echo"]);
}
