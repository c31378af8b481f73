//! The models that there are.

use super::write;
use serde::Serialize;

#[derive(Serialize)]
struct ModelList<'a> {
    object: &'static str,
    data: Vec<Model<'a>>,
}

#[derive(Serialize)]
struct Model<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    owned_by: &'static str,
}

impl<'a> Model<'a> {
    fn new(id: &'a str, created: u64) -> Self {
        Self { id, object: "model", created, owned_by: "pyrex" }
    }
}

/// The body of `/v1/models`: each model's name, and since when it is served, in seconds since 1970.
pub fn models_body(models: &[(&str, u64)]) -> Vec<u8> {
    let data = models.iter().map(|(id, created)| Model::new(id, *created)).collect();
    let mut body = Vec::new();
    write(&mut body, &ModelList { object: "list", data });
    body
}

/// The body of `/v1/models/{id}`.
pub fn model_body(id: &str, created: u64) -> Vec<u8> {
    let mut body = Vec::new();
    write(&mut body, &Model::new(id, created));
    body
}
