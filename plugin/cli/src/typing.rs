//! From JSON Schema to Cedar types: what the arguments of a tool are to policies.
//!
//! The type is a claim of the server's that an operator reviews and pins. What has no Cedar type is
//! said, never guessed: a type that is too wide would let a call pass that policies did not see whole.
//! Not here: the text of a schema (`schema`).

use std::collections::BTreeSet;

use serde_json::{Map, Value};

/// Deepest nesting that is followed, references included. The gateway's own limit is the same.
const MAX_DEPTH: usize = 32;

/// Most members of one argument type, at all depths together. The gateway's own limit is the same.
const MAX_MEMBERS: usize = 1_000;

/// A Cedar type that arguments may have.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum CedarType {
    Bool,
    Long,
    String,
    Decimal,
    Datetime,
    Ip,
    Set(Box<CedarType>),
    Record(Vec<Member>),
}

/// A member of a record.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Member {
    pub(crate) name: String,
    pub(crate) ty: CedarType,
    pub(crate) required: bool,
    /// What a reader of the schema should know.
    pub(crate) notes: Vec<String>,
}

/// The type of a tool's arguments.
#[derive(Debug)]
pub(crate) struct Typed {
    pub(crate) members: Vec<Member>,
    /// Where something is lost: a path and what is lost there.
    pub(crate) warnings: Vec<String>,
}

/// The type of the arguments that `schema`, an `inputSchema`, describes.
///
/// # Errors
/// Why there is no Cedar type for them: a required argument has none, or the schema says nothing.
pub(crate) fn of_tool(schema: &Value) -> Result<Typed, String> {
    let mut reader = Reader { root: schema, warnings: Vec::new(), budget: MAX_MEMBERS };
    let found = reader.read(schema, "arguments", 0)?;
    match found.ty {
        CedarType::Record(members) => Ok(Typed { members, warnings: reader.warnings }),
        _ => Err("its inputSchema does not describe an object".to_owned()),
    }
}

/// A type as it was read, before it is known what it is for.
struct Found {
    ty: CedarType,
    /// Whether null may stand in its place.
    nullable: bool,
    notes: Vec<String>,
}

impl Found {
    fn plain(ty: CedarType) -> Self {
        Self { ty, nullable: false, notes: Vec::new() }
    }
}

struct Reader<'a> {
    root: &'a Value,
    warnings: Vec<String>,
    /// Members that may still be read.
    budget: usize,
}

