//! Translation of expressions: remainders and comparisons become calls, and literals of lists and dictionaries are
//! limited.

use super::{Kind, Token};
use crate::chat::bounds::BOUNDED;
use crate::chat::comparison::COMPARISON;
use crate::chat::remainder::REMAINDER;

/// Words that cannot end an operand.
const WORDS: [&str; 13] =
    ["and", "or", "not", "in", "is", "if", "else", "elif", "for", "set", "with", "recursive", "filter"];

/// Translates the tokens from `begin` on.
pub(super) fn rewrite(tokens: &mut [Token<'_>], begin: usize) {
    bound_literals(tokens, begin);
    for index in begin..tokens.len() {
        if !tokens[index].is("%") {
            continue;
        }
        let first = first_of(tokens, begin, index, |index| bounds_product(tokens, index));
        let is_behind = |index: usize| tokens[index].is_any(&["*", "/", "//", "%"]);
        let last = last_of(tokens, index, |index| bounds_product(tokens, index) || is_behind(index));
        // The engine reports a missing operand.
        if first < index && last > index {
            tokens[index].text = Some(",".to_owned());
            call(tokens, REMAINDER, first, last);
        }
    }
    let mut index = begin;
    while index < tokens.len() {
        // The engine's own equality is used unless it is chained to another comparison.
        if operator(tokens, index).is_some_and(|operator| !matches!(operator, "==" | "!=")) {
            index = compare(tokens, begin, index);
        }
        index += 1;
    }
}

fn call(tokens: &mut [Token<'_>], function: &str, first: usize, last: usize) {
    tokens[first].before.insert_str(0, &format!("{function}("));
    tokens[last].behind.push(')');
}

/// Translates the chain of comparisons around the one at `index` to one call. Returns the index of the chain's last
/// operator.
fn compare(tokens: &mut [Token<'_>], begin: usize, index: usize) -> usize {
    let first = first_of(tokens, begin, index, |index| bounds_comparison(tokens, index));
    let last = last_of(tokens, index, |index| bounds_comparison(tokens, index));
    // The engine reports a missing operand.
    if first == index || last == index {
        return index;
    }
    let (mut depth, mut latest) = (0_usize, index);
    for index in first..=last {
        if tokens[index].is_any(&["(", "[", "{"]) {
            depth += 1;
        } else if tokens[index].is_any(&[")", "]", "}"]) {
            depth -= 1;
        } else if let (0, Some(operator)) = (depth, operator(tokens, index)) {
            if operator == "not in" {
                tokens[index - 1].text = Some(String::new());
            }
            tokens[index].text = Some(format!(", '{operator}',"));
            latest = index;
        }
    }
    call(tokens, COMPARISON, first, last);
    latest
}

/// The operator of a comparison whose last token is at `index`.
fn operator<'a>(tokens: &[Token<'a>], index: usize) -> Option<&'a str> {
    let token = &tokens[index];
    match token.kind {
        Kind::Symbol => Some(token.source).filter(|_| token.is_any(&["==", "!=", "<", ">", "<=", ">="])),
        Kind::Name if token.is("in") && !names_test(tokens, index) => {
            let is_negated = index > 0 && tokens[index - 1].is("not");
            Some(if is_negated { "not in" } else { "in" })
        }
        _ => None,
    }
}

