//! What the condition of a policy looks at, found once when the policy is compiled.
//!
//! Cedar evaluates every policy by itself, from the four variables and the entities. So a policy that
//! does not look at the context has one result for all requests of a caller for a target, and facts
//! that no policy looks at need not be put into Cedar. What is found here errs to one side only: an
//! access of another form than the ones below counts as a look at everything it could reach.

use cedar_policy::Policy;
use cedar_policy_core::ast::{self, BinaryOp, Expr, ExprKind, Var};

/// A set of parts of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Looks(u16);

/// The members of `context.request`, each with its part.
const MEMBERS: [(&str, Looks); 8] = [
    ("time", Looks::TIME),
    ("scopes", Looks::SCOPES),
    ("source_ip", Looks::SOURCE_IP),
    ("session", Looks::SESSION),
    ("client_name", Looks::CLIENT_NAME),
    ("token_age_seconds", Looks::TOKEN_AGE),
    ("protocol_version", Looks::PROTOCOL_VERSION),
    ("calls", Looks::CALLS),
];

/// Attributes of tools, prompts and resources that are alike for all that the configuration does not
/// describe, at one server.
const SHARED_ATTRIBUTES: [&str; 6] =
    ["server", "tags", "read_only", "destructive", "idempotent", "open_world"];

impl Looks {
    pub(crate) const NOTHING: Self = Self(0);
    pub(crate) const TIME: Self = Self(1);
    pub(crate) const SCOPES: Self = Self(1 << 1);
    pub(crate) const SOURCE_IP: Self = Self(1 << 2);
    pub(crate) const SESSION: Self = Self(1 << 3);
    pub(crate) const CLIENT_NAME: Self = Self(1 << 4);
    pub(crate) const TOKEN_AGE: Self = Self(1 << 5);
    pub(crate) const PROTOCOL_VERSION: Self = Self(1 << 6);
    /// How many calls there were before, any of the counters.
    pub(crate) const CALLS: Self = Self(1 << 7);
    /// Everything in `context.request`.
    pub(crate) const FACTS: Self = Self((1 << 8) - 1);
    /// `context.arguments`.
    pub(crate) const ARGUMENTS: Self = Self(1 << 8);
    /// Which tool, prompt or resource it is, beyond the server and what is alike for all there.
    pub(crate) const NAME: Self = Self(1 << 9);
    /// The caller or the target, in whatever way.
    pub(crate) const ENTITIES: Self = Self(1 << 10);
    const CONTEXT: Self = Self::FACTS.and(Self::ARGUMENTS);

    /// What the condition of `policy` looks at; its scope is not looked at.
    pub(crate) fn of(policy: &Policy) -> Self {
        let policy: &ast::Policy = policy.as_ref();
        policy.non_scope_constraints().map_or(Self::NOTHING, condition)
    }

