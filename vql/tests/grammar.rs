//! What VQL is and what it is not, by example.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use nublar_vql::{
    Body, Expression, ExpressionKind, LetValue, MAX_DEPTH, Operator, Problem, format, parse,
    parse_lambda,
};

const VALID: &[&str] = &[
    "select * from info()",
    "SELECT *, a, * FROM b",
    "SELECT *, FROM b",
    "SELECT * a FROM b",
    "SELECT FROM b",
    "SELECT a AS `b c`, {SELECT * FROM d} AS e, f.`g h`[0].i FROM j.k.`l`",
    "SELECT group, order, by, selected, `select` FROM b",
    "SELECT * FROM a WHERE b, c GROUP BY d + 1, e ORDER BY `f` DESC LIMIT 5",
    "SELECT * FROM a WHERE b, GROUP BY c, LIMIT -1",
    "SELECT * FROM a limit 0x10",
    "EXPLAIN EXPLAIN SELECT * FROM a",
    "LET a = EXPLAIN SELECT * FROM b LET c <= 1 SELECT 1 FROM d",
    "LET `a b`() = 1",
    "LET a(b, c=1, `d e`=[1, 2], f={SELECT * FROM g}) = b + c",
    "LET a = (1, 'two', (3,),)",
    "LET a = f(x=[], y=[1], z=[1,], w={ EXPLAIN SELECT * FROM v })",
    "SELECT b[:], b[1:], b[ : -2], b['k'].l, b[f(x=1)], b[(c + 1)], b[c.d] FROM e",
    "LET a = NOT NOT b = -c AND -1 < .5 OR d =~ '''e''' && f IN (1, 2) || g != 1e-3 | h >= NULL",
    "LET a = 2 * -3 / f(x=1) - -b + f(x=1).y[0] * 2",
    "LET a = (true.b, 5.c, NULL[0])",
    "LET a = 'b\n\\'c' + \"d\\\"e\" + '''f\\''' + ''",
    "SELECT a -- b\nFROM c /* d */ WHERE e // f",
    "",
    "-- only a comment",
];

#[test]
fn valid_sources_are_valid_and_print_back() {
    for source in VALID {
        let parsed = parse(source);
        assert_eq!(parsed.diagnostics, [], "{source}");
        let printed = format(&parsed.tree);
        let again = parse(&printed);
        assert_eq!(again.diagnostics, [], "{printed}");
        assert_eq!(again.tree, parsed.tree, "{printed}");
        assert_eq!(format(&again.tree), printed);
    }
}

