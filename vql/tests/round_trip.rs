//! Trees print and read back the same; no text makes the crate panic.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use nublar_vql::{
    Access, Argument, ArgumentValue, At, Body, Clause, Column, ColumnValue, Comments, Expression,
    ExpressionKind, From, Item, Let, LetValue, List, Name, Operand, Operator, OrderBy, Parameter,
    Path, Select, Source, Span, Statement, TokenKind, called_artifacts, format, lex, parse,
    parse_lambda, quote_name, split,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

fn expression(kind: ExpressionKind) -> Expression {
    Expression::new(kind, Span::default())
}

fn name() -> BoxedStrategy<Name> {
    let plain = "[a-zA-Z_][a-zA-Z0-9_]{0,5}|GROUP|order|by|LIMIT|x y|é\n'|\\.\"--";
    plain
        .prop_map(|name| Name {
            text: quote_name(&name).unwrap().into_owned(),
            at: At::default(),
        })
        .boxed()
}

fn path() -> BoxedStrategy<Path> {
    (any::<bool>(), vec(name(), 1..4))
        .prop_map(|(negative, names)| Path { negative, names })
        .boxed()
}

fn leaf() -> BoxedStrategy<ExpressionKind> {
    prop_oneof![
        "-?([0-9]{1,3}|[0-9]{0,2}\\.[0-9]{1,2}(e-?[0-9])?|0x[0-9a-fA-F]{1,3})"
            .prop_map(ExpressionKind::Number),
        "'([a-z \n\"é/-]|\\\\['\\\\nx]){0,6}'".prop_map(ExpressionKind::Text),
        "\"([a-z '`*]|\\\\\"){0,60}\"".prop_map(ExpressionKind::Text),
        "'''[a-z\n \\\\\"]{0,6}'''".prop_map(ExpressionKind::Text),
        any::<bool>().prop_map(ExpressionKind::Bool),
        Just(ExpressionKind::Null),
        path().prop_map(ExpressionKind::Path),
    ]
    .boxed()
}

/// The strategies of one depth, made of those of the depth below.
#[derive(Clone)]
struct Grown {
    value: BoxedStrategy<Expression>,
    expression: BoxedStrategy<Expression>,
    select: BoxedStrategy<Select>,
}

fn operation(
    first: &BoxedStrategy<Expression>,
    rest: &BoxedStrategy<Expression>,
    operators: &'static [Operator],
) -> BoxedStrategy<Expression> {
    let operand = (select(operators), rest.clone()).prop_map(|(operator, value)| Operand {
        operator,
        value,
        comments: Comments::default(),
    });
    prop_oneof![
        3 => first.clone(),
        1 => (first.clone(), vec(operand, 1..3)).prop_map(|(first, operands)| {
            expression(ExpressionKind::Operation(Box::new(first), operands))
        }),
    ]
    .boxed()
}

fn list(value: &BoxedStrategy<Expression>, least: usize) -> BoxedStrategy<List> {
    (vec(value.clone(), least..4), any::<bool>())
        .prop_map(|(values, comma)| List {
            comma: comma && values.len() == 1,
            items: values
                .into_iter()
                .map(|value| Item {
                    value,
                    comments: Comments::default(),
                })
                .collect(),
        })
        .boxed()
}

fn argument_value(below: &Grown) -> BoxedStrategy<ArgumentValue> {
    prop_oneof![
        3 => below.expression.clone().prop_map(ArgumentValue::Expression),
        1 => list(&below.expression, 0).prop_map(ArgumentValue::List),
        1 => below.select.clone().prop_map(|select| ArgumentValue::Select(Box::new(select))),
    ]
    .boxed()
}

fn arguments(below: &Grown) -> BoxedStrategy<Vec<Argument>> {
    let argument = (name(), argument_value(below)).prop_map(|(name, value)| Argument {
        name,
        value,
        comments: Comments::default(),
    });
    vec(argument, 0..4).boxed()
}

fn member(value: &BoxedStrategy<Expression>) -> BoxedStrategy<Expression> {
    let index = option::of(value.clone().prop_map(Box::new));
    let step = prop_oneof![
        name().prop_map(Access::Name),
        value
            .clone()
            .prop_map(|value| Access::Index(Box::new(value))),
        (index.clone(), index).prop_map(|(start, end)| Access::Slice(start, end)),
    ];
    let member = (value.clone(), vec(step, 1..3)).prop_map(|(base, steps)| {
        // A name right after a path is part of that path.
        let path = matches!(base.kind, ExpressionKind::Path(_));
        if path && matches!(steps.first(), Some(Access::Name(_))) {
            return base;
        }
        expression(ExpressionKind::Member(Box::new(base), steps))
    });
    prop_oneof![4 => value.clone(), 1 => member].boxed()
}

