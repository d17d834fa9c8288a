//! `/openapi.json`, made from the table of routes so that it cannot say anything else.

use axum::Json;
use serde_json::{Map, Value, json};

use super::{Access, ROUTES};

pub(crate) async fn document() -> Json<Value> {
    Json(describe())
}

fn describe() -> Value {
    let mut paths: Map<String, Value> = Map::new();
    for route in ROUTES {
        let parameters: Vec<Value> = route
            .path
            .split('/')
            .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
            .map(|name| json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } }))
            .collect();
        let mut responses = json!({
            "200": { "description": "done" },
            "default": { "description": "what went wrong", "content": { "application/json": { "schema": { "$ref": "#/components/schemas/Error" } } } },
        });
        let (security, scope) = match route.access {
            Access::Public => (json!([]), Value::Null),
            Access::Source => (json!([{ "bearer": [] }, { "githubSignature": [] }]), "events:write".into()),
            Access::Scope(scope) => (json!([{ "bearer": [] }]), scope.name().into()),
        };
        if !matches!(route.access, Access::Public)
            && let Some(responses) = responses.as_object_mut()
        {
            responses.insert("401".into(), json!({ "description": "no valid token or signature" }));
            responses.insert("403".into(), json!({ "description": "the token may not do this" }));
        }
        let operation = json!({
            "summary": route.summary,
            "parameters": parameters,
            "security": security,
            "x-scope": scope,
            "responses": responses,
        });
        let path = paths.entry(route.path.to_owned()).or_insert_with(|| json!({}));
        if let Some(path) = path.as_object_mut() {
            path.insert(route.method.to_lowercase(), operation);
        }
    }
    json!({
        "openapi": "3.1.0",
        "info": { "title": "pipeproof", "version": env!("CARGO_PKG_VERSION"), "license": { "name": "Apache-2.0" } },
        "paths": paths,
        "components": {
            "securitySchemes": {
                "bearer": { "type": "http", "scheme": "bearer" },
                "githubSignature": { "type": "apiKey", "in": "header", "name": "X-Hub-Signature-256" },
            },
            "schemas": {
                "Error": {
                    "type": "object",
                    "required": ["error"],
                    "properties": { "error": {
                        "type": "object",
                        "required": ["code", "message"],
                        "properties": { "code": { "type": "string" }, "message": { "type": "string" } },
                    } },
                },
            },
        },
    })
}