#[test]
fn errors_name_place_and_reason() {
    let cases = [
        (
            "SELECT a, FROM b",
            "1:9 nothing follows this comma: remove it",
        ),
        (
            "SELECT a\nb FROM c",
            "2:1 expected `,`, AS or FROM, found `b`",
        ),
        ("SELECT a", "1:9 expected `,`, AS or FROM, found the end"),
        (
            "SELECT a AS 'b' FROM c",
            "1:13 expected the name of the column, found `'b'`",
        ),
        (
            "SELECT * AS a FROM b",
            "1:10 `*` cannot have a name: remove the AS",
        ),
        (
            "SELECT a.limit FROM b",
            "1:10 `limit` is a keyword: put it in backticks to use it as a name",
        ),
        (
            "SELECT f(in=1) FROM b",
            "1:10 `in` is a keyword: put it in backticks to use it as a name",
        ),
        (
            "SELECT f(1) FROM b",
            "1:10 arguments are named: write `name=value`",
        ),
        (
            "SELECT f(a=1,) FROM b",
            "1:13 nothing follows this comma: remove it",
        ),
        (
            "SELECT f(a=1 FROM b",
            "1:14 expected `)` for the `(` of line 1, column 9, found `FROM`",
        ),
        (
            "SELECT f(a=[1) FROM b",
            "1:14 expected `]` for the `[` of line 1, column 12, found `)`",
        ),
        (
            "SELECT a -1 FROM b",
            "1:10 a minus right before a name or number is its sign: put a space after it to subtract",
        ),
        (
            "SELECT -(a) FROM b",
            "1:8 a sign stands right before a name or number: write `-x`, or `0 - (...)`",
        ),
        (
            "SELECT 2 * a[0] FROM b",
            "1:10 what follows `*` or `/` takes no `[...]` or `.name` after a call or bracket: put it in parentheses",
        ),
        (
            "SELECT a[b + 1] FROM b",
            "1:10 an index is one value: put the expression in parentheses",
        ),
        (
            "SELECT a[] FROM b",
            "1:10 an index is missing between `[` and `]`",
        ),
        (
            "LET a = [1]",
            "1:9 a list in `[ ]` can only be the whole value of an argument: use `(a, b)` here",
        ),
        (
            "LET a = f(b=[1] + [2])",
            "1:17 a list in `[ ]` can only be the whole value of an argument: use `(a, b)` here",
        ),
        (
            "LET a = {SELECT * FROM b}",
            "1:9 a query in `{ }` can only be the whole value of an argument or a column",
        ),
        (
            "LET a = b = NOT c",
            "1:13 NOT can only begin a condition: put it in parentheses",
        ),
        (
            "LET a = ()",
            "1:10 nothing stands between `(` and `)`: write NULL, or at least one value",
        ),
        ("LET a == 1", "1:8 expected an expression, found `=`"),
        (
            "LET a = 1, 2",
            "1:10 expected an operator, a clause or a new statement, found `,`",
        ),
        ("LET a.b = 1", "1:6 expected `=` or `<=`, found `.`"),
        ("LET = 1", "1:5 expected the name of the LET, found `=`"),
        (
            "LET a = 5 % 2",
            "1:11 expected an operator, a clause or a new statement, found `%`",
        ),
        (
            "SELECT * FROM (SELECT * FROM a)",
            "1:15 expected the name of a plugin, artifact or LET, found `(`",
        ),
        (
            "SELECT * FROM a LIMIT 1 WHERE b",
            "1:25 WHERE comes too late: the order is FROM, WHERE, GROUP BY, ORDER BY, LIMIT, each once",
        ),
        (
            "SELECT * FROM a WHERE b WHERE c",
            "1:25 WHERE comes too late: the order is FROM, WHERE, GROUP BY, ORDER BY, LIMIT, each once",
        ),
        (
            "SELECT * FROM a ORDER BY b.c",
            "1:27 ORDER BY takes the name of one column: name the expression with AS and order by that",
        ),
        (
            "SELECT * FROM a ORDER BY b ASC",
            "1:28 ASC does not exist: rows are sorted ascending without it",
        ),
        (
            "SELECT * FROM a LIMIT 1.5",
            "1:23 LIMIT takes a whole number, found `1.5`",
        ),
        (
            "SELECT * FROM a; SELECT 1 FROM b",
            "1:16 statements are not separated by `;`: remove it",
        ),
        (
            "hello",
            "1:1 found `hello` outside of a statement: begin with SELECT, LET or EXPLAIN",
        ),
        (
            "SELECT a FROM b(c='\u{e9}\u{e9}', 'd)",
            "1:25 this string is never closed: add the closing '",
        ),
        ("EXPLAIN LET a = 1", "1:8 expected SELECT, found the end"),
    ];
    for (source, expected) in cases {
        let parsed = parse(source);
        let first = parsed.diagnostics.first().expect(source);
        let text = format!("{}:{} {}", first.at.line, first.at.column, first.problem);
        assert_eq!(text, expected, "{source}");
        assert!(first.is_error(), "{source}");
    }
}

#[test]
fn one_mistake_gives_one_error() {
    for source in [
        "SELECT a b c FROM d WHERE e",
        "SELECT f(a=g(b=h(c=1 FROM d",
        "SELECT f(a=1]) FROM b WHERE c",
        "LET a = + LET b = 2",
        "SELECT * FROM",
        "SELECT * FROM a WHERE GROUP BY b",
    ] {
        let errors = parse(source).diagnostics;
        assert_eq!(errors.len(), 1, "{source}: {errors:?}");
    }
}

#[test]
fn an_error_leaves_the_rest_readable() {
    let parsed = parse("LET a = f(x=\nLET b = 1\nSELECT ) FROM c\nSELECT d FROM e WHERE f");
    assert_eq!(parsed.tree.statements.len(), 4);
    assert_eq!(parsed.diagnostics.len(), 2);
    let last = parsed.tree.statements.last().unwrap().to_string();
    assert_eq!(last, "SELECT d FROM e WHERE f");
    let parsed = parse("SELECT a, b +, c FROM d WHERE e");
    assert_eq!(parsed.diagnostics.len(), 1);
    assert_eq!(parsed.tree.to_string(), "SELECT a, b + , c FROM d WHERE e");
}