fn grow(below: Option<&Grown>) -> Grown {
    let value = match below {
        None => leaf().prop_map(expression).boxed(),
        Some(below) => prop_oneof![
            2 => leaf(),
            1 => list(&below.expression, 1).prop_map(ExpressionKind::Parentheses),
            1 => (path(), arguments(below))
                .prop_map(|(path, arguments)| ExpressionKind::Call(path, arguments)),
        ]
        .prop_map(expression)
        .boxed(),
    };
    let member = member(&value);
    let product = operation(&member, &value, &[Operator::Times, Operator::Divide]);
    let sum = operation(&product, &product, &[Operator::Plus, Operator::Minus]);
    let comparison = operation(
        &sum,
        &sum,
        &[
            Operator::Equal,
            Operator::NotEqual,
            Operator::AngleNotEqual,
            Operator::Less,
            Operator::LessEqual,
            Operator::Greater,
            Operator::GreaterEqual,
            Operator::Match,
            Operator::In,
        ],
    );
    let negation = (comparison.clone(), 1..3).prop_map(|(inner, times)| {
        (0..times).fold(inner, |inner, _| {
            expression(ExpressionKind::Not(Box::new(inner)))
        })
    });
    let condition = prop_oneof![4 => comparison, 1 => negation].boxed();
    let or = operation(&condition, &condition, &[Operator::Or, Operator::OrElse]);
    let whole = operation(&or, &or, &[Operator::And, Operator::AndThen]);
    let select = query(&whole, below);
    Grown {
        value,
        expression: whole,
        select,
    }
}

fn clause<T: std::fmt::Debug + Clone>(
    value: impl Strategy<Value = T> + 'static,
) -> impl Strategy<Value = Option<Clause<T>>> {
    option::of(value.prop_map(|value| Clause {
        value,
        comments: Comments::default(),
    }))
}

fn query(whole: &BoxedStrategy<Expression>, below: Option<&Grown>) -> BoxedStrategy<Select> {
    let shown = whole.clone().prop_map(ColumnValue::Expression);
    let shown = match below {
        None => shown.boxed(),
        Some(below) => {
            let inner = below.select.clone();
            prop_oneof![
                3 => shown,
                1 => inner.prop_map(|select| ColumnValue::Select(Box::new(select))),
            ]
            .boxed()
        }
    };
    let column = prop_oneof![
        1 => Just((ColumnValue::Star, None)),
        4 => (shown, option::of(name())),
    ]
    .prop_map(|(value, alias)| Column {
        value,
        alias,
        comments: Comments::default(),
        at: At::default(),
    });
    let called = match below {
        None => Just(None).boxed(),
        Some(below) => option::of(arguments(below)).boxed(),
    };
    let from = (vec(name(), 1..4), called).prop_map(|(path, arguments)| Clause {
        value: From {
            path,
            arguments,
            at: At::default(),
        },
        comments: Comments::default(),
    });
    let order =
        (name(), any::<bool>()).prop_map(|(column, descending)| OrderBy { column, descending });
    (
        any::<bool>(),
        vec(column, 0..4),
        from,
        clause(list(whole, 1)),
        clause(list(whole, 1)),
        clause(order),
        clause(any::<i64>()),
    )
        .prop_map(
            |(explain, columns, from, filter, group_by, order_by, limit)| Select {
                explain,
                columns,
                from: Some(from),
                filter,
                group_by,
                order_by,
                limit,
                comments: Comments::default(),
                at: At::default(),
            },
        )
        .boxed()
}

fn source() -> impl Strategy<Value = Source> {
    let grown = grow(Some(&grow(Some(&grow(None)))));
    let parameter =
        (name(), option::of(argument_value(&grown))).prop_map(|(name, default)| Parameter {
            name,
            default,
            comments: Comments::default(),
        });
    let value = prop_oneof![
        grown
            .select
            .clone()
            .prop_map(|select| LetValue::Select(Box::new(select))),
        grown.expression.clone().prop_map(LetValue::Expression),
        grown.value.clone().prop_map(LetValue::Expression),
    ];
    let definition = (
        name(),
        option::of(vec(parameter, 0..3)),
        any::<bool>(),
        value,
    )
        .prop_map(|(name, parameters, materialized, value)| {
            Body::Let(Let {
                name,
                parameters,
                materialized,
                value,
            })
        });
    let body = prop_oneof![
        definition,
        grown
            .select
            .prop_map(|select| Body::Select(Box::new(select)))
    ];
    let statement = body.prop_map(|body| Statement {
        body,
        comments: Comments::default(),
        at: At::default(),
    });
    vec(statement, 0..4).prop_map(|statements| Source {
        statements,
        end: Comments::default(),
    })
}