/// Whether the token is the name of a test or the `not` before it, as in `is in` and `is not in`.
fn names_test(tokens: &[Token<'_>], index: usize) -> bool {
    let is = |back: usize, text: &str| index.checked_sub(back).is_some_and(|index| tokens[index].is(text));
    is(1, "is") || (is(1, "not") && is(2, "is"))
}

/// Whether a comparison ends before this token or begins after it.
fn bounds_comparison(tokens: &[Token<'_>], index: usize) -> bool {
    let token = &tokens[index];
    if token.is("not") {
        return !names_test(tokens, index) && !tokens.get(index + 1).is_some_and(|next| next.is("in"));
    }
    token.is_any(&[",", ":", "=", "(", "[", "{", ")", "]", "}", "and", "or", "if", "else", "recursive"])
}

/// Whether a product ends before this token or begins after it.
fn bounds_product(tokens: &[Token<'_>], index: usize) -> bool {
    let token = &tokens[index];
    let is_sign = || index == 0 || !ends_operand(tokens, index - 1, "[");
    bounds_comparison(tokens, index)
        || operator(tokens, index).is_some()
        || (token.is("not") && !names_test(tokens, index))
        || token.is("~")
        || (token.is_any(&["+", "-"]) && !is_sign())
}

/// Index of the first token of the operand before `index`.
fn first_of(tokens: &[Token<'_>], begin: usize, index: usize, is_bound: impl Fn(usize) -> bool) -> usize {
    let (mut first, mut depth) = (index, 0_usize);
    while first > begin {
        let token = &tokens[first - 1];
        if token.is_any(&[")", "]", "}"]) {
            depth += 1;
        } else if depth > 0 {
            depth -= usize::from(token.is_any(&["(", "[", "{"]));
        } else if is_bound(first - 1) {
            break;
        }
        first -= 1;
    }
    first
}

/// Index of the last token of the operand after `index`.
fn last_of(tokens: &[Token<'_>], index: usize, is_bound: impl Fn(usize) -> bool) -> usize {
    let (mut last, mut depth) = (index, 0_usize);
    for (index, token) in tokens.iter().enumerate().skip(index + 1) {
        if token.is_any(&["(", "[", "{"]) {
            depth += 1;
        } else if depth > 0 {
            depth -= usize::from(token.is_any(&[")", "]", "}"]));
        } else if is_bound(index) {
            break;
        }
        last = index;
    }
    last
}

/// Whether an operand ends with the token at `index`, so that a bracket after it is a call or a subscript.
fn ends_operand(tokens: &[Token<'_>], index: usize, bracket: &str) -> bool {
    let token = &tokens[index];
    match token.kind {
        Kind::Name => {
            if names_test(tokens, index) && !token.is("not") {
                return bracket == "(";
            }
            !token.is_any(&WORDS)
        }
        Kind::Number | Kind::Text => true,
        Kind::Symbol => token.is_any(&[")", "]", "}"]),
    }
}

fn bound_literals(tokens: &mut [Token<'_>], begin: usize) {
    struct Open {
        index: usize,
        is_literal: bool,
        has_comma: bool,
        is_constant: bool,
    }
    let mut open: Vec<Open> = Vec::new();
    for index in begin..tokens.len() {
        let bracket = tokens[index].source;
        match bracket {
            _ if tokens[index].kind != Kind::Symbol => {
                let is_constant = tokens[index].kind != Kind::Name
                    || tokens[index].is_any(&["true", "True", "false", "False", "none", "None"]);
                open.iter_mut().for_each(|open| open.is_constant &= is_constant);
            }
            "(" | "[" | "{" => {
                let is_literal = index == begin || !ends_operand(tokens, index - 1, bracket);
                open.push(Open { index, is_literal, has_comma: false, is_constant: true });
            }
            ")" | "]" | "}" => {
                let Some(closed) = open.pop() else { continue };
                if closed.is_literal && !closed.is_constant && (closed.has_comma || bracket != ")") {
                    tokens[closed.index].before.push('(');
                    tokens[index].behind.push_str(&format!("|{BOUNDED})"));
                }
            }
            "," => {
                if let Some(open) = open.last_mut() {
                    open.has_comma = true;
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::translate;
    use super::*;

    #[test]
    fn remainders_are_calls_with_their_operands() {
        let call = |source: &str| {
            let text = translate(&format!("{{{{ {source} }}}}")).unwrap();
            text[3..text.len() - 3]
                .replace(REMAINDER, "R")
                .replace(COMPARISON, "C")
                .replace(" ,", ",")
                .replace(&format!("|{BOUNDED}"), "|B")
        };
        assert_eq!(call("a % b"), "R(a, b)");
        assert_eq!(call("x == loop.index0 % 2 == 0"), "x == R(loop.index0, 2) == 0");
        assert_eq!(call("1 + -a * b % c % d - e"), "1 + R(R(-a * b, c), d) - e");
        assert_eq!(call("f(a % 2, k=b % [c])"), "f(R(a, 2), k=R(b, ([c]|B)))");
        assert_eq!(call("'%s' % (a, b) | upper"), "R('%s', ((a, b)|B) | upper)");
        assert_eq!(call("not a % 2 in x or y[i % 2]"), "not C(R(a, 2), 'in', x) or y[R(i, 2)]");
        assert_eq!(call("a % 2 is odd and b"), "R(a, 2 is odd) and b");
        assert_eq!(call("'a % b'"), "'a % b'");
    }

    #[test]
    fn comparisons_are_calls_with_the_chain_that_they_are_part_of() {
        let call = |source: &str| {
            let text = translate(&format!("{{{{ {source} }}}}")).unwrap();
            text[3..text.len() - 3].replace(COMPARISON, "C").replace(REMAINDER, "R").replace(" ,", ",")
        };
        assert_eq!(call("a == b and c != d"), "a == b and c != d");
        assert_eq!(call("a + 1 < b ~ c"), "C(a + 1, '<', b ~ c)");
        assert_eq!(call("1 == a < b in c"), "C(1, '==', a, '<', b, 'in', c)");
        assert_eq!(call("not a not in b or c"), "not C(a , 'not in', b) or c");
        assert_eq!(call("x is in y and a is not in (b in c)"), "x is in y and a is not in (C(b, 'in', c))");
        assert_eq!(
            call("(a < b) in c[d > e:] if f(g=h >= i) else j"),
            "C((C(a, '<', b)), 'in', c[C(d, '>', e):]) if f(g=C(h, '>=', i)) else j"
        );
        assert_eq!(call("a < b % 2"), "C(a, '<', R(b, 2))");
        assert_eq!(call("a | length > -1 is odd"), "C(a | length, '>', -1 is odd)");
    }
}