#[test]
fn odd_forms_that_agents_accept_are_warned_about() {
    let cases = [
        (
            "LET a = b = c = d",
            Problem::ChainedComparison,
            "LET a = b = c = d",
        ),
        ("LET a = b <> c", Problem::AngleNotEqual, "LET a = b <> c"),
        ("LET a = (1, 2 3)", Problem::MissingComma, "LET a = (1, 3)"),
        ("LET a = (1,, 2)", Problem::Hole, "LET a = (1,)"),
        (
            "LET a = f(b=1)(c=2)",
            Problem::CalledTwice,
            "LET a = f(b=1, c=2)",
        ),
    ];
    for (source, problem, printed) in cases {
        let parsed = parse(source);
        assert!(parsed.is_valid(), "{source}");
        assert_eq!(parsed.diagnostics[0].problem, problem, "{source}");
        assert_eq!(parsed.tree.to_string(), printed);
        assert!(parsed.into_result().is_ok());
    }
}

fn expression(source: &str) -> Expression {
    let tree = parse(&format!("LET x = {source}"))
        .into_result()
        .expect(source);
    match tree.statements.into_iter().next().unwrap().body {
        Body::Let(definition) => match definition.value {
            LetValue::Expression(expression) => expression,
            LetValue::Select(_) => panic!("{source} is a query"),
        },
        _ => panic!("{source} is no LET"),
    }
}

/// The tree with a bracket around each operation.
fn shape(expression: &Expression) -> String {
    match &expression.kind {
        ExpressionKind::Operation(first, operands) => {
            let mut text = format!("[{}", shape(first));
            for operand in operands {
                text += &format!(" {} {}", operand.operator.as_str(), shape(&operand.value));
            }
            text + "]"
        }
        ExpressionKind::Not(inner) => format!("[NOT {}]", shape(inner)),
        _ => expression.to_string(),
    }
}

#[test]
fn operators_bind_as_agents_bind_them() {
    let cases = [
        ("a OR b AND c OR d", "[[a OR b] AND [c OR d]]"),
        ("a && b || c AND d", "[a && [b || c] AND d]"),
        (
            "NOT a = b AND NOT NOT c",
            "[[NOT [a = b]] AND [NOT [NOT c]]]",
        ),
        ("a + b * c - d / -e", "[a + [b * c] - [d / -e]]"),
        (
            "a + 1 < b * 2 OR c IN d",
            "[[[a + 1] < [b * 2]] OR [c IN d]]",
        ),
        ("a | b ||| c || d", "[a OR b OR c || d]"),
        ("(a AND b) OR c", "[(a AND b) OR c]"),
    ];
    for (source, expected) in cases {
        assert_eq!(shape(&expression(source)), expected);
    }
}

#[test]
fn trees_made_by_hand_get_their_parentheses() {
    let ExpressionKind::Operation(_, mut operands) = expression("a * b").kind else {
        panic!("no operation");
    };
    operands[0].value = expression("c.d[0]");
    let product = Expression::new(
        ExpressionKind::Operation(Box::new(expression("NOT e AND f")), operands),
        Default::default(),
    );
    assert_eq!(product.to_string(), "(NOT e AND f) * (c.d[0])");
    assert_eq!(Operator::Times.level(), product.kind.level());
}

#[test]
fn spans_cover_what_they_name() {
    let source = "LET a = SELECT b + c[0] AS d\n  FROM e(f=1) WHERE g";
    let statement = parse(source).tree.statements.into_iter().next().unwrap();
    assert_eq!(statement.at.0.text(source), source);
    let LetValue::Select(select) = &statement.as_let().unwrap().value else {
        panic!("no query")
    };
    assert_eq!(select.at.0.text(source), &source[8..]);
    assert_eq!(select.columns[0].at.0.text(source), "b + c[0] AS d");
    assert_eq!(
        select.from.as_ref().unwrap().value.at.0.text(source),
        "e(f=1)"
    );
}