impl Reader<'_> {
    fn read(&mut self, schema: &Value, path: &str, depth: usize) -> Result<Found, String> {
        if depth > MAX_DEPTH {
            return Err(format!("it is nested deeper than {MAX_DEPTH} levels, or in itself"));
        }
        let Some(object) = schema.as_object() else {
            return Err("it may be anything".to_owned());
        };
        if let Some(reference) = object.get("$ref").and_then(Value::as_str) {
            let target = reference
                .strip_prefix('#')
                .and_then(|pointer| self.root.pointer(pointer))
                .ok_or_else(|| format!("its `$ref` {reference:?} leads nowhere in this schema"))?
                .clone();
            return self.read(&target, path, depth + 1);
        }
        for keyword in ["anyOf", "oneOf", "allOf"] {
            if let Some(choices) = object.get(keyword).and_then(Value::as_array) {
                return self.choice(keyword, object, choices, path, depth);
            }
        }
        if let Some(values) = object.get("enum").and_then(Value::as_array) {
            return of_values(values);
        }
        if let Some(value) = object.get("const") {
            return of_values(std::slice::from_ref(value));
        }
        let (kind, nullable) = kind(object)?;
        let mut found = match kind {
            "boolean" => Found::plain(CedarType::Bool),
            "integer" => Found::plain(CedarType::Long),
            "number" => {
                self.warnings.push(format!(
                    "`{path}` is a number: a call with more than 4 digits after the point is refused"
                ));
                Found::plain(CedarType::Decimal)
            }
            "string" => of_format(object.get("format").and_then(Value::as_str)),
            "array" => self.array(object, path, depth)?,
            "object" => Found::plain(CedarType::Record(self.members(object, path, depth)?)),
            "null" => return Err("it is always null".to_owned()),
            other => return Err(format!("its type {other:?} is none of JSON Schema")),
        };
        found.nullable |= nullable;
        Ok(found)
    }

    fn array(
        &mut self,
        object: &Map<String, Value>,
        path: &str,
        depth: usize,
    ) -> Result<Found, String> {
        if object.contains_key("prefixItems") {
            return Err("its elements differ in type by position".to_owned());
        }
        let items = object.get("items").ok_or("its elements may be anything")?;
        let element = self
            .read(items, &format!("{path}[]"), depth + 1)
            .map_err(|error| format!("of its elements: {error}"))?;
        if element.nullable {
            return Err("its elements may be null".to_owned());
        }
        if has_optional(&element.ty) {
            self.warnings.push(format!(
                "`{path}[]` has optional members: policies cannot compare such objects with each other"
            ));
        }
        Ok(Found { notes: element.notes, ..Found::plain(CedarType::Set(Box::new(element.ty))) })
    }

    fn members(
        &mut self,
        object: &Map<String, Value>,
        path: &str,
        depth: usize,
    ) -> Result<Vec<Member>, String> {
        let nothing = Map::new();
        let properties = object.get("properties").and_then(Value::as_object).unwrap_or(&nothing);
        let open = object.get("additionalProperties").filter(|value| **value != Value::Bool(false));
        if open.is_some() && properties.is_empty() || object.contains_key("patternProperties") {
            return Err("the names of its members are not fixed".to_owned());
        }
        if open.is_some() {
            self.warnings.push(format!(
                "`{path}` admits members that are not named: a call that sends one is refused"
            ));
        }
        let required: BTreeSet<&str> = object
            .get("required")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        if let Some(name) = required.iter().find(|name| !properties.contains_key(**name)) {
            return Err(format!("{name:?} is required and not described"));
        }
        let mut members = Vec::new();
        for (name, schema) in properties {
            self.budget = self
                .budget
                .checked_sub(1)
                .ok_or_else(|| format!("it has more than {MAX_MEMBERS} members"))?;
            let path = format!("{path}.{name}");
            let required = required.contains(name.as_str());
            match self.read(schema, &path, depth + 1) {
                Ok(Found { ty, nullable, notes }) => members.push(Member {
                    name: name.clone(),
                    ty,
                    // To policies, null is as good as not there; a required member must be there.
                    required: required && !nullable,
                    notes,
                }),
                Err(reason) if required => {
                    return Err(format!("`{path}` is required and has no Cedar type: {reason}"));
                }
                Err(reason) => self.warnings.push(format!(
                    "`{path}` has no Cedar type and is left out, so that a call that sends it is \
                     refused: {reason}"
                )),
            }
        }
        Ok(members)
    }

    /// Several schemas for one value: a type only where all that is not null has the same one.
    fn choice(
        &mut self,
        keyword: &str,
        object: &Map<String, Value>,
        choices: &[Value],
        path: &str,
        depth: usize,
    ) -> Result<Found, String> {
        let is_null = |choice: &&Value| choice.get("type") == Some(&Value::from("null"));
        let nulls = choices.iter().filter(is_null).count();
        // What stands beside the choice holds for all of them: it would have to be joined.
        let beside = ["properties", "items", "required", "enum"];
        if (choices.len() > 1 || object.contains_key("properties"))
            && beside.iter().any(|keyword| object.contains_key(*keyword))
            || keyword == "allOf" && choices.len() > 1
        {
            return Err(format!("it is put together with `{keyword}`"));
        }
        let before = self.warnings.len();
        let mut found: Option<Found> = None;
        for choice in choices.iter().filter(|choice| !is_null(choice)) {
            let next = self.read(choice, path, depth + 1)?;
            found = match found {
                None => Some(next),
                Some(first) if first.ty == next.ty => {
                    let notes = first.notes.into_iter().chain(next.notes).collect();
                    Some(Found { nullable: first.nullable || next.nullable, notes, ..first })
                }
                Some(_) => {
                    self.warnings.truncate(before);
                    return Err(format!("`{keyword}` admits values of different types"));
                }
            };
        }
        let mut found = found.ok_or("it is always null")?;
        found.nullable |= nulls > 0;
        Ok(found)
    }
}

