//! Why a wish cannot be compiled.

/// Why a wish gives no request. Every text names the artifact and the key it is about.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CompileError {
    /// Nothing was asked for.
    #[error("no artifact is named: name at least one in `artifacts`")]
    NoArtifact,
    /// No artifact of this name.
    #[error("unknown artifact {name}{hint}")]
    UnknownArtifact {
        /// As it was asked for.
        name: String,
        /// A near miss, or nothing.
        hint: String,
    },
    /// No source of this name.
    #[error("{artifact} has no source {source_name}{hint}")]
    UnknownSource {
        /// The artifact.
        artifact: String,
        /// As it was asked for.
        source_name: String,
        /// A near miss, or nothing.
        hint: String,
    },
    /// An artifact of another kind.
    #[error("{artifact} is a {found} artifact: {wanted} artifacts only can be taken here")]
    WrongKind {
        /// The artifact.
        artifact: String,
        /// Its kind.
        found: &'static str,
        /// The kind that fits.
        wanted: &'static str,
    },
    /// Something it calls or imports is not there.
    #[error("{artifact} needs the artifact {dependency}, which is unknown{hint}")]
    MissingDependency {
        /// Who needs it.
        artifact: String,
        /// What is needed.
        dependency: String,
        /// A near miss, or nothing.
        hint: String,
    },
    /// A tool that nobody can fetch and check yet.
    #[error("{artifact} needs the tool {tool}, {why}: {what_to_do}")]
    ToolNotReady {
        /// Who needs it.
        artifact: String,
        /// The tool.
        tool: String,
        /// What is missing, as a relative clause.
        why: &'static str,
        /// How it gets there.
        what_to_do: String,
    },
    /// A value for a parameter that the artifact does not declare, and that is no variable of the
    /// agents either.
    #[error("{artifacts}: no parameter {parameter}{hint}")]
    UnknownParameter {
        /// The artifacts that it was given to, separated by commas.
        artifacts: String,
        /// As it was given.
        parameter: String,
        /// A near miss, if there is one, and the names that are declared.
        hint: String,
    },
    /// A value that is none of the choices.
    #[error("{artifact}, parameter {parameter}: {value:?} is none of the choices{hint}")]
    NoSuchChoice {
        /// The artifact.
        artifact: String,
        /// The parameter.
        parameter: String,
        /// The value.
        value: String,
        /// A near miss, or the choices.
        hint: String,
    },
    /// A value that does not match the parameter's expression.
    #[error("{artifact}, parameter {parameter}: {value:?} does not match {regex}")]
    NoMatch {
        /// The artifact.
        artifact: String,
        /// The parameter.
        parameter: String,
        /// The value.
        value: String,
        /// The expression.
        regex: String,
    },
    /// A secret was given for a table of events, which is not sealed.
    #[error(
        "{artifact}, parameter {parameter}: a table of events takes no value for a redacted parameter, since it is not sealed: collect the artifact"
    )]
    Secret {
        /// The artifact.
        artifact: String,
        /// The parameter.
        parameter: String,
    },
    /// What stands in copies in place of a secret was given for one.
    #[error("{artifact}, parameter {parameter}: this is the mask of a secret: give it anew")]
    Masked {
        /// The artifact.
        artifact: String,
        /// The parameter.
        parameter: String,
    },
    /// The tool that is there is not the one that the artifact wants.
    #[error(
        "{artifact} needs the tool {tool} with SHA-256 {expected}, but the one here has {found}: add that one"
    )]
    OtherTool {
        /// Who needs it.
        artifact: String,
        /// The tool.
        tool: String,
        /// What the artifact expects.
        expected: String,
        /// What is there.
        found: String,
    },
    /// Two sources whose rows nobody could tell apart.
    #[error(
        "rows called {name} would come from two sources of one flow: ask for them in flows of their own"
    )]
    SameName {
        /// The name of the rows.
        name: String,
    },
    /// Nothing would run.
    #[error("{artifact} has no source: there is nothing to run")]
    NothingToRun {
        /// The artifact.
        artifact: String,
    },
}
