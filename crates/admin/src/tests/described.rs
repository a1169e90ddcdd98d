//! Holds answers against the OpenAPI document.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use axum::Router;
use http::{Method, StatusCode};
use jsonschema::Validator;
use serde_json::{Value, json};

use super::{Answer, call};

pub(crate) struct Described {
    pub(crate) document: Value,
    validators: Mutex<HashMap<String, Arc<Validator>>>,
}

impl Described {
    pub(crate) async fn by(admin: &Router) -> Self {
        let document = call(admin, Method::GET, "/admin/openapi.json", &[]).await.json();
        Self { document, validators: Mutex::default() }
    }

    /// Checks an answer. What is no operation answers 404 or 405.
    pub(crate) fn check(&self, method: &Method, path: &str, answer: &Answer) {
        let what = format!("{method} {path}: {answer:?}");
        let Some(operation) = self.operation(method, path) else {
            let nothing = [StatusCode::NOT_FOUND, StatusCode::METHOD_NOT_ALLOWED];
            assert!(nothing.contains(&answer.status), "not described: {what}");
            return;
        };
        let response = &operation["responses"][answer.status.as_str()];
        assert!(response.is_object(), "the status is not described: {what}");
        for (name, header) in response["headers"].as_object().into_iter().flatten() {
            let there = answer.headers.contains_key(name);
            assert!(there || header["required"] == false, "no {name}: {what}");
        }
        for name in ["etag", "location", "link", "x-total-count", "x-aisix-dry-run"] {
            let known = response["headers"]
                .as_object()
                .is_some_and(|known| known.keys().any(|known| known.eq_ignore_ascii_case(name)));
            // Failures of dry runs say so too.
            let said = known || (name == "x-aisix-dry-run" && !answer.status.is_success());
            assert!(said || !answer.headers.contains_key(name), "{name} is not described: {what}");
        }
        if *method == Method::HEAD {
            return;
        }
        let media = answer.header("content-type").split(';').next().unwrap();
        let content = &response["content"][media];
        assert!(content.is_object(), "the media type is not described: {what}");
        if media == "application/json" {
            let value = answer.json();
            self.fits(&content["schema"], &value).unwrap_or_else(|why| panic!("{why}: {what}"));
        }
    }

    /// Whether a body fits an operation.
    pub(crate) fn takes(&self, method: &Method, path: &str, body: &Value) -> Result<(), String> {
        let operation = self.operation(method, path).unwrap();
        self.fits(&operation["requestBody"]["content"]["application/json"]["schema"], body)
    }

    fn operation(&self, method: &Method, path: &str) -> Option<&Value> {
        let method = if *method == Method::HEAD { "get" } else { &method.as_str().to_lowercase() };
        let fits = |template: &str| {
            let (mut a, mut b) = (template.split('/'), path.split('/'));
            loop {
                match (a.next(), b.next()) {
                    (None, None) => return true,
                    (Some("{id}"), Some(id)) if !id.is_empty() => {}
                    (a, b) if a == b => {}
                    _ => return false,
                }
            }
        };
        let paths = self.document["paths"].as_object().unwrap();
        let item = paths.get(path).or_else(|| paths.iter().find(|(t, _)| fits(t)).map(|(_, item)| item))?;
        item.get(method)
    }

    pub(crate) fn fits(&self, schema: &Value, value: &Value) -> Result<(), String> {
        assert!(schema.is_object(), "no schema: {schema}");
        let mut validators = self.validators.lock().unwrap();
        let validator = validators.entry(schema.to_string()).or_insert_with(|| {
            let whole = json!({ "allOf": [schema], "components": self.document["components"] });
            let options = jsonschema::draft202012::options().should_validate_formats(true);
            Arc::new(options.build(&whole).unwrap_or_else(|why| panic!("{schema}: {why}")))
        });
        let errors: Vec<String> = validator
            .iter_errors(value)
            .map(|error| format!("{} at {:?}", error, error.instance_path().as_str()))
            .collect();
        if errors.is_empty() { Ok(()) } else { Err(errors.join("; ")) }
    }
}