/// The type in `type`, and whether null is one of several.
fn kind(object: &Map<String, Value>) -> Result<(&str, bool), String> {
    match object.get("type") {
        Some(Value::String(kind)) => Ok((kind, false)),
        Some(Value::Array(kinds)) => {
            let kinds: Vec<&str> = kinds.iter().filter_map(Value::as_str).collect();
            match kinds[..] {
                [kind] => Ok((kind, false)),
                [kind, "null"] | ["null", kind] => Ok((kind, true)),
                _ => Err(format!("it is one of several types: {}", kinds.join(", "))),
            }
        }
        Some(_) => Err("its `type` is no text".to_owned()),
        None if object.contains_key("properties") => Ok(("object", false)),
        None if object.contains_key("items") => Ok(("array", false)),
        None => Err("it may be anything".to_owned()),
    }
}

/// The type of a fixed choice of values.
fn of_values(values: &[Value]) -> Result<Found, String> {
    let given: Vec<&Value> = values.iter().filter(|value| !value.is_null()).collect();
    let ty = if given.is_empty() {
        return Err("it is always null".to_owned());
    } else if given.iter().all(|value| value.is_string()) {
        CedarType::String
    } else if given.iter().all(|value| value.is_boolean()) {
        CedarType::Bool
    } else if given.iter().all(|value| value.is_i64()) {
        CedarType::Long
    } else {
        return Err("its values are of different types".to_owned());
    };
    const SHOWN: usize = 8;
    let mut shown: Vec<String> = given.iter().take(SHOWN).map(ToString::to_string).collect();
    if given.len() > SHOWN {
        shown.push("..".to_owned());
    }
    let notes = vec![format!("one of {}", shown.join(", "))];
    Ok(Found { ty, nullable: given.len() < values.len(), notes })
}

/// The type of a string: those formats that Cedar knows are values to it.
fn of_format(format: Option<&str>) -> Found {
    match format {
        Some("date-time" | "date") => Found::plain(CedarType::Datetime),
        Some("ipv4" | "ipv6") => Found::plain(CedarType::Ip),
        Some(other) => {
            Found { notes: vec![format!("format {other}")], ..Found::plain(CedarType::String) }
        }
        None => Found::plain(CedarType::String),
    }
}