#[test]
fn comments_stay_with_what_they_are_about() {
    let source = "\
-- about a
LET a(x, -- about x
      y) = x
SELECT b, -- about b
  -- about c
  c /* also c */
FROM d( -- about e
  e=1,
  f={ // about the query
      SELECT * FROM g }) // about d
WHERE h -- about h
  AND i -- about i
-- the end
";
    let expected = "\
-- about a
LET a(
  x, -- about x
  y
) = x

SELECT
  b, -- about b
  -- about c
  c /* also c */
FROM d(
  -- about e
  e=1,
  f={
    // about the query
    SELECT * FROM g
  }
) // about d
WHERE h
  -- about h
  AND i -- about i

-- the end
";
    let printed = format(&parse(source).into_result().unwrap());
    assert_eq!(printed, expected);
    assert_eq!(format(&parse(&printed).into_result().unwrap()), expected);
}

#[test]
fn long_lines_are_broken() {
    let source = "let a = if(condition=Some.Value > 1000 and Other =~ 'abc', \
                  then={select Column as Name from plugin(argument='value', list=(1, 2))}, else=[1,2])";
    let expected = "\
LET a = if(
  condition=Some.Value > 1000 AND Other =~ 'abc',
  then={ SELECT Column AS Name FROM plugin(argument='value', list=(1, 2)) },
  else=[1, 2]
)
";
    assert_eq!(format(&parse(source).into_result().unwrap()), expected);
}

#[test]
fn lambdas() {
    for (source, printed) in [
        ("x=>x.Size + 1", "x => x.Size + 1"),
        ("a, `b c` => a", "a, `b c` => a"),
    ] {
        let lambda = parse_lambda(source).into_result().expect(source);
        assert_eq!(lambda.to_string(), printed);
        assert_eq!(parse_lambda(printed).tree, lambda);
    }
    for source in [
        "",
        "x",
        "x =>",
        "(x, y) => x",
        "x => y z",
        "=> 1",
        "x => SELECT * FROM y",
    ] {
        assert!(!parse_lambda(source).is_valid(), "{source}");
    }
}

/// Runs with a quarter of the stack that threads have by default.
fn with_small_stack(run: impl FnOnce() + Send + 'static) {
    let thread = std::thread::Builder::new()
        .stack_size(512 * 1024)
        .spawn(run)
        .unwrap();
    thread.join().unwrap();
}

#[test]
fn the_depth_is_bounded() {
    with_small_stack(|| {
        for (open, close) in [
            ("(", ")"),
            ("f(x=", ")"),
            ("NOT ", ""),
            ("a[", "]"),
            ("f(x={SELECT ", " FROM y})"),
            ("-(", ")"),
            ("- ", ""),
            ("[", "]"),
            ("f(x=[", "])"),
            ("{SELECT ", ""),
            ("(a OR b + c * d = ", ")"),
        ] {
            let nest =
                |depth: usize| format!("LET a = {}1{}", open.repeat(depth), close.repeat(depth));
            let parsed = parse(&nest(30));
            let deep = |problem: &Problem| matches!(problem, Problem::TooDeep(_));
            assert!(
                !parsed.diagnostics.iter().any(|found| deep(&found.problem)),
                "{open}"
            );
            if parsed.is_valid() {
                assert_eq!(parse(&format(&parsed.tree)).tree, parsed.tree);
                let parsed = parse(&nest(200));
                assert!(
                    parsed.diagnostics.iter().any(|found| deep(&found.problem)),
                    "{open}"
                );
            }
            let parsed = parse(&nest(100_000));
            assert!(!parsed.is_valid(), "{open}");
            assert!(!format(&parsed.tree).is_empty());
            assert_eq!(parsed.tree.clone(), parsed.tree);
        }
        let flat = format!("LET a = {}1", "1 + ".repeat(100_000));
        let parsed = parse(&flat);
        assert!(parsed.is_valid());
        assert_eq!(parse(&format(&parsed.tree)).tree, parsed.tree);
    });
    let at_limit = format!(
        "LET a = {}1{}",
        "(".repeat(MAX_DEPTH),
        ")".repeat(MAX_DEPTH)
    );
    assert!(parse(&at_limit).is_valid());
    assert!(!parse(&at_limit.replace("1", "(1)")).is_valid());
}
