//! `docs/reference/openapi.json` is a valid document of OpenAPI 3.1, and complete: every operation has an id, a
//! summary, schemas, examples and the codes of its errors. Pure: no node runs.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};
use throng_api::ErrorCode;

use crate::openapi::Schemas;

const METHODS: [&str; 8] = ["get", "put", "post", "delete", "options", "head", "patch", "trace"];

/// Keywords of schemas that the document may use: those that the generators of clients support.
const SCHEMA_KEYWORDS: [&str; 15] = [
    "$ref",
    "additionalProperties",
    "allOf",
    "anyOf",
    "description",
    "enum",
    "example",
    "format",
    "items",
    "minimum",
    "oneOf",
    "properties",
    "propertyNames",
    "required",
    "type",
];

/// Collects what is wrong with a document, each problem with its place.
struct Check<'a> {
    document: &'a Value,
    problems: Vec<String>,
}

impl<'a> Check<'a> {
    fn of(document: &'a Value) -> Vec<String> {
        let mut check = Self { document, problems: Vec::new() };
        check.root();
        check.paths();
        check.components();
        check.problems
    }

    fn ensure(&mut self, holds: bool, at: &str, problem: &str) {
        if !holds {
            self.problems.push(format!("{at}: {problem}"));
        }
    }

    /// An object with these fields only, and with the required ones.
    fn object(
        &mut self,
        value: &'a Value,
        at: &str,
        required: &[&str],
        optional: &[&str],
    ) -> Option<&'a Map<String, Value>> {
        let Some(object) = value.as_object() else {
            self.problems.push(format!("{at}: is not an object"));
            return None;
        };
        for name in required {
            self.ensure(object.contains_key(*name), at, &format!("`{name}` is missing"));
        }
        for name in object.keys().map(String::as_str) {
            let is_known = required.contains(&name) || optional.contains(&name);
            self.ensure(is_known, at, &format!("`{name}` is not a field"));
        }
        Some(object)
    }

    fn text(&mut self, value: &Value, at: &str, name: &str) {
        let is_text = value[name].as_str().is_some_and(|text| !text.trim().is_empty());
        self.ensure(is_text, at, &format!("`{name}` is not a text"));
    }

    fn root(&mut self) {
        let document = self.document;
        let required = ["openapi", "info", "paths", "components", "security"];
        self.object(document, "document", &required, &["servers", "tags", "externalDocs"]);
        let version = document["openapi"].as_str().unwrap_or_default();
        self.ensure(version.starts_with("3.1."), "openapi", "is not 3.1");
        let info = &document["info"];
        self.object(info, "info", &["title", "version"], &["description", "license", "contact"]);
        self.text(info, "info", "title");
        self.text(info, "info", "version");
        self.security(&document["security"], "security");
    }

    /// Security requirements name schemes that exist.
    fn security(&mut self, requirements: &'a Value, at: &str) {
        let Some(requirements) = requirements.as_array() else {
            return self.problems.push(format!("{at}: is not a list"));
        };
        let schemes = &self.document["components"]["securitySchemes"];
        for name in requirements.iter().filter_map(Value::as_object).flat_map(Map::keys) {
            self.ensure(schemes.get(name).is_some(), at, &format!("there is no scheme `{name}`"));
        }
    }

    fn paths(&mut self) {
        let Some(paths) = self.document["paths"].as_object() else {
            return self.problems.push("paths: is not an object".to_owned());
        };
        let (mut ids, mut shapes) = (BTreeSet::new(), BTreeSet::new());
        for (path, item) in paths {
            self.ensure(path.starts_with('/'), path, "does not begin with `/`");
            let shape: Vec<&str> = path
                .split('/')
                .map(|part| if part.starts_with('{') { "{}" } else { part })
                .collect();
            self.ensure(shapes.insert(shape), path, "has the template of another path");
            let Some(methods) = self.object(item, path, &[], &METHODS) else { continue };
            self.ensure(!methods.is_empty(), path, "has no operation");
            for (method, operation) in methods {
                let at = format!("{method} {path}");
                let id = operation["operationId"].as_str().unwrap_or_default();
                self.ensure(ids.insert(id), &at, "its operationId is not unique");
                self.operation(operation, path, &at);
            }
        }
    }

    fn operation(&mut self, operation: &'a Value, path: &str, at: &str) {
        let required = ["operationId", "summary", "tags", "responses"];
        let optional = ["description", "parameters", "requestBody", "deprecated", "security"];
        self.object(operation, at, &required, &optional);
        self.text(operation, at, "operationId");
        self.text(operation, at, "summary");
        let is_tag = |tag: &Value| tag.as_str().is_some_and(|tag| !tag.contains(':'));
        let tags = operation["tags"].as_array();
        self.ensure(tags.is_some_and(|tags| tags.iter().all(is_tag)), at, "a tag is not a name");
        if let Some(security) = operation.get("security") {
            self.security(security, at);
        }
        self.parameters(
            operation["parameters"].as_array().map_or(&[][..], Vec::as_slice),
            path,
            at,
        );
        if let Some(body) = operation.get("requestBody") {
            let at = format!("{at}: body");
            self.object(body, &at, &["content", "required"], &["description"]);
            self.content(&body["content"], &at, Example::Required);
        }
        self.responses(&operation["responses"], at);
    }

    /// The parameters, of which those in the path are exactly those of its template.
    fn parameters(&mut self, parameters: &'a [Value], path: &str, at: &str) {
        let mut in_path = BTreeSet::new();
        let mut names = BTreeSet::new();
        for parameter in parameters {
            let name = parameter["name"].as_str().unwrap_or_default();
            let at = format!("{at}: parameter `{name}`");
            let optional = ["description", "deprecated", "style", "explode", "example"];
            self.object(parameter, &at, &["name", "in", "schema", "required"], &optional);
            let place = parameter["in"].as_str().unwrap_or_default();
            self.ensure(
                ["query", "header", "path", "cookie"].contains(&place),
                &at,
                "has no place",
            );
            self.ensure(names.insert((place, name)), &at, "is declared twice");
            self.schema(&parameter["schema"], &at);
            if place == "path" {
                in_path.insert(name);
                self.ensure(parameter["required"] == true, &at, "is not required");
            }
        }
        let template: BTreeSet<&str> =
            path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}')).collect();
        let differ = format!("declares {in_path:?}, and its path has {template:?}");
        self.ensure(in_path == template, at, &differ);
    }

    fn responses(&mut self, responses: &'a Value, at: &str) {
        let Some(responses) = responses.as_object() else {
            return self.problems.push(format!("{at}: no responses"));
        };
        let succeeds = responses.keys().any(|status| status.starts_with('2'));
        self.ensure(succeeds, at, "has no response of success");
        self.ensure(responses.contains_key("default"), at, "has no response of other errors");
        for (status, response) in responses {
            let at = format!("{at}: {status}");
            self.object(response, &at, &["description", "content"], &["headers"]);
            self.text(response, &at, "description");
            let number = status.parse::<u16>().ok().filter(|number| (100..600).contains(number));
            self.ensure(number.is_some() || status == "default", &at, "is not a status");
            let example =
                if status.starts_with('2') { Example::RequiredOfJson } else { Example::Optional };
            self.content(&response["content"], &at, example);
            if let Some(number) = number.filter(|number| *number >= 400) {
                self.error(response, number, &at);
            }
        }
    }

    /// An error has the common body and names its codes.
    fn error(&mut self, response: &Value, status: u16, at: &str) {
        let schema = &response["content"]["application/json"]["schema"]["$ref"];
        let name = schema.as_str().and_then(|reference| reference.rsplit('/').next());
        // Readiness has the same body in both states.
        if name == Some("Readiness") {
            return;
        }
        let is_error = ["ErrorBody", "EventsAccepted"].map(Some).contains(&name);
        self.ensure(is_error, at, "has not the body of an error");
        let description = response["description"].as_str().unwrap_or_default();
        let of_status = ErrorCode::ALL.into_iter().filter(|code| code.status() == status);
        let named = of_status.filter(|code| description.contains(&format!("`{code}`: ")));
        self.ensure(named.count() > 0, at, "names none of the codes of its status");
    }

    fn content(&mut self, content: &'a Value, at: &str, example: Example) {
        let Some(content) = content.as_object().filter(|content| !content.is_empty()) else {
            return self.problems.push(format!("{at}: has no content"));
        };
        for (kind, media) in content {
            let at = format!("{at}: {kind}");
            let is_kind = kind.split_once('/').is_some_and(|(a, b)| !a.is_empty() && !b.is_empty());
            self.ensure(is_kind, &at, "is not a media type");
            self.object(media, &at, &["schema"], &["example", "examples"]);
            self.schema(&media["schema"], &at);
            let is_needed = match example {
                Example::Required => true,
                Example::RequiredOfJson => kind == "application/json",
                Example::Optional => false,
            };
            let target = self.resolved(&media["schema"]);
            let has_example = media.get("example").or(target.get("example")).is_some();
            self.ensure(has_example || !is_needed, &at, "has no example");
        }
    }

    fn resolved(&self, schema: &'a Value) -> &'a Value {
        let pointer = schema["$ref"].as_str().and_then(|reference| reference.strip_prefix('#'));
        pointer.and_then(|pointer| self.document.pointer(pointer)).unwrap_or(schema)
    }

    fn components(&mut self) {
        let components = &self.document["components"];
        self.object(components, "components", &["schemas", "securitySchemes"], &[]);
        let schemas = components["schemas"].as_object();
        let is_name = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        for (name, schema) in schemas.into_iter().flatten() {
            self.ensure(name.chars().all(is_name), name, "is not a name of a component");
            self.schema(schema, name);
            if let Some(example) = schema.get("example") {
                let mut compared = Schemas::new(self.document);
                compared.compare(schema, example, &format!("example of {name}"));
                self.problems.extend(compared.into_errors());
            }
        }
        for (name, scheme) in components["securitySchemes"].as_object().into_iter().flatten() {
            self.object(scheme, name, &["type", "scheme"], &["description", "bearerFormat"]);
            self.ensure(scheme["type"] == "http", name, "is not an HTTP scheme");
        }
    }

    /// A schema and those in it.
    fn schema(&mut self, schema: &'a Value, at: &str) {
        if schema.is_boolean() {
            return;
        }
        let Some(object) = self.object(schema, at, &[], &SCHEMA_KEYWORDS) else { return };
        if let Some(reference) = object.get("$ref") {
            let pointer = reference.as_str().and_then(|reference| reference.strip_prefix('#'));
            let target = pointer.and_then(|pointer| self.document.pointer(pointer));
            self.ensure(target.is_some(), at, &format!("{reference} does not exist"));
        }
        self.types(&schema["type"], at);
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            self.schema(property, &format!("{at}.{name}"));
        }
        for name in schema["required"].as_array().into_iter().flatten() {
            let declared = name.as_str().and_then(|name| schema["properties"].get(name));
            self.ensure(
                declared.is_some(),
                at,
                &format!("requires {name}, which it does not have"),
            );
        }
        for keyword in ["items", "additionalProperties", "propertyNames"] {
            if let Some(part) = object.get(keyword) {
                self.schema(part, &format!("{at}.{keyword}"));
            }
        }
        for keyword in ["allOf", "anyOf", "oneOf"] {
            let Some(parts) = object.get(keyword) else { continue };
            let parts = parts.as_array().filter(|parts| !parts.is_empty());
            self.ensure(parts.is_some(), at, &format!("{keyword} is not a list of schemas"));
            for part in parts.into_iter().flatten() {
                self.schema(part, &format!("{at}.{keyword}"));
            }
        }
        if let Some(values) = object.get("enum") {
            let values = values.as_array();
            let unique = values.is_some_and(|values| {
                let texts: BTreeSet<String> = values.iter().map(Value::to_string).collect();
                !values.is_empty() && texts.len() == values.len()
            });
            self.ensure(unique, at, "enum is not a list of different values");
        }
    }

    fn types(&mut self, types: &Value, at: &str) {
        let is_type = |value: &Value| {
            let all = ["array", "boolean", "integer", "null", "number", "object", "string"];
            value.as_str().is_some_and(|name| all.contains(&name))
        };
        let is_valid = match types {
            Value::Null => true,
            Value::Array(some) => !some.is_empty() && some.iter().all(is_type),
            one => is_type(one),
        };
        self.ensure(is_valid, at, &format!("{types} is not a type"));
    }
}

