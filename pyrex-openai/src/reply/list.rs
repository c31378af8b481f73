//! The models that there are.

use super::write;
use serde::Serialize;
use utoipa::ToSchema;

/// The models that there are.
#[derive(Serialize, ToSchema)]
pub(crate) struct ModelList<'a> {
    #[schema(inline)]
    object: ListObject,
    data: Vec<Model<'a>>,
}

/// A model.
#[derive(Serialize, ToSchema)]
pub(crate) struct Model<'a> {
    /// Its name.
    id: &'a str,
    #[schema(inline)]
    object: ModelObject,
    /// Since when it is served, in seconds since 1970.
    created: u64,
    owned_by: &'static str,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ListObject {
    List,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ModelObject {
    Model,
}

impl<'a> Model<'a> {
    fn new(id: &'a str, created: u64) -> Self {
        Self { id, object: ModelObject::Model, created, owned_by: "pyrex" }
    }
}

/// The body of `/v1/models`: each model's name, and since when it is served, in seconds since 1970.
pub fn models_body(models: &[(&str, u64)]) -> Vec<u8> {
    let data = models.iter().map(|(id, created)| Model::new(id, *created)).collect();
    let mut body = Vec::new();
    write(&mut body, &ModelList { object: ListObject::List, data });
    body
}

/// The body of `/v1/models/{id}`.
pub fn model_body(id: &str, created: u64) -> Vec<u8> {
    let mut body = Vec::new();
    write(&mut body, &Model::new(id, created));
    body
}