    /// Both.
    pub(crate) const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// What is in both.
    pub(crate) const fn among(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Whether anything of `other` is in it.
    pub(crate) const fn at(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

fn condition(expression: &Expr) -> Looks {
    match expression.expr_kind() {
        ExprKind::Var(Var::Context) => Looks::CONTEXT,
        ExprKind::Var(Var::Resource) => Looks::NAME.and(Looks::ENTITIES),
        ExprKind::Var(Var::Principal) => Looks::ENTITIES,
        ExprKind::Var(Var::Action) | ExprKind::Lit(_) => Looks::NOTHING,
        ExprKind::GetAttr { expr, attr } => member(expr, attr),
        // The context of every request for one action has the same members.
        ExprKind::HasAttr { expr, attr } => match expr.expr_kind() {
            ExprKind::Var(Var::Context) => Looks::NOTHING,
            _ => member(expr, attr),
        },
        ExprKind::ExtHasAttr { expr, attrs } => {
            let mut attrs = attrs.iter().map(AsRef::as_ref);
            match (expr.expr_kind(), attrs.next(), attrs.next()) {
                (ExprKind::Var(Var::Context), Some("request"), Some(attr)) => fact(attr),
                (_, Some(attr), _) => member(expr, attr),
                (_, None, _) => condition(expr),
            }
        }
        ExprKind::Is { expr, .. } if is_resource(expr) => Looks::ENTITIES,
        // What lies in which server is alike; who is named in a policy is never treated as alike.
        ExprKind::BinaryApp { op: BinaryOp::In, arg1, arg2 } if is_resource(arg1) => {
            Looks::ENTITIES.and(condition(arg2))
        }
        ExprKind::BinaryApp { arg1, arg2, .. } => condition(arg1).and(condition(arg2)),
        ExprKind::UnaryApp { arg: expr, .. }
        | ExprKind::Like { expr, .. }
        | ExprKind::Is { expr, .. } => condition(expr),
        ExprKind::And { left, right } | ExprKind::Or { left, right } => {
            condition(left).and(condition(right))
        }
        ExprKind::If { test_expr, then_expr, else_expr } => {
            condition(test_expr).and(condition(then_expr)).and(condition(else_expr))
        }
        ExprKind::Set(parts) | ExprKind::ExtensionFunctionApp { args: parts, .. } => all(&**parts),
        ExprKind::Record(parts) => all(parts.values()),
        // Neither stands in a policy: templates are refused.
        ExprKind::Slot(_) | ExprKind::Unknown(_) => {
            Looks::CONTEXT.and(Looks::NAME).and(Looks::ENTITIES)
        }
    }
}

fn all<'a>(parts: impl IntoIterator<Item = &'a Expr>) -> Looks {
    parts.into_iter().fold(Looks::NOTHING, |looks, part| looks.and(condition(part)))
}

/// `expression.attribute`, or whether it is there.
fn member(expression: &Expr, attribute: &str) -> Looks {
    match expression.expr_kind() {
        ExprKind::Var(Var::Context) => match attribute {
            "request" => Looks::FACTS,
            "arguments" => Looks::ARGUMENTS,
            _ => Looks::CONTEXT,
        },
        ExprKind::Var(Var::Resource) if SHARED_ATTRIBUTES.contains(&attribute) => Looks::ENTITIES,
        ExprKind::GetAttr { expr, attr }
            if attr == "request" && matches!(expr.expr_kind(), ExprKind::Var(Var::Context)) =>
        {
            fact(attribute)
        }
        _ => condition(expression),
    }
}

/// `context.request.attribute`.
fn fact(attribute: &str) -> Looks {
    let found = MEMBERS.iter().find(|(name, _)| *name == attribute);
    found.map_or(Looks::FACTS, |(_, looks)| *looks)
}

fn is_resource(expression: &Expr) -> bool {
    matches!(expression.expr_kind(), ExprKind::Var(Var::Resource))
}

#[cfg(test)]
mod tests {
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    #[track_caller]
    fn check(condition: &str, expected: Looks) {
        let policy = format!("permit(principal, action, resource) when {{ {condition} }};");
        assert_eq!(Looks::of(&policy.parse().unwrap()), expected, "{condition}");
    }

    #[test]
    fn known_accesses_are_told_apart() {
        check("principal in MCP::Group::\"a\"", Looks::ENTITIES);
        check("action in MCP::Action::\"a\"", Looks::NOTHING);
        check("context.request.scopes.contains(\"a\")", Looks::SCOPES);
        check("context[\"request\"][\"time\"] < datetime(\"2030-01-01\")", Looks::TIME);
        check(
            "context.request has source_ip && !context.request.source_ip.isLoopback()",
            Looks::SOURCE_IP,
        );
        check("context has request.session", Looks::SESSION);
        check("context has request && context has arguments", Looks::NOTHING);
        check(
            "context.arguments.a == context.request.client_name",
            Looks::ARGUMENTS.and(Looks::CLIENT_NAME),
        );
        check("context has arguments.path.deep && true", Looks::ARGUMENTS);
        check(
            "if context.request.token_age_seconds > 3 then true else context.request has protocol_version",
            Looks::TOKEN_AGE.and(Looks::PROTOCOL_VERSION),
        );
        check("context.request.calls.refunds_last_hour < 5", Looks::CALLS);
        check("context.request.calls == context.request.calls", Looks::CALLS);
        check("[{a: context.request.session}].contains({a: \"x\"})", Looks::SESSION);
    }

    #[test]
    fn what_all_tools_of_a_server_share_does_not_tell_them_apart() {
        check("resource.read_only && resource.server.region == \"eu\"", Looks::ENTITIES);
        check("resource is MCP::Tool && resource in MCP::Server::\"a\"", Looks::ENTITIES);
        check("resource is MCP::Tool in MCP::Server::\"a\"", Looks::ENTITIES);
        for condition in [
            "resource.name like \"a*\"",
            "resource == MCP::Tool::\"a/b\"",
            "resource has uri",
            "resource.scheme == \"a\"",
            "principal in resource",
            "[resource].contains(resource)",
            "(if true then resource else resource).read_only",
        ] {
            check(condition, Looks::NAME.and(Looks::ENTITIES));
        }
    }

    #[test]
    fn an_access_of_another_form_looks_at_everything_it_could_reach() {
        check("context == context", Looks::CONTEXT);
        check("context.request == context.request", Looks::FACTS);
        check(
            "(if true then context.request else context.request).time < datetime(\"2030-01-01\")",
            Looks::FACTS,
        );
        check("context.other", Looks::CONTEXT);
        check("context.request.other", Looks::FACTS);
        check("{a: context}.a.request.session == \"x\"", Looks::CONTEXT);
    }
}
