//! The syntax tree. Equality is structural: spans and comments never take part in it.

use crate::span::{At, Span};

/// A comment as written, without blanks at its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Comment {
    /// With its `--`, `//` or `/*`.
    pub text: String,
}

/// The comments of one item; never part of a comparison.
#[derive(Debug, Clone, Default)]
pub struct Comments {
    /// On lines of their own in front of the item.
    pub before: Vec<Comment>,
    /// At the end of the item's line, or inside it with no place of their own.
    pub after: Vec<Comment>,
}

impl PartialEq for Comments {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Comments {}

/// A whole source: statements one after another.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Source {
    /// In order.
    pub statements: Vec<Statement>,
    /// Comments after the last statement are its `before`.
    pub end: Comments,
}

/// One statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// What it says.
    pub body: Body,
    /// Comments around it.
    pub comments: Comments,
    /// Where it stands, without the comments around it.
    pub at: At,
}

impl Statement {
    /// The LET, if it is one.
    #[must_use]
    pub fn as_let(&self) -> Option<&Let> {
        match &self.body {
            Body::Let(definition) => Some(definition),
            Body::Select(_) | Body::Broken(_) => None,
        }
    }

    /// Whether it is a LET, which gives no rows.
    #[must_use]
    pub fn is_let(&self) -> bool {
        self.as_let().is_some()
    }
}

/// What a statement says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// `LET name = ...`
    Let(Let),
    /// `[EXPLAIN] SELECT ...`
    Select(Box<Select>),
    /// Text that is no statement.
    Broken(String),
}

/// `LET name(parameters) = value`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Let {
    /// What is defined.
    pub name: Name,
    /// `None` without parentheses.
    pub parameters: Option<Vec<Parameter>>,
    /// `<=` (evaluate now and keep) rather than `=` (evaluate when used).
    pub materialized: bool,
    /// Its value.
    pub value: LetValue,
}

/// What a LET stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LetValue {
    /// A query.
    Select(Box<Select>),
    /// An expression.
    Expression(Expression),
}

/// A parameter of a LET.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parameter {
    /// Its name.
    pub name: Name,
    /// Its value when a call does not give one.
    pub default: Option<ArgumentValue>,
    /// Comments around it.
    pub comments: Comments,
}

/// `[EXPLAIN] SELECT columns FROM ...`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Select {
    /// Whether EXPLAIN stands in front.
    pub explain: bool,
    /// May be empty.
    pub columns: Vec<Column>,
    /// Always there in a valid source.
    pub from: Option<Clause<From>>,
    /// WHERE: a list, though one condition is the rule.
    pub filter: Option<Clause<List>>,
    /// GROUP BY
    pub group_by: Option<Clause<List>>,
    /// ORDER BY
    pub order_by: Option<Clause<OrderBy>>,
    /// LIMIT
    pub limit: Option<Clause<i64>>,
    /// Comments in front of it where it is not a statement.
    pub comments: Comments,
    /// Where it stands.
    pub at: At,
}

/// A clause and its comments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Clause<T> {
    /// What follows its keyword.
    pub value: T,
    /// Comments around it.
    pub comments: Comments,
}

/// One column of a SELECT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// What it shows.
    pub value: ColumnValue,
    /// The name after AS.
    pub alias: Option<Name>,
    /// Comments around it.
    pub comments: Comments,
    /// Where it stands.
    pub at: At,
}

/// What a column shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ColumnValue {
    /// `*`
    Star,
    /// `{ SELECT ... }`
    Select(Box<Select>),
    /// An expression.
    Expression(Expression),
}

/// `FROM a.b` or `FROM a.b(c=1)`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct From {
    /// The plugin, artifact, LET or value: at least one name in a valid source.
    pub path: Vec<Name>,
    /// `None` without parentheses.
    pub arguments: Option<Vec<Argument>>,
    /// Where it stands.
    pub at: At,
}

/// `ORDER BY column [DESC]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrderBy {
    /// The column.
    pub column: Name,
    /// Whether DESC follows.
    pub descending: bool,
}

/// `name=value` in a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Argument {
    /// Its name; empty only in a broken source.
    pub name: Name,
    /// Its value.
    pub value: ArgumentValue,
    /// Comments around it.
    pub comments: Comments,
}

/// The value of an argument or of a parameter's default.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ArgumentValue {
    /// `{ SELECT ... }`
    Select(Box<Select>),
    /// `[a, b]`; may be empty.
    List(List),
    /// An expression.
    Expression(Expression),
}

/// Expressions with commas between them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct List {
    /// In order.
    pub items: Vec<Item>,
    /// Whether a comma follows the only item: it makes `(a,)` a list where `(a)` is just `a`.
    /// Always false unless there is exactly one item.
    pub comma: bool,
}

/// One expression of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// Its value.
    pub value: Expression,
    /// Comments around it.
    pub comments: Comments,
}