/// Whether a body needs an example.
#[derive(Clone, Copy)]
enum Example {
    Required,
    RequiredOfJson,
    Optional,
}

fn document() -> Value {
    let path = std::path::Path::new(&std::env::var("CARGO_MANIFEST_DIR").expect("set by cargo"))
        .join("../../docs/reference/openapi.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

#[test]
fn the_document_is_valid_and_complete() {
    let problems = Check::of(&document());
    assert!(problems.is_empty(), "{problems:#?}");
}

/// Each change makes the document invalid or incomplete, and is found.
#[test]
fn what_is_missing_or_wrong_is_found() {
    let approve = "/paths/~1v1~1audiences~1{name}~1approve/post";
    let body = format!("{approve}/requestBody/content/application~1json");
    let parameter = format!("{approve}/parameters/0");
    let responses = format!("{approve}/responses");
    let within = |folder: &str, place: &str| format!("{folder}/{place}");
    let (held, missing) = (within(&responses, "409"), within(&responses, "404"));
    let snapshot = within(&responses, "200/content/application~1json");
    let (body, parameter, responses) = (body.as_str(), parameter.as_str(), responses.as_str());
    let parameter_schema = within(parameter, "schema");
    // The place of an object, its field, and the value in place of the right one; null removes the field.
    let changes = [
        ("", "openapi", json!("3.0.3")),
        ("", "webhook", json!({})),
        ("/info", "version", Value::Null),
        ("/components/securitySchemes", "token", Value::Null),
        (approve, "summary", json!(" ")),
        (approve, "operationId", json!("get_v1_audiences")),
        (approve, "tags", json!(["super::audiences"])),
        (approve, "parameters", json!([])),
        (approve, "verb", json!("approve")),
        ("/paths", "v2/audiences", json!({ "get": {} })),
        ("/paths", "/v1/audiences/{audience}", json!({ "trace": {} })),
        (parameter, "required", json!(false)),
        (parameter, "in", json!("body")),
        (body, "schema", Value::Null),
        (body, "schema", json!({ "$ref": "#/components/schemas/Version" })),
        (body, "schema", json!({ "type": "object" })),
        (responses, "200", Value::Null),
        (responses, "default", Value::Null),
        (responses, "ok", json!({})),
        (held.as_str(), "description", json!("it is not held")),
        (missing.as_str(), "content", json!({})),
        (snapshot.as_str(), "schema", json!({})),
        ("/components/schemas/AudienceSnapshot", "example", json!({ "version": "three" })),
        (parameter_schema.as_str(), "type", json!("record")),
        ("/components/schemas/AudienceSnapshot", "readonly", json!(true)),
        ("/components/schemas/AudienceSnapshot", "properties", json!({})),
        ("/components/schemas/AudienceSnapshotState", "enum", json!(["held", "held"])),
        ("/components/schemas/AudienceDetail", "allOf", json!([])),
    ];
    let good = document();
    for (place, field, value) in changes {
        let mut changed = good.clone();
        let object = changed.pointer_mut(place).and_then(Value::as_object_mut).expect(place);
        match value {
            Value::Null => drop(object.remove(field)),
            value => drop(object.insert(field.to_owned(), value)),
        }
        assert!(!Check::of(&changed).is_empty(), "{place} {field}");
    }
}

/// Generators name the methods of a client by tag and id.
#[test]
fn every_tag_is_a_resource_of_the_paths() {
    let document = document();
    let mut tags: BTreeMap<&str, u32> = BTreeMap::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for operation in item.as_object().unwrap().values() {
            let [tag] = operation["tags"].as_array().unwrap().as_slice() else {
                panic!("{path}: not one tag")
            };
            let tag = tag.as_str().unwrap();
            assert!(tag == "node" || path.starts_with(&format!("/v1/{tag}")), "{path}: {tag}");
            *tags.entry(tag).or_default() += 1;
        }
    }
    assert!(tags["audiences"] >= 10, "{tags:?}");
}