fn words() -> impl Strategy<Value = String> {
    let word = select(
        &[
            "SELECT ",
            "LET ",
            "EXPLAIN ",
            " FROM ",
            " WHERE ",
            " GROUP BY ",
            " ORDER BY ",
            " LIMIT ",
            " AS ",
            " AND ",
            " OR ",
            " NOT ",
            " IN ",
            "NULL",
            "DESC",
            "a",
            " b",
            "`c d`",
            "-e",
            "1",
            "-2",
            "'f'",
            "'",
            "\"",
            "'''",
            "`",
            "(",
            ")",
            "[",
            "]",
            "{",
            "}",
            ",",
            ".",
            "=",
            "<=",
            "=~",
            "=>",
            "*",
            "/",
            "-",
            " - ",
            "+",
            "%",
            ":",
            "|",
            "&&",
            "-- g\n",
            "/* h */",
            "/*",
            "\n",
            ";",
            "\u{e9}",
            "<>",
            "Artifact.",
        ][..],
    );
    vec(word, 0..40).prop_map(|words| words.concat())
}

/// Does everything there is to do with a text, and checks what holds for all of them.
fn exercise(text: &str) -> Result<(), TestCaseError> {
    let parsed = parse(text);
    let pieces = split(text);
    let _ = (called_artifacts(text), parse_lambda(text));
    prop_assert_eq!(pieces.statements.len(), parsed.tree.statements.len());
    for found in parsed.diagnostics.iter().chain(&pieces.diagnostics) {
        prop_assert!(text.get(found.span.start..found.span.end).is_some());
        prop_assert_eq!(found.at, nublar_vql::Position::of(text, found.span.start));
    }
    let printed = format(&parsed.tree);
    let again = parse(&printed);
    if parsed.is_valid() {
        prop_assert!(again.is_valid(), "{:?} printed as {:?}", text, printed);
        prop_assert_eq!(again.tree, parsed.tree);
        prop_assert_eq!(comments(&printed), comments(text));
        for piece in pieces.statements {
            prop_assert_eq!(parse(piece.text).tree.statements.len(), 1);
        }
    }
    Ok(())
}

fn comments(text: &str) -> Vec<String> {
    let tokens = lex(text).tokens.into_iter();
    let comments = tokens.filter(|token| token.kind == TokenKind::Comment);
    comments
        .map(|comment| comment.text(text).trim_end().to_owned())
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn trees_read_back(tree in source()) {
        let printed = format(&tree);
        let parsed = parse(&printed);
        prop_assert!(parsed.is_valid(), "{}\n{:?}", printed, parsed.diagnostics);
        prop_assert_eq!(&parsed.tree, &tree, "{}", printed);
        prop_assert_eq!(format(&parsed.tree), printed);
    }

    #[test]
    fn comments_anywhere_change_nothing(
        tree in source(),
        places in vec((any::<prop::sample::Index>(), 0..4usize), 1..6),
    ) {
        let plain = format(&tree);
        let mut text = plain.clone();
        for (place, kind) in places {
            let tokens = lex(&text).tokens;
            if tokens.is_empty() {
                break;
            }
            let at = tokens[place.index(tokens.len())].span.start;
            text.insert_str(at, [" -- a\n", " // b\n", " /* c */ ", "\n/* d\n e */\n"][kind]);
        }
        let parsed = parse(&text);
        prop_assert!(parsed.is_valid(), "{}\n{:?}", text, parsed.diagnostics);
        prop_assert_eq!(&parsed.tree, &tree);
        let printed = format(&parsed.tree);
        prop_assert_eq!(parse(&printed).tree, tree);
        prop_assert_eq!(comments(&printed), comments(&text), "{}", printed);
    }

    #[test]
    fn cut_off_sources_are_read(tree in source(), place in any::<prop::sample::Index>()) {
        let mut text = format(&tree);
        let mut end = place.index(text.len() + 1);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        exercise(&text)?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn any_text_is_read(text in any::<String>()) {
        exercise(&text)?;
    }

    #[test]
    fn any_words_are_read(text in words()) {
        exercise(&text)?;
    }
}