/// A name as written: plain, or in backticks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name {
    /// With its backticks, without a sign.
    pub text: String,
    /// Where it stands.
    pub at: At,
}

/// An expression and its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expression {
    /// What it is.
    pub kind: ExpressionKind,
    /// Where it stands.
    pub at: At,
}

impl Expression {
    /// An expression at a place.
    #[must_use]
    pub fn new(kind: ExpressionKind, span: Span) -> Self {
        Self { kind, at: At(span) }
    }

    /// Its bytes in the source it was read from.
    #[must_use]
    pub fn span(&self) -> Span {
        self.at.0
    }
}

/// Kinds of expressions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExpressionKind {
    /// A number as written, with its sign.
    Number(String),
    /// A string as written, with quotes and escapes.
    Text(String),
    /// TRUE or FALSE
    Bool(bool),
    /// NULL
    Null,
    /// `a.b` or `-a.b`
    Path(Path),
    /// `a.b(c=1)` or `-a.b(c=1)`
    Call(Path, Vec<Argument>),
    /// `(a)`, `(a,)` or `(a, b)`
    Parentheses(List),
    /// `value.name[index]...`: at least one access.
    Member(Box<Expression>, Vec<Access>),
    /// `NOT a`
    Not(Box<Expression>),
    /// `a + b - c`: operators of one [`Level`], evaluated from left to right; at least one.
    Operation(Box<Expression>, Vec<Operand>),
    /// Text that is no expression.
    Broken(String),
}

/// Names with dots between them, and a sign in front.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Path {
    /// Whether a minus stands in front.
    pub negative: bool,
    /// At least one.
    pub names: Vec<Name>,
}

/// A step into a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Access {
    /// `.name`
    Name(Name),
    /// `[index]`
    Index(Box<Expression>),
    /// `[start:end]`, either may be missing.
    Slice(Option<Box<Expression>>, Option<Box<Expression>>),
}

/// An operator and what stands right of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operand {
    /// The operator.
    pub operator: Operator,
    /// The value right of it.
    pub value: Expression,
    /// Comments in front of the operator, and after the value.
    pub comments: Comments,
}

/// Operators between two values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operator {
    /// `AND`: a boolean.
    And,
    /// `&&`: the last value, or FALSE.
    AndThen,
    /// `OR`, also written `|`: a boolean.
    Or,
    /// `||`: the first true value.
    OrElse,
    /// `=`
    Equal,
    /// `!=`
    NotEqual,
    /// `<>`, which agents accept and evaluate to FALSE.
    AngleNotEqual,
    /// `<`
    Less,
    /// `<=`
    LessEqual,
    /// `>`
    Greater,
    /// `>=`
    GreaterEqual,
    /// `=~`: the right is a regular expression.
    Match,
    /// `IN`
    In,
    /// `+`
    Plus,
    /// `-`
    Minus,
    /// `*`
    Times,
    /// `/`
    Divide,
}

/// How tightly operators bind, the loosest first. In VQL, unlike SQL, OR binds tighter than AND:
/// `a OR b AND c` is `(a OR b) AND c`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// `AND`, `&&`
    And,
    /// `OR`, `||`
    Or,
    /// `NOT`
    Not,
    /// `=`, `<`, `=~`, `IN` and the like
    Comparison,
    /// `+`, `-`
    Sum,
    /// `*`, `/`
    Product,
    /// `a[0].b`
    Member,
    /// Everything that needs no parentheses anywhere.
    Value,
}

impl Operator {
    /// How it is printed.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::And => "AND",
            Self::AndThen => "&&",
            Self::Or => "OR",
            Self::OrElse => "||",
            Self::Equal => "=",
            Self::NotEqual => "!=",
            Self::AngleNotEqual => "<>",
            Self::Less => "<",
            Self::LessEqual => "<=",
            Self::Greater => ">",
            Self::GreaterEqual => ">=",
            Self::Match => "=~",
            Self::In => "IN",
            Self::Plus => "+",
            Self::Minus => "-",
            Self::Times => "*",
            Self::Divide => "/",
        }
    }

    /// How tightly it binds.
    #[must_use]
    pub const fn level(self) -> Level {
        match self {
            Self::And | Self::AndThen => Level::And,
            Self::Or | Self::OrElse => Level::Or,
            Self::Plus | Self::Minus => Level::Sum,
            Self::Times | Self::Divide => Level::Product,
            _ => Level::Comparison,
        }
    }
}

impl ExpressionKind {
    /// How tightly it binds.
    #[must_use]
    pub fn level(&self) -> Level {
        match self {
            Self::Operation(first, operands) => operands
                .first()
                .map_or_else(|| first.kind.level(), |operand| operand.operator.level()),
            Self::Not(_) => Level::Not,
            Self::Member(..) => Level::Member,
            _ => Level::Value,
        }
    }
}

/// `a, b => expression`: a function in a string argument.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lambda {
    /// At least one.
    pub parameters: Vec<Name>,
    /// What it computes.
    pub body: Expression,
}
