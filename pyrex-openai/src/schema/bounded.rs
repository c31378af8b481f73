//! Numbers, texts and lists with bounds of their own, which a derive says of fields alone.

use utoipa::openapi::schema::{ArrayBuilder, ObjectBuilder, Type};
use utoipa::openapi::{Ref, RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

/// Declares the schema of a name.
macro_rules! bounded {
    ($(#[$attribute:meta])* $name:ident, $schema:expr $(, $item:ty)?) => {
        $(#[$attribute])*
        #[derive(serde::Serialize)]
        pub(crate) struct $name;

        impl PartialSchema for $name {
            fn schema() -> RefOr<Schema> {
                $schema.into()
            }
        }

        impl ToSchema for $name {
            $(fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
                schemas.push((<$item>::name().into_owned(), <$item>::schema()));
                <$item>::schemas(schemas);
            })?
        }
    };
}

pub(crate) use bounded;

/// A list of a schema that has a name.
pub(crate) fn list<T: ToSchema>(least: Option<usize>, most: Option<usize>) -> ArrayBuilder {
    ArrayBuilder::new().items(Ref::from_schema_name(T::name())).min_items(least).max_items(most)
}

bounded! {
    /// Added to the logits of a token.
    Bias, ObjectBuilder::new().schema_type(Type::Number).minimum(Some(-100)).maximum(Some(100))
}

bounded! {
    /// An id of the model's vocabulary.
    TokenId, ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(0)).maximum(Some(u32::MAX))
}

bounded! {
    /// Ids of the model's vocabulary.
    TokenIds, list::<TokenId>(Some(1), None), TokenId
}

bounded! {
    /// Ends the answer where it is said.
    StopText, ObjectBuilder::new().schema_type(Type::String).min_length(Some(1)).max_length(Some(1024))
}

bounded! {
    /// Each ends the answer where it is said.
    StopTexts, list::<StopText>(None, Some(64)), StopText
}

bounded! {
    /// A text in a list of its own.
    OneText, ArrayBuilder::new().items(String::schema()).min_items(Some(1)).max_items(Some(1))
}

bounded! {
    /// Ids in a list of their own.
    OneTokenIds, list::<TokenIds>(Some(1), Some(1)), TokenIds
}