/// Whether a record in `ty`, itself included, has members that may be missing.
fn has_optional(ty: &CedarType) -> bool {
    match ty {
        CedarType::Record(members) => {
            members.iter().any(|member| !member.required || has_optional(&member.ty))
        }
        CedarType::Set(element) => has_optional(element),
        _ => false,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
mod tests {
    use serde_json::json;

    use super::*;

    /// Checks the type of one argument called `a`: its type in Cedar's words, `?` for optional.
    #[track_caller]
    fn check(schema: Value, expected: &str) {
        let tool = json!({"type": "object", "properties": {"a": schema}, "required": ["a"]});
        let told = match of_tool(&tool) {
            Ok(typed) => typed
                .members
                .iter()
                .map(|member| {
                    format!("{}{}", if member.required { "" } else { "?" }, word(&member.ty))
                })
                .collect::<String>(),
            Err(error) => error,
        };
        assert!(told.contains(expected), "{expected:?} is not in {told:?}");
    }

    fn word(ty: &CedarType) -> String {
        match ty {
            CedarType::Set(element) => format!("Set<{}>", word(element)),
            CedarType::Record(members) => {
                let members: Vec<String> = members
                    .iter()
                    .map(|member| {
                        let mark = if member.required { "" } else { "?" };
                        format!("{}{mark}: {}", member.name, word(&member.ty))
                    })
                    .collect();
                format!("{{ {} }}", members.join(", "))
            }
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn what_cedar_has_a_type_for_is_typed() {
        check(json!({"type": "string"}), "String");
        check(json!({"type": "integer", "minimum": 0}), "Long");
        check(json!({"type": "boolean"}), "Bool");
        check(json!({"type": "number"}), "Decimal");
        check(json!({"type": "string", "format": "date-time"}), "Datetime");
        check(json!({"type": "string", "format": "ipv4"}), "Ip");
        check(json!({"type": "string", "format": "email"}), "String");
        check(json!({"enum": ["a", "b"]}), "String");
        check(json!({"enum": [1, 2, null]}), "?Long");
        check(json!({"const": true}), "Bool");
        check(json!({"type": "array", "items": {"type": "integer"}}), "Set<Long>");
        check(
            json!({"properties": {"b": {"type": "string"}, "c": {"type": "integer"}}, "required": ["c"]}),
            "{ b?: String, c: Long }",
        );
    }

    #[test]
    fn null_makes_a_member_optional() {
        check(json!({"type": ["string", "null"]}), "?String");
        check(json!({"anyOf": [{"type": "integer"}, {"type": "null"}]}), "?Long");
        check(json!({"type": "null"}), "always null");
    }

    #[test]
    fn choices_of_one_type_have_it_and_others_have_none() {
        check(json!({"oneOf": [{"const": "a"}, {"const": "b"}]}), "String");
        check(json!({"allOf": [{"type": "integer"}]}), "Long");
        for (schema, reason) in [
            (json!({"anyOf": [{"type": "integer"}, {"type": "string"}]}), "different types"),
            (json!({"type": ["integer", "string"]}), "one of several types"),
            (json!({"allOf": [{"type": "integer"}, {"minimum": 1}]}), "put together"),
            (json!({"enum": [1, "a"]}), "different types"),
            (json!(true), "anything"),
            (json!({}), "anything"),
            (json!({"type": "array"}), "anything"),
            (json!({"type": "array", "prefixItems": [{"type": "string"}]}), "by position"),
            (json!({"type": "array", "items": {"type": ["string", "null"]}}), "may be null"),
            (json!({"type": "object", "additionalProperties": {"type": "string"}}), "not fixed"),
            (json!({"type": "object", "patternProperties": {"^x": {}}}), "not fixed"),
            (json!({"type": "object", "required": ["b"]}), "not described"),
            (json!({"type": "text"}), "none of JSON Schema"),
        ] {
            check(schema, reason);
        }
    }

    #[test]
    fn references_are_followed_and_never_in_circles() {
        let tool = json!({
            "type": "object",
            "properties": {"a": {"$ref": "#/$defs/A"}},
            "required": ["a"],
            "$defs": {"A": {"type": "integer"}},
        });
        assert_eq!(of_tool(&tool).unwrap().members[0].ty, CedarType::Long);
        let circle = json!({
            "type": "object",
            "properties": {"a": {"$ref": "#/$defs/A"}},
            "required": ["a"],
            "$defs": {"A": {"type": "object", "properties": {"next": {"$ref": "#/$defs/A"}}, "required": ["next"]}},
        });
        assert!(of_tool(&circle).unwrap_err().contains("in itself"));
        check(json!({"$ref": "https://elsewhere.example/schema"}), "leads nowhere");
    }

    #[test]
    fn an_optional_argument_without_a_type_is_left_out_with_a_warning() {
        let tool = json!({"type": "object", "properties": {"a": {}, "b": {"type": "string"}}});
        let typed = of_tool(&tool).unwrap();
        assert_eq!(typed.members.len(), 1);
        assert!(typed.warnings[0].contains("`arguments.a` has no Cedar type and is left out"));
    }

    #[test]
    fn a_schema_that_explodes_is_refused() {
        let mut defs = json!({"T0": {"type": "object", "properties": {"a": {"type": "string"}}}});
        for n in 1..15 {
            let below = json!({"$ref": format!("#/$defs/T{}", n - 1)});
            defs[format!("T{n}")] = json!({
                "type": "object", "properties": {"a": below, "b": below}, "required": ["a", "b"]});
        }
        let tool = json!({
            "type": "object", "properties": {"a": {"$ref": "#/$defs/T14"}}, "required": ["a"],
            "$defs": defs});
        assert!(of_tool(&tool).unwrap_err().contains("more than 1000 members"));
    }
}
