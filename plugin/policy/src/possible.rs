//! Which results the residual of a condition can still have: true, false, an error.
//!
//! Partial evaluation keeps `unknown && false`, since `unknown` might err; for the question what is
//! listed it is as good as false. What this finds impossible is impossible. The reverse is not so:
//! parts are looked at one by one, so `x && !x` counts as possible. Not here: partial evaluation.

use std::ops::BitOr;

use cedar_policy::Policy;
use cedar_policy::pst::{BinaryOp, Clause, Expr, Literal, UnaryOp};

/// A set of results.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Possible {
    pub(crate) satisfied: bool,
    pub(crate) unsatisfied: bool,
    pub(crate) error: bool,
}

impl Possible {
    const NOTHING: Self = Self { satisfied: false, unsatisfied: false, error: false };
    const ANYTHING: Self = Self { satisfied: true, unsatisfied: true, error: true };
    const TRUE: Self = Self { satisfied: true, ..Self::NOTHING };
    const FALSE: Self = Self { unsatisfied: true, ..Self::NOTHING };
    const ERROR: Self = Self { error: true, ..Self::NOTHING };

    /// What the condition of `residual` can be.
    pub(crate) fn of(residual: &Policy) -> Self {
        let Ok(residual) = residual.to_pst() else {
            return Self::ANYTHING;
        };
        residual.body().clauses().iter().fold(Self::TRUE, |before, clause| {
            let clause = match clause {
                Clause::When(condition) => of(condition),
                Clause::Unless(condition) => of(condition).not(),
            };
            before.and(clause)
        })
    }

    fn not(self) -> Self {
        Self { satisfied: self.unsatisfied, unsatisfied: self.satisfied, ..self }
    }

    /// `then` if this is true, `otherwise` if it is false: what `&&`, `||` and `if` are.
    fn select(self, then: Self, otherwise: Self) -> Self {
        let mut result = if self.error { Self::ERROR } else { Self::NOTHING };
        if self.satisfied {
            result = result | then;
        }
        if self.unsatisfied {
            result = result | otherwise;
        }
        result
    }

    fn and(self, right: Self) -> Self {
        self.select(right, Self::FALSE)
    }
}

impl BitOr for Possible {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self {
            satisfied: self.satisfied || other.satisfied,
            unsatisfied: self.unsatisfied || other.unsatisfied,
            error: self.error || other.error,
        }
    }
}

fn of(expression: &Expr) -> Possible {
    match expression {
        Expr::Literal(Literal::Bool(true)) => Possible::TRUE,
        Expr::Literal(Literal::Bool(false)) => Possible::FALSE,
        Expr::ResidualError => Possible::ERROR,
        Expr::UnaryOp { op: UnaryOp::Not, expr } => of(expr).not(),
        Expr::BinaryOp { op: BinaryOp::And, left, right } => of(left).and(of(right)),
        Expr::BinaryOp { op: BinaryOp::Or, left, right } => {
            of(left).select(Possible::TRUE, of(right))
        }
        Expr::IfThenElse { cond, then_expr, else_expr } => {
            of(cond).select(of(then_expr), of(else_expr))
        }
        _ => Possible::ANYTHING,
    }
}

#[cfg(test)]
mod tests {
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    fn check(condition: &str, expected: &str) {
        let policy =
            format!("permit(principal, action, resource) {condition};").parse::<Policy>().unwrap();
        let Possible { satisfied, unsatisfied, error } = Possible::of(&policy);
        let found: String = [(satisfied, 't'), (unsatisfied, 'f'), (error, 'e')]
            .into_iter()
            .filter_map(|(possible, letter)| possible.then_some(letter))
            .collect();
        assert_eq!(found, expected, "{condition}");
    }

    #[test]
    fn only_the_impossible_is_left_out() {
        check("", "t");
        check("when { context.a }", "tfe");
        check("when { context.a && false }", "fe");
        check("when { false && context.a }", "f");
        check("unless { context.a && false }", "te");
        check("when { context.a || true }", "te");
        check("when { true || context.a }", "t");
        check("when { !(context.a && (context.b && false)) }", "te");
        check("when { if context.a then false else context.b && false }", "fe");
        check("when { if true then context.a else false }", "tfe");
        check("when { context.a } when { false }", "fe");
        check("when { context.a && !context.a }", "tfe");
    }
}
